"""Honest clients, each in a closed loop with a pause between its requests, who compare every answer; and an operator
who loads and unloads.

Started by `serve_attack.py` as a process of its own, without torch: a plan comes as JSON through standard input, what
was seen goes out as JSON.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys
import time
from collections import Counter
from typing import Any

PATIENCE_S = 30.0
OPERATOR_PAUSE_S = 0.25
RELATIVE, ABSOLUTE = 1e-4, 1e-6
"""How far a probability may be from that of the adapter alone, in float32."""
WORDS = (
    "time",
    "year",
    "people",
    "way",
    "day",
    "thing",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
)
WORDS += ("problem", "hand", "part", "place", "case", "week", "company", "system", "question", "work", "night", "point")
WORDS += (
    "water",
    "room",
    "mother",
    "area",
    "money",
    "story",
    "fact",
    "month",
    "lot",
    "study",
    "book",
    "eye",
    "job",
    "word",
)


def http_request(method: str, path: str, key: str, body: dict[str, Any] | None = None) -> bytes:
    """A whole HTTP request."""
    content = b"" if body is None else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    )
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(content) + content


class Connection:
    """Requests one after the other on one connection, which is opened again when the server has closed it."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body; status 0 when no answer came in time or the connection broke."""
        try:
            return await asyncio.wait_for(self._ask(request), PATIENCE_S)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            self.close()
            return 0, b""

    def close(self) -> None:
        """Leave, whatever is under way."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def _ask(self, request: bytes) -> tuple[int, bytes]:
        if self._writer is not None:
            try:
                return await self._exchange(request)
            except (OSError, asyncio.IncompleteReadError):  # an idle connection that the server has closed
                self.close()
        return await self._exchange(request)

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        body = await self._reader.readexactly(length)
        if b"\r\nconnection: close" in head:
            self.close()
        return int(head[9:12]), body


class Honest:
    """Everybody who asks with good intent, and what they have seen."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan, self._questions = plan, plan["questions"]
        for one in self._questions:
            one["request"] = http_request("POST", one["path"], plan["keys"]["honest"], one["body"])
        self._weights = [one["weight"] for one in self._questions]
        self.counts: Counter[tuple[str, str]] = Counter()
        self.latencies_s: list[float] = []
        self.refused = 0
        self.wrong: list[dict[str, Any]] = []

    async def run(self) -> None:
        """For the plan's seconds; without seconds every question once."""
        clients = range(self._plan["clients"])
        if not self._plan["seconds"]:
            await asyncio.gather(*(self._sweep(number) for number in clients))
            return
        until = time.monotonic() + self._plan["seconds"]
        await asyncio.gather(self._operate(until), *(self._client(number, until) for number in clients))

    async def _sweep(self, number: int) -> None:
        connection = Connection(self._plan["host"], self._plan["port"])
        for question in self._questions[number :: self._plan["clients"]]:
            await self._one(connection, question)
        connection.close()

    async def _client(self, number: int, until: float) -> None:
        chance = random.Random(number)
        connection = Connection(self._plan["host"], self._plan["port"])
        await asyncio.sleep(chance.random() * self._plan["think_s"])
        while time.monotonic() < until:
            await self._one(connection, chance.choices(self._questions, self._weights)[0])
            await asyncio.sleep((0.5 + chance.random()) * self._plan["think_s"])
        connection.close()

    async def _one(self, connection: Connection, question: dict[str, Any]) -> None:
        began = time.perf_counter()
        status, body = await connection.ask(question["request"])
        took_s = time.perf_counter() - began
        self.counts["honest", str(status or "no answer")] += 1
        if status == 200:
            self.latencies_s.append(took_s)
            if not is_right(json.loads(body), question["expected"]):
                self.wrong.append({"body": question["body"], "expected": question["expected"], "seen": body.decode()})
        elif (
            status != 404 or question["body"]["model"] not in self._plan["churned"]
        ):  # 404 is right while it is unloaded
            self.refused += 1

    async def _operate(self, until: float) -> None:
        """Load everything again now and then, as a new version; unload and load some."""
        chance = random.Random(-1)
        connection = Connection(self._plan["host"], self._plan["port"])
        while time.monotonic() < until:
            name = chance.choice(self._plan["names"])
            if name in self._plan["churned"]:
                await self._admin(connection, "unload", "DELETE", f"/v1/adapters/{name}")
                await asyncio.sleep(chance.random() * OPERATOR_PAUSE_S)
            await self._admin(connection, "load", "POST", "/v1/adapters", {"name": name})
            await asyncio.sleep(chance.random() * 2 * OPERATOR_PAUSE_S)
        for name in self._plan["churned"]:
            await self._admin(connection, "load", "POST", "/v1/adapters", {"name": name})
        connection.close()

    async def _admin(self, connection: Connection, what: str, method: str, path: str, body: Any = None) -> None:
        status, _ = await connection.ask(http_request(method, path, self._plan["keys"]["admin"], body))
        self.counts[f"admin, {what}", str(status or "no answer")] += 1


def is_right(answer: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether an answer is that of its adapter alone, its count of tokens included."""
    if answer["usage"]["prompt_tokens"] != expected["tokens"]:
        return False
    if "text" in expected:
        return bool(answer["choices"][0]["message"]["content"] == expected["text"])
    row = answer["data"][0]
    near = (
        math.isclose(seen, chance, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
        for seen, chance in zip(row["probs"], expected["probs"], strict=True)
    )
    return row["label"] == expected["label"] and all(near)


def main() -> None:
    honest = Honest(json.loads(sys.stdin.readline()))
    began = time.process_time()
    asyncio.run(honest.run())
    seen = {
        "counts": [[*one, many] for one, many in honest.counts.items()],
        "latencies_s": honest.latencies_s,
        "refused": honest.refused,
        "wrong": len(honest.wrong),
        "examples of wrong": honest.wrong[:5],
        "cpu_s": time.process_time() - began,
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
