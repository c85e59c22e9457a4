"""The sentences of a report, besides its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunedeck.comparison.report.fonts import available_fonts
from tunedeck.comparison.report.recommend import metric_name
from tunedeck.comparison.report.values import ComparisonValues
from tunedeck.core.i18n import language, say

if TYPE_CHECKING:
    from tunedeck.tasks.base import Comparing


def words(comparison: ComparisonValues) -> dict[str, str]:
    """Return headings and captions by the names that the templates use."""
    data, shown = comparison.data, _comparing(comparison)
    return {
        "kicker": say("Tunedeck · methods compared"),
        "title": title(comparison),
        "lede": say(
            "{train:,} examples to train on, {held_out:,} held out; {budget}; {seeds}; on {machine}, {dtype}.",
            train=data.train,
            held_out=data.held_out,
            budget=comparison.budget,
            seeds=seeds_text(comparison),
            machine=comparison.repeat.machine,
            dtype=comparison.repeat.dtype,
        ),
        "numbers": say("The numbers"),
        "labels": say("The labels of {name}", name=comparison.best.name),
        "label": say("label"),
        "mistakes": say("The worst mistakes of {name}", name=comparison.best.name),
        "mistakes_note": shown.mistakes_note() if shown.mistakes_note else say("Held-out texts, the worst first."),
        "text": say("text"),
        "wanted": say("expected"),
        "answered": say("predicted"),
        "score": shown.score_name() if shown.score_name else say("score"),
        "repeat": say("How to repeat it"),
        "notes": say("How to read it"),
    }


def _comparing(comparison: ComparisonValues) -> Comparing:
    from tunedeck.tasks.registry import comparing_of  # loads torch, which reading a report does not need

    return comparing_of(comparison.task)


def figure_title(comparison: ComparisonValues, figure: str) -> str:
    """Return the heading over a figure, by its name."""
    return {
        "quality-size": say("Quality against size"),
        "quality-cost": say("Quality against cost"),
        "quality-time": say("Quality against training time"),
        "training-loss": say("Training loss"),
        "held-out": say("Held-out quality while training"),
        "reliability": say("Probabilities of {name}, before and after its temperature", name=comparison.best.name),
        "confusions": say("Confusions of {name}", name=comparison.best.name),
    }[figure]


def title(comparison: ComparisonValues) -> str:
    """Return the summary of the entries, data and base."""
    return say("{model} on {data}", model=comparison.model, data=comparison.data.source)


def seeds_text(comparison: ComparisonValues) -> str:
    """Return `seed 0`, or `seeds 0, 1, 2`."""
    numbers = ", ".join(map(str, comparison.seeds))
    if len(comparison.seeds) == 1:
        return say("seed {numbers}", numbers=numbers)
    return say("seeds {numbers}", numbers=numbers)


def facts(comparison: ComparisonValues) -> list[tuple[str, str]]:
    """Return the versions and settings that a repetition needs besides the command."""
    data, price = comparison.data, comparison.price
    found = [
        (say("data"), data.source),
        (say("digest of the training examples"), f"sha256 {data.sha256}"),
        (say("seeds"), ", ".join(map(str, comparison.seeds))),
        (say("budget"), comparison.budget),
        (say("machine"), f"{comparison.repeat.machine}, {comparison.repeat.device}, {comparison.repeat.dtype}"),
        (say("versions"), ", ".join(f"{name} {number}" for name, number in comparison.repeat.versions.items())),
    ]
    if price is not None:
        amount, currency, source = price.per_hour, price.currency, price.source
        an_hour = say("{amount:g} {currency} an hour ({source})", amount=amount, currency=currency, source=source)
        found.append((say("price"), an_hour))
    return found


def notes(comparison: ComparisonValues) -> list[str]:
    """Return the notes on the meaning and the limits of the numbers."""
    found = [
        _interval_note(comparison),
        say(
            "Every run keeps its best state by {metric} on the held-out examples, which makes all results slightly "
            "optimistic, equally for every method.",
            metric=metric_name(comparison.metric),
        ),
    ]
    if comparison.search:
        found.append(
            say(
                "The search chose learning rate and size on a part of the training examples; the held-out "
                "ones were not used for it."
            )
        )
    if comparison.price is None:
        found.append(say("No price per hour was given or known, so the runs have no cost: --price-per-hour."))
    found += _plan_notes(comparison)
    found.append(
        say(
            "Prediction was timed here after training, all entries in turn, medians; the base model takes "
            "{latency:.1f} ms for one text and reaches {rate:,.0f} texts/s.",
            latency=comparison.base_latency_ms,
            rate=comparison.base_texts_per_s,
        )
    )
    if (latency_note := _comparing(comparison).latency_note) is not None:
        found.append(latency_note())
    found.append(
        say("Switching is what one text takes longer right after another adapter's; near zero, its sign is noise.")
    )
    if language() != available_fonts().language:
        found.append(
            say(
                "This system has no Chinese font for figures, so their words are English; install one such as Noto "
                "Sans CJK."
            )
        )
    return found


def _plan_notes(comparison: ComparisonValues) -> list[str]:
    planned = [forecast for entry in comparison.entries for forecast in entry.planned]
    if not planned:
        return []
    note = say(
        "“As planned” is what tunedeck plan predicts for the first run, with the range; ! marks values outside it."
    )
    reasons = (forecast.reason for forecast in planned if forecast.reason and not forecast.inside)
    return [note, *dict.fromkeys(reasons)]


def _interval_note(comparison: ComparisonValues) -> str:
    interval = comparison.entries[0].interval
    if interval is None:
        return say("One seed, and a metric that is not a mean over examples: there is no interval. Add --seeds 3.")
    if interval.source == "seeds":
        return say(
            "The 95% interval is over {count} seeds (Student's t): what another seed would give on the same held-out "
            "examples. “Behind the best” compares seed by seed; if it contains zero, the two cannot be told apart.",
            count=interval.count,
        )
    return say(
        "The 95% interval is over the {count:,} held-out examples (bootstrap), with one seed: what other texts of "
        "this kind would give. "
        "“Behind the best” compares example by example; if it contains zero, the two cannot be told apart. What "
        "another seed would change is in neither: --seeds 3.",
        count=interval.count,
    )
