"""Find problems in data files before training: `td.data_check`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunedeck.core.errors import ConfigError, DataError, ModelError
from tunedeck.core.i18n import say
from tunedeck.core.storage import write_text
from tunedeck.data.check.checked import CHECKED, CheckedFile, TokenLimit, check_table, columns_of, read_rows
from tunedeck.data.check.findings import CheckedRow
from tunedeck.data.check.page import html_page
from tunedeck.data.pieces import first_rows
from tunedeck.data.prepare import normalised
from tunedeck.data.table import Table
from tunedeck.tasks.classify.config import ClassifyConfig

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tunedeck.tasks.classify.doubts import Point

DEFAULT_MODEL = "bundled:all-minilm-l6-v2"
MAX_LENGTH = ClassifyConfig().max_length
SUSPICIOUS = 20
FEWEST = 50
"""Rows that a head and its folds need."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A label that is likely wrong: where, what it is, and the likelier one with both probabilities."""

    row: int
    text: str
    label: str
    suggested: str
    probability: float
    suggested_probability: float


@dataclass(frozen=True, slots=True)
class DataCheck:
    """Files as they were checked; the suspicious labels and learning curve of the first where a head was asked."""

    files: tuple[CheckedFile, ...]
    suspicious: tuple[Suspicion, ...] = ()
    curve: tuple[Point, ...] = ()
    outlook: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found

    def report(self, path: str | Path) -> None:
        """Write it as one HTML page that needs no network and runs no script."""
        write_text(Path(path), html_page(self.to_json()))


def data_check(
    *files: str,
    text: str | None = None,
    label: str | None = None,
    encoding: str = "auto",
    multi_label: bool = False,
    model: str | None = None,
    suspicious: bool = False,
    predictions: str | Path | None = None,
) -> DataCheck:
    """Check data files: `data_check("train.csv", "test.csv")`. The first is the training data, others are test data.

    Tokens are counted by the tokenizer of `model`, by default the bundled English base where it is on disk. With
    `suspicious`, heads on the base's vectors look for wrong labels in the first file and tell what more data would
    bring; this reads every text once. `predictions` is the out-of-fold.jsonl of a training run with `folds`, which
    looks for wrong labels instead, where a head is too coarse. Of a file of 32 MB or more that is read in pieces
    (`data.pieces`), the first 100,000 rows are checked.

    Raises DataError for files and columns that cannot be used, ConfigError where there are too few rows or labels for a
    head, ModelError for a base that cannot be found.
    """
    if not files:
        raise ConfigError(say("name one data file or more"))
    if multi_label and (suspicious or predictions):
        raise ConfigError(say("suspicious labels are looked for where each text has one label"))
    tables = [first_rows(file, encoding, CHECKED) for file in files]
    limit = _token_limit(model)
    held_out = [row for table in tables[1:] for row in _rows(table, text, label, multi_label)]
    checked = [
        check_table(
            table,
            text,
            label,
            multi_label=multi_label,
            limit=limit,
            held_out=held_out if held_out and not number else None,
        )
        for number, table in enumerate(tables)
    ]
    if predictions is not None:
        rows = _rows(tables[0], text, label, False)
        return DataCheck(tuple(checked), suspicions_by(Path(predictions), [row for row in rows if row.label]))
    if not suspicious:
        return DataCheck(tuple(checked))
    return _with_doubts(tuple(checked), _rows(tables[0], text, label, False), model or DEFAULT_MODEL)


def _rows(table: Table, text: str | None, label: str | None, multi_label: bool) -> list[CheckedRow]:
    rows = read_rows(table, *columns_of(table, text, label), multi_label)
    return [row for row in rows if row.text.strip()]


def _token_limit(model: str | None) -> TokenLimit | None:
    """Return the tokenizer of a base that is on disk, without loading the base; None where there is none."""
    from tokenizers import Tokenizer

    from tunedeck.models.source import find_model

    reference = model or DEFAULT_MODEL
    try:
        folder = Path(find_model(reference, fetch_missing=model is not None).location)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        positions = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("max_position_embeddings")
    except ModelError:
        if model is not None:
            raise
        return None
    except Exception:  # tokenizers raises bare exceptions; lengths in characters are still there
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        return [len(one.ids) for one in tokenizer.encode_batch_fast(list(texts))]

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [one.ids for one in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    return TokenLimit(reference, min(MAX_LENGTH, positions or MAX_LENGTH), count, encode, _unknown_id(tokenizer))


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    names = ("[UNK]", "<unk>")
    return next((number for name in names if (number := tokenizer.token_to_id(name)) is not None), None)


def suspicions_by(file: Path, rows: Sequence[CheckedRow]) -> tuple[Suspicion, ...]:
    """Return the rows whose label is likeliest wrong by predictions of adapters that had not seen them.

    The lowest probability of a row's label comes first. DataError for a file of another kind, and where none of its
    texts is among the rows.
    """
    if not file.is_file():
        raise DataError(say("there is no file {path}", path=file))
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").strip().split("\n")]
        chances = {
            normalised(line["text"]): {str(label): float(chance) for label, chance in line["probabilities"].items()}
            for line in lines
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            say("{path} is not the out-of-fold.jsonl of a training run: {reason}", path=file, reason=repr(error))
        ) from error
    found = []
    for row in rows:
        one = chances.get(normalised(row.text), {})
        others = [(chance, label) for label, chance in one.items() if label != row.label]
        if row.label in one and others:
            likeliest, label = max(others)
            found.append(Suspicion(row.number, row.text, row.label, label, one[row.label], likeliest))
    if not found:
        raise DataError(say("{path} has no prediction for any of these texts", path=file))
    found.sort(key=lambda one: one.probability)
    return tuple(one for one in found[:SUSPICIOUS] if one.probability < one.suggested_probability)


def _with_doubts(files: tuple[CheckedFile, ...], rows: Sequence[CheckedRow], model: str) -> DataCheck:
    import torch

    from tunedeck.deck.deck import Deck
    from tunedeck.tasks.classify.doubts import base_vectors, doubts, outlook
    from tunedeck.tasks.classify.task import Classify

    rows = [row for row in rows if row.label]
    names = sorted({row.label for row in rows})
    if len(rows) < FEWEST or len(names) < 2:
        raise ConfigError(
            say(
                "looking for wrong labels needs {fewest} labelled rows and two labels, there are {rows} and {labels}",
                fewest=FEWEST,
                rows=len(rows),
                labels=len(names),
            )
        )
    deck = Deck.load(model, Classify(labels=tuple(names)))
    vectors = base_vectors(deck, [row.text for row in rows], names, MAX_LENGTH)
    found = doubts(vectors, torch.tensor([names.index(row.label) for row in rows]), len(names))
    suspicions = []
    for place in found.ranked()[:SUSPICIOUS]:
        row, other = rows[place], found.suggested(place)
        if names[other] != row.label:
            own, likelier = found.probabilities[place, [names.index(row.label), other]].tolist()
            suspicions.append(Suspicion(row.number, row.text, row.label, names[other], own, likelier))
    return DataCheck(files, tuple(suspicions), found.curve, outlook(found.curve))
