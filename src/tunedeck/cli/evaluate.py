"""`tunedeck eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunedeck.cli import options
from tunedeck.cli.console import print_json, print_table, tell
from tunedeck.core.i18n import say

if TYPE_CHECKING:
    from tunedeck.tasks.base import Evaluation


def evaluate(
    adapter: Annotated[list[Path], typer.Option(help=say("adapter folder; may be given several times"))],
    data: Annotated[str, typer.Option(help=say("labelled data: file, hub id or bundled: name"))],
    model: options.Base = None,
    text: options.TextColumn = None,
    label: options.LabelColumn = None,
    anchor: Annotated[str | None, typer.Option(help=say("column of the anchors or queries of text pairs"))] = None,
    positive: Annotated[str | None, typer.Option(help=say("column of the texts that belong to them"))] = None,
    negative: Annotated[str | None, typer.Option(help=say("column of texts that do not"))] = None,
    score: Annotated[str | None, typer.Option(help=say("column of the scores of text pairs"))] = None,
    encoding: options.Encoding = "auto",
    drop_empty: Annotated[bool, typer.Option("--drop-empty", help=say("leave out empty texts"))] = False,
    max_examples: options.MaxExamples = None,
    include_base: Annotated[bool, typer.Option("--include-base", help=say("evaluate the base model too"))] = False,
    dtype: options.DtypeName = "auto",
    quantize: options.Quantize = None,
    trust_remote_code: options.TrustRemoteCode = False,
    allow_base_mismatch: options.AllowBaseMismatch = False,
    as_json: options.AsJson = False,
) -> None:
    """Evaluate saved adapters on data they have not been trained on."""
    import tunedeck as td
    from tunedeck.data.settings import DataSettings

    deck = options.opened(adapter, model, dtype, quantize, trust_remote_code, allow_base_mismatch=allow_base_mismatch)
    settings = DataSettings(
        train=data,
        text=text,
        label=label,
        anchor=anchor,
        positive=positive,
        negative=negative,
        score=score,
        encoding=encoding,
        drop_empty=drop_empty,
        eval_size=max_examples,
    )
    found = td.evaluate(deck, settings, include_base=include_base)
    for text in found.notes:
        tell(text)
    print_json({"description": found.description, "adapters": found.metrics}) if as_json else _print(found)


def _print(found: Evaluation) -> None:
    columns = list(next(iter(found.metrics.values())))
    print_table(
        found.description,
        [say("adapter"), *columns],
        [[name, *(f"{values[key]:.4f}" for key in columns)] for name, values in found.metrics.items()],
    )
