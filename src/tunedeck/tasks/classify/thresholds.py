"""The least probability with which each label is right often enough, found on held-out texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.core.reliability import Answered, answered, fewest_right


@dataclass(frozen=True, slots=True)
class LabelThreshold:
    """One label's threshold, None where it is never answered, and the held-out texts that were answered with it."""

    label: str
    threshold: float | None
    shared: bool
    """Whether the threshold is that of all labels with too few texts of their own."""
    held_out: Answered


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The thresholds of an adapter for one precision, and what they do on the held-out texts."""

    precision: float
    confidence: float
    labels: tuple[LabelThreshold, ...]
    texts: int
    answered_texts: int
    """Texts with an answer; of a multi-label adapter those with at least one label."""
    all_labels: Answered
    """The answers of all labels together."""
    none_of_these: float | None = None
    """The share of the held-out texts that are far from all training texts; None where that was not asked."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


def choose_thresholds(
    chances: Sequence[Mapping[str, float]],
    wanted: Sequence[Sequence[str]],
    *,
    multi_label: bool,
    precision: float,
    confidence: float,
) -> Thresholds:
    """Choose the lowest threshold of each label at which its interval on these texts begins at `precision` or above.

    `chances` are the probabilities of every label for each text, `wanted` its labels. Labels without such a threshold
    share one, chosen on their texts together. DataError where no label has a threshold.
    """
    found = _scored(chances, wanted, multi_label)
    limits = {label: _lowest(pairs, precision, confidence) for label, pairs in found.items()}
    rest = [label for label, limit in limits.items() if limit is None]
    common = _lowest([pair for label in rest for pair in found[label]], precision, confidence)
    limits |= dict.fromkeys(rest, common)
    if all(limit is None for limit in limits.values()):
        raise DataError(
            say(
                "no threshold reaches a precision of {precision:g} on these {count} texts; it takes {fewest} right "
                "answers without a mistake at least: give more held-out texts, or a lower --precision",
                precision=precision,
                count=len(chances),
                fewest=fewest_right(precision, confidence),
            )
        )
    rows = []
    for label, pairs in found.items():
        given = [right for chance, right in pairs if _passes(chance, limits[label])]
        rows.append(LabelThreshold(label, limits[label], label in rest, answered(len(given), sum(given), confidence)))
    total, right = sum(row.held_out.given for row in rows), sum(row.held_out.right for row in rows)
    texts = sum(any(_passes(chance, limits[label]) for label, chance in _asked(one, multi_label)) for one in chances)
    return Thresholds(precision, confidence, tuple(rows), len(chances), texts, answered(total, right, confidence))


def _scored(
    chances: Sequence[Mapping[str, float]], wanted: Sequence[Sequence[str]], multi_label: bool
) -> dict[str, list[tuple[float, bool]]]:
    """Return (probability, whether it is right) of each text that would be answered with a label, by label."""
    found: dict[str, list[tuple[float, bool]]] = {label: [] for label in chances[0]}
    for one, labels in zip(chances, wanted, strict=True):
        for label, chance in _asked(one, multi_label):
            found[label].append((chance, label in labels))
    return found


def _asked(chances: Mapping[str, float], multi_label: bool) -> list[tuple[str, float]]:
    return list(chances.items()) if multi_label else [max(chances.items(), key=lambda one: one[1])]


def _passes(chance: float, limit: float | None) -> bool:
    return limit is not None and chance >= limit


def _lowest(pairs: Sequence[tuple[float, bool]], precision: float, confidence: float) -> float | None:
    """Return the lowest threshold at which the interval begins at the precision, midway to the next probability."""
    ordered = sorted(pairs, reverse=True)
    chosen, right = None, 0
    for place, (chance, is_right) in enumerate(ordered, 1):
        right += is_right
        below = ordered[place][0] if place < len(ordered) else chance
        if place < len(ordered) and below == chance:
            continue
        if answered(place, right, confidence).low >= precision:
            chosen = (chance + below) / 2
    return chosen
