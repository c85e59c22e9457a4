"""`tunedeck serve` in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import time

import httpx

from support.waiting import SOON


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until_ready(process: subprocess.Popen[str], url: str) -> None:
    """Return once the server answers; a process that ends before fails with what it said."""
    until = time.monotonic() + SOON
    while True:
        try:
            assert httpx.get(f"{url}/ready").status_code == 200
            return
        except httpx.TransportError:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < until
            time.sleep(0.05)
