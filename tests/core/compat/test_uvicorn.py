"""What Tunedeck uses of uvicorn beyond its documented interface."""

from __future__ import annotations

import socket
import threading
from typing import Any

import uvicorn

from tunedeck.core.compat.uvicorn import stop_server


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nobody asks")


def test_uvicorn_stop_server_ends_run() -> None:
    server = uvicorn.Server(uvicorn.Config(nothing, lifespan="off", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        stop_server(server)
        thread.join(10)
    assert not thread.is_alive()
