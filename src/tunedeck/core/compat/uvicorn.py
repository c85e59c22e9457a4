"""How a server of uvicorn is told to stop from within, as of 0.54."""

from __future__ import annotations

import uvicorn


def stop_server(server: uvicorn.Server) -> None:
    """Let the server stop listening, finish its open connections within its time limit, and return from `run`."""
    server.should_exit = True
