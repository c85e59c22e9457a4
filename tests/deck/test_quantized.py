"""A base in NF4 or int8: adapters train, mix, move and merge on it, and nothing about it is silent."""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import labelled_words
import peft
import pytest
import torch
import transformers
from tiny import LABELS, VOCAB, add_stirred, difference, folder_of, hook_count, logits_of, rows_of, tiny_model, token_batch

import tunedeck as td
from tunedeck.core.errors import AdapterError, BaseMismatchError, ModelError, TargetError
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.linears import is_conv1d, is_linear, linear_shape, linears_in_layers
from tunedeck.models.quantize import dense_weight

SCHEMES = ("nf4", "int8")
FAMILIES = (("bert", "classifier"), ("llama", "causal"), ("gpt2", "causal"), ("modernbert", "classifier"))
KINDS: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(r=4, target_modules="all-linear"),
    "seq_bn": td.BottleneckConfig("seq_bn"),
    "par_bn": td.BottleneckConfig("par_bn"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=5),
}
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)
every_family = pytest.mark.parametrize(("model_type", "form"), FAMILIES)


def task_of(form: str) -> Any:
    return td.Generate() if form == "causal" else td.Classify(labels=LABELS)


@cache
def _loaded(model_type: str, form: str, scheme: str | None, dtype: str) -> td.Deck:
    return td.Deck.load(folder_of(model_type, form), task_of(form), dtype=dtype, quantize=scheme)


def deck_in(scheme: str | None, model_type: str = "bert", form: str = "classifier", dtype: str = "float32") -> td.Deck:
    """A deck on a base of its own."""
    first = _loaded(model_type, form, scheme, dtype)
    return td.Deck(replace(first.base, model=copy.deepcopy(first.model)), first.task)


def gradients(deck: td.Deck, name: str) -> list[torch.Tensor]:
    deck.adapter(name).zero_grad()
    deck(**token_batch(), adapter=name).logits.square().mean().backward()
    return [p.grad.clone() for p in deck.adapter(name).parameters()]


@every_scheme
@every_family
def test_the_linears_in_the_layers_are_packed_and_nothing_else(model_type: str, form: str, scheme: str) -> None:
    deck, plain = deck_in(scheme, model_type, form), deck_in(None, model_type, form)
    inside = linears_in_layers(plain.model, plain.base.prefix)
    assert linears_in_layers(deck.model, deck.base.prefix) == inside
    packed = {name.removesuffix(".weight") for name, p in deck.model.named_parameters() if not p.is_floating_point()}
    assert packed == set(inside)
    for path in inside:
        before, after = plain.model.get_submodule(path), deck.model.get_submodule(path)
        assert is_linear(after)
        assert linear_shape(after) == linear_shape(before)
        dense = before.weight.T if is_conv1d(before) else before.weight
        assert (dense_weight(after) - dense).norm() < (0.15 if scheme == "nf4" else 0.01) * dense.norm()
    assert deck.base.dtype == torch.float32
    assert deck.base.quantize == scheme
    assert deck.base.spec == plain.base.spec
    assert 1e-4 < difference(logits_of(deck, token_batch()), logits_of(plain, token_batch()))


@every_scheme
@every_family
def test_every_kind_works_alone_mixed_and_after_a_trip_to_disk(
    model_type: str, form: str, scheme: str, tmp_path: Path
) -> None:
    deck, batch = deck_in(scheme, model_type, form), token_batch(len(KINDS) + 1)
    for seed, (name, config) in enumerate(KINDS.items()):
        add_stirred(deck, name, config, seed=seed)
    names = [*KINDS, None]
    mixed = logits_of(deck, batch, names)
    fresh = deck_in(scheme, model_type, form)
    for row, name in enumerate(names):
        assert difference(mixed[[row]], logits_of(deck, rows_of(batch, [row]), name)) < 1e-5, name
        if name is not None:
            deck.save(name, tmp_path / name)
            fresh.load_adapter(tmp_path / name)
            assert torch.equal(logits_of(fresh, batch, name), logits_of(deck, batch, name))
    for name in KINDS:
        deck.remove(name)
    assert hook_count(deck.model) == 0


