"""What `tunedeck export onnx` wrote, served: the deck's answers under the same routes, and nothing taken for granted in
silence.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy
import pytest
import torch
from support import onnx_exports, tiny_models

import tunedeck as td
from tunedeck.cli.serve import serve
from tunedeck.core.errors import ConfigError

pytest.importorskip("onnxruntime")
from tunedeck.export.onnx.save import save_onnx
from tunedeck.formats.onnx.runner import Runner
from tunedeck.server.app import create_app
from tunedeck.server.auth import Keys
from tunedeck.server.run import ServerSettings, open_onnx_service
from tunedeck.server.service import Service
from tunedeck.serving.backends import onnx as onnx_backend

TEXTS = ("w4 w5", "w9 w8 w7 w6", "w30", "w11 w12 w13 w14 w15 w16 w17 w18 w19 w20", "w90 w4 w4")
NAMES = {"both/eight": "eight", "both/head": "head", "both/two": "two", "prompt": "prompt", "team/prompt": "prompt"}
"""Names in requests, and whose answers they are in the deck."""


@pytest.fixture(scope="module")
def deck() -> td.Deck:
    return onnx_exports.deck()


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written once; a test that changes files takes a copy."""
    root = tmp_path_factory.mktemp("served-onnx")
    for name in ("prompt", "team/prompt"):
        shutil.copytree(onnx_exports.prompt()[0], root / name)
    shutil.copytree(onnx_exports.multi_adapter(), root / "both")
    return root


@pytest.fixture
def own_exports(exports: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exports, tmp_path / "exports"))


@contextmanager
def served(root: Path, precision: str = "float32", adapter_bytes: int = 1 << 30) -> Iterator[Service]:
    service = open_onnx_service(root, precision, ServerSettings(adapter_bytes=adapter_bytes), "tiny")
    yield service
    service.engine.close()


def ask(service: Service, *requests: tuple[str, str, Any]) -> list[httpx.Response]:
    """Answers to requests (method, path, body) that are sent at once."""

    async def all_of_them() -> list[httpx.Response]:
        transport = httpx.ASGITransport(create_app(service, Keys(None)))
        async with httpx.AsyncClient(transport=transport, base_url="http://here", timeout=30) as client:
            return await asyncio.gather(*(client.request(method, path, json=body) for method, path, body in requests))

    return asyncio.run(all_of_them())


def classify(service: Service, name: str, *texts: str) -> list[list[float]]:
    (got,) = ask(service, ("POST", "/classify", {"model": name, "input": list(texts)}))
    assert got.status_code == 200, got.text
    return [one["probs"] for one in got.json()["data"]]


def refused(service: Service, name: str) -> tuple[int, str]:
    (got,) = ask(service, ("POST", "/classify", {"model": name, "input": "w4"}))
    return got.status_code, got.json()["error"]["message"]


def solo(deck: td.Deck, name: str, texts: tuple[str, ...] = TEXTS) -> list[list[float]]:
    return [list(one.probabilities.values()) for one in deck.predict(list(texts), name)]


def test_every_adapter_answers_as_in_the_deck(deck: td.Deck, exports: Path) -> None:
    with served(exports) as service:
        for name, own in NAMES.items():
            for got, expected in zip(classify(service, name, *TEXTS), solo(deck, own), strict=True):
                assert got == pytest.approx(expected, abs=1e-5)
        (ranked,) = ask(service, ("POST", "/predict", {"model": "both/eight", "inputs": TEXTS[1]}))
        assert ranked.json()[0]["label"] == deck.predict([TEXTS[1]], "eight")[0].label


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_mixed_batch_equals_its_parts_to_the_last_bit(exports: Path, precision: str) -> None:
    settings = json.loads((exports / "both" / "settings.json").read_text(encoding="utf-8"))
    backend = onnx_backend.OnnxBackend("classify", settings["base"], precision, threads=2)
    for name in NAMES:
        backend.load(exports / name, name)
    keys = [name for _ in TEXTS for name in NAMES]
    rows = [backend.encode([text], name)[0] for text in TEXTS for name in NAMES]
    parts = [backend.answer([row], [key])[0] for row, key in zip(rows, keys, strict=True)]
    assert backend.answer(rows, keys) == parts


def test_a_burst_of_mixed_names_is_answered_each_by_its_own(deck: td.Deck, exports: Path) -> None:
    asked = [(name, text) for text in TEXTS for name in NAMES] * 3
    bodies = [("POST", "/classify", {"model": name, "input": [text]}) for name, text in asked]
    with served(exports) as service:
        for (name, text), response in zip(asked, ask(service, *bodies), strict=True):
            assert response.json()["data"][0]["probs"] == pytest.approx(solo(deck, NAMES[name], (text,))[0], abs=1e-5)


