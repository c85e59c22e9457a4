"""Many clients, mixed adapters, loads, unloads and disconnects meanwhile: no 5xx, no wrong answer, nothing left behind.

TUNEDECK_LOAD_SECONDS=300 runs it at full length, with 100 clients at once.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from support import served_adapters
from support.http_server import listening
from support.waiting import SOON

import tunedeck as td

NAMES = [f"{kind}-{number}" for kind in served_adapters.KINDS for number in (1, 2)]
SECONDS = float(os.environ.get("TUNEDECK_LOAD_SECONDS", "0"))
CLIENTS, ACTIONS = (100, 0) if SECONDS else (40, 12)
PATIENCE = 120
PROMPTS = [f"w{number} w{number + 1} w{2 * number}" for number in range(5, 13)]


def expected_answers(form: str) -> dict[tuple[str, str], Any]:
    deck = served_adapters.base_deck(form)
    for name in NAMES:
        deck.load_adapter(served_adapters.saved_adapters(form) / name)
    if form == "classifier":
        return {(name, text): deck.predict([text], name)[0] for name in NAMES for text in PROMPTS}
    chats = {text: [{"role": "user", "content": text}] for text in PROMPTS}
    sampling = td.Sampling(max_tokens=8)
    return {(name, text): deck.generate([chats[text]], name, sampling)[0] for name in NAMES for text in PROMPTS}


@pytest.mark.parametrize("form", ["classifier", "causal"])
def test_under_load_every_answer_is_the_solo_one_and_nothing_fails(form: str) -> None:
    expected = expected_answers(form)
    with listening(form) as (url, service):
        largest = 0
        for name in NAMES:
            lease = service.engine.store.load(name).result(SOON)
            largest = max(largest, lease.adapter.bytes)
            lease.close()
            service.engine.store.unload(name)
        for name in NAMES:  # known again, in memory or not
            service.engine.store.load(name).result(SOON).close()
        service.engine.store.max_bytes = 3 * largest

        def classify(http: httpx.Client, name: str, text: str) -> int:
            got = http.post("/classify", json={"model": name, "input": text})
            if got.status_code == 200:
                assert got.json()["data"][0]["label"] == expected[name, text].label
                chances = list(expected[name, text].probabilities.values())
                assert got.json()["data"][0]["probs"] == pytest.approx(chances, abs=1e-5)
            return got.status_code

        def chat(http: httpx.Client, name: str, text: str) -> int:
            body = {"model": name, "messages": [{"role": "user", "content": text}], "max_tokens": 8}
            got = http.post("/v1/chat/completions", json=body)
            if got.status_code == 200:
                assert got.json()["choices"][0]["message"]["content"] == expected[name, text]
            return got.status_code

        def leave(http: httpx.Client, name: str, text: str) -> int:
            body = {"model": name, "messages": [{"role": "user", "content": text}], "max_tokens": 40, "stream": True}
            with http.stream("POST", "/v1/chat/completions", json=body) as stream:
                next(stream.iter_lines())
                return stream.status_code

        def one_client(seed: int) -> Counter[tuple[str, int]]:
            chooser, counts, until = random.Random(seed), Counter[tuple[str, int]](), time.monotonic() + SECONDS
            with httpx.Client(base_url=url, timeout=PATIENCE) as http:
                while counts.total() < ACTIONS or time.monotonic() < until:
                    name, text = chooser.choice(NAMES), chooser.choice(PROMPTS)
                    dice = chooser.random()
                    if dice < 0.08:
                        counts["load", http.post("/v1/adapters", json={"name": name}).status_code] += 1
                    elif dice < 0.14:
                        counts["unload", http.delete(f"/v1/adapters/{name}").status_code] += 1
                    elif form == "causal" and dice < 0.25:
                        counts["leave", leave(http, name, text)] += 1
                    else:
                        counts["ask", (chat if form == "causal" else classify)(http, name, text)] += 1
            return counts

        with ThreadPoolExecutor(CLIENTS) as pool:
            counts = sum(pool.map(one_client, range(CLIENTS)), Counter[tuple[str, int]]())
        print(form, dict(sorted(counts.items())))
        assert {status for _, status in counts} <= {200, 404}
        assert counts["ask", 200] > 150
        until = time.monotonic() + SOON
        while service.engine.in_flight:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert not any(one.users for one in service.engine.store.cached())
        assert service.engine.store.bytes <= service.engine.store.max_bytes
