"""The server as its clients see it: OpenAI's own Python client, curl's bodies, keys, faults; over a real socket."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from support import served_adapters, tiny_models
from support.http_server import CHAT, bearer, listening, record
from support.waiting import SOON

import tunedeck as td
from tunedeck.core.errors import ConfigError
from tunedeck.server.app import create_app
from tunedeck.server.auth import Keys
from tunedeck.server.paths import is_open
from tunedeck.server.run import ServerSettings, check_address, open_service
from tunedeck.server.service import Service
from tunedeck.serving.bounds import Bounds


@pytest.fixture(scope="module")
def chat_server() -> Iterator[tuple[str, Service]]:
    with listening("causal") as found:
        yield found


@pytest.fixture(scope="module")
def classify_server() -> Iterator[tuple[str, Service]]:
    with listening("classifier") as found:
        yield found


def client(url: str, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def solo(form: str, name: str) -> td.Deck:
    deck = served_adapters.base_deck(form)
    deck.load_adapter(served_adapters.saved_adapters(form) / name)
    return deck


@pytest.mark.parametrize("name", ["lora-1", "bottleneck-1", "prompt-2", "full-1"])
def test_openais_client_chats_whole_and_streamed(chat_server: tuple[str, Service], name: str) -> None:
    expected = solo("causal", name).generate([CHAT], name, td.Sampling(max_tokens=8))[0]
    whole = client(chat_server[0]).chat.completions.create(model=name, messages=CHAT, max_tokens=8)
    assert whole.choices[0].message.content == expected
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    stream = client(chat_server[0]).chat.completions.create(
        model=name, messages=CHAT, max_tokens=8, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == expected
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage


def test_openais_client_completes_texts_and_token_ids(chat_server: tuple[str, Service]) -> None:
    deck = served_adapters.base_deck("causal")
    ids = deck.tokenizer("w4 w5")["input_ids"]
    got = client(chat_server[0]).completions.create(model="tiny", prompt=["w4 w5", "w9"], max_tokens=6)
    again = client(chat_server[0]).completions.create(model="tiny", prompt=ids, max_tokens=6)
    assert len(got.choices) == 2
    assert got.choices[0].text == again.choices[0].text
    stream = client(chat_server[0]).completions.create(model="tiny", prompt="w4 w5", max_tokens=6, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == got.choices[0].text


def test_openais_client_lists_models_with_their_parent(chat_server: tuple[str, Service]) -> None:
    found = {one.id: one for one in client(chat_server[0]).models.list()}
    assert set(found) == {"tiny", *(f"{kind}-{number}" for kind in served_adapters.KINDS for number in (1, 2))}
    assert found["lora-1"].parent == "tiny"  # type: ignore[attr-defined]
    assert client(chat_server[0]).models.retrieve("lora-1").id == "lora-1"
    everything = httpx.get(f"{chat_server[0]}/v1/models").text
    assert str(served_adapters.saved_adapters("causal").parent) not in everything


def test_openais_client_embeds_in_both_encodings() -> None:
    with listening("unpooled") as (url, _):
        texts = list(served_adapters.TEXTS)
        expected = solo("unpooled", "lora-1").embed(texts, "lora-1")
        for encoding in ("float", "base64"):
            got = client(url).embeddings.create(model="lora-1", input=texts, encoding_format=encoding)
            assert [one.index for one in got.data] == list(range(len(texts)))
        plain = client(url).embeddings.create(model="lora-1", input=texts)
        for row, one in zip(expected.tolist(), plain.data, strict=True):
            assert one.embedding == pytest.approx(row, abs=1e-5)


def test_an_unknown_model_is_404_in_openais_body_and_never_the_base(chat_server: tuple[str, Service]) -> None:
    for name in ("nobody", "../outside", "/etc", "lora-1/../lora-1", "lora-1\x00"):
        with pytest.raises(openai.NotFoundError) as refused:
            client(chat_server[0]).chat.completions.create(model=name, messages=CHAT)
        assert refused.value.body["type"] == "NotFoundError"  # type: ignore[index]
        assert refused.value.param == "model"


def test_classify_and_predict_answer_as_solo_runs(classify_server: tuple[str, Service]) -> None:
    url, _ = classify_server
    for name in ("lora-1", "bottleneck-2", "prompt-1", "full-2"):
        expected = solo("classifier", name).predict(list(served_adapters.TEXTS), name)
        got = httpx.post(f"{url}/classify", json={"model": name, "input": list(served_adapters.TEXTS)}).json()["data"]
        assert [one["label"] for one in got] == [one.label for one in expected]
        assert got[0]["probs"] == pytest.approx(list(expected[0].probabilities.values()), abs=1e-5)
        single = httpx.post(f"{url}/predict", json={"model": name, "inputs": served_adapters.TEXTS[0]}).json()
        assert single[0]["label"] == expected[0].label
        assert single[0]["score"] == pytest.approx(expected[0].score, abs=1e-5)
        several = httpx.post(
            f"{url}/predict", json={"model": name, "inputs": [[text] for text in served_adapters.TEXTS]}
        ).json()
        assert [one[0]["label"] for one in several] == [one.label for one in expected]


def test_a_base_without_a_trained_head_does_not_answer_at_random() -> None:
    deck = td.Deck.load(tiny_models.folder_of("bert", "plain"), td.Classify(), dtype="float32")
    service = open_service(deck, served_adapters.saved_adapters("classifier"), ServerSettings(), "tiny")
    assert not service.base_answers
    service.engine.close()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"model": "lora-1"}', 400),
        (b'{"model": "lora-1", "input": []}', 400),
        (b'{"model": "lora-1", "input": 7}', 400),
        (b'{"model": "lora-1", "input": "w4", "surprise": 1}', 400),
        (b"\xff\xfe\x00", 400),
        (b"[" * 1_000_000, 400),
        (b'{"model": "lora-1", "input": ' + b"9" * 10_000 + b"}", 400),
        (b'{"model": "lora-1", "input": "' + b"w4 " * 2_000_000 + b'"}', 413),
    ],
)
def test_malformed_and_huge_bodies_are_refused(classify_server: tuple[str, Service], body: bytes, status: int) -> None:
    got = httpx.post(f"{classify_server[0]}/classify", content=body, headers={"Content-Type": "application/json"})
    assert got.status_code == status
    assert set(got.json()["error"]) == {"message", "type", "param", "code", "request_id"}
    assert got.json()["error"]["request_id"] == got.headers["x-request-id"]
    assert "w4 w4" not in got.text


def test_a_huge_body_that_does_not_say_its_length_is_refused_and_so_is_one_that_does_not_come() -> None:
    def pieces(count: int, pause_s: float) -> Iterator[bytes]:
        for _ in range(count):
            yield b"w4 " * 100
            time.sleep(pause_s)

    json_type = {"Content-Type": "application/json"}
    with listening("classifier", bounds=Bounds(max_body=2000, body_time=0.3)) as (url, _):
        assert httpx.post(f"{url}/classify", content=pieces(10, 0), headers=json_type).status_code == 413
        assert httpx.post(f"{url}/classify", content=pieces(4, 0.2), headers=json_type).status_code == 408
        body = {"model": "lora-1", "input": "w4"}
        assert httpx.post(f"{url}/classify", json=body).status_code == 200


def test_every_route_but_health_and_the_documentation_wants_a_key() -> None:
    keys = Keys([record("team", models=["lora-*"]), record("root", admin=True), record("slow", requests_per_minute=2)])
    with listening("classifier", keys) as (url, service):
        assert httpx.get(f"{url}/health").status_code == 200
        paths = {route.path for route in _routes(create_app(service, keys))} | {"/nothing"}
        assert {"/classify", "/predict", "/metrics", "/v1/adapters", "/docs", "/openapi.json", "/ready"} <= paths
        assert {path for path in paths if is_open(path)} == {"/health", "/docs", "/redoc", "/openapi.json"}
        for path in {path for path in paths if not is_open(path)}:
            assert httpx.get(f"{url}{path}").status_code == 401, path
            for wrong in ("Bearer wrong", "Basic team-key"):  # the later of so many are 429
                assert httpx.get(f"{url}{path}", headers={"Authorization": wrong}).status_code in (401, 429), path
        body = {"model": "lora-1", "input": "w4"}
        assert httpx.post(f"{url}/classify", json=body, headers=bearer("team")).status_code == 200
        other = {**body, "model": "full-1"}
        assert httpx.post(f"{url}/classify", json=other, headers=bearer("team")).status_code == 404
        listed = httpx.get(f"{url}/v1/models", headers=bearer("team")).json()["data"]
        assert [one["id"] for one in listed] == ["lora-1", "lora-2"]
        assert httpx.post(f"{url}/v1/adapters", json={"name": "lora-1"}, headers=bearer("team")).status_code == 403
        assert httpx.post(f"{url}/v1/adapters", json={"name": "lora-1"}, headers=bearer("root")).status_code == 200
        answers = [httpx.post(f"{url}/classify", json=body, headers=bearer("slow")) for _ in range(3)]
        assert [one.status_code for one in answers] == [200, 200, 429]
        assert int(answers[2].headers["Retry-After"]) >= 1
        assert answers[2].json()["error"]["type"] == "RateLimitError"


def _routes(app: Any) -> list[Any]:
    return [route for route in app.routes if hasattr(route, "path")] + [
        inner for route in app.routes for inner in getattr(getattr(route, "original_router", None), "routes", [])
    ]


def test_adapters_are_loaded_pinned_listed_and_unloaded_over_http(tmp_path: Path) -> None:
    deck = solo("classifier", "lora-1")
    deck.save("lora-1", tmp_path / "law")
    deck.save("lora-1", tmp_path / "tax")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "adapter_config.json").write_text("{}")
    with listening("classifier", root=tmp_path) as (url, _):
        loaded = httpx.post(f"{url}/v1/adapters", json={"name": "law", "pin": True}).json()
        assert loaded["pinned"]
        assert loaded["note"] is None
        again = httpx.post(f"{url}/v1/adapters", json={"name": "law"}).json()
        assert again["version"] > loaded["version"]
        broken = httpx.post(f"{url}/classify", json={"model": "broken", "input": "w4"})
        assert broken.status_code == 422
        assert "broken/adapter_config.json" in broken.json()["error"]["message"]
        assert str(tmp_path) not in broken.text
        assert httpx.post(f"{url}/classify", json={"model": "tax", "input": "w4"}).status_code == 200
        listed = {one["name"]: one for one in httpx.get(f"{url}/v1/adapters").json()["data"]}
        assert listed["law"]["resident"]
        assert httpx.delete(f"{url}/v1/adapters/law").status_code == 200
        assert httpx.post(f"{url}/classify", json={"model": "law", "input": "w4"}).status_code == 404
        assert httpx.delete(f"{url}/v1/adapters/law").status_code == 404
        outside = {"lora_name": "law", "lora_path": "/etc"}
        assert httpx.post(f"{url}/v1/load_lora_adapter", json=outside).status_code == 400
        assert httpx.post(f"{url}/v1/load_lora_adapter", json={"lora_name": "law"}).status_code == 200
        assert httpx.post(f"{url}/v1/load_lora_adapter", json={"lora_name": "law"}).status_code == 400
        assert httpx.post(f"{url}/v1/unload_lora_adapter", json={"lora_name": "law"}).status_code == 200
        assert httpx.post(f"{url}/v1/unload_lora_adapter", json={"lora_name": "nobody"}).status_code == 404


def test_metrics_count_by_adapter(classify_server: tuple[str, Service]) -> None:
    url, _ = classify_server
    httpx.post(f"{url}/classify", json={"model": "lora-2", "input": "w4"})
    text = httpx.get(f"{url}/metrics").text
    assert 'tunedeck_requests_total{model="lora-2",outcome="ok"}' in text
    assert 'tunedeck_adapter_events_total{event="load",model="lora-2"} 1.0' in text
    assert "vllm:lora_requests_info{" in text
    assert "tunedeck_request_latency_seconds_bucket" in text


def test_a_client_that_leaves_its_stream_frees_its_row(chat_server: tuple[str, Service]) -> None:
    url, service = chat_server
    body = {"model": "lora-1", "messages": CHAT, "max_tokens": 50, "stream": True}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body) as stream:
        next(stream.iter_lines())
    until = time.monotonic() + SOON
    while service.engine.in_flight:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert not any(one.users for one in service.engine.store.cached())


def test_while_it_drains_it_is_not_ready_and_answers_503() -> None:
    with listening("classifier") as (url, service):
        assert httpx.get(f"{url}/ready").status_code == 200
        service.engine.drain(1)
        assert httpx.get(f"{url}/ready").status_code == 503
        refused = httpx.post(f"{url}/classify", json={"model": "lora-1", "input": "w4"})
        assert refused.status_code == 503
        assert refused.headers["Retry-After"]
        assert httpx.get(f"{url}/health").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org"])
def test_another_address_than_this_machines_needs_a_key_file(host: str) -> None:
    with pytest.raises(ConfigError, match="can be reached by others; give --api-key-file"):
        check_address(ServerSettings(host=host))
    check_address(ServerSettings(host=host, key_file=Path("keys.toml")))
    check_address(ServerSettings(host="127.0.0.1"))
