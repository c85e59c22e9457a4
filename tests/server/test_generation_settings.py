"""The settings of a generation request over HTTP: bounds, seeds, several answers, logprobs, penalties, fields without
effect.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from pydantic import ValidationError
from support import served_adapters, tiny_models

import tunedeck as td
from tunedeck.generation.sampling import AnswerPenalties
from tunedeck.server.app import create_app
from tunedeck.server.auth import Keys
from tunedeck.server.requests import ChatRequest, CompletionRequest
from tunedeck.server.run import ServerSettings, open_service
from tunedeck.server.service import Service

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "lora-1", "messages": [{"role": "user", "content": "w4 w5 w6"}], "max_tokens": 6},
    TEXT: {"model": "lora-1", "prompt": "w4 w5 w6", "max_tokens": 6},
}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    opened = open_service(
        served_adapters.base_deck("causal"), served_adapters.saved_adapters("causal"), ServerSettings(), "tiny"
    )
    yield opened
    opened.engine.close()


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service, Keys(None))) as made:
        yield made


@pytest.fixture
def asked(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The samplings of what the engine is given."""
    seen: list[Any] = []
    submit = service.engine.submit

    def record(*requests: Any, **more: Any) -> None:
        seen.extend(request.content.sampling for request in requests)
        submit(*requests, **more)

    monkeypatch.setattr(service.engine, "submit", record)
    return seen


def events(client: TestClient, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    lines = client.post(path, json={**BODIES[path], **body, "stream": True}).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


TOO_MUCH: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {"stop": ["a"] * 17}, "--max-stops"),
    (CHAT, {"stop": ["a" * 257]}, "--max-stop-chars"),
    (TEXT, {"stop": "a" * 100_000}, "--max-stop-chars"),
    (CHAT, {"max_tokens": 4097}, "--max-tokens"),
    (CHAT, {"max_completion_tokens": 4097}, "--max-tokens"),
    (TEXT, {"max_tokens": 4097}, "--max-tokens"),
    (TEXT, {"prompt": ["w4"] * 257}, "--max-inputs"),
    (TEXT, {"prompt": [[4]] * 257}, "--max-inputs"),
    (TEXT, {"prompt": ["w4"] * 129, "n": 2}, "--max-inputs"),
    (TEXT, {"prompt": [4] * 32_769}, "--max-input-tokens"),
    (TEXT, {"prompt": "w4 " * 70_000}, "--max-input-chars"),
    (CHAT, {"n": 9}, "--max-choices"),
    (CHAT, {"messages": [{"role": "user", "content": "w4"}] * 1025}, "--max-messages"),
    (CHAT, {"messages": [{"role": "user", "content": "w4 " * 35_000}] * 2}, "--max-input-chars"),
]


@pytest.mark.parametrize(("path", "body", "flag"), TOO_MUCH)
def test_what_is_over_a_bound_is_refused_before_anything_is_computed(
    client: TestClient, asked: list[Any], path: str, body: dict[str, Any], flag: str
) -> None:
    got = client.post(path, json={**BODIES[path], **body})
    assert got.status_code == 400, got.text
    assert flag in got.json()["error"]["message"]
    assert not asked


def test_the_items_of_a_list_that_is_too_long_are_not_looked_at() -> None:
    for prompt in ([[1], "a"] * 495_000, ["a"] * 990_000, [[1]] * 660_000):
        with pytest.raises(ValidationError) as refused:
            CompletionRequest.model_validate({"model": "m", "prompt": prompt})
        assert refused.value.error_count() <= 4
    with pytest.raises(ValidationError) as refused:
        ChatRequest(model="m", messages=["a"] * 900)  # type: ignore[list-item]
    assert refused.value.error_count() == 1


