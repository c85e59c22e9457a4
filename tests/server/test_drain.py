"""Signals: the end of a drain, a second signal, keys read again; and the address. `serve` runs in the test's own main
thread.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import served_adapters
from support.http_server import bearer, record
from support.waiting import SOON

from tunedeck.core.errors import ConfigError
from tunedeck.server import run
from tunedeck.server.run import ServerSettings, bind, open_service, serve
from tunedeck.serving.engine import Worker

CHAT = [{"role": "user", "content": "w4 w5 w6"}]


@pytest.fixture(autouse=True)
def _unfrozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what `serve` does to its process, leave out what would outlast the test."""
    monkeypatch.setattr("tunedeck.server.run.gc.freeze", lambda: None)
    monkeypatch.setattr(run, "within_descriptors", lambda bounds: bounds)


class Held:
    """A worker that stands still after some steps until it is released."""

    def __init__(self, worker: Worker, steps: int) -> None:
        self._worker, self._left = worker, steps
        self.standing, self.released = threading.Event(), threading.Event()

    def step(self) -> bool:
        """One step, while there are some left."""
        if not self._left:
            self.standing.set()
            self.released.wait(SOON)
        busy = self._worker.step()
        self._left -= busy
        return busy

    def stop(self) -> None:
        """As the worker's."""
        self._worker.stop()


def served_while(form: str, settings: ServerSettings, client: Callable[[str, Any], Any], steps: int = -1) -> Any:
    """Serve until SIGTERM in this thread while a client runs in another; what the client returns."""
    service = open_service(served_adapters.base_deck(form), served_adapters.saved_adapters(form), settings, "tiny")
    held = Held(service.engine._worker, steps)
    service.engine._worker = held
    sockets = bind(settings)
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"

    def run_client() -> Any:
        until = time.monotonic() + SOON
        while True:
            try:
                httpx.get(f"{url}/health")
                break
            except httpx.TransportError:
                assert time.monotonic() < until
                time.sleep(0.01)
        try:
            return client(url, held)
        finally:
            held.released.set()
            os.kill(os.getpid(), signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        returned = pool.submit(run_client)
        serve(service, settings, sockets)
        return returned.result(SOON)


def ask(url: str, stream: bool, asked: threading.Event | None = None) -> tuple[int, str, Any]:
    body = {"model": "lora-1", "messages": CHAT, "max_tokens": 50, "stream": stream}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=SOON) as got:
        lines = []
        for line in got.iter_lines():
            lines.append(line)
            if asked is not None:
                asked.set()
        return got.status_code, "\n".join(lines), got.headers


@pytest.mark.parametrize("signals", [1, 2])
def test_at_the_end_of_a_drain_whole_answers_are_503_and_streams_end_with_an_error_event(
    signals: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """A second signal ends the drain at once; it would be an hour otherwise."""

    def client(url: str, held: Held) -> tuple[Any, Any]:
        with ThreadPoolExecutor(2) as pool:
            begun = threading.Event()
            stream: Future[Any] = pool.submit(ask, url, True, begun)
            assert begun.wait(SOON)
            whole: Future[Any] = pool.submit(ask, url, False)
            assert held.standing.wait(SOON)
            while "tunedeck_requests_in_flight 2.0" not in httpx.get(f"{url}/metrics").text:
                time.sleep(0.01)
            for number in range(signals):
                os.kill(os.getpid(), signal.SIGTERM)
                while not number and httpx.get(f"{url}/ready").status_code != 503:
                    time.sleep(0.01)
            return whole.result(SOON), stream.result(SOON)

    settings = ServerSettings(port=0, drain_s=0.3 if signals == 1 else 3600)
    whole, stream = served_while("causal", settings, client, steps=3)
    assert whole[0] == 503
    assert whole[2]["Retry-After"]
    assert json.loads(whole[1])["error"]["type"] == "ServiceUnavailableError"
    assert stream[0] == 200
    last = [line for line in stream[1].splitlines() if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == 503
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    assert not [line for line in lines if "error" in line or line.get("level") == "error"]


def write_keys(file: Path, *names: str) -> Path:
    file.write_text("".join(f'[[key]]\nname = "{name}"\nsha256 = "{record(name).sha256}"\n' for name in names))
    return file


@pytest.mark.parametrize("how", ["SIGHUP", "change"])
def test_keys_are_read_again_on_sighup_and_when_the_file_changes(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_KEYS_AGAIN_S", 3600 if how == "SIGHUP" else 0.01)
    file = write_keys(tmp_path / "keys.toml", "old")

    def client(url: str, _: Held) -> list[int]:
        def status(name: str) -> int:
            return httpx.get(f"{url}/ready", headers=bearer(name)).status_code

        before = [status("old"), status("new")]
        write_keys(file, "new")
        if how == "SIGHUP":
            os.kill(os.getpid(), signal.SIGHUP)
        until = time.monotonic() + SOON
        while status("old") == 200:
            assert time.monotonic() < until
            time.sleep(0.01)
        return [*before, status("new")]

    assert served_while("classifier", ServerSettings(port=0, key_file=file), client) == [200, 401, 200]


def test_sighup_without_a_key_file_ends_nothing() -> None:
    def client(url: str, _: Held) -> int:
        os.kill(os.getpid(), signal.SIGHUP)
        return httpx.get(f"{url}/health").status_code

    assert served_while("classifier", ServerSettings(port=0), client) == 200


def test_a_server_without_keys_is_not_asked_under_another_name() -> None:
    def client(url: str, _: Held) -> list[int]:
        return [
            httpx.get(f"{url}/health", headers={"Host": host}).status_code for host in ("localhost", "evil.example")
        ]

    assert served_while("classifier", ServerSettings(port=0), client) == [200, 421]


def test_a_port_that_is_taken_is_said_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127.0.0.1:{port}: another program uses this port"):
            bind(ServerSettings(port=port))


def test_a_full_pipe_that_nobody_reads_keeps_no_answer_back(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody, pipe = os.pipe()
    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)

    def client(url: str, _: Held) -> tuple[int, int, bool]:
        with httpx.Client(timeout=SOON) as http:
            for _number in range(40):  # each leaves a line of a thousand characters
                http.get(f"{url}/{'x' * 900}")
            full = not select.select([], [pipe], [], 0)[1]
            asked = http.post(f"{url}/classify", json={"model": "lora-1", "input": "w4"})
            return http.get(f"{url}/health").status_code, asked.status_code, full

    with os.fdopen(pipe, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        try:
            assert served_while("classifier", ServerSettings(), client) == (200, 200, True)
            assert json.loads(os.read(nobody, 4096).splitlines()[0])["request_id"]
        finally:
            monkeypatch.undo()
            os.close(nobody)  # the thread that writes ends


def test_what_is_loaded_before_the_first_request_is_left_out_of_garbage_collection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frozen: list[bool] = []
    monkeypatch.setattr("tunedeck.server.run.gc.freeze", lambda: frozen.append(True))
    assert served_while("classifier", ServerSettings(port=0), lambda *_: len(frozen)) == 1
