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
from dataclasses import dataclass
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
            found = run.verdicts(arguments)
    print_table(found)
    print(json.dumps(run.figures, indent=2))
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
    rows = [dict(zip(("verdict", "measured", "allowed", "ok"), one, strict=True)) for one in found]
    document = {"cpu": this_machine().cpu, "settings": settings, "verdicts": rows, **run.figures}
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
    """What an attack has shown, in seconds and bytes."""

    quiet: list[dict[str, Any]]
    attacked: list[dict[str, Any]]
    after: dict[str, Any]
    server_errors: int
    memory_bytes: tuple[int, int]  # at the end of the first quiet phase, and after the last attack
    health: tuple[float, int, int]
    in_flight: float | None
    stopped: bool
    late: bool
    figures: dict[str, Any]

    def verdicts(self, arguments: argparse.Namespace) -> list[Verdict]:
        """Each promise with what was measured."""
        quiet, attacked = (median(percentile(one, 0.95) for one in phases) for phases in (self.quiet, self.attacked))
        answered = sum(len(one["latencies_s"]) for one in self.attacked)
        wrong = sum(one["wrong"] for one in (*self.quiet, *self.attacked))
        grown = (self.memory_bytes[1] - self.memory_bytes[0]) / MB
        alive = self.memory_bytes[1] > 0
        slowest, probes, unanswered = self.health
        asked = len(self.after["latencies_s"]) + self.after["refused"]
        good = len(self.after["latencies_s"]) - self.after["wrong"]
        ratio = attacked / quiet if quiet else math.inf
        return [
            ("wrong answers", f"{wrong} of {answered}", "0", wrong == 0 and answered > 0),
            ("responses of 500 and above, without 503", f"{self.server_errors}", "0", self.server_errors == 0),
            ("p95 of honest clients, attacked / quiet", f"{ratio:.2f}", "2", ratio <= 2),
            (
                "memory after the attack, growth",
                f"{grown:.0f} MB" if alive else "no server",
                "50 MB",
                alive and grown <= 50,
            ),
            ("slowest /health", f"{1000 * slowest:.0f} ms", "100 ms", slowest < 0.1 and probes > 0),
            ("/health not answered", f"{unanswered} of {probes}", "0", unanswered == 0 and probes > 0),
            ("right answers after the attack", f"{good} of {asked}", "all", good == asked > 0),
            ("requests in flight after the attack", f"{self.in_flight}", "0", self.in_flight == 0),
            ("memory at its peak", f"{self.figures['memory, MB']['peak']:.0f} MB", "6000 MB", not self.stopped),
            ("attacks that were not sent", f"{len(self.figures['not sent'])}", "0", not self.figures["not sent"]),
            ("ended in time", "no" if self.late else "yes", "yes", not self.late),
        ]


def attack(server: Server, questions: list[dict[str, Any]], arguments: argparse.Namespace) -> Run:
    """Every phase in its order."""
    clients = Clients(server, questions, arguments)
    most_s = arguments.rounds * 2 * arguments.seconds + 120
    timer = threading.Timer(most_s, server.process.kill)  # without a server everything else ends by itself
    timer.daemon = True
    timer.start()
    memory: dict[str, int] = {}
    with Watch(server, MOST_BYTES, clients.stop_attack) as watch:
        tell("warm-up")
        memory["started"] = server.memory()
        warm_up(clients, server, arguments.task)
        memory["warm"] = server.memory()
        began, cpu = time.perf_counter(), [server.cpu_s()]
        quiet, attacked, attackers = [], [], []
        for number in range(arguments.rounds):
            tell(f"quiet, {arguments.quiet:.0f} s")
            quiet.append(clients.honest(arguments.quiet))
            cpu.append(server.cpu_s())
            memory.setdefault("quiet", server.memory())
            if watch.over:
                break
            tell(f"attack, {arguments.seconds:.0f} s; {figures_of(quiet[-1])}")
            seen, sent = clients.attacked(arguments.seconds)
            attacked.append(seen)
            attackers.append(sent)
            memory[f"attacked, round {number + 1}"] = server.memory()
            cpu.append(server.cpu_s())
        tell("pause, and every question once more")
        time.sleep(arguments.pause)
        health, in_flight = watch.health(began), server.in_flight()
        memory["after"] = server.memory()
        after = clients.honest(0)
        memory["peak"] = watch.peak_bytes
        late = not timer.is_alive()
        timer.cancel()
    logged, tracebacks = server.logged()
    leaving_s = server.leave()
    counts = counted([*quiet, *attacked, after, *attackers])
    bad = sum(many for (_, status), many in counts.items() if is_server_error(status))
    figures = {
        "quiet": [figures_of(one) for one in quiet],
        "attacked": [figures_of(one) for one in attacked],
        "memory, MB": {name: round(held / MB, 1) for name, held in memory.items()},
        "server's processor seconds in each phase": [round(late - early, 1) for early, late in pairwise(cpu)],
        "attackers' processor seconds": [round(one["cpu_s"], 2) for one in attackers],
        "slowest /health, ms": round(1000 * health[0], 1),
        "the prober itself was late by at most, ms": round(1000 * watch.latest_s, 1),
        "seconds to leave after SIGTERM": leaving_s if leaving_s is None else round(leaving_s, 1),
        "statuses": {f"{who}: {status}": many for (who, status), many in sorted(counts.items())},
        "attacks": {": ".join(one[:-1]): one[-1] for sent in attackers for one in sorted(sent["counts"])},
        "not sent": [one for sent in attackers for one in sent["not sent"]],
        "statuses in the log": dict(sorted(logged.items())),
        "tracebacks in the log": tracebacks,
        "examples of wrong": [one for seen in (*quiet, *attacked, after) for one in seen["examples of wrong"]][:5],
    }
    errors = max(bad, sum(many for status, many in logged.items() if is_server_error(status)))
    return Run(
        quiet, attacked, after, errors, (memory["quiet"], memory["after"]), health, in_flight, watch.over, late, figures
    )


def warm_up(clients: Clients, server: Server, task: str) -> None:
    """Every question once, then batches as full as they get: the heap keeps what those need, attack or not."""
    clients.honest(0)
    words, name = " ".join(WORDS * 4), next(iter(KINDS))  # 200 and more of them, as the attackers send
    if task == "classify":
        server.ask("/classify", {"model": name, "input": [words] * 64}, "honest")
    else:
        server.ask("/v1/completions", {"model": name, "prompt": [words] * 32, "max_tokens": 8}, "honest")


def percentile(seen: dict[str, Any], share: float) -> float:
    """Seconds within which that share of an honest phase's requests was answered; a refused request was never answered."""
    latencies = sorted(seen["latencies_s"]) + [math.inf] * seen["refused"]
    return latencies[min(len(latencies) - 1, int(share * len(latencies)))] if latencies else math.inf


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
