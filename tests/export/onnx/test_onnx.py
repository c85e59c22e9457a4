"""An ONNX graph answers as the adapter in the deck does, whatever the batch and the length."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import embedding_decks, tiny_models

import tunedeck as td
from tunedeck.core.errors import AdapterError, ConfigError, ModelError, StorageError, UnsupportedKindError
from tunedeck.export.onnx import graph as onnx_graph
from tunedeck.methods.base import MethodConfig

onnxruntime = pytest.importorskip("onnxruntime")
from support import onnx_exports  # noqa: E402

from tunedeck.export.onnx.folder import BOUND  # noqa: E402
from tunedeck.export.onnx.save import OnnxExport, save_onnx  # noqa: E402
from tunedeck.formats.confidence import Confidence  # noqa: E402
from tunedeck.formats.onnx.runner import Runner, RunnerError  # noqa: E402

KINDS: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(target_modules="all-linear"),
    "bottleneck": td.BottleneckConfig("double_seq_bn"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=3),
    "full": td.FullConfig(1),
    "head": td.FullConfig("head"),
}
SHAPES = ((1, 1), (1, 5), (3, 2), (4, 17), (9, 40))

INT8 = 0.35
"""Of tiny models; processors without VNNI add pairs of products in 16 bits, which saturate, and are twice as far off as
others.
"""


def deck_with(kind: str, task: str, model_type: str = "bert") -> td.Deck:
    if task == "classify":
        deck = tiny_models.deck_of(model_type)
        tiny_models.add_stirred(deck, "a", KINDS[kind], labels=("no", "yes"))
        return deck
    deck = embedding_decks.embed_deck(model_type, pooling="last" if model_type == "llama" else "mean")
    tiny_models.add_stirred(deck, "a", KINDS[kind])
    return deck


def assert_equal(deck: td.Deck, name: str, runner: Runner, bound: float = BOUND) -> None:
    for rows, length in SHAPES:
        batch = tiny_models.token_batch(rows, length, pad="right" if length > 4 else None)
        told = torch.from_numpy(runner.run(batch["input_ids"].numpy(), batch["attention_mask"].numpy(), [name]))
        assert (
            tiny_models.difference(
                told, onnx_graph.onnx_view(deck).expected(deck, name, batch["input_ids"], batch["attention_mask"])
            )
            < bound
        )


@dataclass(frozen=True)
class Exported:
    deck: td.Deck
    found: OnnxExport
    folder: Path
    name: str = "a"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Exported]:
    """Give a kind's export for a task, written once for all tests here, since torch takes seconds to trace a graph."""

    @cache
    def of(kind: str, task: str) -> Exported:
        if (kind, task) == ("prompt", "classify"):
            folder, found = onnx_exports.prompt()
            return Exported(onnx_exports.deck(), found, folder, "prompt")
        deck, folder = deck_with(kind, task), tmp_path_factory.mktemp("exports") / "onnx"
        return Exported(deck, save_onnx(deck, "a", folder, int8=True), folder)

    return of


@pytest.mark.parametrize(
    ("task", "kind"), [*(("classify", kind) for kind in ("lora", "bottleneck", "prompt", "head")), ("embed", "prompt")]
)
def test_every_kind_is_in_the_graph_and_int8_is_near(
    task: str, kind: str, exported: Callable[[str, str], Exported]
) -> None:
    one = exported(kind, task)
    found = one.found
    assert found.difference.max_abs < BOUND
    assert_equal(one.deck, one.name, Runner(one.folder))
    small = Runner(one.folder, "int8")
    assert_equal(one.deck, one.name, small, bound=INT8)
    assert found.int8 is not None
    assert 0 < found.int8.max_abs < INT8
    assert (found.int8_cosine is None) == (task == "classify")
    assert found.int8_bytes is not None
    assert found.int8_bytes < found.float32_bytes


