"""`tunedeck export`: adapters in the forms that other programs run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunedeck.cli import export_adapter
from tunedeck.cli.console import tell
from tunedeck.cli.opening import QuantizeFlag, TrustFlag, open_deck
from tunedeck.core.messages import say

app = typer.Typer(no_args_is_help=True)
export_adapter.add_commands(app)


@app.callback()
def _settings() -> None:
    """A group of commands, however few."""


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
