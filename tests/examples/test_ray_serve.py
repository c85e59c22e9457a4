"""The Ray Serve example with two replicas on this machine; skipped where Ray Serve is not installed."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import served_adapters
from support.serving_process import free_port
from support.waiting import SOON, eventually

import tunedeck as td
from tunedeck.serving.infer_base import task_and_base

pytest.importorskip("ray.serve", exc_type=ImportError)  # `pip install "ray[serve]"`
import ray
from ray import serve

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = [f"{kind}-{number}" for kind in served_adapters.KINDS for number in (1, 2)]


@dataclass(frozen=True)
class Server:
    form: str
    url: str
    expected: dict[tuple[str, str], Any]


def replicas() -> dict[str, Any]:
    """Ray's details of every replica that runs, by its id."""
    details = serve.context._get_global_client().get_serve_details()
    running = details["applications"]["default"]["deployments"]["Replica"]["replicas"]
    return {one["replica_id"]: one for one in running if one["state"] == "RUNNING"}


@pytest.fixture(scope="module", params=["classifier", "causal"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Two replicas, and what a deck answers alone."""
    path = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{EXAMPLES}{os.pathsep}{path}"  # where the replicas find the example
    sys.path.insert(0, str(EXAMPLES))
    import ray_serve

    form, port = request.param, free_port()
    root = served_adapters.saved_adapters(form)
    task, base, _ = task_and_base(root, None, None)
    alone = td.Deck.load(base, task)
    for name in NAMES:
        alone.load_adapter(root / name)
    expected = {(name, text): answer_alone(alone, form, name, text) for name in NAMES for text in served_adapters.TEXTS}
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"port": port})
    serve.run(ray_serve.application(root, 2, num_cpus=0.1))
    yield Server(form, f"http://127.0.0.1:{port}", expected)
    serve.shutdown()
    ray.shutdown()
    sys.path.remove(str(EXAMPLES))
    os.environ["PYTHONPATH"] = path


def answer_alone(deck: td.Deck, form: str, name: str, text: str) -> Any:
    if form == "classifier":
        return list(deck.predict([text], name)[0].probabilities.values())
    return deck.generate([[{"role": "user", "content": text}]], name, td.Sampling(max_tokens=8))[0]


def ask(server: Server, name: str, text: str, tokens: int = 8) -> httpx.Response:
    if server.form == "classifier":
        return httpx.post(f"{server.url}/classify", json={"model": name, "input": text}, timeout=SOON)
    body = {"model": name, "messages": [{"role": "user", "content": text}], "max_tokens": tokens}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=SOON)


def assert_as_alone(server: Server, name: str, text: str, got: httpx.Response) -> None:
    assert got.status_code == 200, got.text
    if server.form == "classifier":
        assert got.json()["data"][0]["probs"] == pytest.approx(server.expected[name, text], abs=1e-5)
    else:
        assert got.json()["choices"][0]["message"]["content"] == server.expected[name, text]


def loads(server: Server) -> Counter[str]:
    """How many loads of each adapter all replicas have made: the front asks either of them, so ask until both have
    told.
    """
    seen: dict[str, dict[str, float]] = {}
    for _ in range(40):
        text = httpx.get(f"{server.url}/metrics", timeout=SOON).text
        created = next(
            line for line in text.splitlines() if line.startswith("tunedeck_request_latency_seconds_created")
        )
        rows = [line for line in text.splitlines() if line.startswith('tunedeck_adapter_events_total{event="load"')]
        seen[created] = {line.split('model="')[1].split('"')[0]: float(line.split()[-1]) for line in rows}
    assert len(seen) == 2
    return sum((Counter(one) for one in seen.values()), Counter())


def test_replies_are_solo_runs_and_each_adapter_stays_with_its_replica(server: Server) -> None:
    for name in NAMES:
        assert_as_alone(server, name, "w4 w5", ask(server, name, "w4 w5"))
    time.sleep(2.5)  # replicas tell the router once a second what they have
    asked = [(name, text) for text in served_adapters.TEXTS for name in NAMES] * 3
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda one: ask(server, *one), asked))
    for (name, text), got in zip(asked, answers, strict=True):
        assert_as_alone(server, name, text, got)
    counted = loads(server)
    assert set(counted) == set(NAMES)
    print(json.dumps({"requests": len(asked) + len(NAMES), "loads": counted}))
    assert sum(counted.values()) <= len(NAMES) + 2, "with no affinity it would be about twice as many"


def test_refusals_come_through_as_they_are(server: Server) -> None:
    form, url = server.form, server.url
    assert ask(server, "nobody", "w4").status_code == 404
    route = "/classify" if form == "classifier" else "/v1/chat/completions"
    assert httpx.post(f"{url}{route}", content=b"[" * 100_000, timeout=SOON).status_code == 400
    assert httpx.post(f"{url}{route}", content=b" " * 5_000_000, timeout=SOON).status_code == 413
    assert httpx.get(f"{url}/health", timeout=SOON).json() == {"status": "ok"}
    assert httpx.get(f"{url}/nowhere", timeout=SOON).json()["error"]["code"] == 404


def test_a_stream_comes_through(server: Server) -> None:
    form, url = server.form, server.url
    if form != "causal":
        pytest.skip("generation alone streams")
    body = {"model": "lora-1", "messages": [{"role": "user", "content": "w4"}], "max_tokens": 8, "stream": True}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=SOON) as stream:
        events = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: {")]
    said = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    assert said == ask(server, "lora-1", "w4").json()["choices"][0]["message"]["content"]


def test_a_killed_replica_loses_at_most_what_it_was_answering(server: Server) -> None:
    statuses: list[int] = []
    stop = threading.Event()

    def go_on(name: str) -> None:
        while not stop.is_set():
            got = ask(server, name, "w4 w5")
            statuses.append(got.status_code)
            if got.status_code == 200:
                assert_as_alone(server, name, "w4 w5", got)

    before = replicas()
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(go_on, name) for name in NAMES[:4]]
        time.sleep(1)
        os.kill(next(iter(before.values()))["pid"], signal.SIGKILL)
        eventually(lambda: len(replicas()) == 2 and set(replicas()) != set(before))
        time.sleep(1)
        stop.set()
        for one in asking:
            one.result(SOON)
    print(json.dumps({"after a kill": Counter(statuses)}))
    assert set(statuses) <= {200, 503}
    assert statuses.count(503) <= 4, "one under way for each client"
    assert statuses.count(200) > 20


def test_a_replica_that_is_taken_away_first_finishes(server: Server) -> None:
    import ray_serve

    assert len(replicas()) == 2
    with ThreadPoolExecutor(16) as pool:
        asking = [pool.submit(ask, server, NAMES[number % 8], "w4 w5", 40) for number in range(64)]
        serve.run(ray_serve.application(served_adapters.saved_adapters(server.form), 1, num_cpus=0.1))
        eventually(lambda: len(replicas()) == 1)
        answers = [one.result(SOON) for one in asking]
    assert {one.status_code for one in answers} == {200}
