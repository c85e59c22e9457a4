"""What the OpenAPI document says is what the server does: generated requests, and every refusal that is documented."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi.testclient import TestClient
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from support import served_adapters
from support.http_server import bearer, record

from tunedeck.server.app import create_app
from tunedeck.server.auth import Keys
from tunedeck.server.run import ServerSettings, open_service
from tunedeck.serving.bounds import Bounds

EXAMPLES = int(os.environ.get("TUNEDECK_OPENAPI_EXAMPLES", "15"))
KEYS = [record("root", admin=True), record("team", models=["lora-1"]), record("slow", requests_per_minute=1)]
CONFIG = {
    "headers": bearer("root"),
    "generation": {"max-examples": EXAMPLES},
    # a body can have the right form and still be too long for the model or name an adapter that is not there
    "checks": {
        "positive_data_acceptance": {"expected-statuses": ["2xx", "400", "404", "422"]},
        "negative_data_rejection": {"expected-statuses": ["400", "404", "405", "413", "415"]},
    },
    "continue-on-failure": True,
}
NAMES = ("lora-1", "bottleneck-1", "prompt-2", "tiny")
CHAT = [{"role": "user", "content": "w4"}]
ANSWERING: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "NAME", "messages": CHAT, "max_tokens": 2},
    "/v1/completions": {"model": "NAME", "prompt": "w4", "max_tokens": 2},
    "/v1/embeddings": {"model": "NAME", "input": "w4"},
    "/classify": {"model": "NAME", "input": "w4"},
    "/predict": {"model": "NAME", "inputs": "w4"},
    "/entities": {"model": "NAME", "inputs": "w4"},
    "/score": {"model": "NAME", "text_1": "w4", "text_2": "w5"},
    "/v1/score": {"model": "NAME", "text_1": "w4", "text_2": "w5"},
    "/rerank": {"model": "NAME", "query": "w4", "documents": ["w5"]},
    "/v1/rerank": {"model": "NAME", "query": "w4", "documents": ["w5"]},
}
"""A body for each route that has a task's answers."""
BODIES: dict[str, dict[str, Any]] = {
    **ANSWERING,
    "/v1/adapters": {"name": "NAME"},
    "/v1/load_lora_adapter": {"lora_name": "NAME"},
    "/v1/unload_lora_adapter": {"lora_name": "NAME"},
    "/v1/choose": {"input": "w4"},
}


def with_known_models(schema: Any) -> Any:
    """Most bodies that name a model name one that is there."""

    @schema.hook
    def map_body(_: Any, body: Any) -> Any:
        if isinstance(body, dict) and isinstance(body.get("model"), str) and 1 <= len(body["model"]) <= 512:
            return {**body, "model": NAMES[len(body["model"]) % len(NAMES)]}
        return body

    return schema


@pytest.mark.parametrize("form", ["classifier", "tagger", "scorer", "unpooled", "causal"])
def test_every_answer_to_a_generated_request_is_documented(form: str) -> None:
    """Routes that every task has are asked of a classifier only."""
    service = open_service(
        served_adapters.base_deck(form), served_adapters.saved_adapters(form), ServerSettings(), "tiny"
    )
    app = create_app(service, Keys(KEYS))
    config = SchemathesisConfig.from_dict(CONFIG)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config, headers=bearer("root"))
    paths = [path for path in app.openapi()["paths"] if form == "classifier" or path in ANSWERING]
    asked, wrong = Counter[str](), []
    for event in from_schema(with_known_models(schema.include(path=paths))).execute():
        if isinstance(event, events.FatalError):
            raise event.exception
        if isinstance(event, events.NonFatalError):
            wrong.append(f"{event.label}: {event.value!r}")
        if isinstance(event, events.ScenarioFinished):
            asked[event.recorder.label] += len(event.recorder.interactions)
            checks = [check for of_case in event.recorder.checks.values() for check in of_case]
            wrong += [
                f"{one.failure_info.failure}\n{one.failure_info.code_sample}" for one in checks if one.failure_info
            ]
    service.engine.close()
    print(form, asked.total(), dict(asked))
    assert not wrong, "\n\n".join(wrong)
    assert {f"{method.upper()} {path}" for path in paths for method in app.openapi()["paths"][path]} <= set(asked)


async def _slowly() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.sleep(0.2)
    yield b"}"


def _asked(method: str, path: str, name: str) -> dict[str, Any]:
    body = json.dumps(BODIES[path]).replace("NAME", name) if method == "post" else None
    headers = {"Content-Type": "application/json"} if body else {}
    return {"method": method, "url": path.replace("{name}", name), "content": body, "headers": headers}


