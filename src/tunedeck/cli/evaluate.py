"""`tunedeck eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tunedeck.cli.console import print_json, print_table
from tunedeck.cli.opening import QuantizeFlag, TrustFlag, open_deck
from tunedeck.core.i18n import say

if TYPE_CHECKING:
    from tunedeck.tasks.base import TrainableTask


def evaluate(
    adapter: Annotated[list[Path], typer.Option(help=say("adapter folder; may be given several times"))],
    data: Annotated[str, typer.Option(help=say("labelled data: file, hub id or bundled: name"))],
    model: Annotated[str | None, typer.Option(help=say("the base; the one the adapter names by default"))] = None,
    text: Annotated[str | None, typer.Option(help=say("text column"))] = None,
    label: Annotated[str | None, typer.Option(help=say("label column"))] = None,
    anchor: Annotated[str | None, typer.Option(help=say("column of the anchors or queries of text pairs"))] = None,
    positive: Annotated[str | None, typer.Option(help=say("column of the texts that belong to them"))] = None,
    negative: Annotated[str | None, typer.Option(help=say("column of texts that do not"))] = None,
    score: Annotated[str | None, typer.Option(help=say("column of the scores of text pairs"))] = None,
    encoding: Annotated[str, typer.Option(help=say("encoding of the file, such as gb18030"))] = "utf-8",
    drop_empty: Annotated[bool, typer.Option("--drop-empty", help=say("leave out empty texts"))] = False,
    limit: Annotated[int | None, typer.Option(help=say("at most so many conversations"))] = None,
    with_base: Annotated[bool, typer.Option("--with-base", help=say("the bare base too"))] = False,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16")] = "auto",
    quantize: QuantizeFlag = None,
    trust_remote_code: TrustFlag = False,
    any_base: Annotated[
        bool, typer.Option("--any-base", help=say("insist on another base than it was trained on"))
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help=say("print JSON"))] = False,
) -> None:
    """Evaluate saved adapters on data they have not been trained on."""
    from tunedeck.data.settings import DataSettings

    deck, names = open_deck(adapter, model, dtype, any_base, quantize=quantize, trust_remote_code=trust_remote_code)
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
        eval_size=limit,
    )
    found = cast("TrainableTask", deck.task).evaluate(deck, [*names, *([None] if with_base else [])], settings)
    if as_json:
        print_json({"description": found.description, "adapters": found.metrics})
        return
    columns = list(next(iter(found.metrics.values())))
    print_table(
        found.description,
        [say("adapter"), *columns],
        [[name, *(f"{values[key]:.4f}" for key in columns)] for name, values in found.metrics.items()],
    )