def test_int8_answers_are_those_of_the_int8_graph(exports: Path) -> None:
    runner = Runner(exports / "both", "int8", threads=1)
    with served(exports, "int8") as service:
        for got, text in zip(classify(service, "both/two", *TEXTS), TEXTS, strict=True):
            assert got == list(runner.answer([text], ["two"])[0]["probabilities"].values())


def test_models_are_the_exports_and_the_adapters_of_a_graph_but_not_the_base(exports: Path) -> None:
    with served(exports) as service:
        (models,) = ask(service, ("GET", "/v1/models", None))
        assert refused(service, "tiny")[0] == 422
    found = {one["id"]: (one["parent"], one["max_model_len"]) for one in models.json()["data"]}
    assert found == dict.fromkeys(NAMES, ("tiny", tiny_models.POSITIONS))
    with served(exports / "both") as service:
        assert service.engine.store.names() == ["eight", "head", "two"]
        classify(service, "two", TEXTS[0])


@pytest.mark.parametrize(
    "name",
    ["nobody", "both", "both/nobody", "both/adapters/two", "prompt/prompt", "team", "../exports/prompt", "linked"],
)
def test_every_other_name_is_unknown(exports: Path, own_exports: Path, name: str) -> None:
    (own_exports / "linked").symlink_to(exports / "prompt")
    with served(own_exports) as service:
        assert refused(service, name) == (404, f"The model {name!r} does not exist.")


def test_a_graphs_bytes_count_once_and_go_with_its_last_adapter(exports: Path) -> None:
    files = {name: (exports / "both" / "adapters" / f"{name}.onnx_adapter").stat().st_size for name in ("two", "eight")}
    graph = (exports / "both" / "model.onnx").stat().st_size
    with served(exports, adapter_bytes=graph + sum(files.values())) as service:
        store = service.engine.store
        for name in files:
            classify(service, f"both/{name}", TEXTS[0])
        assert store.bytes == graph + sum(files.values())
        assert sorted(one.bytes for one in store.cached()) == sorted(files.values())
        classify(service, "prompt", TEXTS[0])  # no room for both graphs
        assert [one.name for one in store.cached()] == ["prompt"]
        assert store.bytes == (exports / "prompt" / "model.onnx").stat().st_size


def test_an_export_that_is_written_again_is_a_new_version(own_exports: Path) -> None:
    def first_answer() -> dict[str, Any]:
        (got,) = ask(service, ("POST", "/classify", {"model": "prompt", "input": TEXTS[0]}))
        return dict(got.json()["data"][0])

    with served(own_exports) as service:
        before = first_answer()
        settings = json.loads((own_exports / "prompt" / "settings.json").read_text(encoding="utf-8"))
        settings["adapters"]["prompt"]["labels"] = ["nein", "ja"]
        change(own_exports / "prompt", adapters=settings["adapters"])
        assert first_answer() == before
        (loaded,) = ask(service, ("POST", "/v1/adapters", {"name": "prompt", "pin": True}))
        assert (loaded.status_code, loaded.json()["version"], loaded.json()["note"]) == (200, 2, None)
        assert first_answer() == before | {"label": {"no": "nein", "yes": "ja"}[before["label"]]}
        (gone,) = ask(service, ("DELETE", "/v1/adapters/prompt", None))
        assert (gone.status_code, refused(service, "prompt")[0]) == (200, 404)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def change(folder: Path, **told: Any) -> None:
    file = folder / "settings.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | told), encoding="utf-8")


def other_probe(folder: Path) -> None:
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    settings["adapters"]["prompt"]["probe"]["outputs"]["float32"][0] += 1
    change(folder, adapters=settings["adapters"])


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("prompt", lambda root: cut(root / "prompt" / "model.onnx"), "prompt is damaged: .*model.onnx"),
        ("prompt", lambda root: (root / "prompt" / "model.onnx").unlink(), "prompt is damaged: "),
        ("prompt", lambda root: cut(root / "prompt" / "tokenizer.json"), "prompt is damaged: "),
        ("prompt", lambda root: (root / "prompt" / "settings.json").write_text("{"), "settings.json is damaged: "),
        ("prompt", lambda root: change(root / "prompt", adapters={}), "is not what tunedeck export onnx writes"),
        (
            "prompt",
            lambda root: change(root / "prompt", files={"float32": "../both/model.onnx"}),
            "names the file '../both/model.onnx', which is outside of its folder",
        ),
        (
            "prompt",
            lambda root: change(root / "prompt", files={"int8": "model.int8.onnx"}),
            "no float32 graph, it has int8",
        ),
        (
            "prompt",
            lambda root: change(root / "prompt", task="embed"),
            "prompt is for the task embed, this server is for classify",
        ),
        ("prompt", lambda root: change(root / "prompt", base="other"), "prompt has the base other, this server "),
        ("prompt", lambda root: other_probe(root / "prompt"), "does not answer its stored probe"),
        ("both/two", lambda root: cut(root / "both" / "adapters" / "two.onnx_adapter"), "both/two is damaged: "),
        ("both/two", lambda root: change(root / "both", model_version=1), "was written for another graph"),
    ],
)
def test_a_damaged_export_is_refused_by_its_reason_and_the_others_serve_on(
    own_exports: Path, name: str, damage: Any, told: str
) -> None:
    with served(own_exports) as service:
        damage(own_exports)
        status, message = refused(service, name)
        assert status == 422
        assert "\n" not in message
        assert str(own_exports) not in message
        assert re.search(told, message)
        classify(service, "team/prompt", TEXTS[0])


