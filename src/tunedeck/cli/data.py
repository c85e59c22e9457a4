"""`tunedeck data check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunedeck.cli import options
from tunedeck.cli.console import print_json, print_table, tell
from tunedeck.core.i18n import listing, say

if TYPE_CHECKING:
    from tunedeck.tasks.data_check import DataCheck

_TEXT = 60
app = typer.Typer()


@app.command("check", help=say("find problems in data files before training"))
def check(
    files: Annotated[
        list[str], typer.Argument(help=say("training data, then test data: files, hub ids or bundled: names"))
    ],
    text: options.TextColumn = None,
    label: options.LabelColumn = None,
    encoding: options.Encoding = "auto",
    multi_label: Annotated[bool, typer.Option("--multi-label", help=say("any number of labels per text"))] = False,
    model: Annotated[
        str | None, typer.Option(help=say("the base whose tokens are counted; the bundled English one by default"))
    ] = None,
    suspicious: Annotated[
        bool,
        typer.Option(
            "--suspicious",
            help=say("look for wrong labels and draw a learning curve, by heads on the base's vectors; minutes"),
        ),
    ] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(help=say("look for wrong labels by the out-of-fold.jsonl of tunedeck train --folds")),
    ] = None,
    report: Annotated[Path | None, typer.Option(help=say("write the report as a page, such as report.html"))] = None,
    fix: Annotated[Path | None, typer.Option(help=say("write the first file with the safe repairs"))] = None,
    as_json: options.AsJson = False,
) -> None:
    """Say what is wrong with data files, before training."""
    from tunedeck.data.check.checked import write_fixed
    from tunedeck.data.pieces import table_pieces
    from tunedeck.data.write import check_ending
    from tunedeck.tasks.data_check import data_check

    if fix is not None:
        check_ending(fix)
    found = data_check(
        *files,
        text=text,
        label=label,
        encoding=encoding,
        multi_label=multi_label,
        model=model,
        suspicious=suspicious,
        predictions=predictions,
    )
    print_json(found.to_json()) if as_json else _print(found)
    if report is not None:
        found.report(report)
        tell(say("the report is {path}", path=report))
    if fix is not None:
        repairs = write_fixed(table_pieces(files[0], encoding), fix, text, label)
        tell(
            say(
                "{path} is UTF-8; rows freed of spaces or full-width characters: {spaces}; removed: empty rows "
                "{empty}, repeats {repeats}",
                path=fix,
                spaces=repairs["spaces"],
                empty=repairs["empty"],
                repeats=repairs["repeats"],
            )
        )


def _print(found: DataCheck) -> None:
    for file in found.files:
        for note in file.notes:
            tell(note)
        total = max(1, sum(file.labels.values()))
        labels = [f"{name} {count} ({count / total:.0%})" for name, count in list(file.labels.items())[:10]]
        more = [] if len(file.labels) <= 10 else [say("{count} more", count=len(file.labels) - 10)]
        middle, late, longest = file.lengths
        rows = [
            [say("rows"), str(file.rows)],
            [say("columns"), listing(file.columns)],
            [say("text column"), file.text_column],
            [say("label column"), file.label_column or say("none")],
            [say("labels"), listing([*labels, *more])],
            [say("characters: median, 95 % below, longest"), f"{middle}, {late}, {longest}"],
        ]
        print_table(file.source, [say("what"), say("value")], rows, numbers_from=9)
        shown = [[one.text, "\n".join(one.examples)] for one in file.findings] or [[say("Nothing was found."), ""]]
        print_table("", [say("What was found"), say("examples")], shown, numbers_from=9)
    _print_doubts(found)


def _print_doubts(found: DataCheck) -> None:
    from tunedeck.data.columns import shorten

    if found.suspicious:
        print_table(
            say("Labels that look wrong"),
            [say("row"), say("text"), say("label"), say("suggested"), say("probability")],
            [
                [
                    str(one.row),
                    shorten(one.text, _TEXT),
                    one.label,
                    one.suggested,
                    f"{one.probability:.3f} / {one.suggested_probability:.3f}",
                ]
                for one in found.suspicious
            ],
            numbers_from=4,
        )
    if found.curve:
        print_table(
            say("How many rows are enough"),
            [say("rows"), say("accuracy"), say("95 % interval")],
            [[str(one.rows), f"{one.accuracy:.3f}", f"{one.low:.3f} – {one.high:.3f}"] for one in found.curve],
        )
        tell(found.outlook)
