"""What Tunedeck uses of transformers beyond its documented interface; one test for each function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support import tiny_models
from transformers import DynamicCache

from tunedeck.core.compat.transformers import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    attention_is_plain,
    attention_of,
    cache_of_layers,
    can_use_sdpa,
    fill_cache_layer,
    hub_file,
    kept_in_float32,
    last_position,
    model_from_config,
    set_attention,
)

IDS = torch.randint(4, tiny_models.VOCAB, (2, 6), generator=torch.Generator().manual_seed(0))


def test_transformers_attention_can_be_switched_and_is_read_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_models.tiny_model("llama", "causal", attn_implementation="eager")
    calls: list[int] = []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def counted(*args: torch.Tensor, **settings: object) -> torch.Tensor:
        calls.append(1)
        return kernel(*args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    assert can_use_sdpa(model)
    assert attention_of(model) == "eager"
    with torch.no_grad():
        plain = model(IDS).logits
        assert not calls
        set_attention(model, "sdpa")
        assert attention_of(model) == "sdpa"
        assert torch.allclose(model(IDS).logits, plain, atol=1e-5)
    assert len(calls) == tiny_models.LAYERS


def test_transformers_attention_with_a_softcap_is_plain_and_that_of_gpt_oss_is_not() -> None:
    models = {kind: tiny_models.tiny_model(kind, "causal") for kind in ("llama", "gemma2")}
    models["gpt_oss"] = transformers.GptOssForCausalLM(tiny_models.tiny_config("gpt_oss", head_dim=8))
    assert {kind: attention_is_plain(model) for kind, model in models.items()} == {
        "llama": True,
        "gemma2": True,
        "gpt_oss": False,
    }


def test_transformers_kept_in_float32_names_t5s_output_linear() -> None:
    config = transformers.T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    assert kept_in_float32(transformers.T5EncoderModel(config)) == {"wo"}
    assert kept_in_float32(torch.nn.Linear(2, 2)) == frozenset()


def test_transformers_model_from_config_makes_the_same_class_in_the_precision_asked_for() -> None:
    model = tiny_models.tiny_model("bert", "classifier")
    made = model_from_config(type(model), model.config, torch.bfloat16)
    assert type(made) is type(model)
    assert {parameter.dtype for parameter in made.parameters()} == {torch.bfloat16}
    assert made.state_dict().keys() == model.state_dict().keys()


def test_transformers_hub_file_is_none_for_what_is_not_in_the_cache(tmp_path: Path) -> None:
    assert hub_file("nobody/nothing", "modules.json", local_files_only=True) is None


@pytest.mark.parametrize("window", [None, 4])
def test_transformers_a_cache_layer_filled_by_hand_goes_on_as_one_filled_by_the_model(window: int | None) -> None:
    kind: dict[str, Any] = (
        {} if window is None else {"sliding_window": window, "layer_types": ["sliding_attention"] * tiny_models.LAYERS}
    )
    model = tiny_models.tiny_model("qwen2", "causal", use_sliding_window=window is not None, **kind)
    first, second = DynamicCache(config=model.config), DynamicCache(config=model.config)
    assert {type(layer) for layer in first.layers} == {DynamicSlidingWindowLayer if window else DynamicLayer}
    with torch.no_grad():
        model(IDS[:, :5], past_key_values=first, use_cache=True)
        for layer, filled in zip(second.layers, first.layers, strict=True):
            fill_cache_layer(layer, filled.keys.clone(), filled.values.clone(), 5)
        again = cache_of_layers(second.layers)
        assert again.get_seq_length() == first.get_seq_length() == 5
        outputs = [model(IDS[:, 5:], past_key_values=cache, use_cache=True).logits for cache in (first, again)]
    assert torch.equal(*outputs)


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_transformers_last_position_asks_for_the_last_logits_alone(model_type: str) -> None:
    model = tiny_models.tiny_model(model_type, "causal")
    with torch.no_grad():
        whole, last = model(IDS).logits, model(IDS, **last_position(IDS.device)).logits
    assert last.shape == (2, 1, tiny_models.VOCAB)
    assert torch.allclose(last[:, 0], whole[:, -1], atol=1e-5)
