"""What a set of examples looks like, and a digest that tells two sets apart."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.data.labelled import Example, label_names


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
