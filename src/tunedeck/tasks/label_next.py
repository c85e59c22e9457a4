"""Choose the texts to label next: `td.label_next`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunedeck.core.errors import ConfigError, DataError
from tunedeck.core.i18n import say
from tunedeck.data.add_labels import LABEL, PROBABILITY, ROW, SUGGESTED, TEXT, check_new, labelled_rows
from tunedeck.data.columns import usual_columns
from tunedeck.data.labelled import Example, label_names, labelled_examples, text_column_of
from tunedeck.data.prepare import deduplicated, normalised, subset
from tunedeck.data.table import Table, read_table
from tunedeck.data.usual_names import LABEL_COLUMNS
from tunedeck.data.write import row_writer
from tunedeck.tasks.data_check import DEFAULT_MODEL, MAX_LENGTH

if TYPE_CHECKING:
    import torch

    from tunedeck.deck.deck import Deck

_ANY = ("a", "b")
"""Labels of a base that is only read for its vectors."""


@dataclass(frozen=True, slots=True)
class NextText:
    """A text to label: its row in the pool, counted from 1, the suggested label and the probability of the likeliest
    one; without a classifier there is none. Of several labels per text, those of 0.5 or more are suggested, divided by
    commas.
    """

    row: int
    text: str
    suggested: str = ""
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class NextTexts:
    """Texts to label, the least sure first where there is a classifier, and what a user should know of the choice."""

    texts: tuple[NextText, ...]
    pool: int
    """Different texts without a label that they were chosen from."""
    labelled: int
    """Labelled examples that the choice was made with."""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {**asdict(self), "texts": [asdict(one) for one in self.texts], "notes": list(self.notes)}

    def write(self, path: str | Path) -> None:
        """Write a file to fill in (.csv, .xlsx and the others of `row_writer`): its column "label" is empty.

        Raises DataError where the file exists, since it may hold labels that somebody gave.
        """
        place = Path(path)
        check_new(place)
        guessed = any(one.probability is not None for one in self.texts)
        with row_writer(place) as write:
            write(
                [
                    {
                        TEXT: one.text,
                        LABEL: "",
                        **({SUGGESTED: one.suggested, PROBABILITY: _rounded(one.probability)} if guessed else {}),
                        ROW: one.row,
                    }
                    for one in self.texts
                ]
            )


def label_next(
    pool: str | Sequence[str],
    n: int = 20,
    *,
    data: str | None = None,
    adapter: str | Path | None = None,
    model: str | None = None,
    text: str | None = None,
    label: str | None = None,
    encoding: str = "auto",
    multi_label: bool = False,
    sample: int = 10_000,
    seed: int = 0,
) -> NextTexts:
    """Choose the `n` texts of a pool whose labels would teach a classifier most.

    Those are texts that it is unsure of (margin) and that differ from each other (k-means on the frozen base's
    vectors). The classifier is an `adapter`, else a head on the vectors of the labelled examples: those of `data`, and
    rows of the pool that have a label. With fewer than two labels the texts are chosen by how they differ alone.

    `pool` is a file or another data reference, or a list of texts; texts that are labelled already, in `data` too, and
    repeats are left out. At most `sample` of its texts, and of the labelled ones, are read, drawn by `seed`; vectors
    are kept on disk for the next call. `model` is the base, by default the adapter's or the bundled English one.

    Raises DataError for files and columns that cannot be used and where no text is left, ConfigError for numbers out of
    range and an adapter of another task or of pairs.
    """
    for name, value in {"n": n, "sample": sample}.items():
        if value < 1:
            raise ConfigError(say("{name} must be 1 or more, got {value}", name=name, value=value))
    if adapter is not None:
        multi_label = _of_classifier(Path(adapter).expanduser())
    table = read_table(pool, encoding) if isinstance(pool, str) else _table_of(pool)
    rows, known = _pool(table, text, label, multi_label)
    if data is not None:
        known += labelled_examples(read_table(data, encoding), text, label, multi_label)
    known = list(deduplicated(known))
    done = {normalised(one.text) for one in known}
    if not rows.keys() - done:
        raise DataError(
            say("every text of {source} is labelled already; give texts without labels", source=table.source)
        )
    notes = table.notes
    if len(rows) > sample:
        notes = (*notes, say("{sample} of the {count} texts are looked at", sample=sample, count=len(rows)))
        rows = {key: rows[key] for key in _drawn(list(rows), sample, seed)}
    chosen = _chosen(
        rows, done, list(subset(known, sample, seed)) if known else [], n, adapter, model, multi_label, seed
    )
    return NextTexts(tuple(chosen), len(rows.keys() - done), len(known), notes)


def _of_classifier(folder: Path) -> bool:
    """Return whether an adapter gives several labels; ConfigError for one of another task."""
    from tunedeck.formats.manifest import read_manifest

    manifest = read_manifest(folder)
    if manifest is None or manifest.task.get("kind") != "classify":
        task = say("unknown") if manifest is None else manifest.task.get("kind")
        raise ConfigError(
            say(
                "texts to label are chosen for the task classify; {path} is an adapter for {task}",
                path=folder,
                task=task,
            )
        )
    if manifest.task.get("pairs"):
        raise ConfigError(say("texts to label are single texts; {path} is an adapter for pairs of texts", path=folder))
    return bool(manifest.task.get("multi_label"))


def _table_of(texts: Sequence[str]) -> Table:
    return Table(say("the list of texts"), (TEXT,), [{TEXT: one} for one in texts])


def _pool(
    table: Table, text: str | None, label: str | None, multi_label: bool
) -> tuple[dict[str, NextText], list[Example]]:
    """Return the different texts of a pool by their normalised text, and its labelled rows."""
    found = [label] if label in table.columns else usual_columns(table, LABEL_COLUMNS)
    label_column = found[0] if found else None
    text_column = text_column_of(table, text, label_column)
    rows: dict[str, NextText] = {}
    known = []
    for row in labelled_rows(table, text_column, label_column, multi_label):
        rows.setdefault(normalised(row.text), NextText(row.number, row.text))
        if row.labels:
            known.append(Example(row.text, row.labels))
    return rows, known


def _drawn(keys: list[str], count: int, seed: int) -> list[str]:
    import random

    places = sorted(random.Random(seed).sample(range(len(keys)), count))
    return [keys[place] for place in places]


def _chosen(
    rows: dict[str, NextText],
    done: set[str],
    known: list[Example],
    n: int,
    adapter: str | Path | None,
    model: str | None,
    multi_label: bool,
    seed: int,
) -> list[NextText]:
    """Return the chosen texts of `rows` without those that are `done`."""
    import torch

    from tunedeck.tasks.classify.selection import choose_rows, margins

    names = label_names(known)
    deck = _deck(adapter, model, names, multi_label)
    vectors = _vectors(deck, {key: one.text for key, one in rows.items()})
    left = [key for key in rows if key not in done]
    inputs = torch.stack([vectors[key] for key in left])
    chances: torch.Tensor | None = None
    if adapter is not None:
        (name,) = deck.adapters
        names = tuple(deck.label_names(name))
        answers = deck.predict([rows[key].text for key in left], adapter=name)
        chances = torch.tensor([[one.probabilities[label] for label in names] for one in answers])
    elif len(names) > 1:
        vectors |= _vectors(deck, {normalised(one.text): one.text for one in known if normalised(one.text) not in rows})
        chances = _by_head(
            torch.stack([vectors[normalised(one.text)] for one in known]), known, names, multi_label, inputs
        )
    sure = None if chances is None else margins(chances, multi_label=multi_label)
    places = choose_rows(inputs, n, sure, seed)
    texts = [rows[left[place]] for place in places]
    if chances is None:
        return texts
    return [
        _with_guess(one, chances[place].tolist(), names, multi_label) for one, place in zip(texts, places, strict=True)
    ]


def _deck(adapter: str | Path | None, model: str | None, names: tuple[str, ...], multi_label: bool) -> Deck:
    from tunedeck.deck.deck import Deck
    from tunedeck.tasks.classify.task import Classify

    if adapter is not None:
        return Deck.open(adapter, model=model)
    return Deck.load(
        model or DEFAULT_MODEL, Classify(labels=names if len(names) > 1 else _ANY, multi_label=multi_label)
    )


def _vectors(deck: Deck, texts: dict[str, str]) -> dict[str, torch.Tensor]:
    """Return the base's vector of each text."""
    from tunedeck.tasks.classify.doubts import base_vectors

    return dict(zip(texts, base_vectors(deck, list(texts.values()), _ANY, MAX_LENGTH), strict=True)) if texts else {}


def _by_head(
    vectors: torch.Tensor, known: list[Example], names: tuple[str, ...], multi_label: bool, inputs: torch.Tensor
) -> torch.Tensor:
    """Return probabilities (rows, labels) of inputs by a head on the vectors of labelled examples."""
    from tunedeck.tasks.classify.metrics import targets_of
    from tunedeck.tasks.linear_probe import fit_linear_head

    targets = targets_of(names, [one.labels for one in known], multi_label)
    logits = fit_linear_head(vectors, targets, len(names), multi_label=multi_label)(inputs)
    return logits.sigmoid() if multi_label else logits.softmax(-1)


def _with_guess(one: NextText, chances: list[float], names: tuple[str, ...], multi_label: bool) -> NextText:
    best = max(range(len(names)), key=chances.__getitem__)
    likely = (
        [name for name, chance in zip(names, chances, strict=True) if chance >= 0.5] if multi_label else [names[best]]
    )
    return NextText(one.row, one.text, ", ".join(likely), chances[best])


def _rounded(probability: float | None) -> float | None:
    return None if probability is None else round(probability, 4)
