"""`tunedeck threshold`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunedeck.cli import options
from tunedeck.cli.console import print_json, print_table, tell
from tunedeck.core.errors import UsageError
from tunedeck.core.i18n import say

if TYPE_CHECKING:
    from tunedeck.tasks.classify.thresholds import Thresholds


def threshold(
    adapter: Annotated[Path, typer.Argument(help=say("adapter folder"))],
    data: Annotated[
        str | None, typer.Option(help=say("labelled texts that it was not trained on: file, hub id or bundled: name"))
    ] = None,
    precision: Annotated[float, typer.Option(help=say("share of right answers to hold"))] = 0.95,
    confidence: Annotated[float, typer.Option(help=say("level of the interval that has to hold it"))] = 0.95,
    training_data: Annotated[
        str | None,
        typer.Option(help=say("its training texts: it then answers none of these to texts that are far from them")),
    ] = None,
    keep: Annotated[
        float, typer.Option(help=say("share of --data that is not far from the training texts, by definition"))
    ] = 0.95,
    clear: Annotated[bool, typer.Option("--clear", help=say("remove the thresholds"))] = False,
    text: options.TextColumn = None,
    label: options.LabelColumn = None,
    encoding: options.Encoding = "auto",
    model: options.Base = None,
    dtype: options.DtypeName = "auto",
    quantize: options.Quantize = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.AsJson = False,
) -> None:
    """Choose the probability from which an adapter answers, and write it into its folder."""
    options.check_sources([adapter], model, data)
    from tunedeck.tasks.classify import choose

    if clear:
        choose.clear_thresholds(adapter)
        tell(say("{path} answers every text again", path=adapter))
        return
    if data is None:
        raise UsageError(say("name labelled texts that the adapter was not trained on: --data held-out.csv"))
    options.hide_loading()
    found = choose.threshold(
        adapter,
        {"train": data, "text": text, "label": label, "encoding": encoding},
        precision=precision,
        confidence=confidence,
        training_data=training_data,
        keep=keep,
        model=model,
        dtype=dtype,  # type: ignore[arg-type]
        quantize=quantize,  # type: ignore[arg-type]
        trust_remote_code=trust_remote_code,
    )
    print_json(found.to_json()) if as_json else _print(found, adapter)


def _print(found: Thresholds, adapter: Path) -> None:
    rows = [
        [
            row.label,
            say("never") if row.threshold is None else f"{row.threshold:.3f}" + (" *" if row.shared else ""),
            str(row.held_out.given),
            f"{row.held_out.precision:.3f}" if row.held_out.given else "-",
            f"{row.held_out.low:.3f} - {row.held_out.high:.3f}",
        ]
        for row in found.labels
    ]
    columns = [say("label"), say("threshold"), say("answered"), say("share right"), say("interval")]
    print_table(say("Thresholds for a precision of {precision:g}", precision=found.precision), columns, rows)
    if any(row.shared for row in found.labels):
        tell(say("* shared by the labels that have too few texts to have a threshold each"))
    tell(
        say(
            "{answered} of {texts} texts are answered ({share:.1%}), {precision:.1%} of the answers are right",
            answered=found.answered_texts,
            texts=found.texts,
            share=found.answered_texts / found.texts,
            precision=found.all_labels.precision,
        )
    )
    if found.none_of_these is not None:
        tell(say("{share:.1%} of these texts are far from the training texts", share=found.none_of_these))
    tell(say('the thresholds are in {path}; other texts are answered with "unsure"', path=adapter))
