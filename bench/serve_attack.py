"""An attack on a running `tunedeck serve`: honest clients alone, then the same clients beside two attackers with keys
and two without.

    python bench/serve_attack.py [--seconds 300] [--clients 50] [--base bundled:all-minilm-l6-v2] [--task classify]
    python bench/serve_attack.py --task generate --base bundled:smollm2-135m-instruct
    python bench/serve_attack.py --base tiny --seconds 15       # to see that it runs

Everything stays on 127.0.0.1 and ends by itself. Each verdict is printed and written to
bench/results/serve_attack.json, or serve_attack_generate.json; the exit code is 1 when one of them is FAIL. What the
verdicts mean stands in bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from attack_clients import WORDS
from attack_server import HOST, Server, Watch, serving
from attack_target import KINDS, target_of
from attack_verdicts import MOST_BYTES, Run, figures_of, print_table

from tunedeck.core.measurement import this_machine

HERE = Path(__file__).parent
BASES = {"classify": "bundled:all-minilm-l6-v2", "generate": "bundled:smollm2-135m-instruct"}
THINK_S = {"classify": 15.0, "generate": 30.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(BASES), default="classify")
    parser.add_argument("--base", help="a model reference, or tiny for random weights that are made at once")
    parser.add_argument("--seconds", type=float, default=300, help="of one attack")
    parser.add_argument("--quiet", type=float, help="seconds without an attack before each one; a quarter of --seconds")
    parser.add_argument("--rounds", type=int, default=1, help="quiet and attack, so many times")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--think", type=float, help="mean seconds between a client's requests; 15, or 30 for generate")
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
    """Every question once, then the largest requests that are allowed: the heap keeps what those need, attack or
    not.
    """
    clients.honest(0)
    words, name = " ".join(WORDS * 4), next(iter(KINDS))  # 200 and more of them, as the attackers send
    if task == "classify":
        server.ask("/classify", {"model": name, "input": [words] * 64}, "honest")
        server.ask("/classify", {"model": name, "input": [words * 7] * 256}, "honest")
    else:
        server.ask("/v1/completions", {"model": name, "prompt": [words] * 32, "max_tokens": 8}, "honest")
        turns = [{"role": "user", "content": words * 2}] * 950
        server.ask("/v1/chat/completions", {"model": name, "messages": turns}, "honest")  # read, and refused


if __name__ == "__main__":
    main()
