"""Several LoRA adapters in one graph: each answers as it does in the deck, and nothing is taken for granted in
silence.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support import embedding_decks, onnx_exports, tiny_models

import tunedeck as td
from tunedeck.core.errors import AdapterError, ConfigError, UnsupportedKindError

pytest.importorskip("onnxruntime")
from tunedeck.export.onnx.multi import save_onnx_multi
from tunedeck.formats.onnx.runner import Runner, RunnerError

SHAPES = ((1, 1), (3, 7), (8, 30))


def logits(runner: Runner, name: str, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.from_numpy(runner.run(batch["input_ids"].numpy(), batch["attention_mask"].numpy(), [name]))


@pytest.fixture
def deck() -> td.Deck:
    return onnx_exports.deck()


@pytest.fixture(scope="module")
def folder() -> Path:
    return onnx_exports.multi_adapter()


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_ranks_targets_and_labels_differ_and_each_equals_the_deck(deck: td.Deck, folder: Path, precision: str) -> None:
    runner = Runner(folder, precision)
    for rows, length in SHAPES:
        batch = tiny_models.token_batch(rows, length, pad="right" if length > 4 else None)
        for name in ("eight", "two", "head", "eight"):
            bound = 1e-4 if precision == "float32" else 0.35  # as in test_onnx
            assert tiny_models.difference(logits(runner, name, batch), tiny_models.logits_of(deck, batch, name)) < bound


def test_adapters_of_an_embedding_base_are_told_apart(tmp_path: Path) -> None:
    deck = embedding_decks.embed_deck()
    tiny_models.add_stirred(deck, "q", td.LoraConfig(r=2, target_modules=("query",)))
    tiny_models.add_stirred(deck, "v", td.LoraConfig(r=8, target_modules=("value",)), seed=5)
    save_onnx_multi(deck, ["q", "v"], tmp_path / "onnx")
    runner = Runner(tmp_path / "onnx")
    for name in ("q", "v"):
        told = torch.tensor([row["vector"] for row in runner.answer(embedding_decks.TEXTS, [name])])
        assert tiny_models.difference(told, deck.embed(embedding_decks.TEXTS, name)) < 1e-5


def test_heads_on_pooled_states_share_a_graph_among_themselves(tmp_path: Path) -> None:
    deck = tiny_models.deck_of("bert")
    for name, config, labels in (("two", td.LoraConfig(r=2), "ab"), ("four", td.LoraConfig(r=4), "abcd")):
        deck.add(name, config, task=td.Classify(labels=tuple(labels), pooling="mean"))
        tiny_models.stir(deck, name)
    save_onnx_multi(deck, ["two", "four"], tmp_path / "onnx")
    runner = Runner(tmp_path / "onnx")
    for name in ("two", "four"):
        answers = runner.answer(embedding_decks.TEXTS, [name])
        for row, told in zip(answers, deck.predict(embedding_decks.TEXTS, name), strict=True):
            assert row["probabilities"] == pytest.approx(dict(told.probabilities), abs=1e-5)
    tiny_models.add_stirred(deck, "model", td.LoraConfig())
    with pytest.raises(ConfigError, match="pool or normalise in different ways"):
        save_onnx_multi(deck, ["two", "model"], tmp_path / "mixed")


def test_the_runner_refuses_what_onnx_runtime_would_take_in_silence(folder: Path) -> None:
    runner = Runner(folder)
    with pytest.raises(RunnerError, match=r"'two' and 'eight' cannot be active together: both set bert\."):
        runner.answer(["w10"], ["two", "eight"])
    with pytest.raises(RunnerError, match=r"no adapter 'eigth' \(did you mean eight\?\); known: two, eight, head"):
        runner.answer(["w10"], ["eigth"])
    with pytest.raises(RunnerError, match="name an adapter with --adapter: two, eight, head"):
        runner.answer(["w10"])


def test_a_file_of_another_graph_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "onnx"
    other.mkdir()
    for name in ("model.onnx", "tokenizer.json", "adapters"):
        (other / name).symlink_to(folder / name)
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    settings["model_version"] += 1
    (other / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(RunnerError, match="was written for another graph"):
        Runner(other).answer(["w10"], ["two"])


def test_what_cannot_share_a_graph_is_refused_and_the_deck_is_left_as_it_was(deck: td.Deck, tmp_path: Path) -> None:
    tiny_models.add_stirred(deck, "b", td.BottleneckConfig("seq_bn"))
    try:
        with pytest.raises(UnsupportedKindError, match=r"'b' is of the kind bottleneck; .* without --multi-adapter"):
            save_onnx_multi(deck, ["two", "b"], tmp_path / "onnx")
    finally:
        deck.remove("b")
    tiny_models.add_stirred(deck, "a/b", td.LoraConfig())
    try:
        with pytest.raises(AdapterError, match="'a/b' cannot be a file's name"):
            save_onnx_multi(deck, ["a/b"], tmp_path / "onnx")
    finally:
        deck.remove("a/b")
    mixed = embedding_decks.embed_deck()
    mixed.add("mean", td.LoraConfig())
    mixed.add("cls", td.LoraConfig())
    mixed.adapter("cls").task = td.Embed(pooling="first")
    with pytest.raises(ConfigError, match="pool or normalise in different ways"):
        save_onnx_multi(mixed, ["mean", "cls"], tmp_path / "onnx")
    assert not list(tmp_path.iterdir())
    assert deck.adapters == ("prompt", "two", "eight", "head")
