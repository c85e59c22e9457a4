"""ONNX graphs of adapters for pairs and for scores: the runner and the server's backend answer as the deck does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import tiny_models
from support.scored_texts import score_deck

import tunedeck as td
from tunedeck.core.errors import ConfigError
from tunedeck.methods.base import MethodConfig

pytest.importorskip("onnxruntime")
from tunedeck.export.onnx.measure import measure
from tunedeck.export.onnx.multi import save_onnx_multi
from tunedeck.export.onnx.save import save_onnx
from tunedeck.formats.onnx.runner import Runner, RunnerError
from tunedeck.serving.backends.onnx import OnnxBackend
from tunedeck.tasks.score.data import ScoredText

KINDS: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(r=2, target_modules="all-linear"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=3),
}
LONG = " ".join(f"w{4 + number % 100}" for number in range(50))
PAIRS = [("w4 w5", "w6"), ("w30", LONG), (LONG, "w9 w9 w8"), ("w7", "w4 w5 w6 w7 w8")]


def decks(method: str, ordinal: bool) -> td.Deck:
    deck = score_deck(max_length=32)
    task = td.Score(
        ("a", "b"),
        ordinal=ordinal,
        levels=(1, 5) if ordinal else None,
        pooling="mean",
        pairs=True,
        max_length=32,
        target_means=(3, 50),
        target_stds=(1, 9),
    )
    deck.add("a", KINDS[method], task=task)
    tiny_models.stir(deck, "a")
    return deck


@pytest.mark.parametrize(("method", "ordinal"), [("lora", False), ("prompt", True)])
def test_scores_of_pairs_are_those_of_the_deck(method: str, ordinal: bool, tmp_path: Path) -> None:
    deck = decks(method, ordinal)
    save_onnx(deck, "a", tmp_path / "onnx", int8=True)
    expected = deck.predict([td.TextPair(*pair) for pair in PAIRS], adapter="a")
    runner = Runner(tmp_path / "onnx")
    found = runner.answer(PAIRS)
    for one, answer in zip(found, expected, strict=True):
        assert one["scores"] == pytest.approx(answer.scores, abs=1e-3)
        assert one["score"] == one["scores"]["a"]
        assert one["levels"] == answer.levels
    assert [(one["text"], one["text_pair"]) for one in found] == PAIRS
    other = runner.answer([(b, a) for a, b in PAIRS])
    assert [one["score"] for one in other] != pytest.approx([one["score"] for one in found], abs=1e-3)
    small = Runner(tmp_path / "onnx", "int8").answer(PAIRS)
    assert [one["score"] for one in small] == pytest.approx([one["score"] for one in found], abs=0.5)
    backend = OnnxBackend("score", deck.base.reference, "float32", 1)
    backend.load(tmp_path / "onnx", "a")
    rows = backend.encode([td.TextPair(*pair) for pair in PAIRS], "a")
    assert [one.score for one in backend.answer(rows, ["a"] * 4)] == pytest.approx([one["score"] for one in found])
    with pytest.raises(ConfigError, match="a text has no second text"):
        backend.encode(["w4"], "a")
    examples = [ScoredText(td.TextPair(*pair), (3.0, 50.0)) for pair in PAIRS]
    sides = measure({"torch float32": deck}, "a", {"ONNX": tmp_path / "onnx"}, examples)
    assert sides[0].metrics["mae"] == pytest.approx(sides[1].metrics["mae"], abs=1e-3)


def test_labels_of_pairs_are_those_of_the_deck_and_the_folder_runs_alone(tmp_path: Path) -> None:
    deck = tiny_models.deck_of("bert")
    task = td.Classify(labels=("no", "yes"), pairs=True, max_length=32)
    deck.add("a", KINDS["lora"], task=task)
    tiny_models.stir(deck, "a")
    save_onnx(deck, "a", tmp_path / "onnx")
    expected = deck.predict([td.TextPair(*pair) for pair in PAIRS], adapter="a")
    runner = Runner(tmp_path / "onnx")
    assert [one["score"] for one in runner.answer(PAIRS)] == pytest.approx([one.score for one in expected], abs=1e-4)
    assert runner.in_pairs(["w4\tw5", "w6\tw7"], None) == [("w4", "w5"), ("w6", "w7")]
    with pytest.raises(RunnerError, match="'w4' has no second text"):
        runner.in_pairs(["w4"], None)
    told = subprocess.run(
        [sys.executable, tmp_path / "onnx" / "run.py", *PAIRS[0]], capture_output=True, text=True, check=True
    )
    assert f'"label": "{expected[0].label}"' in told.stdout


def test_pairs_and_single_texts_share_a_graph_for_several_adapters(tmp_path: Path) -> None:
    deck = tiny_models.deck_of("bert")
    for name, pairs in (("pairs", True), ("texts", None)):
        deck.add(name, KINDS["lora"], task=td.Classify(labels=("no", "yes"), pairs=pairs, max_length=32))
        tiny_models.stir(deck, name, seed=len(name))
    save_onnx_multi(deck, ["pairs", "texts"], tmp_path / "onnx")
    runner = Runner(tmp_path / "onnx")
    both = deck.predict([td.TextPair(*PAIRS[0]), "w4 w5"], adapter=["pairs", "texts"])
    assert runner.answer(PAIRS[:1], ["pairs"])[0]["score"] == pytest.approx(both[0].score, abs=1e-4)
    assert runner.answer(["w4 w5"], ["texts"])[0]["score"] == pytest.approx(both[1].score, abs=1e-4)
