"""The server under attack: `tunedeck serve` as a process, watched for its memory and for how fast it answers
/health.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from attack_clients import PATIENCE_S
from attack_target import Target

HOST = "127.0.0.1"
START_S, LEAVE_S = 120, 60
PROBE_EVERY_S = 0.05
KEYS = ("admin", "honest", "attacker-1", "attacker-2")


class Server:
    """A running `tunedeck serve` with a key for each of KEYS. Everything that it logs goes into a file, so that it
    never waits for a reader.
    """

    def __init__(self, target: Target, task: str, folder: Path) -> None:
        with socket.socket() as listener:
            listener.bind((HOST, 0))
            self.port = int(listener.getsockname()[1])
        self.keys = {name: secrets.token_hex(16) for name in KEYS}
        tables = (
            f'[[key]]\nname = "{name}"\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\nadmin = '
            f"{str(name == 'admin').lower()}\n"
            for name, key in self.keys.items()
        )
        (folder / "keys.toml").write_text("\n".join(tables))
        self._log = folder / "server.log"
        flags = {
            "adapters": target.adapters,
            "model": target.base,
            "task": task,
            "port": self.port,
            "api-key-file": folder / "keys.toml",
            "dtype": "float32",
            "drain": 5,
        }
        command = [f"--{name}={value}" for name, value in flags.items()]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tunedeck", "serve", *command], stderr=log, stdout=log
            )

    def wait(self) -> None:
        """Until it answers. Raises RuntimeError with its log when it does not come up."""
        until = time.monotonic() + START_S
        while self.process.poll() is None and time.monotonic() < until:
            try:
                if self.ask("/health")[0] == 200:
                    return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(self._log.read_text(errors="replace")[-2000:])

    def ask(self, path: str, body: dict[str, Any] | None = None, key: str = "admin") -> tuple[int, str]:
        """Status and body; GET without a body, POST with one. Raises OSError and HTTPException when there is no
        answer.
        """
        connection = http.client.HTTPConnection(HOST, self.port, timeout=3 * PATIENCE_S)
        headers = {"Authorization": f"Bearer {self.keys[key]}", "Content-Type": "application/json"}
        with closing(connection):
            connection.request("GET" if body is None else "POST", path, body and json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def in_flight(self) -> float | None:
        """What waits or runs, by its own metrics; None when it does not say."""
        try:
            lines = self.ask("/metrics")[1].splitlines()
        except (OSError, http.client.HTTPException):
            return None
        return next((float(line.split()[1]) for line in lines if line.startswith("tunedeck_requests_in_flight ")), None)

    def logged(self) -> tuple[Counter[str], int]:
        """How often each status stands in its log, and how many tracebacks."""
        statuses: Counter[str] = Counter()
        tracebacks = 0
        for line in self._log.read_text(errors="replace").splitlines():
            tracebacks += line.startswith("Traceback")
            if line.startswith("{"):
                statuses[str(json.loads(line).get("status"))] += 1
        return statuses, tracebacks

    def cpu_s(self) -> float:
        """Processor time so far; 0 when it is no more."""
        with suppress(psutil.Error):
            return sum(psutil.Process(self.process.pid).cpu_times()[:2])
        return 0.0

    def memory(self) -> int:
        """Resident bytes now; 0 when it is no more."""
        with suppress(psutil.Error):
            return int(psutil.Process(self.process.pid).memory_info().rss)
        return 0

    def leave(self) -> float | None:
        """End it as an operator does; the seconds that took, None when it had to be killed."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(LEAVE_S)
            return time.monotonic() - began
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


class Watch:
    """Memory ten times a second and /health twenty times, each in a thread and /health on a connection of its own."""

    def __init__(self, server: Server, most_bytes: float, too_much: Callable[[], None]) -> None:
        self._server, self._most_bytes, self._too_much = server, most_bytes, too_much
        self._ended = threading.Event()
        self.peak_bytes = 0
        self.over = False
        self.probes: list[tuple[float, float, bool]] = []  # when it began, seconds, whether it was answered with 200
        self.latest_s = 0.0
        """How much too late the prober itself was at worst: what of a slow answer may be the machine's fault."""
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._weigh, self._probe)]

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def health(self, since: float) -> tuple[float, int, int]:
        """Of the probes since a time: the slowest in seconds, how many there were, and how many were not answered."""
        probes = [one for one in self.probes if one[0] >= since]
        return max((took for _, took, _ in probes), default=0.0), len(probes), sum(not well for _, _, well in probes)

    def _weigh(self) -> None:
        while not self._ended.wait(0.1):
            held = self._server.memory()
            self.peak_bytes = max(self.peak_bytes, held)
            if held > self._most_bytes:
                self.over = True
                self._too_much()
            if held > 1.3 * self._most_bytes:
                self._server.process.kill()

    def _probe(self) -> None:
        with suppress(PermissionError):  # only root may: then nobody else's work delays the measurement itself
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -10)
        connection = http.client.HTTPConnection(HOST, self._server.port, timeout=PATIENCE_S)
        due = time.perf_counter()
        while not self._ended.is_set():
            due = max(due + PROBE_EVERY_S, time.perf_counter())
            time.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            self.latest_s = max(self.latest_s, began - due)
            try:
                connection.request("GET", "/health")
                answer = connection.getresponse()
                well = answer.status == 200
                answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                well = False
            self.probes.append((began, time.perf_counter() - began, well))
        connection.close()


@contextmanager
def serving(target: Target, task: str, folder: Path) -> Iterator[Server]:
    """A server that answers; ended at the end in any case."""
    server = Server(target, task, folder)
    try:
        server.wait()
        yield server
    finally:
        server.leave()