@every_scheme
@pytest.mark.parametrize("kind", [*KINDS, "head"])
def test_every_kind_learns_and_the_base_keeps_every_bit(kind: str, scheme: str, tmp_path: Path) -> None:
    data = labelled_words.write_csv(tmp_path / "words.csv", labelled_words.rows(120))
    deck = deck_in(scheme)
    before = {key: value.clone() for key, value in deck.model.state_dict().items()}
    labels = tuple(sorted(labelled_words.WORD_OF))
    deck.add("new", KINDS.get(kind, td.FullConfig("head")), labels=labels)
    settings = td.TrainingSettings(max_steps=12, learning_rate=2e-2, batch_size=16, eval_every=6)
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
def test_what_is_trained_after_a_prediction_has_the_same_gradients(dtype: str, scheme: str) -> None:
    """bitsandbytes repacks a 4-bit weight in the first batch without gradients, for a kernel that has no backward pass."""
    deck = deck_in(scheme, "llama", "causal", dtype)
    for name, config in KINDS.items():
        add_stirred(deck, name, config)
    before = {name: gradients(deck, name) for name in KINDS}
    with torch.inference_mode():
        deck(**token_batch(), adapter="prompt")
        deck(**token_batch())
    for name in KINDS:
        assert all(torch.equal(left, right) for left, right in zip(before[name], gradients(deck, name), strict=True))


@every_scheme
def test_a_bfloat16_base_is_packed_for_bfloat16(scheme: str) -> None:
    deck = deck_in(scheme, dtype="bfloat16")
    assert deck.base.dtype == torch.bfloat16
    assert {p.dtype for p in deck.model.parameters() if p.is_floating_point()} == {torch.bfloat16}
    assert {dense_weight(deck.model.get_submodule(p)).dtype for p in linears_in_layers(deck.model, "bert")} == {
        torch.bfloat16
    }
    add_stirred(deck, "new", KINDS["lora"])
    assert {p.dtype for p in deck.adapter("new").parameters()} == {torch.float32}
    assert difference(logits_of(deck, token_batch(), "new"), logits_of(deck, token_batch())) > 1e-3


@every_scheme
def test_an_adapter_moves_between_the_packed_and_the_unpacked_base(scheme: str, tmp_path: Path) -> None:
    deck, plain, batch = deck_in(scheme), deck_in(None), token_batch()
    assert deck.base.fingerprint == plain.base.fingerprint
    add_stirred(deck, "new", KINDS["lora"])
    deck.save("new", tmp_path / "new")
    plain.load_adapter(tmp_path / "new")
    assert difference(logits_of(plain, batch, "new"), logits_of(deck, batch, "new")) < 1.0
    assert all(torch.equal(left, deck.adapter("new").tensors()[key]) for key, left in plain.adapter("new").tensors().items())


@every_scheme
def test_a_base_whose_linears_alone_differ_is_another_base(scheme: str, tmp_path: Path) -> None:
    model = tiny_model("bert", "classifier")
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
def test_full_fine_tuning_of_packed_tensors_is_refused_and_of_the_head_is_not(scheme: str) -> None:
    deck = deck_in(scheme)
    for config in (td.FullConfig(), td.FullConfig(1)):
        with pytest.raises(TargetError, match=r"full fine-tuning cannot train bert\.encoder.*this base is quantised"):
            deck.add("new", config)
    deck.add("head", td.FullConfig("head"))
    deck.add("lora", td.LoraConfig())
    plain = deck_in(None)
    plain.add("lora", td.LoraConfig())
    assert deck.summary("lora") == plain.summary("lora")


@every_scheme
@every_family
def test_merging_is_refused_unless_the_base_is_unpacked_and_then_says_what_it_loses(
    model_type: str, form: str, scheme: str
) -> None:
    deck, batch = deck_in(scheme, model_type, form), token_batch()
    add_stirred(deck, "done", KINDS["lora"])
    before = copy.deepcopy(deck.model.state_dict())
    with pytest.raises(AdapterError, match=rf"packed in {scheme}, so 'done' cannot .*dequantize=True"):
        deck.merge("done")
    with pytest.warns(UserWarning, match=rf"unpacked from {scheme} to float32: they keep the rounding of {scheme}"):
        merged: Any = deck.merge("done", dequantize=True)
    with torch.no_grad():
        assert difference(merged(**batch).logits, logits_of(deck, batch, "done")) < 1e-5
    assert type(merged) is type(deck.model)
    assert {p.dtype for p in merged.parameters()} == {torch.float32}
    plain = deck_in(None, model_type, form)
    assert merged.state_dict().keys() == plain.model.state_dict().keys()
    assert all(torch.equal(value, before[key]) for key, value in deck.model.state_dict().items())


