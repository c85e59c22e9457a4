"""`tunedeck eval`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunedeck.cli import options
from tunedeck.cli.console import print_json, print_table, print_tables, tell
from tunedeck.core.errors import UsageError
from tunedeck.core.i18n import say, say_plural

if TYPE_CHECKING:
    from tunedeck.core.reliability import TemperatureScaling
    from tunedeck.tasks.base import Breakdown, Evaluation, LabelMetrics

MOST_LABELS, MOST_CONFUSED = 40, 10
PER_LABEL = ("precision", "recall", "f1")


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
    text_pair: options.SecondTextColumn = None,
    encoding: options.Encoding = "auto",
    drop_empty: Annotated[bool, typer.Option("--drop-empty", help=say("leave out empty texts"))] = False,
    max_examples: options.MaxExamples = None,
    errors: Annotated[
        Path | None,
        typer.Option(help=say("write all wrong predictions: .csv, .xlsx, .tsv, .json, .jsonl or .parquet")),
    ] = None,
    reliability: Annotated[
        Path | None,
        typer.Option(help=say("draw how often answers are right, by their probability: .png or .svg")),
    ] = None,
    include_base: Annotated[bool, typer.Option("--include-base", help=say("evaluate the base model too"))] = False,
    dtype: options.DtypeName = "auto",
    quantize: options.Quantize = None,
    trust_remote_code: options.TrustRemoteCode = False,
    allow_base_mismatch: options.AllowBaseMismatch = False,
    as_json: options.AsJson = False,
) -> None:
    """Evaluate saved adapters on data they have not been trained on."""
    options.check_sources(adapter, model, data)
    import tunedeck as td
    from tunedeck.data.settings import DataSettings
    from tunedeck.data.write import check_ending

    if errors is not None:
        check_ending(errors)
    if reliability is not None and reliability.suffix.lower() not in (".png", ".svg"):
        raise UsageError(say("--reliability writes a .png or .svg file, got {path}", path=reliability))
    deck = options.opened(adapter, model, dtype, quantize, trust_remote_code, allow_base_mismatch=allow_base_mismatch)
    settings = DataSettings(
        train=data,
        text=text,
        text_pair=text_pair,
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
    if errors is not None:
        _write_errors(found, errors)
    if reliability is not None:
        _draw_reliability(found, reliability)
    print_json(_as_json(found)) if as_json else _print(found)


def _as_json(found: Evaluation) -> dict[str, Any]:
    breakdowns = {
        name: {
            "labels": [asdict(label) for label in one.labels],
            "confusion": one.confusion,
            "scaling": None if one.scaling is None else asdict(one.scaling),
            "answered": None if one.answered is None else {**asdict(one.answered), "precision": one.answered.precision},
        }
        for name, one in found.breakdowns.items()
    }
    return {"description": found.description, "adapters": found.metrics, "breakdowns": breakdowns}


def _write_errors(found: Evaluation, target: Path) -> None:
    """Write a row for each wrong prediction, the most confident first."""
    from tunedeck.data.write import row_writer

    if not found.breakdowns:
        raise UsageError(say("--errors lists wrong labels, and this task has none; see the metrics of `tunedeck eval`"))
    rows = [
        {"text": one.text, "label": one.wanted, "predicted": one.answered, "score": one.score, "adapter": name}
        for name, breakdown in found.breakdowns.items()
        for one in breakdown.mistakes
    ]
    with row_writer(target) as write:
        write(rows)
    tell(say_plural("wrote {path}: {count} row", "wrote {path}: {count} rows", count=len(rows), path=target))


def _draw_reliability(found: Evaluation, target: Path) -> None:
    """Draw the reliability of every adapter's probabilities before and after its temperature."""
    from tunedeck.comparison.report.reliability import reliability_figure
    from tunedeck.core.storage import write_bytes

    scalings = _scalings(found)
    if not scalings:
        raise UsageError(say("--reliability is about probabilities of labels, and this task has none"))
    figure = reliability_figure(scalings)
    write_bytes(target, figure.svg if target.suffix.lower() == ".svg" else figure.png)
    tell(say("wrote {path}", path=target))


