"""Dividing examples: repeats removed, a held-out part, a smaller part, all the same on every machine."""

from __future__ import annotations

import heapq
import random
import re
from collections.abc import Sequence

from tunedeck.core.errors import ConfigError, DataError
from tunedeck.core.i18n import say
from tunedeck.data.labelled import Example

_RETWEET_LINK_OR_MENTION = re.compile(r"\brt\s+@\w+|https?://\S+|www\.\S+|@\w+")
_WORD = re.compile(r"[^\W_]+")


def normalised(text: str) -> str:
    """The text as it counts for equality: two texts that differ only in what is dropped here are repeats.

    Lower case, without `RT @user:`, links, @mentions and whatever is neither letter nor digit; a text that has nothing
    else stays as it is.
    """
    words = text.lower()
    if "@" in words or "http" in words or "www." in words:  # most texts have none, and the search is slow
        words = _RETWEET_LINK_OR_MENTION.sub(" ", words)
    return " ".join(_WORD.findall(words)) or text.strip()


def deduplicated(examples: Sequence[Example]) -> tuple[list[Example], int]:
    """The first of each group of equal normalised texts, and how many examples were removed.

    The first one's labels stand, also where a later repeat is labelled otherwise.
    """
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(normalised(example.text), example)
    return list(first.values()), len(examples) - len(first)


def without_overlap(train: Sequence[Example], evaluation: Sequence[Example]) -> tuple[list[Example], int]:
    """Training examples whose normalised text is not in the evaluation set, and how many were removed."""
    held_out = {normalised(example.text) for example in evaluation}
    kept = [example for example in train if normalised(example.text) not in held_out]
    return kept, len(train) - len(kept)


def split(examples: Sequence[Example], eval_fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Training and evaluation examples, each set of labels divided in proportion, both in their original order.

    Every set of labels keeps at least one example in training. Raises ConfigError for a fraction outside 0 to 1 and
    DataError when nothing can be held out.
    """
    if not 0 < eval_fraction < 1:
        raise ConfigError(say("eval_fraction must lie between 0 and 1, got {value}", value=eval_fraction))
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
    train = [example for number, example in enumerate(examples) if number not in held_out]
    return train, [example for number, example in enumerate(examples) if number in held_out]


def subset(examples: Sequence[Example], size: int, seed: int) -> list[Example]:
    """At most `size` examples in their original order, each set of labels in proportion and, if there is room, present.

    Raises ConfigError for a size below 1.
    """
    if size < 1:
        raise ConfigError(say("the number of examples must be 1 or more, got {size}", size=size))
    groups = _by_labels(examples)
    sizes = _shares([len(group) for group in groups], size, least=1 if size >= len(groups) else 0)
    chosen = _drawn(groups, sizes, seed)
    return [example for number, example in enumerate(examples) if number in chosen]


def _by_labels(examples: Sequence[Example]) -> list[list[int]]:
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, example in enumerate(examples):
        groups.setdefault(tuple(sorted(example.labels)), []).append(number)
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


def _drawn(groups: list[list[int]], sizes: list[int], seed: int) -> set[int]:
    source = random.Random(seed)
    return {number for group, size in zip(groups, sizes, strict=True) for number in source.sample(group, size)}
