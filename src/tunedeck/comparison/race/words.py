"""The sentences and tables of a race."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from tunedeck.comparison.race.contest import Stop
from tunedeck.comparison.race.values import Raced, RaceValues
from tunedeck.comparison.report.fonts import available_fonts
from tunedeck.comparison.report.recommend import metric_name
from tunedeck.comparison.report.values import Interval
from tunedeck.core.i18n import language, say
from tunedeck.core.units import duration, format_bytes

NOTHING = "–"


def share_text(share: float) -> str:
    """Return a share of a run: 1/27, or the whole run."""
    return say("the whole run") if share == 1 else f"1/{round(1 / share)}"


def reason_text(name: str, stop: Stop, shares: Sequence[float]) -> str:
    """Return why a candidate went no further, in a sentence."""
    at = share_text(shares[stop.rung])
    if stop.reason == "worse":
        return say("{name} stops at {share}: significantly worse than {rival}", name=name, share=at, rival=stop.rival)
    if stop.reason == "failed":
        return say("{name} failed before {share}: {reason}", name=name, share=at, reason=stop.text)
    if stop.reason == "not started":
        return say("{name} did not start: the time did not suffice for it", name=name)
    if stop.reason == "not best":
        return say("{name} ended at {share}, behind {rival}", name=name, share=at, rival=stop.rival)
    if not stop.rival:
        return say("{name} is paused at {share}: the time is up", name=name, share=at)
    return say(
        "{name} is paused at {share}: others were ahead, or first in the order, without a significant difference",
        name=name,
        share=at,
    )


def ended_text(race: RaceValues) -> str:
    """Return why the race ended."""
    return {
        "clear": say("It ended when all others in it were significantly worse."),
        "smaller": say("It ended when the leaders did not differ significantly and the smallest of them was ahead."),
        "stable": say("It ended when the ranking of the leaders no longer changed."),
        "top": say("It ended when the last candidates had been trained to their end."),
        "time": say("It ended because the time was up."),
        "failed": say("It ended because no candidate could be trained."),
    }[race.ended]


def verdict_text(race: RaceValues) -> str:
    """Return who won, how good it is on untouched examples, and by how much the race overstates it."""
    verdict, metric, interval = race.verdict, metric_name(race.metric), _span(race.verdict.interval)
    value, count = f"{verdict.untouched:.3f}", verdict.interval.count
    if race.winner is None:
        found = say(
            "No candidate was better than a head on the frozen base: take that ({metric} {value} on {count:,} "
            "untouched examples, {interval}).",
            metric=metric,
            value=value,
            count=count,
            interval=interval,
        )
    else:
        found = say(
            "Take {name}: {metric} {value} on {count:,} untouched examples ({interval}).",
            name=verdict.name,
            metric=metric,
            value=value,
            count=count,
            interval=interval,
        )
    gap = "" if language() == "zh" else " "  # Chinese sentences follow each other without a space
    return gap.join([found, *_gain(race), _overstated(race), ended_text(race)])


def _gain(race: RaceValues) -> list[str]:
    gain, verdict = race.verdict.gain, race.verdict
    if gain is None or verdict.floor is None:
        return []
    if gain.low + gain.high <= 0:
        return [
            say(
                "On these, a head on the frozen base is no worse ({floor}; the difference is {points}).",
                points=_signed(gain),
                floor=f"{verdict.floor:.3f}",
            )
        ]
    return [
        say(
            "That is {points} better than a head on the frozen base ({floor}).",
            points=_signed(gain),
            floor=f"{verdict.floor:.3f}",
        )
    ]


def _overstated(race: RaceValues) -> str:
    verdict = race.verdict
    if verdict.overstated.low + verdict.overstated.high < 0:
        return say(
            "On the examples that chose it, it had {raced}: the choice did not overstate it ({points}).",
            raced=f"{verdict.raced:.3f}",
            points=_signed(verdict.overstated),
        )
    return say(
        "On the examples that chose it, it had {raced}, which overstates it by {points}.",
        raced=f"{verdict.raced:.3f}",
        points=_signed(verdict.overstated),
    )


def _signed(interval: Interval) -> str:
    middle = (interval.low + interval.high) / 2
    return say("{middle:+.3f} ({low:+.3f} to {high:+.3f})", middle=middle, low=interval.low, high=interval.high)


def _span(interval: Interval) -> str:
    return f"{interval.low:.3f}–{interval.high:.3f}"


def ranked(race: RaceValues) -> list[Raced]:
    """Return the candidates: the winner, then those that went furthest, of these the best first."""
    sign = 1 if race.higher_is_better else -1

    def place(one: Raced) -> tuple[bool, float, float]:
        last = one.points[-1] if one.points else None
        return (one.status != "winner", -last.share if last else 0.0, -sign * last.quality if last else 0.0)

    return sorted(race.candidates, key=place)


def columns(race: RaceValues) -> list[str]:
    """Return the headings of the table of candidates."""
    found = [
        say("candidate"),
        say("trained"),
        metric_name(race.metric),
        say("time"),
        say("gain per minute"),
    ]
    if race.price is not None:
        found += [race.price.currency, say("gain per {currency}", currency=race.price.currency)]
    return [*found, say("outcome")]


def rows(race: RaceValues) -> list[list[str]]:
    """Return the table of the candidates that started, the best first; a gain is over a head on the frozen base, in
    points of 0.01.
    """
    return [_row(race, one) for one in ranked(race) if one.points or one.status != "not started"]


def left_out(race: RaceValues) -> list[str]:
    """Return a sentence on candidates for which there was no time; none where all started."""
    count = sum(one.status == "not started" for one in race.candidates)
    if not count:
        return []
    return [say("{count} candidates were not started, because the time did not suffice for them.", count=count)]


def _row(race: RaceValues, one: Raced) -> list[str]:
    last = one.points[-1] if one.points else None
    gain = gain_of(race, one)
    found = [
        one.name,
        share_text(last.share) if last else NOTHING,
        f"{last.quality:.3f}" if last else NOTHING,
        duration(one.seconds) if last else NOTHING,
        NOTHING if gain is None else f"{100 * gain / (one.seconds / 60):+.2f}",
    ]
    if race.price is not None:
        found.append(NOTHING if one.cost is None else f"{one.cost:.4f}")
        found.append(NOTHING if gain is None or not one.cost else f"{100 * gain / one.cost:+.2f}")
    return [*found, say("winner") if one.status == "winner" else status_name(one.status)]


def gain_of(race: RaceValues, one: Raced) -> float | None:
    """Return how much better a candidate is than a head on the frozen base; None where either is not known."""
    floor = next(base.quality for base in race.bases if base.chosen)
    if floor is None or not one.points:
        return None
    return (one.points[-1].quality - floor) * (1 if race.higher_is_better else -1)


def status_name(status: str) -> str:
    """Return a reason in a word or two."""
    return {
        "worse": say("significantly worse"),
        "paused": say("paused"),
        "failed": say("failed"),
        "not started": say("not started"),
        "not best": say("behind the winner"),
    }[status]


def text_table(race: RaceValues) -> str:
    """Return the table of candidates as lines of aligned columns."""
    table = [columns(race), *rows(race)]
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    )


def facts(race: RaceValues) -> list[tuple[str, str]]:
    """Return what a repetition needs besides the command, and the bases of rung 0."""
    found = [
        (say("data"), race.data.source),
        (say("digest of the training examples"), f"sha256 {race.data.sha256}"),
        (say("machine"), f"{race.repeat.machine}, {race.repeat.device}, {race.repeat.dtype}"),
        (say("versions"), ", ".join(f"{name} {number}" for name, number in race.repeat.versions.items())),
        (say("time"), duration(race.total_s)),
    ]
    if race.price is not None:
        amount, currency, source = race.price.per_hour, race.price.currency, race.price.source
        an_hour = say("{amount:g} {currency} an hour ({source})", amount=amount, currency=currency, source=source)
        found.append((say("price"), an_hour))
    for base in race.bases:
        quality = NOTHING if base.quality is None else f"{metric_name(race.metric)} {base.quality:.3f}"
        told = (
            say("significantly worse")
            if base.worse
            else say("chosen")
            if base.chosen
            else say("no significant difference")
        )
        size = format_bytes(2 * base.parameters)
        text = say("{quality} with a head on its frozen vectors, {size} in 16 bits", quality=quality, size=size)
        found.append((base.base, f"{text}; {say('chosen') if base.chosen else told}"))
    return found


def notes(race: RaceValues) -> list[str]:
    """Return how the numbers are to be read."""
    found = [
        *left_out(race),
        say(
            "All candidates trained over the same examples in the same order and answered the same held-out examples. "
            "“Significantly worse” is a sequential test on the paired differences: in at most {alpha:.0%} of races it "
            "stops, at any rung, the candidate that is truly the best there. No test can tell whether a candidate that "
            "is behind now would be ahead after longer training.",
            alpha=race.alpha,
        ),
        say(
            "Paused candidates did not differ significantly from the leader; of those within one standard error of the "
            "best, the first in the order given were preferred. --until clear continues them from their checkpoints, "
            "with the same --out."
        ),
        say(
            "Points at early rungs are means over fewer held-out examples, so the lines are noisier on the left. Gain "
            "per minute is over a head on the frozen base, in points of 0.01."
        ),
        say(
            "The winner's state is the best of those measured on all held-out examples; step {step:,} of {steps:,}.",
            step=race.verdict.step,
            steps=race.verdict.steps,
        ),
    ]
    if race.price is None:
        found.append(say("No price per hour was given or known, so the runs have no cost: --price-per-hour."))
    if language() != available_fonts().language:
        found.append(
            say(
                "This system has no Chinese font for figures, so their words are English; install one such as Noto "
                "Sans CJK."
            )
        )
    return found
