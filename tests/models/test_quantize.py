"""Packing a base: which layers, which bytes, from which sources, and what is said when it cannot be done."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, cast

import gguf
import pytest
import torch
from support.quantized_models import FAMILIES, KINDS, SCHEMES, WIDE, deck_in, task_of, transformers_in_nf4, wide_folder
from support.tiny_models import VOCAB, add_stirred, difference, folder_of, logits_of, tiny_model, token_batch

import tunedeck as td
from tunedeck.core.errors import ModelError
from tunedeck.methods.linears import dense_weight, is_conv1d, is_linear, linear_shape, linears_in_layers
from tunedeck.models.quantize import Quantize

every_scheme = pytest.mark.parametrize("scheme", SCHEMES)
every_family = pytest.mark.parametrize(("model_type", "form"), FAMILIES)


@every_scheme
@every_family
def test_the_linears_in_the_layers_are_packed_and_nothing_else(model_type: str, form: str, scheme: Quantize) -> None:
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
    assert difference(logits_of(deck, token_batch()), logits_of(plain, token_batch())) > 1e-4


@every_scheme
def test_a_bfloat16_base_is_packed_for_bfloat16(scheme: Quantize) -> None:
    deck = deck_in(scheme, dtype="bfloat16")
    assert deck.base.dtype == torch.bfloat16
    assert {p.dtype for p in deck.model.parameters() if p.is_floating_point()} == {torch.bfloat16}
    assert {dense_weight(deck.model.get_submodule(p)).dtype for p in linears_in_layers(deck.model, "bert")} == {
        torch.bfloat16
    }
    add_stirred(deck, "new", KINDS["lora"])
    assert {p.dtype for p in deck.adapter("new").parameters()} == {torch.float32}
    assert difference(logits_of(deck, token_batch(), "new"), logits_of(deck, token_batch())) > 1e-3


def test_the_bytes_of_each_part_are_counted_with_their_scales() -> None:
    sizes = {scheme: {part.name: part for part in deck_in(scheme).base_parts()} for scheme in (None, *SCHEMES)}
    counts = {name: part.parameters for name, part in sizes[None].items()}
    for scheme in SCHEMES:
        assert {name: part.parameters for name, part in sizes[scheme].items()} == counts
        for name in ("embeddings", "head", "other"):
            assert sizes[scheme][name].bytes == 4 * counts[name]
    # two layers of six 64x64 weights, with their biases
    weights, biases, outputs = 2 * 6 * 64 * 64, 2 * 6 * 64, 2 * 6 * 64
    assert counts["linears"] == weights + biases
    assert sizes["int8"]["linears"].bytes == weights + 4 * outputs + 4 * biases
    blocks, linears, table = weights // 64, 12, 4 * 16
    # half a byte a weight, a byte for each 64, for each linear an offset and one scale of scales; tables are shared or
    # small
    least = weights // 2 + blocks + linears * 8 + 4 * biases
    assert least <= sizes["nf4"]["linears"].bytes <= least + linears * (table + 4 * 256)


def test_an_unknown_scheme_and_a_missing_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="quantize must be one of nf4, int8, or left out, got 'int4'"):
        td.Deck.load(wide_folder("bert", "classifier"), task_of("classifier"), quantize=cast(Any, "int4"))
    monkeypatch.setattr("tunedeck.core.checks.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"nf4 needs the package bitsandbytes; run: pip install 'tunedeck\[qlora\]'"):
        td.Deck.load(wide_folder("bert", "classifier"), task_of("classifier"), quantize="nf4")
    deck = td.Deck.load(wide_folder("bert", "classifier"), task_of("classifier"), quantize="int8")  # needs none
    assert deck.base.quantize == "int8"


def test_a_checkpoint_that_is_quantized_already_is_not_packed_again(tmp_path: Path) -> None:
    transformers_in_nf4(wide_folder("llama", "causal")).save_pretrained(tmp_path / "packed")
    with pytest.raises(ModelError, match="this checkpoint is quantized already; leave quantize out"):
        td.Deck.load(str(tmp_path / "packed"), td.Generate(), dtype="float32", quantize="int8")


def write_gguf(path: Path) -> Path:
    """A tiny llama in a GGUF file, with a vocabulary of single letters."""
    model = tiny_model("llama", "causal", **WIDE)
    config, letters = model.config, [chr(33 + number) for number in range(VOCAB - 1)]
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
    writer.add_token_list([*letters, letters[0] + letters[1]])
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
def test_a_gguf_file_is_packed_like_any_other_source(scheme: Quantize, tmp_path: Path) -> None:
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


def test_a_layer_that_nf4_does_not_take_is_told_and_left_as_it_is() -> None:
    """bitsandbytes 0.50.2 unpacks rows of 16, 32, 48, 80, ... wrongly on a CPU."""
    narrow = folder_of("bert", "classifier")  # rows of 32, but for the two layers that come from 64
    with pytest.warns(
        UserWarning, match=r"10 of 12 linear layers are not quantized, such as bert\.encoder\.layer\.0\."
    ):
        deck = td.Deck.load(narrow, task_of("classifier"), dtype="float32", quantize="nf4")
    packed = {name for name, p in deck.model.named_parameters() if not p.is_floating_point()}
    assert packed == {f"bert.encoder.layer.{layer}.output.dense.weight" for layer in range(2)}
    add_stirred(deck, "new", KINDS["lora"])
    assert difference(logits_of(deck, token_batch(), "new"), logits_of(deck, token_batch())) > 1e-3


def test_nothing_warns_while_packing(recwarn: pytest.WarningsRecorder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        td.Deck.load(wide_folder("bert", "classifier"), task_of("classifier"), dtype="float32", quantize="nf4")
