"""A base in NF4 or int8: adapters train, mix, move and merge on it, and nothing about it is silent."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from support import labelled_words
from support.quantized_models import FAMILIES, KINDS, SCHEMES, WIDE, deck_in, task_of, transformers_in_nf4, wide_folder
from support.tiny_models import add_stirred, difference, hook_count, logits_of, rows_of, tiny_model, token_batch

import tunedeck as td
from tunedeck.core.errors import AdapterError, BaseMismatchError, TargetError
from tunedeck.methods.linears import linears_in_layers
from tunedeck.models.precision import Dtype
from tunedeck.models.quantize import Quantize

every_scheme = pytest.mark.parametrize("scheme", SCHEMES)
every_family = pytest.mark.parametrize(("model_type", "form"), FAMILIES)


def gradients(deck: td.Deck, name: str) -> list[torch.Tensor]:
    deck.adapter(name).zero_grad()
    deck(**token_batch(), adapter=name).logits.square().mean().backward()
    return [p.grad.clone() for p in deck.adapter(name).parameters() if p.grad is not None]


@every_scheme
@every_family
def test_every_kind_works_alone_mixed_and_after_a_trip_to_disk(
    model_type: str, form: str, scheme: Quantize, tmp_path: Path
) -> None:
    deck, batch = deck_in(scheme, model_type, form), token_batch(len(KINDS) + 1)
    for seed, (name, config) in enumerate(KINDS.items()):
        add_stirred(deck, name, config, seed=seed)
    names = [*KINDS, None]
    mixed = logits_of(deck, batch, names)
    fresh = deck_in(scheme, model_type, form)
    for row, adapter in enumerate(names):
        assert difference(mixed[[row]], logits_of(deck, rows_of(batch, [row]), adapter)) < 1e-5, adapter
        if adapter is not None:
            deck.save(adapter, tmp_path / adapter)
            fresh.load_adapter(tmp_path / adapter)
            assert torch.equal(logits_of(fresh, batch, adapter), logits_of(deck, batch, adapter))
    for name in KINDS:
        deck.remove(name)
    assert hook_count(deck.model) == 0


@every_scheme
@pytest.mark.parametrize("kind", [*KINDS, "head"])
def test_every_kind_learns_and_the_base_keeps_every_bit(kind: str, scheme: Quantize, tmp_path: Path) -> None:
    data = labelled_words.write_csv(tmp_path / "words.csv", labelled_words.rows(120))
    deck = deck_in(scheme)
    before = {key: value.clone() for key, value in deck.model.state_dict().items()}
    labels = tuple(sorted(labelled_words.WORD_OF))
    deck.add("new", KINDS.get(kind, td.FullConfig("head")), labels=labels)
    settings = td.TrainingSettings(max_steps=12, learning_rate=2e-2, batch_size=16, eval_steps=6, head_init="random")
    losses_file = tmp_path / "run"
    td.train(deck, "new", td.DataSettings(train=str(data)), settings=settings, out=losses_file, progress=False)
    events = [json.loads(line) for line in (losses_file / "events.jsonl").read_text().splitlines()]
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert all(torch.equal(value, before[key]) for key, value in deck.model.state_dict().items())
    assert json.loads((losses_file / "adapter" / "tunedeck.json").read_text())["base"]["quantize"] == scheme
    assert json.loads((losses_file / "measurement.json").read_text())["quantize"] == scheme


@every_scheme
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_trained_after_a_prediction_has_the_same_gradients(dtype: Dtype, scheme: Quantize) -> None:
    """bitsandbytes repacks a 4-bit weight in the first batch without gradients, for a kernel that has no backward
    pass.
    """
    deck = deck_in(scheme, "llama", "causal", dtype)
    for name, config in KINDS.items():
        add_stirred(deck, name, config)
    before = {name: gradients(deck, name) for name in KINDS}
    with torch.inference_mode():
        deck(**token_batch(), adapter="prompt")
        logits_of(deck, token_batch())
    for name in KINDS:
        assert all(torch.equal(left, right) for left, right in zip(before[name], gradients(deck, name), strict=True))


@every_scheme
def test_an_adapter_moves_between_the_packed_and_the_unpacked_base(scheme: Quantize, tmp_path: Path) -> None:
    deck, plain, batch = deck_in(scheme), deck_in(None), token_batch()
    assert deck.base.fingerprint == plain.base.fingerprint
    add_stirred(deck, "new", KINDS["lora"])
    deck.save("new", tmp_path / "new")
    plain.load_adapter(tmp_path / "new")
    assert difference(logits_of(plain, batch, "new"), logits_of(deck, batch, "new")) < 1.0
    assert all(
        torch.equal(left, deck.adapter("new").tensors()[key]) for key, left in plain.adapter("new").tensors().items()
    )


@every_scheme
def test_a_base_whose_linears_alone_differ_is_another_base(scheme: Quantize, tmp_path: Path) -> None:
    model = tiny_model("bert", "classifier", **WIDE)
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight.mul_(1.02)  # as a merged adapter would
    model.save_pretrained(tmp_path / "base")
    other = td.Deck.load(str(tmp_path / "base"), task_of("classifier"), dtype="float32", quantize=scheme)
    deck = deck_in(scheme)
    add_stirred(deck, "new", KINDS["lora"])
    deck.save("new", tmp_path / "new")
    with pytest.raises(BaseMismatchError):
        other.load_adapter(tmp_path / "new")


@every_scheme
def test_full_fine_tuning_of_packed_tensors_is_refused_and_of_the_head_is_not(scheme: Quantize) -> None:
    deck = deck_in(scheme)
    for config in (td.FullConfig(), td.FullConfig(1)):
        with pytest.raises(TargetError, match=r"full fine-tuning cannot train bert\.encoder.*this base is quantized"):
            deck.add("new", config)
    deck.add("head", td.FullConfig("head"))
    deck.add("lora", td.LoraConfig())
    plain = deck_in(None)
    plain.add("lora", td.LoraConfig())
    assert deck.summary("lora") == plain.summary("lora")


@every_scheme
@every_family
def test_merging_is_refused_unless_the_base_is_unpacked_and_then_says_what_it_loses(
    model_type: str, form: str, scheme: Quantize
) -> None:
    deck, batch = deck_in(scheme, model_type, form), token_batch()
    add_stirred(deck, "done", KINDS["lora"])
    before = copy.deepcopy(deck.model.state_dict())
    with pytest.raises(AdapterError, match=rf"quantized to {scheme}, so 'done' cannot .*dequantize=True"):
        deck.merge("done")
    with pytest.warns(UserWarning, match=rf"dequantized from {scheme} to float32: they keep the rounding of {scheme}"):
        merged: Any = deck.merge("done", dequantize=True)
    with torch.no_grad():
        assert difference(merged(**batch).logits, logits_of(deck, batch, "done")) < 5e-5
    assert type(merged) is type(deck.model)
    assert {p.dtype for p in merged.parameters()} == {torch.float32}
    plain = deck_in(None, model_type, form)
    assert merged.state_dict().keys() == plain.model.state_dict().keys()
    assert all(torch.equal(value, before[key]) for key, value in deck.model.state_dict().items())


def test_lora_on_nf4_equals_pefts_on_the_same_base(tmp_path: Path) -> None:
    deck, batch = deck_in("nf4", "llama", "causal"), token_batch(pad=None)
    add_stirred(deck, "new", KINDS["lora"])
    deck.save("new", tmp_path / "new")
    theirs = transformers_in_nf4(wide_folder("llama", "causal"))
    with torch.no_grad():
        assert difference(theirs(**batch).logits, logits_of(deck, batch)) < 1e-5
    for path in linears_in_layers(deck.model, "model"):
        assert torch.equal(theirs.get_submodule(path).weight.data, deck.model.get_submodule(path).weight.data)
    model = peft.PeftModel.from_pretrained(theirs, tmp_path / "new")
    with torch.no_grad():
        assert difference(model(**batch).logits, logits_of(deck, batch, "new")) < 1e-5
