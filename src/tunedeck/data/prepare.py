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
import statistics
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

from tunedeck.core.errors import ConfigError, DataError
from tunedeck.core.i18n import say
from tunedeck.data.labelled import Example, label_names
from tunedeck.data.settings import DataSettings
from tunedeck.data.stored import StoredExamples, deduplicated_places

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
        places = deduplicated_places(normalised(example.text) for example in examples)
        return cast(Sequence[L], examples.select(places))
    first: dict[str, L] = {}
    for example in examples:
        first.setdefault(normalised(example.text), example)
    return list(first.values())


def without_overlap(train: Sequence[L], evaluation: Sequence[L]) -> Sequence[L]:
    """Return training examples whose normalised text is not in the evaluation set."""
    held_out = {normalised(example.text) for example in evaluation}
    return _chosen(train, [n for n, example in enumerate(train) if normalised(example.text) not in held_out])


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
    train = array("q", (number for number in range(len(examples)) if number not in held_out))
    return _chosen(examples, train), _chosen(examples, sorted(held_out))


def subset(examples: Sequence[L], size: int, seed: int) -> Sequence[L]:
    """At most `size` examples in their original order, each set of labels in proportion and, if there is room, present.

    Raises ConfigError for a size below 1.
    """
    if size < 1:
        raise ConfigError(say("the number of examples must be 1 or more, got {size}", size=size))
    groups = _by_labels(examples)
    sizes = _shares([len(group) for group in groups], size, least=1 if size >= len(groups) else 0)
    chosen = _drawn(groups, sizes, seed)
    return _chosen(examples, sorted(chosen))


def _chosen(examples: Sequence[L], places: Sequence[int]) -> Sequence[L]:
    if isinstance(examples, StoredExamples):
        return cast(Sequence[L], examples.select(places))
    return [examples[place] for place in places]


def _by_labels(examples: Sequence[L]) -> list[Sequence[int]]:
    groups: dict[tuple[str, ...], array[int]] = defaultdict(lambda: array("q"))
    for number, example in enumerate(examples):
        groups[tuple(sorted(example.labels))].append(number)
    return [groups[labels] for labels in sorted(groups)]


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


def _drawn(groups: list[Sequence[int]], sizes: list[int], seed: int) -> set[int]:
    source = random.Random(seed)
    return {number for group, size in zip(groups, sizes, strict=True) for number in source.sample(group, size)}


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
    lengths = sorted(len(example.text) for example in examples)
    counts = Counter(label for example in examples for label in example.labels)
    return Statistics(
        size=len(examples),
        label_counts={name: counts[name] for name in label_names(examples)},
        mean_characters=statistics.fmean(lengths),
        median_characters=statistics.median(lengths),
        p95_characters=lengths[math.ceil(0.95 * len(lengths)) - 1],
        max_characters=lengths[-1],
    )


def digest(examples: Iterable[Example]) -> str:
    """SHA-256 over texts and labels in their order, as 64 hexadecimal digits."""
    hashed = hashlib.sha256()
    for example in examples:
        hashed.update(json.dumps([example.text, example.labels]).encode("ascii") + b"\n")
    return hashed.hexdigest()
