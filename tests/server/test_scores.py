"""POST /score and /rerank: the scores of a solo run, in the shapes of vLLM, Jina and TEI."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from support import served_adapters
from support.http_server import listening

import tunedeck as td
from tunedeck.server.service import Service

NAMES = ("lora-1", "bottleneck-2", "prompt-1", "full-2")
QUERY, DOCUMENTS = "w4 w5", ["w9 w8 w7 w6", "w30", "w11 w12 w13", " ".join(f"w{4 + n % 100}" for n in range(80))]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Service]]:
    with listening("scorer") as found:
        yield found


def solo(name: str) -> list[float]:
    deck = served_adapters.base_deck("scorer")
    deck.load_adapter(served_adapters.saved_adapters("scorer") / name)
    return [one.score for one in deck.predict([td.TextPair(QUERY, text) for text in DOCUMENTS], name)]


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_a_solo_run(server: tuple[str, Service], name: str) -> None:
    expected = solo(name)
    body = {"model": name, "text_1": QUERY, "text_2": DOCUMENTS}
    for path in ("/score", "/v1/score"):
        got = httpx.post(f"{server[0]}{path}", json=body).json()
        assert got["object"] == "list"
        assert [one["index"] for one in got["data"]] == [0, 1, 2, 3]
        assert [one["score"] for one in got["data"]] == pytest.approx(expected, abs=1e-4)
        assert got["data"][0]["scores"] == {"relevance": got["data"][0]["score"]}
        assert got["usage"]["prompt_tokens"] > 4
    each = {"model": name, "text_1": [QUERY] * 4, "text_2": DOCUMENTS}
    got = httpx.post(f"{server[0]}/score", json=each).json()
    assert [one["score"] for one in got["data"]] == pytest.approx(expected, abs=1e-4)


def test_documents_are_ranked_as_by_jina_and_vllm(server: tuple[str, Service]) -> None:
    expected = solo("lora-1")
    order = sorted(range(4), key=lambda index: -expected[index])
    body = {"model": "lora-1", "query": QUERY, "documents": [{"text": DOCUMENTS[0]}, *DOCUMENTS[1:]]}
    for path in ("/rerank", "/v1/rerank"):
        got = httpx.post(f"{server[0]}{path}", json=body).json()
        assert [one["index"] for one in got["results"]] == order
        assert [one["relevance_score"] for one in got["results"]] == pytest.approx(
            [expected[index] for index in order], abs=1e-4
        )
        assert [one["document"]["text"] for one in got["results"]] == [DOCUMENTS[index] for index in order]
        first = httpx.post(f"{server[0]}{path}", json={**body, "top_n": 1, "return_documents": False}).json()
        assert [set(one) for one in first["results"]] == [{"index", "relevance_score"}]


def test_documents_are_ranked_as_by_tei(server: tuple[str, Service]) -> None:
    expected = solo("prompt-1")
    body = {"model": "prompt-1", "query": QUERY, "texts": DOCUMENTS, "return_text": True}
    got = httpx.post(f"{server[0]}/rerank", json=body).json()
    assert [one["score"] for one in got] == pytest.approx(sorted(expected, reverse=True), abs=1e-4)
    assert [DOCUMENTS[one["index"]] for one in got] == [one["text"] for one in got]


def test_what_is_wrong_is_refused(server: tuple[str, Service]) -> None:
    def status(path: str, **body: object) -> int:
        return httpx.post(f"{server[0]}{path}", json={"model": "lora-1", **body}).status_code

    assert status("/score", text_1=["w4", "w5"], text_2=["w6", "w7", "w8"]) == 400
    assert status("/score", text_1="w4") == 400  # the adapter was made for pairs
    assert status("/rerank", query="w4", documents=[]) == 400
    assert status("/rerank", query="w4") == 400
    assert status("/rerank", query="w4", documents=["w5"], top_n=0) == 400
    assert (
        httpx.post(f"{server[0]}/rerank", json={"model": "nobody", "query": "w4", "documents": ["w"]}).status_code
        == 404
    )
