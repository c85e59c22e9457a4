"""`tunedeck predict`."""

from __future__ import annotations

import sys
from dataclasses import asdict, is_dataclass
from typing import Annotated, Any

import typer

from tunedeck.cli import options
from tunedeck.cli.console import print_json, print_table
from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say


def predict(
    texts: Annotated[list[str] | None, typer.Argument(help=say("texts; none reads lines from standard input"))] = None,
    adapter: options.AdapterFolders = None,
    file: options.DataFile = None,
    text: options.TextColumn = None,
    encoding: options.Encoding = "utf-8",
    model: options.Base = None,
    dtype: options.DtypeName = "auto",
    quantize: options.Quantize = None,
    trust_remote_code: options.TrustRemoteCode = False,
    allow_base_mismatch: options.AllowBaseMismatch = False,
    as_json: options.AsJson = False,
) -> None:
    """Answer every text by every adapter, all in mixed batches on one base."""
    if not adapter:
        raise DataError(say('name an adapter folder: tunedeck predict --adapter runs/NAME/adapter "a text"'))
    asked = texts_to_answer(texts, file, text, encoding)
    deck = options.opened(adapter, model, dtype, quantize, trust_remote_code, allow_base_mismatch=allow_base_mismatch)
    names = deck.adapters
    answers = deck.predict(asked * len(names), adapter=[name for name in names for _ in asked])
    rows = [
        {
            "text": asked[index % len(asked)],
            "adapter": names[index // len(asked)],
            **(asdict(answer) if is_dataclass(answer) and not isinstance(answer, type) else {"answer": answer}),
        }
        for index, answer in enumerate(answers)
    ]
    if as_json:
        print_json({"predictions": rows})
        return
    columns, cells = _cells(rows)
    print_table(
        "",
        [say("text"), say("adapter"), *columns],
        [[row["text"], row["adapter"], *own] for row, own in zip(rows, cells, strict=True)],
        numbers_from=3,
    )


def _cells(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the columns and cells that show the answers in a table."""
    if "labels" in rows[0]:
        columns = [say("label"), say("probability")]
        return columns, [[", ".join(row["labels"]) or say("none"), f"{row['score']:.3f}"] for row in rows]
    values = [{key: value for key, value in row.items() if key not in ("text", "adapter")} for row in rows]
    columns = [say("answer") if key == "answer" else key for key in values[0]]
    return columns, [[f"{one:.4g}" if isinstance(one, float) else str(one) for one in row.values()] for row in values]


def texts_to_answer(texts: list[str] | None, file: str | None, column: str | None, encoding: str) -> list[str]:
    """Texts given as arguments, in a column of a data file, or as lines on standard input; DataError when there is
    none.
    """
    if file is not None:
        from tunedeck.data.labelled import read_texts
        from tunedeck.data.table import read_table

        return read_texts(read_table(file, encoding), column)
    found = list(texts) if texts else [] if sys.stdin.isatty() else sys.stdin.read().splitlines()
    found = [text for text in found if text.strip()]
    if not found:
        raise DataError(say("there is no text to classify; give texts, --file, or lines on standard input"))
    return found
