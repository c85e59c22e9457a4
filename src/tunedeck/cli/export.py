"""`tunedeck export`: adapters in the forms that other programs run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from tunedeck.cli import export_adapter, export_onnx, options
from tunedeck.cli.console import print_json, tell
from tunedeck.core.i18n import say

app = typer.Typer()
export_adapter.add_commands(app)
app.command("onnx", help=say("labels, entities, scores or vectors by ONNX Runtime, without torch"))(export_onnx.onnx)


@app.callback()
def _settings() -> None:
    """A group of commands, however few."""


@app.command("merge", help=say("a plain transformers folder with the adapter in its weights, verified after writing"))
def merge(
    adapter: options.AdapterFolder,
    out: options.NewFolder,
    model: options.Base = None,
    dtype: Annotated[str, typer.Option(help="checkpoint, auto, float32, bfloat16, float16")] = "checkpoint",
    dequantize: Annotated[
        bool,
        typer.Option("--dequantize", help=say("dequantize a 4-bit or 8-bit base and merge into the rounded weights")),
    ] = False,
    task: options.TaskOfFolder = "classify",
    allow_base_mismatch: options.AllowBaseMismatch = False,
    quantize: options.Quantize = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.AsJson = False,
) -> None:
    """Merge an adapter into its base and write a model folder of transformers."""
    from tunedeck.export.merge import save_merged
    from tunedeck.export.transformers_folder import empty_place

    empty_place(out)
    deck = options.opened(
        [adapter], model, dtype, quantize, trust_remote_code, allow_base_mismatch=allow_base_mismatch, task=task
    )
    (name,) = deck.adapters
    found = save_merged(deck, name, out, dequantize=dequantize, trust_remote_code=trust_remote_code)
    precision = str(deck.base.dtype).removeprefix("torch.")
    if as_json:
        print_json({"folder": str(out), "dtype": precision, **asdict(found)})
        return
    tell(
        say(
            "wrote {path} in {dtype}; read back, its answers differ from the adapter's by {difference:.2g} at most "
            "(largest answer {scale:.3g}) and choose the same in {same:.1%} of {answers}",
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
    adapter: options.AdapterFolder,
    out: options.NewFolder,
    model: options.Base = None,
    dtype: options.DtypeName = "float32",
    allow_base_mismatch: options.AllowBaseMismatch = False,
    quantize: options.Quantize = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Merge an embedding adapter into its base and write what sentence-transformers reads."""
    from tunedeck.export.sentence_transformers import save_sentence_transformers

    deck = options.opened(
        [adapter], model, dtype, quantize, trust_remote_code, allow_base_mismatch=allow_base_mismatch, task="embed"
    )
    (name,) = deck.adapters
    save_sentence_transformers(deck, name, out)
    tell(say("wrote {path}; load it with: SentenceTransformer({path!r})", path=str(out)))
