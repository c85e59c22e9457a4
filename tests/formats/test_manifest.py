"""tunedeck.json: what it says, and how it keeps an adapter to the base it was trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_models import LABELS, add_stirred, deck_of, folder_of, logits_of, token_batch

import tunedeck as td
from tunedeck.core.errors import AdapterError, AdapterFileError, BaseMismatchError
from tunedeck.formats.manifest import DataRecord

TWO_LABELS = ("yes", "no")


def saved(tmp_path: Path, config: Any = None) -> Path:
    deck = deck_of("bert")
    add_stirred(deck, "law", config or td.LoraConfig(r=4), labels=TWO_LABELS)
    deck.save("law", tmp_path / "law")
    return tmp_path / "law"


def change(folder: Path, **values: Any) -> None:
    content = json.loads((folder / "tunedeck.json").read_text())
    (folder / "tunedeck.json").write_text(json.dumps({**content, **values}))


def test_it_names_base_task_labels_method_and_versions(tmp_path: Path) -> None:
    content = json.loads((saved(tmp_path) / "tunedeck.json").read_text())
    assert content["format"] == 1
    assert content["base"]["reference"] == folder_of("bert", "classifier")
    assert len(content["base"]["fingerprint"]) == 64
    task = {"labels": ["yes", "no"], "multi_label": False, "max_length": 256, "pooling": "model"}
    assert content["task"] == {"kind": "classify", **task, "class_weights": None, "pairs": None}
    assert content["method"].items() >= {"kind": "lora", "r": 4, "lora_alpha": 16.0}.items()
    assert set(content["versions"]) == {"tunedeck", "torch", "transformers"}


def test_what_a_run_measured_survives_saving_and_loading(tmp_path: Path) -> None:
    deck = deck_of("bert")
    add_stirred(deck, "law", td.LoraConfig())
    adapter = deck.adapter("law")
    data = DataRecord(source="tweets.csv", sha256="ab" * 32, examples=90)
    adapter.manifest = adapter.manifest.model_copy(update={"metrics": {"accuracy": 0.8}, "data": data})
    deck.save("law", tmp_path / "law")
    fresh = deck_of("bert")
    fresh.load_adapter(tmp_path / "law")
    kept = fresh.adapter("law").manifest
    assert (kept.metrics, kept.data) == ({"accuracy": 0.8}, data)
    fresh.save("law", tmp_path / "again")
    texts = [(tmp_path / name / "tunedeck.json").read_text() for name in ("law", "again")]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("config", [td.LoraConfig(), td.BottleneckConfig(), td.PromptTuningConfig(), td.FullConfig(1)])
def test_an_adapter_of_another_base_is_refused_unless_one_insists(config: Any, tmp_path: Path) -> None:
    folder = saved(tmp_path, config)
    other = deck_of("bert", seed=1)
    with pytest.raises(
        BaseMismatchError, match=r"was trained on .*bert-classifier-0 \(.{12}\), this deck holds .*bert-"
    ):
        other.load_adapter(folder)
    assert other.adapters == ()
    other.load_adapter(folder, allow_base_mismatch=True)
    assert other.label_names("law") == TWO_LABELS
    assert logits_of(other, token_batch(), "law").isfinite().all()


def test_one_base_has_one_fingerprint_in_every_precision_and_for_every_task() -> None:
    for model_type, forms in (("bert", ("classifier",)), ("llama", ("classifier",)), ("gpt2", ("classifier",))):
        for form in forms:
            prints = {deck_of(model_type, form, dtype=dtype).base.fingerprint for dtype in ("float32", "bfloat16")}
            assert len(prints) == 1, model_type
    llama = folder_of("llama", "causal")
    as_classifier = td.Deck.load(llama, td.Classify(labels=LABELS), dtype="float32")
    assert as_classifier.base.untrained
    assert as_classifier.base.fingerprint == deck_of("llama", "causal").base.fingerprint


def test_the_fingerprint_tells_bases_apart_by_their_tensors_not_their_names() -> None:
    assert deck_of("bert").base.fingerprint != deck_of("bert", seed=1).base.fingerprint
    assert deck_of("bert").base.fingerprint != deck_of("roberta").base.fingerprint


def test_the_fingerprint_leaves_out_what_the_checkpoint_lacks() -> None:
    """A pooler drawn at random on load is not part of the base."""
    deck = td.Deck.load(folder_of("bert", "unpooled"), td.Classify(labels=LABELS), dtype="float32")
    assert {name for name in deck.base.untrained if "pooler" in name}
    before = deck.base.fingerprint
    with torch.no_grad():
        deck.model.bert.pooler.dense.weight.add_(1)
    from tunedeck.models.load import fingerprint

    assert fingerprint(deck.model, deck.base.untrained) == before


def test_attaching_and_training_adapters_leaves_the_fingerprint_alone() -> None:
    from tunedeck.models.load import fingerprint

    deck = deck_of("bert")
    for name, config in (("lora", td.LoraConfig()), ("full", td.FullConfig()), ("prompt", td.PromptTuningConfig())):
        add_stirred(deck, name, config)
    assert fingerprint(deck.model, deck.base.untrained) == deck.base.fingerprint


def test_a_pooler_the_base_lacks_travels_with_the_adapter(tmp_path: Path) -> None:
    batch = token_batch()
    task = td.Classify(labels=LABELS, pooling="model")
    decks = [td.Deck.load(folder_of("bert", "unpooled"), task, dtype="float32") for _ in "12"]
    for kind, config in (("lora", td.LoraConfig()), ("prompt", td.PromptTuningConfig()), ("bn", td.BottleneckConfig())):
        add_stirred(decks[0], kind, config)
        decks[0].save(kind, tmp_path / kind)
        decks[1].load_adapter(tmp_path / kind)
        assert "bert.pooler.dense.weight" in decks[1].adapter(kind).head_tensors()
        assert torch.equal(logits_of(decks[1], batch, kind), logits_of(decks[0], batch, kind))


def test_an_adapter_for_another_task_is_refused(tmp_path: Path) -> None:
    deck = deck_of("llama", "causal")
    add_stirred(deck, "story", td.LoraConfig())
    deck.save("story", tmp_path / "story")
    with pytest.raises(AdapterError, match="was trained for the task generate, this deck is for classify"):
        td.Deck.load(folder_of("llama", "causal"), td.Classify(labels=LABELS)).load_adapter(tmp_path / "story")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "tunedeck.json is damaged"),
        ('{"format": 1, "base":', "tunedeck.json is damaged"),
        ("[]", "tunedeck.json is damaged"),
        ('{"base": {"reference": 3}, "task": {}}', "tunedeck.json is damaged"),
        (
            '{"format": 2, "base": {"reference": "x"}, "task": {}}',
            "has format 2, this version reads 1; update tunedeck",
        ),
        ("\ud800".encode("utf-16", "surrogatepass"), "tunedeck.json is damaged"),
    ],
)
def test_a_damaged_manifest_is_an_error(content: str | bytes, message: str, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / "tunedeck.json").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(AdapterFileError, match=message):
        deck_of("bert").load_adapter(folder)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "b", "c"], "names 3 labels but its head has 2"),
        (["a", "a"], "named twice"),
        (5, "labels is 5, not a list of names"),
        ("ab", "labels is 'ab', not a list of names"),
    ],
)
def test_labels_that_do_not_fit_the_head_are_an_error(labels: object, message: str, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change(folder, task={"kind": "classify", "labels": labels})
    with pytest.raises(td.TunedeckError, match=message):
        deck_of("bert").load_adapter(folder)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"kind": "lora"}, "names the method 'lora' but the folder has no adapter_config.json"),
        ({}, "the method '' is not supported"),
        ({"kind": "full", "layers": "most"}, "layers"),
        ({"kind": "full", "depth": 1}, r"unknown key 'method.depth'; allowed: layers"),
    ],
)
def test_a_method_that_the_manifest_gets_wrong_is_an_error(method: object, message: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, td.FullConfig(1))
    change(folder, method=method)
    with pytest.raises(td.TunedeckError, match=message):
        deck_of("bert").load_adapter(folder)


def test_a_folder_without_the_manifest_still_loads_but_knows_no_label_names(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / "tunedeck.json").unlink()
    deck = deck_of("bert", seed=1)  # nothing says which base it belongs to
    deck.load_adapter(folder)
    assert deck.label_names("law") == ("LABEL_0", "LABEL_1")