def test_a_prompt_that_begins_as_another_says_how_many_of_its_tokens_were_cached(client: TestClient) -> None:
    def cached(ending: str) -> int:
        system = {"role": "system", "content": " ".join(f"w{number}" for number in range(50, 70))}
        messages = [system, {"role": "user", "content": ending}]
        usage = client.post(CHAT, json={**BODIES[CHAT], "messages": messages}).json()["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    first, second = cached("w5"), cached("w6 w7")
    assert (first, second) == (0, 16)
    counted = client.get("/metrics").text
    for line in ("prompt_cache_hits_total", "cached_prompt_tokens_total"):
        assert f'tunedeck_{line}{{model="lora-1"}}' in counted


def test_without_a_seed_every_answer_has_a_fresh_one(client: TestClient, asked: list[Any]) -> None:
    for body in ({}, {"seed": None}, {"prompt": ["w4", "w4"]}):
        client.post(TEXT, json={**BODIES[TEXT], **body, "temperature": 1.5})
    assert len({one.seed for one in asked}) == len(asked) == 4


def test_a_seed_repeats_an_answer_and_the_next_choice_has_the_next_seed(client: TestClient, asked: list[Any]) -> None:
    body = {**BODIES[CHAT], "temperature": 1.5, "seed": 2**63 - 1}
    first = client.post(CHAT, json={**body, "n": 3}).json()["choices"]
    assert client.post(CHAT, json=body).json()["choices"] == first[:1]
    assert [one.seed for one in asked] == [2**63 - 1, 2**63, 2**63 + 1, 2**63 - 1]
    assert len({one["message"]["content"] for one in first}) > 1
    deck = served_adapters.base_deck("causal")
    deck.load_adapter(served_adapters.saved_adapters("causal") / "lora-1")
    for choice, one in enumerate(first):
        sampling = td.Sampling(max_tokens=6, temperature=1.5, seed=2**63 - 1 + choice)
        assert deck.generate([body["messages"]], "lora-1", sampling) == [one["message"]["content"]]


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_several_answers_streamed_are_those_sent_whole_and_the_prompt_counts_once(
    client: TestClient, path: str
) -> None:
    body = {"n": 3, "temperature": 1.5, "seed": 4, "stream_options": {"include_usage": True}}
    whole = client.post(path, json={**BODIES[path], **body}).json()
    alone = client.post(path, json={**BODIES[path], "seed": 4, "temperature": 1.5}).json()
    *chunks, last = events(client, path, body)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    for one in whole["choices"]:
        own = [choice for choice in choices if choice["index"] == one["index"]]
        if path == CHAT:
            assert "".join(choice["delta"].get("content", "") for choice in own) == one["message"]["content"]
            assert [choice["delta"].get("role") for choice in own] == ["assistant", *[None] * (len(own) - 1)]
        else:
            assert "".join(choice["text"] for choice in own) == one["text"]
        assert [choice["finish_reason"] for choice in own] == [*[None] * (len(own) - 1), one["finish_reason"]]
    assert last["usage"] == whole["usage"]
    assert whole["usage"]["prompt_tokens"] == alone["usage"]["prompt_tokens"]
    assert whole["usage"]["completion_tokens"] > alone["usage"]["completion_tokens"]


def expected_logprobs(texts: str) -> list[torch.Tensor]:
    """Log-probabilities of the whole vocabulary before each word of an answer to "w4 w5 w6"."""
    deck = served_adapters.base_deck("causal")
    deck.load_adapter(served_adapters.saved_adapters("causal") / "lora-1")
    prompt = deck.tokenizer("w4 w5 w6")["input_ids"]
    ids = torch.tensor([[*prompt, *(int(word[1:]) for word in texts.split())]])
    with torch.no_grad():
        logits = deck(input_ids=ids, attention_mask=torch.ones_like(ids), adapter="lora-1").logits[0]
    return list(logits.log_softmax(-1)[len(prompt) - 1 :])


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_logprobs_are_the_models_own_before_temperature_and_penalties(client: TestClient, temperature: float) -> None:
    body = {**BODIES[TEXT], "logprobs": 3, "temperature": temperature, "seed": 2, "frequency_penalty": 1.0}
    got = client.post(TEXT, json=body).json()["choices"][0]
    found = got["logprobs"]
    assert found["tokens"] == got["text"].split()
    assert len(found["tokens"]) >= 3
    before = zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], found["text_offset"], strict=True)
    for (token, logprob, top, offset), expected in zip(before, expected_logprobs(got["text"]), strict=False):
        assert logprob == pytest.approx(expected[int(token[1:])].item(), abs=1e-4)
        values, ids = expected.topk(3)
        assert list(top.values()) == pytest.approx(values.tolist(), abs=1e-4)
        assert list(top) == [tiny_models.tiny_tokenizer("llama").decode([one]) for one in ids.tolist()]
        assert got["text"][offset:].split()[0] == token


@pytest.mark.parametrize("count", [None, 0, 20])
def test_a_chats_logprobs_are_in_openais_form_whole_and_streamed(client: TestClient, count: int | None) -> None:
    body = {**BODIES[CHAT], "logprobs": True, "top_logprobs": count}
    got = client.post(CHAT, json=body).json()["choices"][0]
    content = got["logprobs"]["content"]
    assert [one["token"] for one in content] == got["message"]["content"].split()
    for one in content:
        assert bytes(one["bytes"]).decode() == one["token"]
        assert len(one["top_logprobs"]) == (count or 0)
        assert all(set(likely) == {"token", "logprob", "bytes"} for likely in one["top_logprobs"])
        if count:
            assert one["top_logprobs"][0]["logprob"] == one["logprob"]  # greedy
    streamed = [chunk["choices"][0]["logprobs"]["content"] for chunk in events(client, CHAT, body)]
    assert [one for part in streamed for one in part] == content


