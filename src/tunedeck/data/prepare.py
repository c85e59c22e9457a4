"""Preparing examples for a run: repeats removed, a held-out part, a smaller part, a digest; the same on every
machine.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np

from tunedeck.core.errors import ConfigError, DataError
from tunedeck.core.i18n import say
from tunedeck.data.labelled import Example, label_names
from tunedeck.data.settings import DataSettings
from tunedeck.data.stored import Numbers, StoredExamples, deduplicated_places, text_digests

E = TypeVar("E")


class LabelledText(Protocol):
    """A text with labels: a class or several, or the kinds of its entities."""

    @property
    def text(self) -> str:
        """The text."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Its labels."""
        ...


L = TypeVar("L", bound=LabelledText)
_RETWEET_LINK_OR_MENTION = re.compile(r"\brt\s+@\w+|https?://\S+|www\.\S+|@\w+")
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Steps(Generic[E]):
    """How one form of examples is prepared."""

    deduplicate: Callable[[Sequence[E]], Sequence[E]]
    """The first of each group of repeats."""
    hold_out: Callable[[Sequence[E]], tuple[Sequence[E], Sequence[Any]]]
    """Training and evaluation examples, without overlap."""
    remove_overlap: Callable[[Sequence[E], Sequence[Any]], Sequence[E]]
    """The training examples that are not among those to evaluate on."""
    subset: Callable[[Sequence[Any], int], Sequence[Any]]
    """At most that many examples."""
    digest: Callable[[Sequence[E]], str]


@dataclass(frozen=True, slots=True)
class Prepared(Generic[E]):
    """Examples to train on and to evaluate on, how many were left out between reading and splitting, and a digest."""

    train: Sequence[E]
    evaluation: Sequence[Any]
    left_out: int
    sha256: str
    """The digest of the training examples."""


def prepare(
    examples: Sequence[E], held_out: Sequence[Any] | None, settings: DataSettings, steps: Steps[E]
) -> Prepared[E]:
    """Remove repeats, hold examples out or keep the training ones apart from `held_out`, and take the sizes asked for.

    Raises DataError when nothing is left to train on or to evaluate on.
    """
    train = steps.deduplicate(examples) if settings.deduplicate else examples
    if held_out is None:
        train, evaluation = steps.hold_out(train)
    else:
        train, evaluation = steps.remove_overlap(train, held_out), held_out
    left_out = len(examples) - len(train) - (len(evaluation) if held_out is None else 0)
    if not train or not evaluation:
        raise DataError(say("{source} leaves nothing to train on or nothing to evaluate on", source=settings.train))
    if settings.train_size is not None and settings.train_size < len(train):
        train = steps.subset(train, settings.train_size)
    if settings.eval_size is not None and settings.eval_size < len(evaluation):
        evaluation = steps.subset(evaluation, settings.eval_size)
    return Prepared(train, evaluation, left_out, steps.digest(train))


def normalised(text: str) -> str:
    """Return the text as it counts for equality: two texts that differ only in what is dropped here are repeats.

    Lower case, without `RT @user:`, links, @mentions and all characters that are neither letters nor digits; a text
    that has nothing else stays as it is.
    """
    words = text.lower()
    if "@" in words or "http" in words or "www." in words:  # most texts have none, and the search is slow
        words = _RETWEET_LINK_OR_MENTION.sub(" ", words)
    return " ".join(_WORD.findall(words)) or text.strip()


def deduplicated(examples: Sequence[L]) -> Sequence[L]:
    """Return the first of each group of equal normalised texts.

    The labels of the first one are kept, even if a later repeat has others.
    """
    if isinstance(examples, StoredExamples):
        places = deduplicated_places((normalised(example.text) for example in examples), len(examples))
        return cast(Sequence[L], examples.select(places))
    first: dict[str, L] = {}
    for example in examples:
        first.setdefault(normalised(example.text), example)
    return list(first.values())


def without_overlap(train: Sequence[L], evaluation: Sequence[L]) -> Sequence[L]:
    """Return training examples whose normalised text is not in the evaluation set."""
    if isinstance(train, StoredExamples):
        held_out, own = (
            text_digests((normalised(example.text) for example in part), len(part)) for part in (evaluation, train)
        )
        return cast(Sequence[L], train.select(np.flatnonzero(~np.isin(own, held_out))))
    texts = {normalised(example.text) for example in evaluation}
    return [example for example in train if normalised(example.text) not in texts]


