"""An attack on a running `tunedeck serve`: honest clients alone, then the same clients beside two attackers with keys and two without.

    python bench/serve_attack.py [--seconds 300] [--clients 50] [--base bundled:all-minilm-l6-v2] [--task classify]
    python bench/serve_attack.py --task generate --base bundled:smollm2-135m-instruct
    python bench/serve_attack.py --base tiny --seconds 15       # to see that it runs

Everything stays on 127.0.0.1 and ends by itself. Each verdict is printed and written to bench/results/serve_attack.json, or
serve_attack_generate.json; the exit code is 1 when one of them is FAIL. What the verdicts mean stands in bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from attack_clients import WORDS
from attack_server import HOST, Server, Watch, serving
from attack_target import KINDS, target_of

from tunedeck.core.measurement import this_machine

HERE = Path(__file__).parent
BASES = {"classify": "bundled:all-minilm-l6-v2", "generate": "bundled:smollm2-135m-instruct"}
THINK_S = {"classify": 2.0, "generate": 10.0}
MOST_BYTES = 6e9
MB = 1e6
Verdict = tuple[str, str, str, bool]  # what, measured, allowed, whether it holds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(BASES), default="classify")
    parser.add_argument("--base", help="a model reference, or tiny for random weights that are made at once")
    parser.add_argument("--seconds", type=float, default=300, help="of one attack")
    parser.add_argument("--quiet", type=float, help="seconds without an attack before each one; a quarter of --seconds")
    parser.add_argument("--rounds", type=int, default=1, help="quiet and attack, so many times")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--think", type=float, help="mean seconds between a client's requests; 2, or 10 for generate")
    parser.add_argument("--pause", type=float, default=10, help="seconds from the attack's end to the last look")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="attacks by how their names begin, such as C1 H5; all by default"
    )
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    arguments = parser.parse_args()
    arguments.base = arguments.base or BASES[arguments.task]
    arguments.think = arguments.think or THINK_S[arguments.task]
    arguments.quiet = arguments.quiet or arguments.seconds / 4
    plain = "serve_attack.json" if arguments.task == "classify" else f"serve_attack_{arguments.task}.json"
    out = arguments.out or HERE / "results" / plain
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and leave no server behind
    with tempfile.TemporaryDirectory(prefix="tunedeck-attack-") as folder:
        tell("expected answers")
        target = target_of(arguments.base, arguments.task, Path(folder))
        with serving(target, arguments.task, Path(folder)) as server:
            run = attack(server, target.questions, arguments)
    found, figures = run.verdicts(), run.figures()
    print_table(found)
    print(json.dumps(figures, indent=2))
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
    rows = [dict(zip(("verdict", "measured", "allowed", "ok"), one, strict=True)) for one in found]
    document = {"cpu": this_machine().cpu, "settings": settings, "verdicts": rows, **figures}
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.exit(0 if all(one[-1] for one in found) else 1)


def tell(what: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%X')} {what}", file=sys.stderr, flush=True)


def print_table(found: Sequence[Verdict]) -> None:
    """What was measured beside what is allowed."""
    for what, measured, allowed, holds in found:
        print(f"{'ok' if holds else 'FAIL':5}{what:48}{measured:>24}   {allowed}")


class Clients:
    """Starts honest clients and attackers, each a process that reads its plan and writes what it has seen."""

    def __init__(self, server: Server, questions: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
        self._plan = {
            "host": HOST,
            "port": server.port,
            "keys": server.keys,
            "task": arguments.task,
            "clients": arguments.clients,
            "think_s": arguments.think,
            "names": list(KINDS),
            "models": list(KINDS)[:2],
            "churned": [name for name in KINDS if name.endswith("churned")],
            "questions": questions,
            "only": arguments.only,
        }
        self._attackers: subprocess.Popen[str] | None = None

    def honest(self, seconds: float) -> dict[str, Any]:
        """Let them ask for some seconds, or each question once for 0 seconds."""
        return self._seen(self._started("attack_clients.py", seconds))

    def attacked(self, seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """Honest clients and attackers at once; what both have seen."""
        self._attackers = self._started("attackers.py", seconds)
        assert self._attackers.stdout is not None
        assert self._attackers.stdout.readline() == "ready\n"
        honest = self.honest(seconds)
        return honest, self._seen(self._attackers)

    def stop_attack(self) -> None:
        """At once: the server takes more memory than this machine can spare."""
        if self._attackers is not None:
            self._attackers.kill()

    def _started(self, script: str, seconds: float) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(HERE / script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps({**self._plan, "seconds": seconds}) + "\n")
        process.stdin.flush()
        return process

    def _seen(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        said, _ = process.communicate()
        return json.loads(said) if said else {"counts": [], "not sent": ["stopped"], "cpu_s": 0.0}


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
        """Responses of 500 and above but for the documented 503, as seen by anybody or in the log, whichever saw more."""
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


def attack(server: Server, questions: list[dict[str, Any]], arguments: argparse.Namespace) -> Run:
    """Every phase in its order."""
    run, clients = Run(), Clients(server, questions, arguments)
    most_s = arguments.rounds * 2 * arguments.seconds + 120
    timer = threading.Timer(most_s, server.process.kill)  # without a server everything else ends by itself
    timer.daemon = True
    with Watch(server, MOST_BYTES, clients.stop_attack) as watch:
        tell("warm-up")
        run.memory["started"] = server.memory()
        warm_up(clients, server, arguments.task)
        run.memory["warm"] = server.memory()
        timer.start()
        began, run.cpu_s = time.perf_counter(), [server.cpu_s()]
        for number in range(arguments.rounds):
            tell(f"quiet, {arguments.quiet:.0f} s")
            run.quiet.append(clients.honest(arguments.quiet))
            run.cpu_s.append(server.cpu_s())
            run.memory.setdefault("quiet", server.memory())
            tell(f"attack, {arguments.seconds:.0f} s; {figures_of(run.quiet[-1])}")
            seen, sent = clients.attacked(arguments.seconds)
            run.attacked.append(seen)
            run.attackers.append(sent)
            run.cpu_s.append(server.cpu_s())
            run.memory[f"attacked, round {number + 1}"] = server.memory()
            if watch.over:
                break
        tell("pause, and every question once more")
        time.sleep(arguments.pause)
        run.health, run.in_flight, run.memory["after"] = watch.health(began), server.in_flight(), server.memory()
        run.after = clients.honest(0)
        run.too_late = not timer.is_alive()
        timer.cancel()
    run.memory["peak"], run.too_much_memory, run.prober_late_s = watch.peak_bytes, watch.over, watch.latest_s
    run.logged, run.tracebacks = server.logged()
    run.leaving_s = server.leave()
    return run


def warm_up(clients: Clients, server: Server, task: str) -> None:
    """Every question once, then the largest requests that are allowed: the heap keeps what those need, attack or not."""
    clients.honest(0)
    words, name = " ".join(WORDS * 4), next(iter(KINDS))  # 200 and more of them, as the attackers send
    if task == "classify":
        server.ask("/classify", {"model": name, "input": [words] * 64}, "honest")
        server.ask("/classify", {"model": name, "input": [words * 7] * 256}, "honest")
    else:
        server.ask("/v1/completions", {"model": name, "prompt": [words] * 32, "max_tokens": 8}, "honest")
        turns = [{"role": "user", "content": words * 2}] * 950
        server.ask("/v1/chat/completions", {"model": name, "messages": turns}, "honest")  # read, and refused


def percentile(seen: dict[str, Any], share: float) -> float:
    """Seconds within which that share of an honest phase's requests was answered; a refused request was never answered."""
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


if __name__ == "__main__":
    main()