@pytest.mark.parametrize(("kind", "pooling"), [("prompt", "mean"), ("full", "first")])
def test_a_head_on_pooled_states_is_in_the_graph(kind: str, pooling: Any, tmp_path: Path) -> None:
    deck = tiny_models.deck_of("bert")
    deck.add("a", KINDS[kind], task=td.Classify(labels=("no", "yes"), pooling=pooling))
    tiny_models.stir(deck, "a")
    save_onnx(deck, "a", tmp_path / "onnx")
    assert_equal(deck, "a", Runner(tmp_path / "onnx"))


@pytest.mark.parametrize(("kind", "task"), [("bottleneck", "embed"), ("prompt", "classify")])
def test_an_exported_decoder_answers_as_the_deck_does(kind: str, task: str, tmp_path: Path) -> None:
    deck = deck_with(kind, task, "llama")
    save_onnx(deck, "a", tmp_path / "onnx")
    assert_equal(deck, "a", Runner(tmp_path / "onnx"))


def products(folder: Path) -> int:
    """Return the number of matrix products in a graph."""
    onnx = pytest.importorskip("onnx")
    return sum(node.op_type in ("MatMul", "Gemm") for node in onnx.load(folder / "model.onnx").graph.node)


def test_lora_inside_the_graph_keeps_its_own_products(exported: Callable[[str, str], Exported], tmp_path: Path) -> None:
    merged = exported("lora", "classify")
    deck = merged.deck
    save_onnx(deck, "a", tmp_path / "inside", lora="inside")
    assert_equal(deck, "a", Runner(tmp_path / "inside"))
    assert products(tmp_path / "inside") == products(merged.folder) + 2 * 6 * tiny_models.LAYERS
    with pytest.raises(ConfigError, match="merged or inside, got 'outside'"):
        save_onnx(deck, "a", tmp_path / "other", lora="outside")  # type: ignore[arg-type]


def test_the_runner_reads_texts_as_the_deck_does(exported: Callable[[str, str], Exported]) -> None:
    one = exported("prompt", "classify")
    texts = ["w10 w20", "w5", "nothing known here", " ".join(["w30 w31"] * 50)]
    told = Runner(one.folder).answer(texts)
    for row, prediction in zip(told, one.deck.predict(texts, one.name), strict=True):
        assert row["label"] == prediction.label
        assert row["probabilities"] == pytest.approx(dict(prediction.probabilities), abs=1e-5)
        assert row["labels"] == list(prediction.labels)
    assert [row["text"] for row in told] == texts


