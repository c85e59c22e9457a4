"""`tunedeck label next` and `tunedeck label add`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from tunedeck.cli import options
from tunedeck.cli.console import print_json, print_table, tell
from tunedeck.core.i18n import say, say_plural

if TYPE_CHECKING:
    from tunedeck.tasks.label_next import NextTexts

_TEXT = 60
app = typer.Typer()
MultiLabel: TypeAlias = Annotated[bool, typer.Option("--multi-label", help=say("any number of labels per text"))]


@app.command("next", help=say("choose the texts to label next and write a file to fill in"))
def next_texts(
    pool: Annotated[str, typer.Option(help=say("texts to choose from: file, hub id or bundled: name"))],
    n: Annotated[int, typer.Option("--n", help=say("number of texts to choose"))] = 20,
    data: Annotated[str | None, typer.Option(help=say("examples that are labelled already"))] = None,
    adapter: Annotated[Path | None, typer.Option(help=say("adapter folder; its least sure texts are chosen"))] = None,
    out: Annotated[
        Path, typer.Option(help=say("file to fill in: .csv, .xlsx, .tsv, .json, .jsonl or .parquet"))
    ] = Path("to-label.csv"),
    text: options.TextColumn = None,
    label: options.LabelColumn = None,
    encoding: options.Encoding = "auto",
    model: options.Base = None,
    multi_label: MultiLabel = False,
    sample: Annotated[int, typer.Option(help=say("texts of the pool to consider, chosen randomly"))] = 10_000,
    seed: Annotated[int, typer.Option(help=say("seed of the random choices"))] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Choose texts that a classifier is unsure of and that differ from each other."""
    from tunedeck.data.add_labels import check_new
    from tunedeck.tasks.label_next import label_next

    check_new(out)
    options.check_sources([] if adapter is None else [adapter], model, pool)
    options.hide_loading()
    found = label_next(
        pool,
        n,
        data=data,
        adapter=adapter,
        model=model,
        text=text,
        label=label,
        encoding=encoding,
        multi_label=multi_label,
        sample=sample,
        seed=seed,
    )
    found.write(out)
    if as_json:
        print_json(found.to_json())
        return
    for note in found.notes:
        tell(note)
    _print(found)
    tell(
        say(
            'fill in the column "label" of {path}, then: tunedeck label add {path} --data {data} --out {out}',
            path=out,
            data=data,
            out="train-2.csv",
        )
        if data
        else say(
            'fill in the column "label" of {path}, then: tunedeck label add {path} --out {out}',
            path=out,
            out="train.csv",
        )
    )


def _print(found: NextTexts) -> None:
    from tunedeck.data.columns import shorten

    print_table(
        say(
            "Texts to label: chosen from {pool}, with {labelled} labelled already",
            pool=found.pool,
            labelled=found.labelled,
        ),
        [say("row"), say("text"), say("suggested"), say("probability")],
        [
            [
                str(one.row),
                shorten(one.text, _TEXT),
                one.suggested or "-",
                "-" if one.probability is None else f"{one.probability:.3f}",
            ]
            for one in found.texts
        ],
        numbers_from=3,
    )


@app.command("add", help=say("add a file that was filled in to the labelled data"))
def add(
    filled: Annotated[str, typer.Argument(help=say("the file of tunedeck label next, filled in"))],
    out: Annotated[Path, typer.Option(help=say("file to write; it may be that of --data"))],
    data: Annotated[str | None, typer.Option(help=say("examples that are labelled already"))] = None,
    new_label: Annotated[
        list[str] | None, typer.Option(help=say("a label that --data does not have yet; may be given several times"))
    ] = None,
    skip_blank: Annotated[bool, typer.Option("--skip-blank", help=say("leave out rows without a label"))] = False,
    text: options.TextColumn = None,
    label: options.LabelColumn = None,
    encoding: options.Encoding = "auto",
    multi_label: MultiLabel = False,
    as_json: options.AsJson = False,
) -> None:
    """Write the labelled data with what was filled in."""
    from tunedeck.data.add_labels import label_add

    found = label_add(
        filled,
        out,
        data=data,
        new_labels=new_label or (),
        skip_blank=skip_blank,
        text=text,
        label=label,
        encoding=encoding,
        multi_label=multi_label,
    )
    if as_json:
        print_json(found.to_json())
        return
    labels = ", ".join(f"{name} {count}" for name, count in found.labels.items())
    tell(
        say_plural("{count} example was added", "{count} examples were added", count=found.added)
        + (f": {labels}" if labels else "")
    )
    if found.blank:
        tell(say_plural("{count} row has no label", "{count} rows have no label", count=found.blank))
    if found.repeated:
        tell(say_plural("{count} text was there already", "{count} texts were there already", count=found.repeated))
    tell(say("{path} has {total} examples now", path=out, total=found.total))
