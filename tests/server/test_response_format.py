"""Answers that fit a JSON schema, whatever a model that knows nothing of JSON would say."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from support import served_adapters, tiny_models
from support.tokenizers_of_all_kinds import tokenizer_of

import tunedeck as td
from tunedeck.core.errors import ConfigError
from tunedeck.generation.json_grammar import SchemaCompiler
from tunedeck.server.app import create_app
from tunedeck.server.auth import Keys
from tunedeck.server.run import ServerSettings, open_service

PATH = "/v1/completions"
SCHEMA = {
    "type": "object",
    "properties": {
        "ok": {"type": "boolean"},
        "colour": {"enum": ["red", "green"]},
        "counts": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "maxItems": 3},
    },
    "required": ["ok", "colour", "counts"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def deck() -> Iterator[td.Deck]:
    tokenizer = tokenizer_of("bytes")
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"vocab_size": len(tokenizer) + 6, "eos_token_id": 1, "max_position_embeddings": 1024}
        tiny_models.tiny_model("llama", "causal", **sizes).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        yield td.Deck.load(folder, td.Generate(), dtype="float32")


@pytest.fixture(scope="module")
def client(deck: td.Deck) -> Iterator[TestClient]:
    with tempfile.TemporaryDirectory() as nothing:
        service = open_service(deck, Path(nothing), ServerSettings(), "tiny")
        with TestClient(create_app(service, Keys(None))) as made:
            yield made
        service.engine.close()


def body(schema: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    wanted = {"type": "json_object"}
    if schema is not None:
        wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}  # type: ignore[dict-item]
    return {"model": "tiny", "prompt": "hello", "max_tokens": 400, "response_format": wanted, **more}


def fits(text: str) -> bool:
    found = json.loads(text)
    assert set(found) == {"ok", "colour", "counts"}
    assert isinstance(found["ok"], bool)
    assert found["colour"] in ("red", "green")
    return len(found["counts"]) <= 3 and all(isinstance(one, int) and 0 <= one <= 99 for one in found["counts"])


def test_an_answer_fits_its_schema_at_any_seed_and_temperature(client: TestClient) -> None:
    for seed in range(3):
        got = client.post(PATH, json=body(SCHEMA, n=4, temperature=1.5, seed=100 * seed)).json()["choices"]
        assert all(fits(choice["text"]) for choice in got)
        assert {choice["finish_reason"] for choice in got} == {"stop"}
        assert len({choice["text"] for choice in got}) > 1
    assert fits(client.post(PATH, json=body(SCHEMA)).json()["choices"][0]["text"])


def test_a_streamed_answer_is_the_whole_one(client: TestClient) -> None:
    asked = body(SCHEMA, temperature=1.5, seed=3, logprobs=2, frequency_penalty=1)
    whole = client.post(PATH, json=asked).json()["choices"][0]
    lines = client.post(PATH, json={**asked, "stream": True}).text.split("\n\n")[:-2]
    chunks = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines]
    assert "".join(chunk["text"] for chunk in chunks) == whole["text"]
    assert chunks[-1]["finish_reason"] == whole["finish_reason"] == "stop"
    assert [one for chunk in chunks for one in chunk["logprobs"]["tokens"]] == whole["logprobs"]["tokens"]


def test_any_json_object_is_an_object_and_beside_it_plain_answers_are_what_they_are(
    client: TestClient, deck: td.Deck
) -> None:
    got = client.post(PATH, json=body(None, max_tokens=300, temperature=1.5, seed=1)).json()["choices"][0]
    assert got["text"].startswith("{")
    if got["finish_reason"] == "stop":
        assert isinstance(json.loads(got["text"]), dict)
    plain = {"model": "tiny", "prompt": "hello", "max_tokens": 20}
    text = client.post(PATH, json={**plain, "response_format": {"type": "text"}}).json()["choices"][0]["text"]
    assert text == client.post(PATH, json=plain).json()["choices"][0]["text"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"type": "nothing"}, "cannot be used"),
    ({"type": "array", "uniqueItems": True}, "cannot be used"),
    ({"$ref": "http://127.0.0.1:9/schema"}, "cannot be used"),
    ({"type": "integer", "multipleOf": 2_999_949}, "multipleOf: the least common multiple"),
    ({"allOf": [{"multipleOf": 3}, {"multipleOf": 0.0001}]}, "multipleOf: the least common multiple"),
    ({"allOf": [{"multipleOf": one} for one in (89, 97, 101)]}, "multipleOf: the least common multiple"),
    ({"patternProperties": {f"^(a|b)*{n}$": {} for n in range(33)}}, "more than 32 patternProperties"),
    ({"type": "object", "description": "a" * 20_000}, "--max-schema-chars"),
    ({"allOf": [{"anyOf": [{"properties": {f"{i}{j}": {}}} for j in range(3)]} for i in range(20)]}, "cannot be used"),
]


@pytest.mark.parametrize(("schema", "says"), REFUSED)
def test_a_schema_that_cannot_be_used_is_refused(client: TestClient, schema: dict[str, Any], says: str) -> None:
    got = client.post(PATH, json=body(schema))
    assert got.status_code == 400, got.text
    assert says in got.json()["error"]["message"]


def test_references_as_deep_as_a_schema_may_be_long_do_not_end_the_process(deck: td.Deck) -> None:
    chain = {f"d{i}": {"items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(2000)} | {"d2000": {"type": "integer"}}
    compiler = SchemaCompiler(deck)
    state = compiler.compile(json.dumps({"$ref": "#/$defs/d0", "$defs": chain})).start()
    assert not state.take(deck.tokenizer("[")["input_ids"][0])


def test_without_the_package_it_is_refused_and_says_what_to_install(
    deck: td.Deck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ConfigError, match=r"response_format needs llguidance; install it with: pip install"):
        SchemaCompiler(deck).compile("{}")


def test_a_tokenizer_of_whole_words_is_refused() -> None:
    with pytest.raises(ConfigError, match="this base's tokenizer cannot be held to a JSON schema"):
        SchemaCompiler(served_adapters.base_deck("causal")).compile("{}")


def test_other_threads_run_while_a_large_schema_is_compiled(deck: td.Deck) -> None:
    patterns = {f"k{number}": {"type": "string", "pattern": "^[a-z]{1,9}[0-9]{2,7}$"} for number in range(226)}
    schema = json.dumps({"type": "object", "properties": patterns, "required": list(patterns)})
    compiler, ticks, done = SchemaCompiler(deck), [], threading.Event()
    compiler.compile('{"type": "object"}')  # reads the tokenizer

    def tick() -> None:
        while not done.wait(0.001):
            ticks.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    thread.start()
    begin = time.perf_counter()
    compiler.compile(schema)
    end = time.perf_counter()
    done.set()
    thread.join()
    assert sum(begin < one < end for one in ticks) >= 3, "the compiler holds the interpreter's lock"
