"""POST /entities: entities as the token-classification pipeline of transformers gives them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from support import served_adapters
from support.http_server import listening

import tunedeck as td
from tunedeck.server.service import Service

NAMES = ("lora-1", "bottleneck-2", "prompt-1", "full-2")
LONG = " ".join(f"w{4 + number % 100}" for number in range(150))
TEXTS = [*served_adapters.TEXTS, LONG]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Service]]:
    with listening("tagger") as found:
        yield found


def solo(name: str) -> list[td.Entities]:
    deck = served_adapters.base_deck("tagger")
    deck.load_adapter(served_adapters.saved_adapters("tagger") / name)
    return deck.predict(TEXTS, name)


@pytest.mark.parametrize("name", NAMES)
def test_entities_are_those_of_a_solo_run_in_the_shape_of_a_pipeline(server: tuple[str, Service], name: str) -> None:
    expected = solo(name)
    several = httpx.post(f"{server[0]}/entities", json={"model": name, "inputs": TEXTS}).json()
    assert len(several) == len(TEXTS)
    assert any(several)
    for text, got, answer in zip(TEXTS, several, expected, strict=True):
        assert [(one["entity_group"], one["word"], one["start"], one["end"]) for one in got] == [
            (one.label, one.text, one.start, one.end) for one in answer.entities
        ]
        assert [one["score"] for one in got] == pytest.approx([one.score for one in answer.entities], abs=1e-5)
        assert all(text[one["start"] : one["end"]] == one["word"] for one in got)
    single = httpx.post(f"{server[0]}/entities", json={"model": name, "inputs": TEXTS[0]}).json()
    assert [one["word"] for one in single] == [one["word"] for one in several[0]]


def test_a_text_without_words_has_no_entities(server: tuple[str, Service]) -> None:
    got = httpx.post(f"{server[0]}/entities", json={"model": "lora-1", "inputs": ["", "  ", "w4"]})
    assert got.status_code == 200
    assert got.json()[:2] == [[], []]


def test_what_is_wrong_is_refused_as_on_the_other_routes(server: tuple[str, Service]) -> None:
    url = f"{server[0]}/entities"
    assert httpx.post(url, json={"model": "nobody", "inputs": "w4"}).status_code == 404
    assert httpx.post(url, json={"inputs": "w4"}).status_code == 422  # the base has no trained head
    assert httpx.post(url, json={"model": "lora-1", "inputs": "w4", "stride": 3}).status_code == 400
    assert httpx.post(url, json={"model": "lora-1", "inputs": ["w4"] * 257}).status_code == 400
    assert httpx.post(f"{server[0]}/classify", json={"model": "lora-1", "input": "w4"}).status_code == 404