def test_an_export_of_before_there_were_probes_loads_with_a_note(own_exports: Path) -> None:
    settings = json.loads((own_exports / "prompt" / "settings.json").read_text(encoding="utf-8"))
    del settings["adapters"]["prompt"]["probe"], settings["positions"], settings["adapters"]["prompt"]["virtual_tokens"]
    (own_exports / "prompt" / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    with served(own_exports) as service:
        (loaded,) = ask(service, ("POST", "/v1/adapters", {"name": "prompt"}))
        assert loaded.json()["note"] == "no stored probe: not tested on load"
        classify(service, "prompt", TEXTS[0])


def test_embeddings_are_those_of_the_deck(tmp_path: Path) -> None:
    deck = td.Deck.load(
        tiny_models.folder_of("bert", "unpooled"), td.Embed(document_instruction="w50 "), dtype="float32"
    )
    tiny_models.add_stirred(deck, "lora", td.LoraConfig(r=4, target_modules="all-linear"))
    save_onnx(deck, "lora", tmp_path / "lora")
    expected = deck.embed(list(TEXTS), "lora")
    ids = [deck.tokenizer("w50 " + text)["input_ids"] for text in TEXTS]
    bodies = [
        ("POST", "/v1/embeddings", {"model": "lora", "input": given, "encoding_format": form})
        for given, form in ((list(TEXTS), "float"), (ids, "float"), (list(TEXTS), "base64"))
    ]
    with served(tmp_path) as service:
        plain, of_ids, coded = (response.json()["data"] for response in ask(service, *bodies))
    for answer in (plain, of_ids):
        assert tiny_models.difference(torch.tensor([one["embedding"] for one in answer]), expected) < 1e-5
    again = [numpy.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in coded]
    assert numpy.abs(numpy.stack(again) - expected.numpy()).max() < 1e-5


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"adapters": "nowhere"}, "there is no folder nowhere"),
        ({"adapters": "prompt"}, "prompt is one export; name the folder that holds it"),
        ({"adapters": "empty"}, "empty holds no ONNX export; write one with: tunedeck export onnx"),
        ({"adapters": "no-int8", "precision": "int8"}, "one has no int8 graph, it has float32; export it with --int8"),
        ({"task": "embed"}, "is for the task classify, this server is for embed"),
        ({"task": "generate"}, "ONNX exports answer with labels or vectors; leave out --backend onnx"),
        ({"precision": "int4"}, "--precision must be one of float32, int8, got 'int4'"),
        ({"backend": "tensorrt"}, "--backend must be one of deck, onnx, got 'tensorrt'"),
        ({"backend": "deck", "precision": "int8"}, "--precision has no meaning with --backend deck"),
        ({"model": "m", "dtype": "bfloat16"}, "--model, --dtype has no meaning with --backend onnx"),
    ],
)
def test_what_cannot_be_served_ends_with_one_line(
    own_exports: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, str], told: str
) -> None:
    monkeypatch.chdir(own_exports)
    (own_exports / "empty").mkdir()
    shutil.copytree(own_exports / "prompt", own_exports / "no-int8" / "one")
    change(own_exports / "no-int8" / "one", files={"float32": "model.onnx"})
    asked: dict[str, Any] = {"backend": "onnx", "adapters": ".", **flags}
    with pytest.raises(ConfigError, match=told) as refusal:
        serve(**{**asked, "adapters": Path(asked["adapters"])})
    assert "\n" not in str(refusal.value)


def test_without_onnx_runtime_it_is_named(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunedeck.core.checks.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"needs the package onnxruntime; run: pip install 'tunedeck\[export\]'"):
        open_onnx_service(exports, "float32", ServerSettings())