def test_the_bytes_of_each_part_are_counted_with_their_scales() -> None:
    sizes = {scheme: {part.name: part for part in deck_in(scheme).base_parts()} for scheme in (None, *SCHEMES)}
    counts = {name: part.parameters for name, part in sizes[None].items()}
    for scheme in SCHEMES:
        assert {name: part.parameters for name, part in sizes[scheme].items()} == counts
        for name in ("embeddings", "head", "other"):
            assert sizes[scheme][name].bytes == 4 * counts[name]
    # two layers: four 32x32 and two 32x64 weights, with their biases
    weights, biases, outputs = 2 * (4 * 1024 + 2 * 2048), 2 * (4 * 32 + 64 + 32), 2 * (4 * 32 + 64 + 32)
    assert counts["linears"] == weights + biases
    assert sizes["int8"]["linears"].bytes == weights + 4 * outputs + 4 * biases
    blocks, linears, table = weights // 64, 12, 4 * 16
    # half a byte a weight, a byte for each 64, for each linear an offset and one scale of scales; tables are shared or small
    least = weights // 2 + blocks + linears * 8 + 4 * biases
    assert least <= sizes["nf4"]["linears"].bytes <= least + linears * (table + 4 * 256)


def test_an_unknown_scheme_and_a_missing_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="quantize must be one of nf4, int8, or left out, got 'int4'"):
        td.Deck.load(folder_of("bert", "classifier"), task_of("classifier"), quantize="int4")
    monkeypatch.setattr("tunedeck.models.quantize.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"nf4 needs the package bitsandbytes; run: pip install 'tunedeck\[qlora\]'"):
        td.Deck.load(folder_of("bert", "classifier"), task_of("classifier"), quantize="nf4")
    deck = td.Deck.load(folder_of("bert", "classifier"), task_of("classifier"), quantize="int8")  # needs none
    assert deck.base.quantize == "int8"


def transformers_in_nf4(folder: str) -> Any:
    """The same base as transformers and bitsandbytes make it."""
    settings = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, quantization_config=settings, dtype=torch.float32)
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False  # its kernel computes in bfloat16
    return model.eval()


def test_lora_on_nf4_equals_pefts_on_the_same_base(tmp_path: Path) -> None:
    deck, batch = deck_in("nf4", "llama", "causal"), token_batch(pad=None)
    add_stirred(deck, "new", KINDS["lora"])
    deck.save("new", tmp_path / "new")
    theirs = transformers_in_nf4(folder_of("llama", "causal"))
    with torch.no_grad():
        assert difference(theirs(**batch).logits, logits_of(deck, batch)) < 1e-5
    for path in linears_in_layers(deck.model, "model"):
        assert torch.equal(theirs.get_submodule(path).weight.data, deck.model.get_submodule(path).weight.data)
    model = peft.PeftModel.from_pretrained(theirs, tmp_path / "new")
    with torch.no_grad():
        assert difference(model(**batch).logits, logits_of(deck, batch, "new")) < 1e-5


def test_a_checkpoint_that_is_quantised_already_is_not_packed_again(tmp_path: Path) -> None:
    transformers_in_nf4(folder_of("llama", "causal")).save_pretrained(tmp_path / "packed")
    with pytest.raises(ModelError, match="this checkpoint is quantised already; leave quantize out"):
        td.Deck.load(str(tmp_path / "packed"), td.Generate(), dtype="float32", quantize="int8")


def write_gguf(path: Path) -> Path:
    """A tiny llama in a GGUF file, with a vocabulary of single letters."""
    model = tiny_model("llama", "causal")
    config, letters = model.config, [chr(33 + number) for number in range(VOCAB)]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(VOCAB)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(letters)
    writer.add_token_types([1] * VOCAB)
    writer.add_token_merges([f"{letters[0]} {letters[1]}"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        found = names.get_name(name, try_suffixes=(".weight",))
        assert found is not None
        writer.add_tensor(found, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@every_scheme
def test_a_gguf_file_is_packed_like_any_other_source(scheme: str, tmp_path: Path) -> None:
    file = str(write_gguf(tmp_path / "tiny.gguf"))
    plain = td.Deck.load(file, td.Generate(), dtype="float32")
    deck = td.Deck.load(file, td.Generate(), dtype="float32", quantize=scheme)
    assert deck.base.fingerprint == plain.base.fingerprint
    batch = token_batch()
    add_stirred(deck, "new", KINDS["lora"])
    assert difference(logits_of(deck, batch, "new"), logits_of(deck, batch)) > 1e-3
    path = "model.layers.1.mlp.up_proj"
    packed, dense = (dense_weight(d.model.get_submodule(path)) for d in (deck, plain))
    assert (packed - dense).norm() < 0.15 * dense.norm()


def test_nothing_warns_while_packing(recwarn: pytest.WarningsRecorder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        td.Deck.load(folder_of("bert", "classifier"), task_of("classifier"), dtype="float32", quantize="nf4")
