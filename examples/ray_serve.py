"""Tunedeck on several machines with Ray Serve: copies of one server, each request where its adapter is in memory
already.

    pip install 'tunedeck[serve]' 'ray[serve]'
    python examples/ray_serve.py --adapters /shared/adapters --replicas 4 [--api-key-file keys.toml]

Clients see the routes, keys and errors of `tunedeck serve`. The folder of adapters must be found on every machine.
"""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from ray import serve
from ray.exceptions import RayError
from ray.serve.handle import DeploymentHandle

BODY_BYTES = 2_000_000
DRAIN_S = 45.0
SCOPE = ("type", "http_version", "method", "scheme", "path", "raw_path", "query_string", "headers", "client", "server")
front = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


@serve.deployment(max_ongoing_requests=512, graceful_shutdown_timeout_s=DRAIN_S, health_check_period_s=5)
class Replica:
    """One base with its adapters: the app of `tunedeck serve`. What is under way finishes before Ray ends a replica."""

    def __init__(self, adapters: str, key_file: str | None) -> None:
        import tunedeck as td
        from tunedeck.server.app import create_app
        from tunedeck.server.auth import read_keys
        from tunedeck.server.run import ServerSettings, open_service
        from tunedeck.serving.infer_base import task_and_base

        task, base, packed = task_and_base(Path(adapters), None, None)
        deck = td.Deck.load(base, task, quantize=packed)
        self._service = open_service(deck, Path(adapters), ServerSettings())
        self._app = create_app(self._service, read_keys(Path(key_file) if key_file else None))

    @serve.multiplexed(max_num_models_per_replica=100)  # about as many as the store's bytes hold
    async def has(self, name: str) -> str:
        """Tell Ray's router who has an adapter; loading and evicting are the store's."""
        return name

    async def messages(self, scope: dict[str, Any], body: bytes) -> AsyncIterator[dict[str, Any]]:
        """ASGI's messages for one request; leave the iterator to end it."""
        name = serve.get_multiplexed_model_id()
        if name and name in self._service.engine.store.names():
            await self.has(name)
        sent, left, given = asyncio.Queue[dict[str, Any] | None](), asyncio.Event(), False

        async def receive() -> dict[str, Any]:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        answering = asyncio.create_task(self._app(scope, receive, sent.put))
        answering.add_done_callback(lambda _: sent.put_nowait(None))
        try:
            while (message := await sent.get()) is not None:
                yield message
        finally:
            left.set()

    def check_health(self) -> None:
        """Ray replaces a replica whose engine has ended."""
        if not self._service.engine.ready:
            raise RuntimeError("the engine has ended")

    def __del__(self) -> None:
        """After the last request."""
        self._service.engine.close()


def model_of(body: bytes) -> str:
    """The adapter that a body names; empty for anything else."""
    try:
        named = json.loads(body)["model"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return named if isinstance(named, str) else ""


@serve.deployment(max_ongoing_requests=10_000, ray_actor_options={"num_cpus": 0})  # it passes on and computes nothing
@serve.ingress(front)
class Front:
    """Reads the `model` of a body and passes the request on, as it is, to a replica that has that adapter."""

    def __init__(self, replicas: DeploymentHandle) -> None:
        self._replicas = replicas

    @front.api_route("/{path:path}", methods=["GET", "POST", "DELETE"])
    async def pass_on(self, http: Request) -> Response:
        """The replica's answer, streamed; 503 when it dies before the answer has begun."""
        body = bytearray()
        async for piece in http.stream():
            body += piece
            if len(body) > BODY_BYTES:  # the replica will say 413
                break
        handle = self._replicas.options(stream=True, multiplexed_model_id=model_of(bytes(body)))
        messages = handle.messages.remote({key: http.scope[key] for key in SCOPE if key in http.scope}, bytes(body))
        try:
            start = await anext(messages)
        except RayError:
            error = {"message": "the replica has gone; try again", "type": "ServiceUnavailableError", "code": 503}
            return JSONResponse({"error": {**error, "param": None}}, 503, {"Retry-After": "1"})

        async def pieces() -> AsyncIterator[bytes]:
            try:
                async for message in messages:
                    yield message.get("body", b"")
            finally:
                messages.cancel()

        response = StreamingResponse(pieces(), start["status"])
        response.raw_headers = list(start["headers"])
        return response


def application(adapters: Path, replicas: int, key_file: Path | None = None, **actor: Any) -> serve.Application:
    """The app for `serve.run`; `actor` are Ray's options for a replica, such as `num_cpus=8`."""
    copies = Replica.options(num_replicas=replicas, ray_actor_options=actor)
    return Front.bind(copies.bind(str(adapters.resolve()), None if key_file is None else str(key_file.resolve())))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=Path, required=True)
    parser.add_argument("--api-key-file", type=Path)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--cpus", type=float, default=1, help="of each replica; Ray lets torch use as many threads")
    parser.add_argument("--gpus", type=float, default=0, help="of each replica")
    given = parser.parse_args()
    resources = {"num_cpus": given.cpus, "num_gpus": given.gpus}
    serve.run(application(given.adapters, given.replicas, given.api_key_file, **resources), blocking=True)