@pytest.fixture(scope="module")
def several_labels(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The export of an adapter that gives several labels to a text, with an older opset."""
    deck = td.Deck.load(
        tiny_models.folder_of("bert", "classifier"), td.Classify(tiny_models.LABELS, multi_label=True), dtype="float32"
    )
    tiny_models.add_stirred(deck, "a", td.LoraConfig())
    folder = tmp_path_factory.mktemp("several") / "onnx"
    return Exported(deck, save_onnx(deck, "a", folder, opset=20), folder)


def test_several_labels_for_one_text(several_labels: Exported) -> None:
    (told,) = Runner(several_labels.folder).answer(["w10 w20"])
    (prediction,) = several_labels.deck.predict(["w10 w20"], "a")
    assert told["probabilities"] == pytest.approx(dict(prediction.probabilities), abs=1e-5)
    assert told["labels"] == list(prediction.labels)


def test_instructions_and_the_longest_text_go_with_vectors(tmp_path: Path) -> None:
    deck = embedding_decks.embed_deck(
        query_instruction="w40 w41 ", document_instruction="w42 ", max_length=7, pooling="first"
    )
    tiny_models.add_stirred(deck, "a", td.PromptTuningConfig(2))
    save_onnx(deck, "a", tmp_path / "onnx")
    runner = Runner(tmp_path / "onnx")
    for query in (True, False):
        told = torch.tensor([row["vector"] for row in runner.answer(embedding_decks.TEXTS, query=query)])
        assert tiny_models.difference(told, deck.embed(embedding_decks.TEXTS, "a", as_query=query)) < 1e-5


def test_int8_scales_each_output_by_itself(exported: Callable[[str, str], Exported]) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(exported("lora", "classify").folder / "model.int8.onnx").graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = [
        t
        for name, t in tensors.items()
        if name.endswith("_quantized") and t.shape == (tiny_models.HIDDEN, tiny_models.HIDDEN)
    ]
    assert weights
    assert all(t.dtype == "int8" for t in weights)
    assert any(t.shape == (tiny_models.HIDDEN,) for name, t in tensors.items() if name.endswith("_scale"))


def test_a_graph_that_answers_otherwise_is_not_kept(
    exported: Callable[[str, str], Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deck, other = deck_with("bottleneck", "classify"), exported("head", "classify").folder / "model.onnx"
    program = SimpleNamespace(save=lambda place: shutil.copy(other, place))
    monkeypatch.setattr("tunedeck.export.onnx.save.trace", lambda *_: program)
    with pytest.raises(AdapterError, match="the ONNX graph does not answer as the adapter"):
        save_onnx(deck, "a", tmp_path / "onnx")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_refused_with_what_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = tiny_models.deck_of("llama", "causal")
    chat.add("a", td.LoraConfig())
    with pytest.raises(UnsupportedKindError, match="for a, which generates text, use tunedeck export merge"):
        save_onnx(chat, "a", tmp_path / "onnx")
    half = tiny_models.deck_of("bert", dtype="bfloat16")
    half.add("a", td.LoraConfig())
    with pytest.raises(AdapterError, match="this deck is in bfloat16; load it with dtype='float32'"):
        save_onnx(half, "a", tmp_path / "onnx")
    deck = deck_with("head", "classify")
    with pytest.raises(ConfigError, match="opset must be from 18 to 23, got 7"):
        save_onnx(deck, "a", tmp_path / "onnx", opset=7)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("kept")
    with pytest.raises(StorageError, match="is not empty"):
        save_onnx(deck, "a", tmp_path / "full")
    bare = td.Deck(replace(deck.base, tokenizer=None), deck.task)
    bare.add("a", td.FullConfig("head"))
    with pytest.raises(ModelError, match="no tokenizer"):
        save_onnx(bare, "a", tmp_path / "onnx")
    monkeypatch.setattr("tunedeck.core.checks.find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ConfigError, match=r"ONNX needs the package onnxscript; run: pip install 'tunedeck\[export\]'"):
        save_onnx(deck, "a", tmp_path / "onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"full"}


def test_another_opset_is_written_and_the_settings_name_what_is_there(several_labels: Exported) -> None:
    onnx = pytest.importorskip("onnx")
    folder = several_labels.folder
    assert onnx.load(folder / "model.onnx").opset_import[0].version == 20
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    assert settings["adapters"]["a"]["labels"] == list(tiny_models.LABELS)
    assert settings["files"] == {"float32": "model.onnx"}
    with pytest.raises(RunnerError, match="there is no int8 file here; there is: float32"):
        Runner(folder, "int8")
    assert not (folder / "model.int8.onnx").exists()


@pytest.mark.parametrize("multi_label", [False, True])
def test_temperature_and_thresholds_are_those_of_the_adapter(multi_label: bool, tmp_path: Path) -> None:
    deck = tiny_models.deck_of("bert")
    deck.add("a", td.FullConfig("head"), task=td.Classify(labels=("no", "maybe", "yes"), multi_label=multi_label))
    tiny_models.stir(deck, "a")
    adapter = deck.adapter("a")
    sure = deck.predict(["w10 w20"], "a")[0].probabilities
    limits = {"no": sure["no"] * 0.9, "maybe": None, "yes": sure["yes"] * 0.9}
    confidence = Confidence(temperature=1.5, thresholds=limits)
    adapter.manifest = adapter.manifest.model_copy(update={"confidence": confidence})
    save_onnx(deck, "a", tmp_path / "onnx")
    texts = [f"w{number} w{number + 1}" for number in range(10, 40)]
    answers = deck.predict(texts, "a")
    for row, answer in zip(Runner(tmp_path / "onnx").answer(texts), answers, strict=True):
        assert row["probabilities"] == pytest.approx(dict(answer.probabilities), abs=1e-5)
        assert (tuple(row["labels"]), row["abstain"]) == (answer.labels, answer.abstain)
    assert len({answer.labels for answer in answers}) > 1
