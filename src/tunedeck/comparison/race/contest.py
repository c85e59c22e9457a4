"""Decide which candidate trains how far, and when the race is over; trains nothing itself.

`Contest.asks` is a generator: it yields what it wants to know, an `Ask`, and is sent the `Answer`. A race that is
resumed answers from what was kept, and a replay from recorded curves, so that all three decide alike.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, final

from tunedeck.comparison.race.sequential import Array, ahead, told_worse

SHARES = (1 / 27, 1 / 9, 1 / 3, 1.0)
"""Rungs as shares of a whole run."""
CONTINUING = 4
"""At most one in this many candidates of a rung continues to the next."""
FINALISTS = 2
"""The number of candidates that a rung takes on in any case."""
MIN_ROWS = 32
ALPHA = 0.05
"""Probability at most that a rung, any of them, stops for being worse the candidate that is truly best at it."""

Until: TypeAlias = Literal["stable", "clear"]
Reason: TypeAlias = Literal["worse", "paused", "failed", "not started", "not best"]
Ended: TypeAlias = Literal["clear", "smaller", "stable", "top", "time", "failed"]


@dataclass(frozen=True, slots=True)
class Ladder:
    """The rungs: shares of a whole run, and how many held-out examples are looked at on each."""

    shares: tuple[float, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """Train a candidate as far as a rung, and score it on the rung's held-out examples."""

    name: str
    rung: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Scores by held-out example, higher is better, in the same order for all; empty where training failed."""

    scores: Array
    seconds: float
    """All that this took."""
    train_s: float
    """Seconds of these that grow with the number of steps."""
    at_s: float
    """Seconds since the race began."""
    failed: str = ""
    chances: Array | None = None
    """The probability of each right answer; None where the task has none."""

    @property
    def compared(self) -> Array:
        """Return what candidates are compared by: the chances, which tell more than right and wrong, or the scores."""
        return self.scores if self.chances is None else self.chances


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a candidate went no further than a rung, and which rival beat it with how much evidence."""

    reason: Reason
    rung: int
    rival: str = ""
    evidence: float = 0.0
    text: str = ""


@dataclass(frozen=True, slots=True)
class RaceOutcome:
    """The winner, None where no candidate could be trained, and what ended the race."""

    winner: str | None
    ended: Ended


def ladder_of(steps: int, examples_per_step: int, held_out: int) -> Ladder:
    """Return the rungs of runs of that many steps; a rung begins with a step or more.

    Early rungs look at half as many held-out examples as they have trained on, so that looking does not cost more than
    training, but at MIN_ROWS at least.
    """
    shares = [share for share in SHARES if steps * share >= 1] or [1.0]
    rows = [min(held_out, max(MIN_ROWS, int(steps * share * examples_per_step / 2))) for share in shares]
    return Ladder(tuple(shares), (*rows[:-1], held_out))


