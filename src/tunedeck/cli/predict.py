"""`tunedeck predict`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunedeck.cli import options
from tunedeck.cli.console import print_json, print_table, tell
from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say, say_plural

if TYPE_CHECKING:
    from tunedeck.core.text_pair import TextPair
    from tunedeck.data.rows import Rows
    from tunedeck.deck.deck import Deck

PIECE = 1024
"""Texts that are predicted before their rows are written."""


def predict(
    texts: Annotated[list[str] | None, typer.Argument(help=say("texts; none reads lines from standard input"))] = None,
    adapter: options.AdapterFolders = None,
    file: options.DataFile = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help=say("write the rows of --file with the predictions: .csv, .xlsx, .tsv, .json, .jsonl or .parquet")
        ),
    ] = None,
    text: options.TextColumn = None,
    text_pair: options.SecondTextColumn = None,
    encoding: options.Encoding = "auto",
    model: options.Base = None,
    dtype: options.DtypeName = "auto",
    quantize: options.Quantize = None,
    trust_remote_code: options.TrustRemoteCode = False,
    allow_base_mismatch: options.AllowBaseMismatch = False,
    auto: Annotated[
        bool, typer.Option("--auto", help=say("answer each text by the adapter whose training texts are nearest"))
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Answer every text by every adapter, all in mixed batches on one base.

    Of an adapter for pairs, two texts after one another are a pair, and so are two in a line with a tab between them.
    """
    from tunedeck.core.compat.inference_imports import import_for_inference
    from tunedeck.data.pieces import is_large
    from tunedeck.data.write import check_ending

    if not adapter:
        raise DataError(say('name an adapter folder: tunedeck predict --adapter runs/NAME/adapter "a text"'))
    if out is not None:
        check_ending(out)
    options.check_sources(adapter, model, file)
    import_for_inference()
    options.check_task(adapter, "predictions", "predict")
    column, in_pairs = _trained_on(adapter)
    pieces = _pieces(texts, file, text or column, encoding, named=text is not None, text_pair=text_pair, pairs=in_pairs)
    first = next(pieces)
    deck = options.opened(adapter, model, dtype, quantize, trust_remote_code, allow_base_mismatch=allow_base_mismatch)
    if out is not None:
        _write(deck, chain([first], pieces), None if file and is_large(file) else len(first[0]), out, auto=auto)
        return
    asked = [one for found, _ in chain([first], pieces) for one in found]
    if auto:
        from tunedeck.deck.choice import chosen_names

        pairs = [*zip(chosen_names(deck.choose(asked), asked), asked, strict=True)]
    else:
        pairs = [(name, one) for name in deck.adapters for one in asked]
    answers = deck.predict([one for _, one in pairs], adapter=[name for name, _ in pairs])
    if as_json:
        found = zip(pairs, answers, strict=True)
        print_json(
            {"predictions": [{**_asked(one), "adapter": name, **_values(answer)} for (name, one), answer in found]}
        )
        return
    cells = [_cells(deck, answer) for answer in answers]
    print_table(
        "",
        [say("text"), say("adapter"), *cells[0]],
        [[one, name, *own.values()] for (name, one), own in zip(pairs, cells, strict=True)],
        numbers_from=3,
    )


def _asked(text: str) -> dict[str, object]:
    from tunedeck.core.text_pair import TextPair

    return {"text": text.first, "text_pair": text.second} if isinstance(text, TextPair) else {"text": text}


def _values(answer: Any) -> dict[str, Any]:
    return asdict(answer) if is_dataclass(answer) and not isinstance(answer, type) else {"answer": answer}


def _trained_on(folders: list[Path]) -> tuple[str | None, bool]:
    """Return the column of texts that the first adapter was trained on, where its folder tells, and whether it reads
    pairs.
    """
    from tunedeck.formats.manifest import read_manifest

    manifest = read_manifest(folders[0])
    if manifest is None:
        return None, False
    return None if manifest.data is None else manifest.data.text_column, bool(manifest.task.get("pairs"))


def _pieces(
    texts: list[str] | None,
    file: str | None,
    column: str | None,
    encoding: str,
    *,
    named: bool,
    text_pair: str | None,
    pairs: bool,
) -> Iterator[tuple[list[str], Rows]]:
    """Yield texts and the rows that they come from, those of a large file piece by piece.

    A column that the user did not name may be another in this file.
    """
    if file is None:
        asked = texts_to_answer(texts, None, None, encoding)
        if pairs:
            asked = [*_in_pairs(asked)]
        yield asked, [_asked(one) for one in asked]
        return
    from tunedeck.data.labelled import column_to_predict, read_texts
    from tunedeck.data.paired import first_column, second_column
    from tunedeck.data.pieces import counting_rows, table_pieces
    from tunedeck.data.usual_names import TEXT_COLUMNS

    for number, table in enumerate(table_pieces(file, encoding)):
        if number == 0:
            for note in table.notes:
                tell(note)
            second = second_column(table, column if named else None, text_pair, pairs)
            if not named and column not in table.columns:
                column = column_to_predict(table, first_column(table, second) if second else None)
                if column.lower() not in TEXT_COLUMNS:
                    tell(
                        say(
                            "the texts are those of column {column!r}, the first line of {file}",
                            column=column,
                            file=file,
                        )
                    )
        with counting_rows(number):
            yield read_texts(table, column, second), table.rows