def _provoking(status: int, method: str, path: str) -> dict[str, Any]:
    """A request that ought to be answered with a status; httpx's arguments."""
    named = {404: "nobody", 422: "broken"}.get(status, "lora-2")
    asked = _asked(method, path, named)
    key = {401: "nobody", 403: "team", 429: "slow"}.get(status, "root")
    asked["headers"] |= {"Authorization": f"Bearer {key}-key"}
    if status == 400:
        asked["content"] = '{"surprise": 1}'
    if status == 408:
        asked["content"] = _slowly()
    if status == 413:
        asked["content"] = b" " * 10_001
    if status == 415:
        asked["headers"]["Content-Type"] = "text/plain"
    return asked


@pytest.mark.parametrize("form", ["classifier", "tagger", "scorer", "unpooled", "causal"])
def test_every_refusal_that_is_documented_is_answered_and_as_documented(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(served_adapters.saved_adapters(form) / "lora-1", tmp_path / "lora-2")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "adapter_config.json").write_text("{}")
    service = open_service(served_adapters.base_deck(form), tmp_path, ServerSettings(), "tiny")
    app = create_app(service, Keys(KEYS), Bounds(max_body=10_000, max_admin_body=10_000, body_time=0.1))
    schema = schemathesis.openapi.from_dict(app.openapi())
    found = [
        (int(status), method, path)
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
        for status in operation["responses"]
        if status != "200"
    ]
    assert {status for status, *_ in found} == {400, 401, 403, 404, 408, 413, 415, 422, 429, 503}

    async def ask_all(client: httpx.AsyncClient) -> None:
        for status, method, path in sorted(found):  # 503 last: the server drains for it
            if status == 422:
                await client.request(
                    **_provoking(status, "post", "/v1/adapters")
                )  # so that unloading knows it is broken
            if status == 503:
                service.engine.close()
                monkeypatch.setattr(service.engine, "alarm", lambda: "the engine has ended")
            got = await client.request(**_provoking(status, method, path))
            if status == 429:
                got = await client.request(**_provoking(status, method, path))
            assert got.status_code == status, (method, path, got.text)
            plain = httpx.Request(method, got.url)  # the body of a slow one is not kept
            answer = httpx.Response(got.status_code, headers=got.headers, content=got.content, request=plain)
            answer.elapsed = got.elapsed
            schema[path][method.upper()].validate_response(answer)

    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tiny") as client:
            await ask_all(client)

    asyncio.run(ask())


HALF = "\\ud800"


@pytest.mark.parametrize(
    ("form", "path", "body", "says"),
    [
        ("classifier", "/classify", '{"model": "lora-1", "input": "HALF"}', "input"),
        ("classifier", "/classify", '{"model": "HALF", "input": "w4"}', "model"),
        ("classifier", "/classify", '{"model": "lora-1", "input": "w4", "HALF": 1}', "body"),
        ("classifier", "/classify", '{"model": "lora-1", "input": "w4", "use_activation": "true"}', "use_activation"),
        ("causal", "/v1/completions", '{"model": "lora-1", "prompt": "w4", "max_tokens": "5"}', "max_tokens"),
        ("causal", "/v1/completions", '{"model": "lora-1", "prompt": "w4", "temperature": NaN}', "temperature"),
        ("causal", "/v1/completions", '{"model": "lora-1", "prompt": "w4", "temperature": true}', "temperature"),
        ("causal", "/v1/completions", '{"model": "lora-1", "prompt": "w4", "seed": 9223372036854775808}', "seed"),
        (
            "causal",
            "/v1/completions",
            '{"model": "lora-1", "prompt": [99999999999999999999]}',
            "a prompt has one token",
        ),
        ("causal", "/v1/completions", '{"model": "lora-1", "prompt": []}', "a prompt has one token"),
        ("causal", "/v1/completions", '{"model": "lora-1", "prompt": [[]]}', "a prompt has one token"),
    ],
)
def test_what_json_can_say_and_no_model_can_read_is_refused(form: str, path: str, body: str, says: str) -> None:
    service = open_service(
        served_adapters.base_deck(form), served_adapters.saved_adapters(form), ServerSettings(), "tiny"
    )
    headers = {"Content-Type": "application/json"}
    with TestClient(create_app(service, Keys(None))) as client:
        got = client.post(path, content=body.replace("HALF", HALF), headers=headers)
    service.engine.close()
    assert got.status_code == 400, got.text
    assert says in got.json()["error"]["message"]
