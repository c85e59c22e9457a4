"""Health, readiness, metrics and documentation: who may see what, and what it says when something is wrong."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry, generate_latest
from support import served_adapters
from support.http_server import bearer, record

from tunedeck.server import app as app_module
from tunedeck.server.app import create_app
from tunedeck.server.auth import Keys
from tunedeck.server.paths import TO_ADMINISTER, WITH_INPUTS, route_of
from tunedeck.server.run import ServerSettings, open_service
from tunedeck.server.service import Service

KEYS = [record("root", admin=True), record("team", models=[]), record("scraper", models=[], metrics=True)]
BODY = {"model": "lora-1", "input": "w4"}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    opened = open_service(
        served_adapters.base_deck("classifier"), served_adapters.saved_adapters("classifier"), ServerSettings(), "tiny"
    )
    yield opened
    opened.engine.close()


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service, Keys(KEYS))) as found:
        yield found


def test_health_and_readiness_say_what_is_stuck(
    service: Service, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready", headers=bearer("root")).json() == {"status": "ready"}
    monkeypatch.setattr(service.engine, "alarm", lambda: "the engine thread has ended")
    for path in ("/health", "/ready"):
        got = client.get(path, headers=bearer("root"))
        assert (got.status_code, got.json()) == (503, {"status": "the engine thread has ended"})


def test_health_needs_no_thread_of_the_pool(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: Any, **__: Any) -> None:
        raise AssertionError("waited for a thread")

    monkeypatch.setattr("fastapi.routing.run_in_threadpool", full)
    monkeypatch.setattr("fastapi.dependencies.utils.run_in_threadpool", full)
    assert client.get("/health").status_code == 200
    assert client.get("/ready", headers=bearer("root")).status_code == 200


def test_metrics_are_made_off_the_event_loop(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    loops: list[bool] = []

    def made(registry: CollectorRegistry) -> bytes:
        loops.append(threading.current_thread().name.startswith("AnyIO"))
        return generate_latest(registry)

    monkeypatch.setattr(app_module, "generate_latest", made)
    assert client.get("/metrics", headers=bearer("root")).status_code == 200
    assert loops == [True]


def test_metrics_are_for_admins_and_keys_of_that_scope(client: TestClient) -> None:
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers=bearer("team")).status_code == 403
    for name in ("root", "scraper"):
        got = client.get("/metrics", headers=bearer(name))
        assert got.status_code == 200
        assert "process_resident_memory_bytes" in got.text
        assert "tunedeck_key_requests_total" in got.text


def test_every_answer_over_http_is_counted_by_route_and_status(service: Service, client: TestClient) -> None:
    def counted(route: str, status: int) -> float:
        labels = {"route": route, "status": str(status)}
        return service.metrics.registry.get_sample_value("tunedeck_http_responses_total", labels) or 0.0

    asked: list[tuple[str, str, str, int, dict[str, Any]]] = [
        ("POST", "/classify", "/classify", 200, {"json": BODY, "headers": bearer("root")}),
        ("POST", "/classify", "/classify", 404, {"json": BODY, "headers": bearer("team")}),
        ("POST", "/classify", "/classify", 400, {"json": {}, "headers": bearer("root")}),
        ("POST", "/classify", "/classify", 415, {"content": "{}", "headers": bearer("root")}),
        ("POST", "/classify", "/classify", 401, {"json": BODY}),
        ("GET", "/v1/models/nobody", "/v1/models/{name}", 404, {"headers": bearer("root")}),
        ("GET", "/made/up", "other", 404, {"headers": bearer("root")}),
    ]
    before = [counted(route, status) for _, _, route, status, _ in asked]
    for method, path, _, status, more in asked:
        assert client.request(method, path, **more).status_code == status, path
    assert [counted(route, status) for _, _, route, status, _ in asked] == [count + 1 for count in before]
    names = {route_of(f"/made/up/{number}") for number in range(100)}
    assert names == {"other"}


@pytest.mark.parametrize("form", ["classifier", "unpooled", "causal"])
def test_the_routes_that_take_a_body_are_those_that_the_gate_reads_one_for(form: str) -> None:
    opened = open_service(
        served_adapters.base_deck(form), served_adapters.saved_adapters(form), ServerSettings(), "tiny"
    )
    paths = create_app(opened, Keys(None)).openapi()["paths"]
    opened.engine.close()
    bodied = {
        (method, path) for path, methods in paths.items() for method in methods if "requestBody" in methods[method]
    }
    assert {method for method, _ in bodied} == {"post"}
    assert {path for _, path in bodied} - WITH_INPUTS == TO_ADMINISTER
    assert all(route_of(path.replace("{name}", "x")) == path for path in paths)


def test_a_wrong_input_is_told_by_field_and_index_without_the_checkers_inside(client: TestClient) -> None:
    for wrong in (7, [1], [["a"]], {"a": 1}):
        got = client.post("/classify", json={**BODY, "input": wrong}, headers=bearer("root")).json()["error"]
        assert got["param"] == "input"
        assert got["message"].startswith("input")
        assert not re.search(r"0x|function|\[|\(|str\b\.", got["message"].split(":")[0]), got
    got = client.post("/classify", json={**BODY, "sur-prise": 1}, headers=bearer("root")).json()["error"]
    assert got["message"].startswith("sur-prise: ")


def test_thousands_of_unknown_fields_are_one_error(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    place = app_module._place

    def counting(error: Any) -> Any:
        found.append(1)
        return place(error)

    monkeypatch.setattr(app_module, "_place", counting)
    body = {**BODY, **{f"x{number}": 0 for number in range(10_000)}}
    got = client.post("/classify", json=body, headers=bearer("root"))
    assert got.status_code == 400
    assert "at most 64 fields" in got.json()["error"]["message"]
    assert len(found) <= 2


def test_the_documentation_is_open_and_loads_nothing_from_another_host(client: TestClient) -> None:
    for page in ("/docs", "/redoc"):
        got = client.get(page)
        assert got.status_code == 200
        assert got.headers["content-security-policy"].startswith("default-src 'self';")
        assert not re.search(r"""["'(](https?:)?//""", got.text)
        loaded = re.findall(r'(?:src|href)="([^"]+)"', got.text)
        assert len(loaded) >= 2
        for asset in loaded:
            assert asset.startswith("/")
            found = client.get(asset)
            assert found.status_code == 200, asset
            if asset.endswith(".css"):
                assert not re.search(r"""url\(["']?(https?:)?//|@import""", found.text)


def test_the_documentations_authorize_button_knows_how_to_send_a_key(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {"HTTPBearer": {"type": "http", "scheme": "bearer"}}
    assert document["paths"]["/classify"]["post"]["security"] == [{"HTTPBearer": []}]
    assert "security" not in document["paths"]["/health"]["get"]
    text = httpx.Response(200, json=document).text
    assert not any(name in text for name in ("lora-1", "full-2", "team"))


def test_a_pinned_adapter_is_let_go_when_it_is_loaded_with_pin_false(client: TestClient) -> None:
    def pinned(**more: bool) -> bool:
        got = client.post("/v1/adapters", json={"name": "lora-1", **more}, headers=bearer("root")).json()
        return bool(got["pinned"])

    assert [pinned(pin=True), pinned(), pinned(pin=False), pinned()] == [True, True, False, False]
