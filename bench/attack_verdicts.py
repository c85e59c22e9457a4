"""What an attack has shown, and whether each promise holds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

MOST_BYTES = 6e9
MB = 1e6
Verdict = tuple[str, str, str, bool]  # what, measured, allowed, whether it holds


@dataclass
class Run:
    """What an attack has shown, phase by phase, in seconds and bytes."""

    quiet: list[dict[str, Any]] = field(default_factory=list)
    attacked: list[dict[str, Any]] = field(default_factory=list)
    attackers: list[dict[str, Any]] = field(default_factory=list)
    after: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    cpu_s: list[float] = field(default_factory=list)
    health: tuple[float, int, int] = (0.0, 0, 0)
    prober_late_s: float = 0.0
    in_flight: float | None = None
    too_much_memory: bool = False
    too_late: bool = False
    logged: Counter[str] = field(default_factory=Counter)
    tracebacks: int = 0
    leaving_s: float | None = None

    @property
    def honest(self) -> list[dict[str, Any]]:
        """Every phase of the honest clients."""
        return [*self.quiet, *self.attacked, self.after]

    @property
    def not_sent(self) -> list[str]:
        """Attacks that never went out."""
        return [one for sent in self.attackers for one in sent["not sent"]]

    def server_errors(self) -> int:
        """Responses of 500 and above but for the documented 503, as seen by anybody or in the log, whichever saw
        more.
        """
        seen = counted([*self.honest, *self.attackers]).items()
        return max(
            sum(many for (_, status), many in seen if is_server_error(status)),
            sum(many for status, many in self.logged.items() if is_server_error(status)),
        )

    def verdicts(self) -> list[Verdict]:
        """Each promise with what was measured."""
        quiet, attacked = (median(percentile(one, 0.95) for one in phases) for phases in (self.quiet, self.attacked))
        answered, wrong = (sum(value) for value in zip(*map(right_and_wrong, self.honest), strict=True))
        asked, good = len(self.after["latencies_s"]) + self.after["refused"], right_and_wrong(self.after)[0]
        grown = (self.memory["after"] - self.memory["quiet"]) / MB if self.memory["after"] else math.inf
        slowest, probes, unanswered = self.health
        ratio, errors = attacked / quiet, self.server_errors()
        peak = self.memory["peak"] / MB
        return [
            ("wrong answers", f"{wrong} of {answered + wrong}", "0", wrong == 0 < answered),
            ("responses of 500 and above, without 503", f"{errors}", "0", errors == 0),
            ("p95 of honest clients, attacked / quiet", f"{ratio:.2f}", "2", ratio <= 2),
            ("memory after the attack, growth", f"{grown:.0f} MB", "50 MB", grown <= 50),
            ("slowest /health", f"{1000 * slowest:.0f} ms", "100 ms", slowest < 0.1 and probes > 0),
            ("/health not answered", f"{unanswered} of {probes}", "0", unanswered == 0 < probes),
            ("right answers after the attack", f"{good} of {asked}", "all", good == asked > 0),
            ("requests in flight after the attack", f"{self.in_flight}", "0", self.in_flight == 0),
            ("memory at its peak", f"{peak:.0f} MB", f"{MOST_BYTES / MB:.0f} MB", not self.too_much_memory),
            ("attacks that were not sent", f"{len(self.not_sent)}", "0", not self.not_sent),
            ("ended in time", "no" if self.too_late else "yes", "yes", not self.too_late),
        ]

    def figures(self) -> dict[str, Any]:
        """Everything else that was seen."""
        attacks: Counter[str] = Counter()
        for sent in self.attackers:
            attacks.update({": ".join(one[:-1]): one[-1] for one in sent["counts"]})
        return {
            "quiet": [figures_of(one) for one in self.quiet],
            "attacked": [figures_of(one) for one in self.attacked],
            "memory, MB": {name: round(held / MB, 1) for name, held in self.memory.items()},
            "server's processor seconds in each phase": [round(b - a, 1) for a, b in pairwise(self.cpu_s)],
            "attackers' processor seconds": [round(one["cpu_s"], 2) for one in self.attackers],
            "slowest /health, ms": round(1000 * self.health[0], 1),
            "the prober itself was late by at most, ms": round(1000 * self.prober_late_s, 1),
            "seconds to leave after SIGTERM": None if self.leaving_s is None else round(self.leaving_s, 1),
            "statuses": {
                f"{who}: {status}": many
                for (who, status), many in sorted(counted([*self.honest, *self.attackers]).items())
            },
            "attacks": dict(sorted(attacks.items())),
            "not sent": self.not_sent,
            "statuses in the log": dict(sorted(self.logged.items())),
            "tracebacks in the log": self.tracebacks,
            "examples of wrong": [one for seen in self.honest for one in seen["examples of wrong"]][:5],
        }


def print_table(found: Sequence[Verdict]) -> None:
    """What was measured beside what is allowed."""
    for what, measured, allowed, holds in found:
        print(f"{'ok' if holds else 'FAIL':5}{what:48}{measured:>24}   {allowed}")


def percentile(seen: dict[str, Any], share: float) -> float:
    """Seconds within which that share of an honest phase's requests was answered; a refused request was never
    answered.
    """
    latencies = sorted(seen["latencies_s"]) + [math.inf] * seen["refused"]
    return latencies[min(len(latencies) - 1, int(share * len(latencies)))] if latencies else math.inf


def right_and_wrong(seen: dict[str, Any]) -> tuple[int, int]:
    """How many answers of an honest phase were right and how many were wrong."""
    return len(seen["latencies_s"]) - seen["wrong"], seen["wrong"]


def figures_of(seen: dict[str, Any]) -> dict[str, Any]:
    """An honest phase in short; a percentile is None when that many were not answered."""
    cuts = {f"p{share}, ms": percentile(seen, share / 100) for share in (50, 95, 99)}
    return {
        "answered": len(seen["latencies_s"]),
        "refused or unanswered": seen["refused"],
        "wrong": seen["wrong"],
        **{name: None if math.isinf(cut) else round(1000 * cut, 1) for name, cut in cuts.items()},
        "slowest answer, ms": round(1000 * max(seen["latencies_s"], default=0.0), 1),
        "clients' processor seconds": round(seen["cpu_s"], 2),
    }


def counted(phases: Sequence[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """Responses by who asked and status, whatever the attack."""
    counts: Counter[tuple[str, str]] = Counter()
    for seen in phases:
        for who, *_, status, many in seen["counts"]:
            counts[who, status] += many
    return counts


def is_server_error(status: str) -> bool:
    """Whether a status is one that must not happen: the documented 503 may."""
    return status.isdigit() and int(status) >= 500 and status != "503"
