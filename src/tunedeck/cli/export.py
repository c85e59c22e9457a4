"""`tunedeck export`: adapters in the forms that other programs run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tunedeck.cli import export_adapter, export_onnx
from tunedeck.cli.console import print_json, tell
from tunedeck.cli.opening import QuantizeFlag, TrustFlag, open_deck
from tunedeck.core.i18n import say

app = typer.Typer(no_args_is_help=True)
export_adapter.add_commands(app)
app.command("onnx", help=say("labels or vectors by ONNX Runtime, without torch"))(export_onnx.onnx)


@app.callback()
def _settings() -> None:
    """A group of commands, however few."""


@app.command("merge", help=say("a plain transformers folder with the adapter in its weights, verified after writing"))
def merge(
    adapter: Annotated[Path, typer.Option(help=say("adapter folder"))],
    out: Annotated[Path, typer.Option(help=say("new folder"))],
    model: Annotated[str | None, typer.Option(help=say("the base; the one the adapter names by default"))] = None,
    dtype: Annotated[str, typer.Option(help="checkpoint, auto, float32, bfloat16, float16")] = "checkpoint",
    dequantize: Annotated[
        bool,
        typer.Option("--dequantize", help=say("unpack a 4-bit or 8-bit base and merge into what it was rounded to")),
    ] = False,
    task: Annotated[str, typer.Option(help=say("the task of an adapter folder that names none"))] = "classify",
    any_base: Annotated[
        bool, typer.Option("--any-base", help=say("insist on another base than it was trained on"))
    ] = False,
    quantize: QuantizeFlag = None,
    trust_remote_code: TrustFlag = False,
    as_json: Annotated[bool, typer.Option("--json", help=say("print JSON"))] = False,
) -> None:
    """Merge an adapter into its base and write what transformers, and whatever reads its folders, loads."""
    from tunedeck.export.merge import save_merged
    from tunedeck.export.transformers_folder import empty_place

    empty_place(out)
    deck, (name,) = open_deck([adapter], model, dtype, any_base, task, quantize, trust_remote_code)
    found = save_merged(deck, name, out, dequantize=dequantize, trust_remote_code=trust_remote_code)
    precision = str(deck.base.dtype).removeprefix("torch.")
    if as_json:
        print_json({"folder": str(out), "dtype": precision, **asdict(found)})
        return
    tell(
        say(
            "wrote {path} in {dtype}; read back, its answers differ from the adapter's by {difference:.2g} at most (largest answer "
            "{scale:.3g}) and choose the same in {same:.1%} of {answers}",
            path=out,
            dtype=precision,
            difference=found.max_abs,
            scale=found.scale,
            same=found.same,
            answers=found.answers,
        )
    )


@app.command("sentence-transformers", help=say("a folder that sentence-transformers loads with the same vectors"))
def sentence_transformers(
    adapter: Annotated[Path, typer.Option(help=say("adapter folder"))],
    out: Annotated[Path, typer.Option(help=say("new folder"))],
    model: Annotated[str | None, typer.Option(help=say("the base; the one the adapter names by default"))] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16")] = "float32",
    any_base: Annotated[
        bool, typer.Option("--any-base", help=say("insist on another base than it was trained on"))
    ] = False,
    quantize: QuantizeFlag = None,
    trust_remote_code: TrustFlag = False,
) -> None:
    """Merge an embedding adapter into its base and write what sentence-transformers reads."""
    from tunedeck.export.sentence_transformers import save_sentence_transformers

    deck, (name,) = open_deck([adapter], model, dtype, any_base, "embed", quantize, trust_remote_code)
    save_sentence_transformers(deck, name, out)
    tell(say("wrote {path}; load it with: SentenceTransformer({path!r})", path=str(out)))