@final
@dataclass
class Contest:
    """Race candidates, `sizes` (trainable parameters) by name in the order of preference, which is that of admission.

    Candidates that are within one standard error of the leader are ranked in the order of preference.

    `until` is "stable": at most one in CONTINUING continues to the next rung, and the top rung is raised only while the
    ranking changes; or "clear": every candidate that is not significantly worse continues. `limit_s` ends the race in
    time to train the leader to its end.
    """

    sizes: Mapping[str, int]
    ladder: Ladder
    until: Until = "stable"
    limit_s: float | None = None
    alpha: float = ALPHA
    answers: dict[Ask, Answer] = field(default_factory=dict)
    stopped: dict[str, Stop] = field(default_factory=dict)
    upcoming: list[Ask] = field(default_factory=list)
    """The asks that follow the present one, whatever its answer is, as far as the time allows."""
    leaders: list[str] = field(default_factory=list)
    """Those not significantly worse at the last rung that was judged, the best first."""

    def asks(self) -> Generator[Ask, Answer, RaceOutcome]:
        """Ask until the race is over; the winner has then been asked at the top rung, where time allows."""
        entered = list(self.sizes)
        bench: list[str] = []
        ended: Ended = "top"
        for rung in range(len(self.ladder.shares)):
            in_time = yield from self._ask(entered, bench, rung)
            if not in_time and rung:  # candidates that the first rung had no time for are left out
                ended = "time"
                break
            ranked = self._judge(rung)
            if not ranked:
                return RaceOutcome(None, "failed")
            places = len(ranked) if self.until == "clear" else _places(sum(ask.rung == rung for ask in self.answers))
            self.leaders, bench = ranked[:places], ranked[places:]
            for name in bench:
                self.stopped[name] = Stop("paused", rung, ranked[0])
            found = self._ended(rung)
            if found is not None:
                ended = found
                break
            entered = self.leaders
        winner = yield from self._finished()
        for name in self.leaders:
            if name != winner:
                self.stopped.setdefault(name, Stop("not best", self.rung_of(name), winner or ""))
        return RaceOutcome(winner, ended)

    def _finished(self) -> Generator[Ask, Answer, str | None]:
        """Train the best of the leaders to its end, the next where it fails, as far as the time allows."""
        for winner in self.leaders:
            self.stopped.pop(winner, None)
            for rung in range(self.rung_of(winner) + 1, len(self.ladder.shares)):
                ask = Ask(winner, rung)
                if self.limit_s is not None and self._now() + self._seconds(ask) > self.limit_s:
                    return winner
                self.answers[ask] = yield ask
                if self.answers[ask].failed:
                    self.stopped[winner] = Stop("failed", rung, text=self.answers[ask].failed)
                    break
            else:
                return winner
        return None

    def _compared(self, name: str, rung: int) -> Array:
        return self.answers[Ask(name, rung)].compared

    def rung_of(self, name: str) -> int:
        """Return the highest rung at which a candidate was scored; -1 for none."""
        return max((ask.rung for ask in self.answers if ask.name == name and not self.answers[ask].failed), default=-1)

    def _ask(self, entered: Sequence[str], bench: list[str], rung: int) -> Generator[Ask, Answer, bool]:
        """Ask for the candidates of a rung, and for those of the bench that are wanted back; False when time is up."""
        waiting = list(entered)
        while waiting or self._wanted_back(bench, len(entered), rung):
            name = waiting.pop(0) if waiting else bench.pop(0)
            ask = Ask(name, rung)
            if self._too_late(ask):
                for late in (name, *waiting):
                    self.stopped[late] = Stop("not started" if not rung else "paused", max(0, rung - 1))
                return False
            self.stopped.pop(name, None)
            self.upcoming = [Ask(later, rung) for later in waiting]
            self.answers[ask] = yield ask
            if self.answers[ask].failed:
                self.stopped[name] = Stop("failed", rung, text=self.answers[ask].failed)
        return True

    def _wanted_back(self, bench: Sequence[str], places: int, rung: int) -> bool:
        """Tell whether the first of those paused is taken up again.

        That is where a candidate that was preferred to it has failed, or all of them have fallen below what it had
        reached, by more than one standard error.
        """
        if not bench or not rung:
            return False
        usable = [ask.name for ask, answer in self.answers.items() if ask.rung == rung and not answer.failed]
        own = self._compared(bench[0], rung - 1)
        return len(usable) < places or all(ahead(own, self._compared(one, rung)[: len(own)]) for one in usable)

    def _judge(self, rung: int) -> list[str]:
        """Stop the candidates that are significantly worse at a rung, and return the others, the best first."""
        scores = {
            ask.name: answer.compared for ask, answer in self.answers.items() if ask.rung == rung and not answer.failed
        }
        level = self.alpha / len(self.ladder.shares)
        worse = told_worse(scores, len(self.sizes), level)
        for name, (rival, evidence) in worse.items():
            self.stopped[name] = Stop("worse", rung, rival, evidence)
        return self._ranked([name for name in scores if name not in worse], rung)

    def _ranked(self, names: Sequence[str], rung: int) -> list[str]:
        """Return those within one standard error of the best, in the order of preference; then the others by score."""
        found = {name: self._compared(name, rung) for name in self.sizes if name in names}
        by_score = sorted(found, key=lambda name: -float(found[name].mean()))
        behind = [name for name in by_score if ahead(found[by_score[0]], found[name])]
        return [*(name for name in found if name not in behind), *behind]

    def _ended(self, rung: int) -> Ended | None:
        """Return why the race is over after a rung; None if it is not."""
        if rung == len(self.ladder.shares) - 1:
            return "top"
        if len(self.leaders) == 1:
            return "clear"
        if not rung:
            return None
        before = self._ranked(self.leaders, rung - 1)
        smallest = min(self.leaders, key=lambda name: self.sizes[name])
        if self.leaders[0] == before[0] and self.sizes[self.leaders[0]] == self.sizes[smallest]:
            return "smaller"
        return "stable" if self.until == "stable" and before == self.leaders else None

    def _too_late(self, ask: Ask) -> bool:
        """Tell whether the time does not suffice for an ask and for training the leader to its end after it.

        On the first rung a candidate is admitted where all that would follow from it fits.
        """
        if self.limit_s is None or not self.answers:
            return False
        left = self.limit_s - self._now() - self._seconds(ask)
        if ask.rung:
            return left < self._to_the_end(self.leaders[0])
        return left < self._rest(sum(one.rung == 0 for one in self.answers) + 1)

    def _now(self) -> float:
        return max((answer.at_s for answer in self.answers.values()), default=0.0)

    def _seconds(self, ask: Ask) -> float:
        """Return about what an ask will take: as much for each step as the candidate's last, or the mean of others."""
        last = self.rung_of(ask.name)
        if last >= 0:
            known = [Ask(ask.name, last)]
        else:
            known = [one for one, answer in self.answers.items() if one.rung == 0 and not answer.failed]
        return sum(self._scaled(one, last, ask.rung) for one in known) / max(1, len(known))

    def _scaled(self, known: Ask, last: int, rung: int) -> float:
        """Return the seconds of a known ask, scaled to the way from rung `last` to `rung`."""
        shares, rows = (0.0, *self.ladder.shares), self.ladder.rows
        answer = self.answers[known]
        steps = (shares[rung + 1] - shares[last + 1]) / (shares[known.rung + 1] - shares[known.rung])
        return answer.train_s * steps + (answer.seconds - answer.train_s) * rows[rung] / rows[known.rung]

    def _to_the_end(self, name: str) -> float:
        last = self.rung_of(name)
        return sum(self._scaled(Ask(name, last), rung - 1, rung) for rung in range(last + 1, len(self.ladder.shares)))

    def _rest(self, count: int) -> float:
        """Return about what the rungs after the first take for `count` candidates, the winner's end included."""
        total, known = 0.0, [one for one, answer in self.answers.items() if not answer.failed]
        for rung in range(1, len(self.ladder.shares)):
            count = count if self.until == "clear" else _places(count)
            total += count * sum(self._scaled(one, rung - 1, rung) for one in known) / max(1, len(known))
        return total


def _places(count: int) -> int:
    """Return how many of `count` candidates go on to the next rung."""
    return max(min(count, FINALISTS), count // CONTINUING)
