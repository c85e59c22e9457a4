"""ONNX graphs of adapters that find entities: the runner and the server's backend answer as the deck does."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import tiny_models
from support.tagged_words import TAGS, tag_deck, texts

import tunedeck as td
from tunedeck.core.errors import AdapterFileError
from tunedeck.methods.base import MethodConfig
from tunedeck.tasks.tag.task import Entities

pytest.importorskip("onnxruntime")
from tunedeck.export.onnx.measure import measure
from tunedeck.export.onnx.multi import save_onnx_multi
from tunedeck.export.onnx.save import OnnxExport, save_onnx
from tunedeck.formats.onnx.runner import Runner
from tunedeck.server.app import create_app
from tunedeck.server.auth import Keys
from tunedeck.server.run import ServerSettings, open_onnx_service
from tunedeck.serving.backends.onnx import OnnxBackend

KINDS: dict[str, tuple[MethodConfig, str]] = {
    "lora": (td.LoraConfig(r=2, target_modules="all-linear"), "first"),
    "prompt": (td.PromptTuningConfig(num_virtual_tokens=3), "all"),
}
LONG = " ".join(f"w{4 + number % 100}" for number in range(90))
ASKED = ["w4 w5, w6!", "", "  w9 é🙂 w8\u3000w7\n", LONG, "w30", "这家 w5 酒店w6"]


@dataclass(frozen=True)
class Exported:
    deck: td.Deck
    folder: Path
    found: OnnxExport


@pytest.fixture(scope="module", params=list(KINDS))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """An export in float32 and int8, whose windows are of 24 tokens."""
    config, subwords = KINDS[request.param]
    deck = tag_deck(max_length=24, subwords=subwords)
    tiny_models.add_stirred(deck, "a", config)
    folder = tmp_path_factory.mktemp("tags") / "exports" / "rooms"
    return Exported(deck, folder, save_onnx(deck, "a", folder, int8=True))


def assert_same(found: list[dict[str, Any]], expected: list[Entities]) -> None:
    for one, answer in zip(found, expected, strict=True):
        kept = [(each["text"], each["label"], each["start"], each["end"]) for each in one["entities"]]
        assert kept == [(each.text, each.label, each.start, each.end) for each in answer.entities]
        scores = [each["score"] for each in one["entities"]]
        assert scores == pytest.approx([each.score for each in answer.entities], abs=1e-4)


def test_the_runner_finds_the_entities_of_the_deck_in_long_texts_too(exported: Exported) -> None:
    expected = exported.deck.predict(ASKED, adapter="a")
    assert len(expected[3].entities) > 5
    assert max(one.end for one in expected[3].entities) > len(LONG) - 40
    found = Runner(exported.folder).answer(ASKED)
    assert_same(found, expected)
    assert all(
        text[one["start"] : one["end"]] == one["text"]
        for text, row in zip(ASKED, found, strict=True)
        for one in row["entities"]
    )
    assert [row["text"] for row in found] == ASKED


def test_int8_is_near(exported: Exported) -> None:
    int8 = exported.found.int8
    assert int8 is not None
    assert 0 < int8.max_abs < 0.3 * int8.scale
    assert int8.same > 0.9
    both = [Runner(exported.folder, precision).outputs(ASKED, ["a"]) for precision in ("float32", "int8")]
    assert both[0].shape == both[1].shape
    assert abs(both[0] - both[1]).max() < 0.3 * int8.scale


def test_the_folder_runs_by_itself(exported: Exported, tmp_path: Path) -> None:
    folder = shutil.copytree(exported.folder, tmp_path / "elsewhere")
    command = [sys.executable, "-I", str(folder / "run.py"), *ASKED[2:]]
    told = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    assert_same([json.loads(line) for line in told.stdout.splitlines()], exported.deck.predict(ASKED[2:], adapter="a"))


def test_the_servers_backend_answers_as_the_deck_does(exported: Exported) -> None:
    backend = OnnxBackend("tag", exported.deck.base.reference, "float32", 1)
    assert backend.load(exported.folder, "a") is None
    answers = backend.answer(backend.encode(ASKED, "a"), ["a"] * len(ASKED))
    assert_same(
        [{"entities": [vars_of(one) for one in answer.entities]} for answer in answers],
        exported.deck.predict(ASKED, adapter="a"),
    )


def vars_of(entity: Any) -> dict[str, Any]:
    return {name: getattr(entity, name) for name in ("text", "label", "start", "end", "score")}


def test_entities_are_served(exported: Exported) -> None:
    service = open_onnx_service(exported.folder.parent, "float32", ServerSettings(), "tiny")

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(service, Keys(None)))
        async with httpx.AsyncClient(transport=transport, base_url="http://here", timeout=30) as client:
            return await client.post("/entities", json={"model": "rooms", "inputs": LONG})

    answer = asyncio.run(asked())
    service.engine.close()
    assert answer.status_code == 200, answer.text
    (expected,) = exported.deck.predict([LONG], adapter="a")
    assert [(one["entity_group"], one["start"], one["end"]) for one in answer.json()] == [
        (one.label, one.start, one.end) for one in expected.entities
    ]


def test_a_graph_is_measured_by_entities(exported: Exported) -> None:
    examples = texts(12)
    rows = measure({"torch": exported.deck}, "a", {"ONNX": exported.folder}, examples)
    assert [row.name for row in rows] == ["torch", "ONNX float32", "ONNX int8"]
    assert rows[0].metrics.keys() == {"f1", "precision", "recall", "loss"}
    assert rows[1].metrics == pytest.approx(rows[0].metrics, abs=1e-4)


@pytest.mark.parametrize("change", [{"subwords": "last"}, {"labels": ["O", "B-room"]}])
def test_settings_that_do_not_fit_are_refused(exported: Exported, tmp_path: Path, change: dict[str, Any]) -> None:
    folder = shutil.copytree(exported.folder, tmp_path / "changed")
    settings = json.loads((folder / "settings.json").read_text())
    settings["adapters"]["a"] |= change
    (folder / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(AdapterFileError, match="is damaged"):
        OnnxBackend("tag", exported.deck.base.reference, "float32", 1).load(folder, "a")


def test_adapters_with_tags_of_their_own_share_a_graph(tmp_path: Path) -> None:
    deck = tag_deck(max_length=24)
    tiny_models.add_stirred(deck, "rooms", KINDS["lora"][0], labels=TAGS)
    tiny_models.add_stirred(deck, "head", td.FullConfig("head"), labels=TAGS[:3], seed=2)
    save_onnx_multi(deck, ["rooms", "head"], tmp_path / "onnx")
    runner = Runner(tmp_path / "onnx")
    for name in ("rooms", "head"):
        assert_same(runner.answer(ASKED, [name]), deck.predict(ASKED, adapter=name))
