"""Two attackers with keys and two without, who send what a probe of the server found to be its worst requests, in
rotation.

Started by `serve_attack.py` as a process of its own: a plan comes as JSON through standard input, "ready" goes out once
all bodies are built, then what came back, counted. Bodies are built once and go out as bytes; every socket has a time
limit. The process yields to all others (nice 5), for the attackers' processor would be another machine's.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from attack_clients import WORDS, http_request

PAUSE_S = 0.1
"""Between two attacks of an attacker: what is measured is the damage of single requests, not a flood."""
CHARACTER = "中"


@dataclass(frozen=True, slots=True)
class Attack:
    """A request that goes out on `parallel` connections at once; whoever sends it leaves after `patience_s` seconds.

    `name` begins with the finding's number in the report. With `holds` the connections stay open all that time,
    answered or not.
    """

    name: str
    request: bytes
    parallel: int = 1
    patience_s: float = 20.0
    holds: bool = False


def keyed_attacks(task: str, key: str, models: list[str], patience_s: float) -> list[Attack]:
    """What somebody with a user's key sends, the report's sizes and the same within the body limit of 1 MB."""
    words = (" ".join(WORDS) + " ") * 5000
    first, second = models[:2]

    def attack(name: str, body: dict[str, Any], parallel: int = 1, patience_s: float = patience_s) -> Attack:
        path = "/classify" if task == "classify" else "/v1/completions" if "prompt" in body else "/v1/chat/completions"
        return Attack(name, http_request("POST", path, key, body), parallel, patience_s)

    def texts(model: str, given: Any) -> dict[str, Any]:
        return {"model": model, **({"input": given} if task == "classify" else {"prompt": given, "max_tokens": 8})}

    def chat(model: str, text: str, **more: Any) -> dict[str, Any]:
        return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 8, **more}

    unknown = {f"{number:06}": 0 for number in range(340_000)}
    found = [
        attack("C2: 990,000 inputs", texts(first, ["a"] * 990_000)),
        attack("C2: 235,000 inputs", texts(first, ["a"] * 235_000)),
        attack("C3: a text of 1,000,000 characters", texts(first, CHARACTER * 1_000_000), 8),
        attack("C3: a text of 300,000 characters", texts(first, CHARACTER * 300_000), 8),
        attack("C3: a text of 1,000,000 characters, in words", texts(first, words[:1_000_000]), 8),
        attack("C3: a text of 199,000 characters, in words", texts(first, words[:199_000]), 8),
        attack("H5: batches of 256 texts of 200 words", texts(first, [words[:1_100]] * 256), 3),
        attack("M4: 340,000 unknown keys", {**texts(first, "a"), **unknown}),
        attack("M4: 80,000 unknown keys", {**texts(first, "a"), **dict(list(unknown.items())[:80_000])}),
        attack("M11: 257 inputs", texts(first, ["a"] * 257)),
        attack("M11: 5,000 inputs", texts(first, ["a"] * 5_000)),
    ]
    if task == "classify":
        for name in (first, second):
            found.append(attack("H2: texts of 3,000 words", texts(name, words[:16_500]), 4))
        return found
    stop = chat(first, "Count to ten.")
    return [
        attack("C1: three stops of 1,000,000 characters", {**stop, "stop": ["a" * 1_000_000] * 3}),
        attack("C1: a stop of 1,000,000 characters", {**stop, "stop": "a" * 1_000_000}),
        attack("C1: 200,000 stops", {**stop, "stop": [f"{number:05}" for number in range(200_000)]}),
        attack("C1: 16 stops of 256 characters", {**stop, "stop": ["a" * 256] * 16}),
        attack("C2: 660,000 lists of a token", texts(first, [[1]] * 660_000)),
        attack("C3: a chat of 1,000,000 characters", chat(first, CHARACTER * 1_000_000), 8),
        attack("M6: streams of 2,000 words left at once", chat(first, words[:11_000], stream=True), 10, 0.1),
        attack("M6: streams of 300 words left at once", chat(second, words[:1_650], stream=True), 10, 0.1),
        *found,
    ]


def keyless_attacks(patience_s: float) -> dict[str, list[Attack]]:
    """What somebody without a key sends: bodies and heads that never end."""
    head = b"POST /health HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 3999999\r\n\r\n"
    return {
        "keyless-1": [Attack("H1: bodies of /health, half sent", head + b"a" * 3_900_000, 100, patience_s, holds=True)],
        "keyless-2": [Attack("M5: heads, half sent", b"GET /health HTTP/1.1\r\nHost: he", 500, patience_s, holds=True)],
    }


async def answer(address: tuple[str, int], request: bytes, connection: socket.socket) -> str:
    """The status of what comes back, or "closed"."""
    loop, seen = asyncio.get_running_loop(), b""
    await loop.sock_connect(connection, address)
    with suppress(ConnectionError):  # refused before all was sent; there may be an answer all the same
        await loop.sock_sendall(connection, request)
    while len(seen) < len("HTTP/1.1 200"):
        got = await loop.sock_recv(connection, 4096)
        if not got:
            return "closed"
        seen += got
    return seen[9:12].decode()


async def fire(address: tuple[str, int], attack: Attack) -> str:
    """Send an attack on one connection; its status, "closed", or "left" when there was none in time."""
    until = time.monotonic() + attack.patience_s
    with socket.socket() as connection:
        connection.setblocking(False)
        try:
            status = await asyncio.wait_for(answer(address, attack.request, connection), attack.patience_s)
        except asyncio.TimeoutError:
            status = "left"
        except OSError:
            status = "closed"
        if attack.holds:
            await asyncio.sleep(until - time.monotonic())
    return status


async def rotate(plan: dict[str, Any], who: str, attacks: list[Attack], counts: Counter[tuple[str, ...]]) -> None:
    """One attack after the other until the time is up, and each at least once."""
    until, address = time.monotonic() + plan["seconds"], (plan["host"], plan["port"])
    for number, attack in enumerate(cycle(attacks)):
        if number >= len(attacks) and time.monotonic() > until:
            return
        shots = await asyncio.gather(*(fire(address, attack) for _ in range(attack.parallel)))
        counts.update((who, attack.name, status) for status in shots)
        await asyncio.sleep(PAUSE_S)


async def rotate_all(plan: dict[str, Any], attackers: dict[str, list[Attack]]) -> Counter[tuple[str, ...]]:
    """All attackers at once, for three times the plan's seconds at most; what is under way then is left."""
    counts: Counter[tuple[str, ...]] = Counter()
    tasks = [asyncio.create_task(rotate(plan, who, attacks, counts)) for who, attacks in attackers.items()]
    await asyncio.wait(tasks, timeout=3 * plan["seconds"])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return counts


def main() -> None:
    plan = json.loads(sys.stdin.readline())
    os.nice(5)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    attackers = keyless_attacks(min(30.0, plan["seconds"] / 3))
    patience_s = max(2.0, min(20.0, plan["seconds"] / 10))
    for number, who in enumerate(name for name in plan["keys"] if name.startswith("attacker")):
        attacks = keyed_attacks(plan["task"], plan["keys"][who], plan["models"], patience_s)
        begin = number * len(attacks) // 2
        attackers[who] = attacks[begin:] + attacks[:begin]
    for who, attacks in list(attackers.items()):
        attackers[who] = [attack for attack in attacks if attack.name.startswith(tuple(plan["only"]))]
        if not attackers[who]:
            del attackers[who]
    print("ready", flush=True)
    began = time.process_time()
    counts = asyncio.run(rotate_all(plan, attackers))
    planned = {(who, attack.name) for who, attacks in attackers.items() for attack in attacks}
    seen = {
        "counts": [[*one, many] for one, many in counts.items()],
        "not sent": sorted(map(": ".join, planned - {one[:2] for one in counts})),
        "cpu_s": time.process_time() - began,
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
