"""The model "auto": the adapter of the folder whose training texts are nearest to the input."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support import served_adapters, tiny_models
from support.http_server import bearer, listening, record

import tunedeck as td
from tunedeck.deck.choice import fit_centroids, text_vectors
from tunedeck.server.auth import Keys

TEXTS = {"low": [f"w{4 + row % 9} w{5 + row % 7} w6" for row in range(80)]}
TEXTS["höhe"] = [text.replace("w", "w10") for text in TEXTS["low"]]
MIXED = ["w4 w5 w6", "w104 w105 w106", "w9 w8 w6"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adapter for each kind of texts, and one of an earlier version without centroids."""
    folder, deck = tmp_path_factory.mktemp("auto"), served_adapters.base_deck("classifier")
    for seed, (name, texts) in enumerate(TEXTS.items()):
        tiny_models.add_stirred(deck, name, td.LoraConfig(r=2), labels=[f"{name}-a", f"{name}-b"], seed=seed)
        adapter = deck.adapter(name)
        centroids = fit_centroids(text_vectors(deck.base, deck.router, texts))
        adapter.manifest = adapter.manifest.model_copy(update={"centroids": centroids})
        deck.save(name, folder / name)
    shutil.copytree(served_adapters.saved_adapters("classifier") / "lora-1", folder / "earlier")
    return folder


@pytest.fixture(scope="module")
def url(root: Path) -> Iterator[str]:
    with listening("classifier", root=root) as (found, _):
        yield found


def test_each_input_is_answered_by_its_own_adapter_and_the_header_names_them(url: str) -> None:
    answer = httpx.post(f"{url}/classify", json={"model": "auto", "input": MIXED})
    assert answer.status_code == 200
    assert [one["label"].split("-")[0] for one in answer.json()["data"]] == ["low", "höhe", "low"]
    assert answer.headers["x-adapter"] == "low, h%C3%B6he"
    named = httpx.post(f"{url}/classify", json={"model": "low", "input": MIXED[:1]})
    assert "x-adapter" not in named.headers
    assert named.json()["data"][0]["probs"] == pytest.approx(answer.json()["data"][0]["probs"], abs=1e-5)


def test_the_choice_can_be_asked_for_alone(url: str) -> None:
    answer = httpx.post(f"{url}/v1/choose", json={"input": [*MIXED, "w50 w60"]})
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [(one["adapter"], one["near"]) for one in data[:3]] == [("low", True), ("höhe", True), ("low", True)]
    assert data[3]["near"] is False
    assert [one["index"] for one in data] == [0, 1, 2, 3]


def test_a_text_near_to_none_is_refused(url: str) -> None:
    answer = httpx.post(f"{url}/classify", json={"model": "auto", "input": ["w4 w5 w6", "w50 w60"]})
    assert answer.status_code == 422
    assert "no adapter is near the text 'w50 w60'" in answer.text
    assert httpx.post(f"{url}/v1/choose", json={"input": ["w4"] * 257}).status_code == 400


def test_only_adapters_of_the_callers_key_are_chosen(root: Path) -> None:
    keys = Keys([record("narrow", models=["h*"]), record("none", models=["x"])])
    with listening("classifier", keys, root) as (url, _):
        chosen = httpx.post(f"{url}/v1/choose", json={"input": MIXED}, headers=bearer("narrow")).json()["data"]
        assert {one["adapter"] for one in chosen} == {"höhe"}
        refused = httpx.post(f"{url}/classify", json={"model": "auto", "input": "w4"}, headers=bearer("none"))
        assert refused.status_code == 422
        assert httpx.post(f"{url}/v1/choose", json={"input": MIXED}).status_code == 401


def test_an_adapter_that_is_replaced_is_read_again(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "adapters")
    with listening("classifier", root=tmp_path / "adapters") as (url, service):
        assert httpx.post(f"{url}/v1/choose", json={"input": MIXED[1]}).json()["data"][0]["adapter"] == "höhe"
        shutil.rmtree(tmp_path / "adapters" / "höhe")
        service.engine.store.repository._listed = float("-inf")
        assert httpx.post(f"{url}/v1/choose", json={"input": MIXED[1]}).json()["data"][0]["adapter"] == "low"
