"""A step of decoding without transformers' modules gives what the modules give, for every kind of adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.queued_generation import NAMES, solo_deck
from support.tiny_models import add_stirred, deck_of, tiny_model, tiny_tokenizer

import tunedeck as td
from tunedeck.core.compat.torch import call_with_hooks
from tunedeck.generation.decode import DecodingBatch
from tunedeck.generation.llama_step import llama_step
from tunedeck.generation.prefill import Prefill
from tunedeck.generation.sequence import Sequence

MIXED = [name for name in NAMES if name is None or not name.startswith("full")]


@torch.inference_mode()
def logits_of_steps(deck: td.Deck, names: list[str | None], modules: bool) -> torch.Tensor:
    """Logits of three steps (3, sequences, vocab); prompts have 2, 3, 4, ... tokens."""
    sequences = []
    for number, name in enumerate(names):
        ids = [5 + (7 * number + place) % 100 for place in range(2 + number)]
        sequences.append(Sequence(ids, td.Sampling(max_tokens=9), index=number).prepare(deck, name, ids))
        sequences[-1].end_tokens = frozenset()
    prefill, batch = Prefill(deck, sequences), DecodingBatch(deck)
    prefill.advance()
    batch.join(prefill)
    assert batch._llama is not None
    if modules:
        batch._llama = None
    return torch.stack([batch._logits() for _ in range(3)])


def check_the_step(deck: td.Deck, names: list[str | None]) -> None:
    """The step gives the logits of the modules, which differ from row to row."""
    own, modules = (logits_of_steps(deck, names, way) for way in (False, True))
    torch.testing.assert_close(own, modules, atol=1e-4, rtol=1e-4)
    assert len(names) == 1 or modules.std(1).max() > 0.01


@pytest.mark.parametrize("frozen", [True, False])
def test_the_step_gives_the_logits_of_the_modules_for_any_mix_of_adapters(frozen: bool) -> None:
    deck = solo_deck()
    for name in MIXED if frozen else ():
        if name is not None:
            deck.freeze_for_inference(name)
    check_the_step(deck, MIXED)


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2"])
def test_the_step_gives_the_logits_of_the_modules_of_each_architecture(model_type: str, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"sliding_window": None} if model_type == "mistral" else {}
    tiny_model(model_type, "causal", **sizes).save_pretrained(tmp_path)
    tiny_tokenizer(model_type).save_pretrained(tmp_path)
    deck = td.Deck.load(str(tmp_path), td.Generate(), dtype="float32")
    add_stirred(deck, "all", td.LoraConfig(r=3, target_modules="all-linear"), seed=1)
    deck.freeze_for_inference("all")
    check_the_step(deck, ["all"])
    check_the_step(deck, [None, "all", None])


def test_layers_of_unlike_ranks_and_targets_are_added_side_by_side_to_their_rows_only() -> None:
    deck = deck_of("llama", "causal")
    configs = [
        td.LoraConfig(r=2, target_modules=("q_proj", "v_proj", "down_proj")),
        td.LoraConfig(r=5, target_modules=("k_proj", "up_proj"), use_rslora=True),
        td.LoraConfig(r=3, target_modules="all-linear", rank_pattern={"v_proj": 7}),
    ]
    for seed, config in enumerate(configs):
        add_stirred(deck, f"lora-{seed}", config, seed=seed)
        deck.freeze_for_inference(f"lora-{seed}")
    for names in (["lora-0"], ["lora-1"] * 3, ["lora-0", "lora-1", "lora-2"], ["lora-2", "lora-2", None, "lora-1"]):
        check_the_step(deck, [*names])


def test_a_step_follows_adapters_and_hooks_that_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    deck = deck_of("llama", "causal")
    config, step = td.LoraConfig(r=3, target_modules="all-linear"), llama_step(deck)
    monkeypatch.setattr("tunedeck.generation.decode.llama_step", lambda _: step)
    check_the_step(deck, [None])
    add_stirred(deck, "beside", config, seed=0)
    for seed in (1, 2):
        add_stirred(deck, "again", config, seed=seed)
        deck.freeze_for_inference("again")
        check_the_step(deck, ["again"])
        deck.remove("again")
    check_the_step(deck, [None])
    hook = deck.model.model.layers[0].self_attn.k_proj.register_forward_hook(lambda *args: 2 * args[2])
    check_the_step(deck, [None])
    hook.remove()
    check_the_step(deck, [None])


def test_layers_in_8_bits_with_one_input_come_to_be_neighbours_and_can_be_trained_on(tmp_path: Path) -> None:
    tiny_model("llama", "causal", hidden_size=64, intermediate_size=128).save_pretrained(tmp_path)
    tiny_tokenizer("llama").save_pretrained(tmp_path)
    deck = td.Deck.load(str(tmp_path), td.Generate(), dtype="bfloat16", quantize="int8")
    before = {name: tensor.clone() for name, tensor in deck.model.state_dict().items()}
    with torch.inference_mode():
        first, second = llama_step(deck), llama_step(deck)
    assert first is not None
    assert second is not None
    assert all(torch.equal(tensor, before[name]) for name, tensor in deck.model.state_dict().items())
    mlp = deck.model.model.layers[0].mlp
    gate, up = mlp.gate_proj.weight, mlp.up_proj.weight
    assert gate.data_ptr() + gate.nbytes == up.data_ptr()
    assert not up.is_inference()


def test_other_architectures_and_sliding_windows_keep_their_modules(tmp_path: Path) -> None:
    assert llama_step(deck_of("gpt2", "causal")) is None
    tiny_model("mistral", "causal", sliding_window=6).save_pretrained(tmp_path)
    tiny_tokenizer("mistral").save_pretrained(tmp_path)
    deck = td.Deck.load(str(tmp_path), td.Generate(), dtype="float32")
    windowed = llama_step(deck)
    assert windowed is not None
    assert not windowed.fits(Prefill(deck, [Sequence([5], td.Sampling()).prepare(deck, None, [5])]).cache)


def test_a_base_in_8_bits_multiplies_up_to_four_sequences_by_an_output_layer_in_8_bits(tmp_path: Path) -> None:
    tiny_model("llama", "causal", hidden_size=64, intermediate_size=128).save_pretrained(tmp_path)
    tiny_tokenizer("llama").save_pretrained(tmp_path)
    deck = td.Deck.load(str(tmp_path), td.Generate(), dtype="bfloat16", quantize="int8")
    assert td.Deck.load(str(tmp_path), td.Generate(), dtype="float32", quantize="int8").int8_output is None
    assert deck.int8_output is not None
    own, modules = (logits_of_steps(deck, [None] * 2, way) for way in (False, True))
    assert 0 < (own - modules).abs().mean() < 0.02 * modules.float().std()
    deck.int8_output.weight.zero_()
    assert not logits_of_steps(deck, [None] * 4, modules=False).any()
    assert logits_of_steps(deck, [None] * 5, modules=False).any()


def test_hooks_see_and_change_what_they_do_in_a_call_of_the_module() -> None:
    linear, x, seen = torch.nn.Linear(4, 3), torch.randn(2, 4), []
    linear.register_forward_pre_hook(lambda _, args: (args[0] + 1,))
    linear.register_forward_pre_hook(lambda _, args, kwargs: (args, {**kwargs}), with_kwargs=True)
    linear.register_forward_pre_hook(lambda _, args: args[0] * 2)
    linear.register_forward_hook(lambda _, args, output: seen.append(args[0]))
    linear.register_forward_hook(lambda _, args, kwargs, output: output * 3, with_kwargs=True)
    expected = linear(x)
    assert torch.equal(call_with_hooks(linear, linear.forward, x), expected)
    assert torch.equal(seen[0], seen[1])
