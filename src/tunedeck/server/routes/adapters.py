"""GET /v1/models for everybody; loading, unloading and listing what is in memory for admins."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict

from fastapi import APIRouter, Depends, Request

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.server.errors import Failure, refusals
from tunedeck.server.requests import ChooseRequest, LoadRequest, VllmLoadRequest, VllmUnloadRequest
from tunedeck.server.responses import AdapterList, Choices, Chosen, InMemory, Loaded, Model, ModelList, OnDisk
from tunedeck.server.service import caller_of, service_of
from tunedeck.serving.adapter_cache import CachedAdapter
from tunedeck.serving.repository import unknown


class Refused(Exception):  # noqa: N818 - it carries a Failure
    """A failure that a route has found by itself."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _admins_only(http: Request) -> None:
    if not caller_of(http).admin:
        raise Refused(Failure(403, "PermissionDeniedError", "Validation", say("this needs an admin key")))


router = APIRouter(tags=["models"])
admin_router = APIRouter(tags=["adapters"], dependencies=[Depends(_admins_only)], responses=refusals(403))

_LOADING = refusals(400, 404, 408, 413, 415, 422, 503)


@router.get("/v1/models")
def models(http: Request) -> ModelList:
    """List the base model, where it can answer, and every adapter that the caller's key may use."""
    service, caller = service_of(http), caller_of(http)
    names = [name for name in service.engine.store.names() if caller.may_use(name)]
    base = [_model(http, service.base, None)] if service.base_answers and caller.may_use(service.base) else []
    return {"object": "list", "data": [*base, *(_model(http, name, service.base) for name in names)]}


@router.get("/v1/models/{name:path}", responses=refusals(404))
def model(http: Request, name: str) -> Model:
    """One model; 404 when it does not exist or is not for the caller's key."""
    service = service_of(http)
    if name == service.base and service.base_answers and caller_of(http).may_use(name):
        return _model(http, name, None)
    if not caller_of(http).may_use(name) or name not in service.engine.store.names():
        raise unknown(name)
    return _model(http, name, service.base)


@router.post("/v1/choose", responses=refusals(400, 408, 413, 415, 422, 503))
async def choose(http: Request, body: ChooseRequest) -> Choices:
    """The adapter that the model "auto" chooses for each text. With the model "auto" a text that is not near is
    refused.
    """
    texts = [body.input] if isinstance(body.input, str) else body.input
    chosen = await service_of(http).choose(http, texts)
    data: list[Chosen] = [
        {"index": index, **asdict(one)}  # type: ignore[typeddict-item]
        for index, one in enumerate(chosen)
    ]
    return {"object": "list", "data": data}


def _model(http: Request, name: str, parent: str | None) -> Model:
    service = service_of(http)
    return {
        "id": name,
        "object": "model",
        "created": service.created_s,
        "owned_by": "tunedeck",
        "root": parent or name,
        "parent": parent,
        "max_model_len": service.positions,
    }


@admin_router.get("/v1/adapters")
def adapters(http: Request) -> AdapterList:
    """Every adapter, and of those in memory their version, bytes, users and whether they are pinned."""
    store = service_of(http).engine.store
    cached = {one.name: one for one in store.cached()}
    data: list[InMemory | OnDisk] = [
        {"name": name, "resident": False} if name not in cached else _in_memory(cached[name], store.note(cached[name]))
        for name in store.names()
    ]
    return {"object": "list", "data": data, "bytes": store.bytes, "max_bytes": store.max_bytes}


@admin_router.post("/v1/adapters", responses=_LOADING)
async def load(http: Request, body: LoadRequest) -> Loaded:
    """Load an adapter ahead, or again as a new version. `pin` keeps it in memory, false lets it go; without it that
    stays as it was.
    """
    return await _load(http, body.name, body.pin)


@admin_router.delete("/v1/adapters/{name:path}", responses=refusals(404, 422))
def unload(http: Request, name: str) -> OnDisk:
    """Take the name away at once; what runs finishes, then its memory is freed."""
    service_of(http).engine.store.unload(name)
    return {"name": name, "resident": False}


@admin_router.post("/v1/load_lora_adapter", responses=_LOADING)
async def load_lora_adapter(http: Request, body: VllmLoadRequest) -> str:
    """As vLLM's; only folders of the root, under their names."""
    store = service_of(http).engine.store
    if body.lora_path not in (None, body.lora_name):
        raise ConfigError(say("lora_path must be the adapter's name, a folder under the served root; leave it out"))
    if not body.load_inplace and any(one.name == body.lora_name for one in store.cached()):
        raise ConfigError(say("{name!r} is loaded already; to load it again set load_inplace", name=body.lora_name))
    await _load(http, body.lora_name, pin=None)
    return say("Success: LoRA adapter '{name}' added successfully.", name=body.lora_name)


@admin_router.post("/v1/unload_lora_adapter", responses=refusals(400, 404, 408, 413, 415, 422))
def unload_lora_adapter(http: Request, body: VllmUnloadRequest) -> str:
    """As vLLM's."""
    service_of(http).engine.store.unload(body.lora_name)
    return say("Success: LoRA adapter '{name}' removed successfully.", name=body.lora_name)


async def _load(http: Request, name: str, pin: bool | None) -> Loaded:
    service, began = service_of(http), time.monotonic()
    if name == service.base:
        raise ConfigError(say("{name!r} is the name of the base model; rename the adapter's folder", name=name))
    lease = await asyncio.wrap_future(await asyncio.to_thread(service.engine.store.load, name, pin=pin))
    lease.close()
    return {**_in_memory(lease.adapter, lease.adapter.note), "load_ms": round(1000 * (time.monotonic() - began), 1)}


def _in_memory(one: CachedAdapter, note: str | None) -> InMemory:
    return {
        "name": one.name,
        "resident": True,
        "version": one.version,
        "bytes": one.bytes,
        "users": one.users,
        "pinned": one.pinned,
        "note": note,
    }