def split(examples: Sequence[L], eval_fraction: float, seed: int) -> tuple[Sequence[L], Sequence[L]]:
    """Return training and evaluation examples, each set of labels divided in proportion, both in their original order.

    Every set of labels keeps at least one example in training. Raises ConfigError for a fraction outside 0 to 1 and
    DataError when nothing can be held out.
    """
    if not 0 < eval_fraction < 1:
        raise ConfigError(say("eval_fraction must be between 0 and 1, got {value}", value=eval_fraction))
    groups = _by_labels(examples)
    wanted = max(1, round(len(examples) * eval_fraction))
    sizes = _shares([len(group) - 1 for group in groups], wanted, least=0)
    if not any(sizes):
        raise DataError(
            say(
                "{count} examples are too few to hold some out for evaluation; every label needs two or more",
                count=len(examples),
            )
        )
    held_out = _drawn(groups, sizes, seed)
    train = np.ones(len(examples), bool)
    train[held_out] = False
    return _chosen(examples, np.flatnonzero(train)), _chosen(examples, held_out)


def subset(examples: Sequence[L], size: int, seed: int) -> Sequence[L]:
    """At most `size` examples in their original order, each set of labels in proportion and, if there is room, present.

    Raises ConfigError for a size below 1.
    """
    if size < 1:
        raise ConfigError(say("the number of examples must be 1 or more, got {size}", size=size))
    groups = _by_labels(examples)
    sizes = _shares([len(group) for group in groups], size, least=1 if size >= len(groups) else 0)
    return _chosen(examples, _drawn(groups, sizes, seed))


def _chosen(examples: Sequence[L], places: Numbers) -> Sequence[L]:
    if isinstance(examples, StoredExamples):
        return cast(Sequence[L], examples.select(places))
    return [examples[place] for place in places.tolist()]


def _by_labels(examples: Sequence[L]) -> list[Numbers]:
    """Return the places of the examples with each set of labels, in any order of the labels in it."""
    if isinstance(examples, StoredExamples):
        stored: dict[tuple[str, ...], list[Numbers]] = defaultdict(list)
        for labels, places in examples.by_labels().items():
            stored[tuple(sorted(labels))].append(places)
        return [np.sort(np.concatenate(stored[labels])) for labels in sorted(stored)]
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, example in enumerate(examples):
        groups[tuple(sorted(example.labels))].append(number)
    return [np.array(groups[labels]) for labels in sorted(groups)]


def one_of_each(examples: Sequence[Example]) -> Sequence[Example]:
    """Return the first example of each set of labels where the examples are on disk, else all: their labels tell as
    much.
    """
    if isinstance(examples, StoredExamples):
        return [examples[int(places[0])] for places in examples.by_labels().values()]
    return examples


def _shares(available: list[int], total: int, least: int) -> list[int]:
    """Divide `total` in proportion to what is available.

    Sainte-Laguë's method: the next one goes where available / (2 given + 1) is largest.
    """
    given = [min(least, count) for count in available]
    left = total - sum(given)
    queue = [
        (-count / (2 * taken + 1), place) for place, (count, taken) in enumerate(zip(available, given, strict=True))
    ]
    heapq.heapify(queue)
    while queue and left > 0:
        _, place = heapq.heappop(queue)
        if given[place] < available[place]:
            given[place] += 1
            left -= 1
            heapq.heappush(queue, (-available[place] / (2 * given[place] + 1), place))
    return given


def _drawn(groups: list[Numbers], sizes: list[int], seed: int) -> Numbers:
    """Return places drawn from each group, in order."""
    source = random.Random(seed)
    drawn = [np.zeros(0, np.int64)]
    for group, size in zip(groups, sizes, strict=True):
        drawn.append(group[np.array(source.sample(range(len(group)), size), np.int64)])
    return np.sort(np.concatenate(drawn))


@dataclass(frozen=True, slots=True)
class Statistics:
    """Size, examples per label in the order of `label_names`, and text lengths in characters."""

    size: int
    label_counts: dict[str, int]
    mean_characters: float
    median_characters: float
    p95_characters: int
    max_characters: int


def describe(examples: Sequence[Example]) -> Statistics:
    """Count and measure the examples; the 95th percentile is the nearest rank. DataError when there are none."""
    if not examples:
        raise DataError(say("there are no examples to describe"))
    counts: Counter[str] = Counter()
    if isinstance(examples, StoredExamples):
        lengths = np.sort(examples.lengths())
        for labels, places in examples.by_labels().items():
            counts.update(dict.fromkeys(labels, len(places)))
    else:
        lengths = np.sort(np.array([len(example.text) for example in examples]))
        counts.update(label for example in examples for label in example.labels)
    return Statistics(
        size=len(examples),
        label_counts={name: counts[name] for name in label_names(one_of_each(examples))},
        mean_characters=float(lengths.mean()),
        median_characters=float(np.median(lengths)),
        p95_characters=int(lengths[math.ceil(0.95 * len(lengths)) - 1]),
        max_characters=int(lengths[-1]),
    )


def digest(examples: Iterable[Example]) -> str:
    """SHA-256 over texts and labels in their order, as 64 hexadecimal digits."""
    hashed = hashlib.sha256()
    for example in examples:
        hashed.update(json.dumps([example.text, example.labels]).encode("ascii") + b"\n")
    return hashed.hexdigest()