def _in_pairs(texts: list[str]) -> list[TextPair]:
    """Return texts as pairs: two in a line with a tab between them, else two after one another."""
    from tunedeck.core.text_pair import TextPair

    if all(text.count("\t") == 1 for text in texts):
        return [TextPair(*(part.strip() for part in text.split("\t"))) for text in texts]
    if len(texts) % 2:
        raise DataError(
            say(
                "the adapter answers pairs of texts, and {text!r} has no second text; give two texts for each answer, "
                "or lines with a tab between the two",
                text=texts[-1],
            )
        )
    return [TextPair(*pair) for pair in zip(texts[::2], texts[1::2], strict=True)]


def _write(deck: Deck, pieces: Iterator[tuple[list[str], Rows]], total: int | None, out: Path, *, auto: bool) -> None:
    """Predict and write a piece at a time; every row is followed by what each adapter predicts for it, or by the
    adapter that is chosen and what that predicts.
    """
    from rich.console import Console
    from rich.progress import Progress

    from tunedeck.data.write import row_writer

    written, refused, keys = 0, 0, None
    predicted = _chosen_and_predicted if auto else _predicted
    progress = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty())
    with progress, row_writer(out) as write:
        bar = progress.add_task(say("predicting"), total=total)
        for texts, rows in pieces:
            for start in range(0, len(texts), PIECE):
                found = predicted(deck, texts[start : start + PIECE], rows[start : start + PIECE])
                keys = keys or list(found[0])
                if list(found[0]) != keys and out.suffix.lower() not in (".json", ".jsonl"):
                    row = written + 1
                    raise DataError(
                        say("row {row} has other columns than the first rows; write .jsonl instead", row=row)
                    )
                write(found)
                written += len(found)
                refused += auto and sum(row["adapter"] is None for row in found)
                progress.update(bar, advance=len(found))
    tell(say_plural("wrote {path}: {count} row", "wrote {path}: {count} rows", count=written, path=out))
    if refused:
        tell(
            say_plural(
                "{count} row is near to no adapter and has no prediction",
                "{count} rows are near to no adapter and have no prediction",
                count=refused,
            )
        )


def _predicted(deck: Deck, texts: list[str], rows: Rows) -> Rows:
    """Return the rows followed by the columns of each adapter's predictions for their texts; the names end in the
    adapter's where there are several.
    """
    names = deck.adapters
    answers = iter(deck.predict(texts * len(names), adapter=[name for name in names for _ in texts]))
    columns = [
        [
            {f"{key}_{name}" if len(names) > 1 else key: value for key, value in values.items()}
            for values in (_columns(deck, name, next(answers)) for _ in texts)
        ]
        for name in names
    ]
    if taken := [column for found in columns for column in found[0] if column in rows[0]]:
        raise DataError(say("the data has a column {column!r} already; rename it", column=taken[0]))
    found = zip(rows, *columns, strict=True)
    return [{key: value for part in parts for key, value in part.items()} for parts in found]


def _chosen_and_predicted(deck: Deck, texts: list[str], rows: Rows) -> Rows:
    """Return the rows followed by the chosen adapter, how sure the choice is, and its prediction; None in these columns
    for a text that is near to no adapter.
    """
    choices = deck.choose(texts)
    near = [(text, choice.adapter) for text, choice in zip(texts, choices, strict=True) if choice.near]
    answers = iter(deck.predict([text for text, _ in near], adapter=[name for _, name in near]) if near else [])
    found: list[dict[str, Any]] = []
    for choice in choices:
        values = _columns(deck, choice.adapter, next(answers)) if choice.near else {}
        found.append({"adapter": choice.adapter if choice.near else None, "certainty": choice.certainty, **values})
    keys = dict.fromkeys(key for own in found for key in own)
    if taken := [column for column in keys if column in rows[0]]:
        raise DataError(say("the data has a column {column!r} already; rename it", column=taken[0]))
    return [{**row, **dict.fromkeys(keys), **own} for row, own in zip(rows, found, strict=True)]


def _columns(deck: Deck, name: str, answer: Any) -> dict[str, Any]:
    """Return the columns of an adapter's answer: `predicted` and `score` of a label, else the answer's values."""
    from tunedeck.tasks.registry import view_of

    written = view_of(deck.task).columns
    values = _values(answer) if written is None else dict(written(answer))
    if "labels" in values:
        several = deck.adapter(name).task.describe().get("multi_label")
        label = values.get("abstain") or values["label"]
        values = {"predicted": list(values["labels"]) if several else label, "score": values["score"]}
    elif set(values) == {"answer"}:
        values = {"predicted": values["answer"]}
    return values


def _cells(deck: Deck, answer: Any) -> dict[str, str]:
    """Return the columns that show an answer in a table, as its task has them; else its values."""
    from tunedeck.tasks.registry import view_of

    shown = view_of(deck.task).shown
    if shown is not None:
        return dict(shown(answer))
    values = _values(answer).items()
    return {
        say("answer") if key == "answer" else key: f"{one:.4g}" if isinstance(one, float) else str(one)
        for key, one in values
    }


def texts_to_answer(texts: list[str] | None, file: str | None, column: str | None, encoding: str) -> list[str]:
    """Return texts given as arguments, in a column of a data file, or as lines on standard input; DataError when there
    is none.
    """
    if file is not None:
        from tunedeck.data.labelled import read_texts
        from tunedeck.data.table import read_table

        table = read_table(file, encoding)
        for note in table.notes:
            tell(note)
        return read_texts(table, column)
    piped = sys.stdin is not None and not sys.stdin.isatty()
    found = list(texts) if texts else sys.stdin.read().splitlines() if piped else []
    found = [text for text in found if text.strip()]
    if not found:
        raise DataError(say("there is no text; give texts, --file, or lines on standard input"))
    return found