def _scalings(found: Evaluation) -> dict[str, TemperatureScaling]:
    return {name: one.scaling for name, one in found.breakdowns.items() if one.scaling is not None}


def _print(found: Evaluation) -> None:
    columns = list(next(iter(found.metrics.values())))
    rows = [[name, *(_number(values[key]) for key in columns)] for name, values in found.metrics.items()]
    print_tables(found.description, [say("adapter"), *columns], rows)
    if found.breakdowns:
        _print_labels(found.breakdowns)
    for name, one in found.breakdowns.items():
        if (given := one.answered) is not None:
            tell(
                say(
                    "{name}: {given} answers above its thresholds, {precision:.1%} of them right (95 % interval "
                    "{low:.1%} to {high:.1%})",
                    name=name,
                    given=given.given,
                    precision=given.precision,
                    low=given.low,
                    high=given.high,
                )
            )
    if scalings := _scalings(found):
        _print_scalings(scalings)
    for name, one in found.breakdowns.items():
        if one.confusion:
            _print_confusion(name, one)


def _print_scalings(scalings: Mapping[str, TemperatureScaling]) -> None:
    rows = [
        [
            name,
            f"{one.temperature:.3f}",
            f"{one.before.ece:.4f}",
            f"{one.after.ece:.4f}",
            f"{one.before.brier:.4f}",
            f"{one.after.brier:.4f}",
        ]
        for name, one in scalings.items()
    ]
    columns = [say("adapter"), say("temperature"), say("ECE before"), say("ECE after")]
    columns += [say("Brier before"), say("Brier after")]
    print_table(say("How far the probabilities can be trusted: expected calibration error, Brier score"), columns, rows)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _print_labels(breakdowns: Mapping[str, Breakdown]) -> None:
    """Print a row for each label, with the adapters side by side."""
    found = {name: {label.label: label for label in one.labels} for name, one in breakdowns.items()}
    support = {label.label: label.support for one in breakdowns.values() for label in one.labels}
    if not support:
        return
    shown = sorted(support, key=lambda label: -support[label])[:MOST_LABELS]
    columns = [f"{name} {metric}" if len(found) > 1 else metric for name in found for metric in PER_LABEL]
    rows = [
        [
            label,
            str(support[label]),
            *(_share(own.get(label), metric) for own in found.values() for metric in PER_LABEL),
        ]
        for label in shown
    ]
    print_tables("", [say("label"), "support", *columns], rows)
    if len(support) > MOST_LABELS:
        tell(say("the {count} most frequent of {total} labels; --json has all", count=MOST_LABELS, total=len(support)))


def _share(found: LabelMetrics | None, metric: str) -> str:
    return "-" if found is None else f"{getattr(found, metric):.3f}"


def _print_confusion(name: str, found: Breakdown) -> None:
    """Print the counts of true and predicted labels; for many labels the pairs that are confused most often."""
    labels = [label.label for label in found.labels]
    if len(labels) <= MOST_CONFUSED:
        print_tables(
            say("{name}: true label in the row, predicted in the column", name=name),
            ["", *labels],
            [[label, *map(str, counts)] for label, counts in zip(labels, found.confusion, strict=True)],
        )
        return
    pairs = [
        (count, true, given)
        for true, counts in zip(labels, found.confusion, strict=True)
        for given, count in zip(labels, counts, strict=True)
        if count and true != given
    ]
    rows = [[true, given, str(count)] for count, true, given in sorted(pairs, reverse=True)[:MOST_CONFUSED]]
    if rows:
        print_table(
            say("{name}: labels that are confused most often", name=name),
            [say("true label"), say("predicted"), "count"],
            rows,
            numbers_from=2,
        )
