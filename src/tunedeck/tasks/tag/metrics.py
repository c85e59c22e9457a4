"""How well entities are found, as conlleval and seqeval count, and what went wrong with the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from tunedeck.tasks.tag.reading import Span

Spans: TypeAlias = Sequence[Span]
ERRORS = ("missed", "invented", "wrong_border", "wrong_label")
"""The kinds of errors."""


@dataclass(slots=True)
class Counts:
    """Entities that are right (borders and label), that the data has, and that were found."""

    right: int = 0
    wanted: int = 0
    found: int = 0

    @property
    def precision(self) -> float:
        """The share of the found entities that are right; 0 where none was found."""
        return self.right / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """The share of the data's entities that were found; 0 where it has none."""
        return self.right / self.wanted if self.wanted else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.right / (self.wanted + self.found) if self.wanted + self.found else 0.0


@dataclass(slots=True)
class Score:
    """The counts of many texts in all and by kind of entity, and the errors by kind of error."""

    total: Counts = field(default_factory=Counts)
    by_label: dict[str, Counts] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)


def score_of(wanted: Sequence[Spans], found: Sequence[Spans]) -> Score:
    """Count the entities of texts, those that the data has beside those that were found."""
    score = Score()
    for expected, seen in zip(wanted, found, strict=True):
        right = set(expected) & set(seen)
        for spans, name in ((expected, "wanted"), (seen, "found"), (right, "right")):
            for span in spans:
                own = score.by_label.setdefault(span.label, Counts())
                for counts in (own, score.total):
                    setattr(counts, name, getattr(counts, name) + 1)
        score.errors.update(kind for kind, _, _ in errors_of(expected, seen))
    return score


def errors_of(wanted: Spans, found: Spans) -> list[tuple[str, Span | None, Span | None]]:
    """Return what is wrong in one text: (kind, what the data has, what was found), each entity in one error at most.

    An entity found elsewhere in part is a wrong border; at the same place or in part with another label, a wrong label.
    """
    left = [span for span in wanted if span not in found]
    seen = [span for span in found if span not in wanted]
    errors: list[tuple[str, Span | None, Span | None]] = []
    rules: tuple[tuple[str, Callable[[Span, Span], bool]], ...] = (
        ("wrong_label", lambda one, other: one[:2] == other[:2]),
        ("wrong_border", lambda one, other: one.label == other.label and _overlap(one, other)),
        ("wrong_label", _overlap),
    )
    for kind, fits in rules:
        for one in tuple(left):
            other = next((other for other in seen if fits(one, other)), None)
            if other is not None:
                errors.append((kind, one, other))
                left.remove(one)
                seen.remove(other)
    return [*errors, *(("missed", one, None) for one in left), *(("invented", None, other) for other in seen)]


def _overlap(one: Span, other: Span) -> bool:
    return one.start < other.end and other.start < one.end