def test_without_logprobs_there_are_none_and_top_logprobs_need_them(client: TestClient) -> None:
    for path in (CHAT, TEXT):
        assert client.post(path, json=BODIES[path]).json()["choices"][0]["logprobs"] is None
    refused = client.post(CHAT, json={**BODIES[CHAT], "top_logprobs": 2})
    assert refused.status_code == 400
    assert "top_logprobs needs logprobs: true" in refused.json()["error"]["message"]


def test_penalties_are_those_worked_out_by_hand() -> None:
    # the answer is 5 5 7, the prompt 1 7: 5 loses 0.5 + 2 * 0.25, 7 loses 0.5 + 0.25
    scores = torch.FloatTensor([list(range(10))])
    penalized = AnswerPenalties(2, 0.5, 0.25)(torch.LongTensor([[1, 7, 5, 5, 7]]), scores)
    assert penalized.tolist() == [[0, 1, 2, 3, 4, 4.0, 6, 6.25, 8, 9]]
    assert scores.tolist() == [list(range(10))]
    nothing_yet = AnswerPenalties(2, 0.5, 0.25)(torch.LongTensor([[1, 7]]), scores)
    assert nothing_yet.tolist() == scores.tolist()


def test_a_frequency_penalty_makes_an_answer_repeat_itself_less(client: TestClient) -> None:
    def words(**more: Any) -> list[str]:
        body = {**BODIES[TEXT], "model": "prompt-1", "max_tokens": 30, **more}
        return str(client.post(TEXT, json=body).json()["choices"][0]["text"]).split()

    plain, penalized = words(), words(frequency_penalty=2, presence_penalty=2)
    assert len(plain) > len(set(plain))
    assert len(set(penalized)) / len(penalized) > len(set(plain)) / len(plain)


WITHOUT_EFFECT: list[tuple[str, dict[str, Any]]] = [
    *((CHAT, {name: None}) for name, of in ChatRequest.model_fields.items() if not of.is_required()),
    *((TEXT, {name: None}) for name, of in CompletionRequest.model_fields.items() if not of.is_required()),
    *(
        (path, body)
        for path in (CHAT, TEXT)
        for body in (
            {"n": 1, "logit_bias": {}, "metadata": {"run": "7"}, "store": False, "user": "me", "service_tier": "auto"},
            {"presence_penalty": 0, "frequency_penalty": 0, "top_p": 1, "top_k": 0, "repetition_penalty": 1},
            {"stop": [], "stream": False, "stream_options": {"include_usage": None}, "safety_identifier": "me"},
        )
    ),
    (CHAT, {"tools": [], "tool_choice": "none", "parallel_tool_calls": True, "functions": [], "function_call": "none"}),
    (CHAT, {"logprobs": False, "modalities": ["text"], "prompt_cache_key": "a"}),
    (TEXT, {"echo": False, "best_of": 1, "suffix": ""}),
]


@pytest.mark.parametrize(("path", "body"), WITHOUT_EFFECT)
def test_fields_that_change_nothing_are_accepted_and_change_nothing(
    client: TestClient, path: str, body: dict[str, Any]
) -> None:
    plain = {name: value for name, value in BODIES[path].items() if body.get(name, "") is not None}
    expected, got = client.post(path, json=plain), client.post(path, json={**BODIES[path], **body})
    assert got.status_code == 200, got.text
    assert got.json()["choices"] == expected.json()["choices"]


def test_an_answer_can_be_sent_back_as_openais_client_has_it(client: TestClient) -> None:
    said: dict[str, object] = {
        "role": "assistant",
        "content": "w9",
        "refusal": None,
        "tool_calls": None,
        "audio": None,
        "annotations": [],
    }
    messages = [*BODIES[CHAT]["messages"], said, {"role": "user", "content": "w5", "name": None}]
    assert client.post(CHAT, json={**BODIES[CHAT], "messages": messages}).status_code == 200


WITH_EFFECT: list[tuple[str, str, Any]] = [
    *((path, "logit_bias", {"7": 5}) for path in (CHAT, TEXT)),
    *((path, "store", True) for path in (CHAT, TEXT)),
    (CHAT, "tools", [{"type": "function", "function": {"name": "f"}}]),
    (CHAT, "tool_choice", "required"),
    (CHAT, "functions", [{"name": "f"}]),
    (CHAT, "modalities", ["audio"]),
    (CHAT, "reasoning_effort", "high"),
    (CHAT, "audio", {"voice": "x"}),
    (CHAT, "top_logprobs", 21),
    (TEXT, "logprobs", 6),
    (TEXT, "echo", True),
    (TEXT, "best_of", 2),
    (TEXT, "suffix", "w4"),
    (TEXT, "presence_penalty", 2.1),
    (TEXT, "surprise", None),
]


@pytest.mark.parametrize(("path", "name", "value"), WITH_EFFECT)
def test_fields_that_would_change_something_are_refused_by_name(
    client: TestClient, path: str, name: str, value: object
) -> None:
    got = client.post(path, json={**BODIES[path], name: value})
    assert got.status_code == 400
    assert got.json()["error"]["param"] == name
