"""Which examples form a batch: neighbours in length, so that little is padded, in an order that changes every epoch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence

BUCKET_BATCHES = 50


def length_batches(
    lengths: Sequence[int], batch_size: int, seed: int, weights: Sequence[float] | None = None
) -> list[list[int]]:
    """Return indices of one epoch's batches, every example once; with `weights`, as many examples drawn by them, with
    replacement.

    Examples are shuffled, each run of BUCKET_BATCHES batches is sorted by length and cut, and the batches are shuffled
    again. The same seed gives the same batches on every machine.
    """
    chooser = random.Random(seed)
    order = list(range(len(lengths)))
    if weights is None:
        chooser.shuffle(order)
    else:
        order = chooser.choices(order, weights, k=len(order))
    batches: list[list[int]] = []
    for start in range(0, len(order), batch_size * BUCKET_BATCHES):
        bucket = sorted(order[start : start + batch_size * BUCKET_BATCHES], key=lambda index: lengths[index])
        batches += [bucket[at : at + batch_size] for at in range(0, len(bucket), batch_size)]
    chooser.shuffle(batches)
    return batches


def balancing_weights(labels: Sequence[Sequence[str]]) -> list[float]:
    """Return a weight for each example with which all labels are drawn equally often.

    An example with several labels has the weight of its rarest one; those without labels count as one more label.
    """
    counts = Counter(label for own in labels for label in (own or (None,)))
    return [1 / min(counts[label] for label in (own or (None,))) for own in labels]


def batches_by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yield the indices of batches from the shortest example to the longest, so that little is padded."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
