"""Every row of architectures.toml against transformers, PEFT, AdapterHub's files and published parameter totals."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT_TARGETS
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunedeck.core.errors import ConfigError, TargetError
from tunedeck.core.i18n import set_language
from tunedeck.core.model_spec import BlockSites, Linear, ModelSpec, known_model_types

GOLDEN = Path(__file__).parents[1] / "golden"
ENCODERS = ("bert", "roberta", "xlm-roberta", "distilbert", "modernbert")
DECODERS = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gpt2", "glm", "glm4")
REMOTE_CODE = ("chatglm", "qwen", "minicpm")
NORMALISES_AROUND_THE_SITES = ("modernbert", "gemma2", "gemma3_text")  # as AdapterHub has it: comments of the rows
FLAGS = ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias", "tie_word_embeddings")


def shape(hidden: int, layers: int, heads: int, kv: int, ffn: int, vocab: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": ffn,
        "vocab_size": vocab,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        **more,
    }


SPECIAL_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
TINY = shape(24, 3, 4, 2, 40, 61, max_position_embeddings=16, **SPECIAL_TOKENS)
TINY_OF = {"distilbert": {**TINY, "hidden_dim": 40}, "gpt2": {**TINY, "n_inner": 40}}

each_setting = pytest.mark.parametrize("flip", [False, True], ids=["default", "flags-flipped"])
native = pytest.mark.parametrize("model_type", [*ENCODERS, *DECODERS])


@pytest.fixture(autouse=True)
def _english() -> None:
    set_language("en")


@cache
def tiny_config(model_type: str, flip: bool = False) -> Any:
    sizes = TINY_OF.get(model_type, {**TINY, "head_dim": 8} if model_type in DECODERS else TINY)
    config = AutoConfig.for_model(model_type, num_labels=3, **sizes)
    known = config.to_dict()
    for flag in FLAGS if flip else ():
        if flag in known and not (model_type in ENCODERS and flag == "tie_word_embeddings"):
            setattr(config, flag, not known[flag])
    return config


@cache
def classifier(model_type: str, flip: bool = False) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = AutoModelForSequenceClassification.from_config(tiny_config(model_type, flip))
    return model


def spec_of(model_type: str, flip: bool = False) -> ModelSpec:
    return ModelSpec.from_config(tiny_config(model_type, flip).to_dict())


def layers_of(model: nn.Module, spec: ModelSpec) -> nn.ModuleList:
    layers = model.get_submodule(spec.prefix).get_submodule(spec.layers)
    assert isinstance(layers, nn.ModuleList)
    return layers


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_row_is_tested_here() -> None:
    assert set(known_model_types()) == {*ENCODERS, *DECODERS, *REMOTE_CODE}


@native
@each_setting
def test_each_part_has_as_many_parameters_as_in_transformers(model_type: str, flip: bool) -> None:
    spec, model = spec_of(model_type, flip), classifier(model_type, flip)
    base = model.get_submodule(spec.prefix)
    layers = layers_of(model, spec)
    outside = {name: p.numel() for name, p in base.named_parameters() if not name.startswith(f"{spec.layers}.")}
    embedding = sum(
        n for name, n in outside.items() if name.split(".")[0] in ("embeddings", "embed_tokens", "wte", "wpe")
    )
    assert spec.layer_parameters == tuple(count(layer) for layer in layers)
    assert spec.embedding_parameters == embedding
    assert spec.final_parameters == sum(outside.values()) - embedding
    assert spec.base_parameters == count(base)
    assert spec.head_parameters(3) == count(model) - count(base)


@pytest.mark.parametrize("model_type", DECODERS)
@each_setting
def test_the_lm_head_counts_unless_it_is_tied(model_type: str, flip: bool) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_config(model_type, flip))
    spec = spec_of(model_type, flip)
    assert spec.lm_head_parameters == count(model) - spec.base_parameters
    assert (spec.lm_head_parameters == 0) == tiny_config(model_type, flip).tie_word_embeddings


@native
@each_setting
def test_the_linears_are_exactly_those_inside_the_layers(model_type: str, flip: bool) -> None:
    spec, found = spec_of(model_type, flip), []
    for name, module in classifier(model_type, flip).named_modules():
        if not name.startswith(f"{spec.prefix}.{spec.layers}."):
            continue
        if isinstance(module, nn.Linear):
            found.append(Linear(name, module.in_features, module.out_features, module.bias is not None))
        elif isinstance(module, Conv1D):
            inputs, outputs = module.weight.shape
            found.append(Linear(name, inputs, outputs, True))
    assert spec.linears == tuple(found)


@native
def test_the_paths_exist_and_the_word_embedding_is_the_models_own(model_type: str) -> None:
    spec, model = spec_of(model_type), classifier(model_type)
    assert isinstance(model, PreTrainedModel)
    base = model.get_submodule(spec.prefix)
    assert model.base_model_prefix == spec.prefix
    assert base.get_submodule(spec.embedding) is model.get_input_embeddings()
    assert (spec.model_type, spec.hidden_size, spec.num_layers, spec.vocab_size) == (model_type, 24, 3, 61)
    for layer in layers_of(model, spec):
        for sites in (spec.attention, spec.ffn):
            assert sites is not None
            assert (sites.norm is not None) == (spec.norm == "post")
            for path in (sites.input, sites.output, sites.norm or ""):
                layer.get_submodule(path)


@pytest.mark.parametrize("model_type", known_model_types())
def test_lora_targets_name_linears_and_are_those_of_peft_where_it_knows_the_model(model_type: str) -> None:
    spec = remote_spec(model_type) if model_type in REMOTE_CODE else spec_of(model_type)
    for target in spec.lora_targets:
        assert sum(linear.path.endswith(f".{target}") for linear in spec.linears) >= spec.num_layers
    assert set(spec.lora_targets) == set(PEFT_TARGETS.get(model_type, spec.lora_targets))


@pytest.mark.parametrize("model_type", [t for t in (*ENCODERS, *DECODERS) if t not in NORMALISES_AROUND_THE_SITES])
def test_the_sites_see_x_and_h_of_the_residual_stream(model_type: str) -> None:
    spec = spec_of(model_type)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(tiny_config(model_type)).eval()
    layer = model.get_submodule(spec.prefix).get_submodule(spec.layers)[1]
    entered, left = watch(layer, "")
    assert spec.attention is not None
    assert spec.ffn is not None
    seen = [
        (sites, watch(layer, sites.input)[0], watch(layer, sites.output)[1]) for sites in (spec.attention, spec.ffn)
    ]
    with torch.no_grad():
        model(input_ids=torch.arange(3, 15).view(2, 6))
        (attention, x_attention, h_attention), (ffn, x_ffn, h_ffn) = seen
        torch.testing.assert_close(x_attention[0], entered[0])
        torch.testing.assert_close(leaving(layer, attention, x_attention[0] + h_attention[0]), x_ffn[0])
        torch.testing.assert_close(leaving(layer, ffn, x_ffn[0] + h_ffn[0]), left[0])


@pytest.mark.parametrize("model_type", NORMALISES_AROUND_THE_SITES)
def test_where_norms_stand_around_the_sites_each_h_passes_its_norm_into_the_residual_stream(model_type: str) -> None:
    spec = spec_of(model_type)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(tiny_config(model_type)).eval()
    layer = model.get_submodule(spec.prefix).get_submodule(spec.layers)[1]
    assert spec.attention is not None
    assert spec.ffn is not None
    (entered, left), (_, attention), (_, ffn) = (
        watch(layer, path) for path in ("", spec.attention.output, spec.ffn.output)
    )
    with torch.no_grad():
        model(input_ids=torch.arange(3, 15).view(2, 6))
        if model_type.startswith("gemma"):
            attention[0], ffn[0] = (
                layer.post_attention_layernorm(attention[0]),
                layer.post_feedforward_layernorm(ffn[0]),
            )
    torch.testing.assert_close(entered[0] + attention[0] + ffn[0], left[0])


def watch(layer: nn.Module, path: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What the module takes first and what it returns first, filled in by the next forward pass."""
    taken: list[torch.Tensor] = []
    given: list[torch.Tensor] = []

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        taken.append(args[0] if args else next(iter(kwargs.values())))
        given.append(output if isinstance(output, torch.Tensor) else output[0])

    layer.get_submodule(path).register_forward_hook(hook, with_kwargs=True)
    return taken, given


def leaving(layer: nn.Module, sites: BlockSites, total: torch.Tensor) -> torch.Tensor:
    return layer.get_submodule(sites.norm)(total) if sites.norm else total


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_adapterhub_keys_are_those_of_its_own_files(architecture: str) -> None:
    folder = GOLDEN / f"adapterhub-{architecture}-double_seq_bn"
    spec = ModelSpec.from_config(json.loads((folder / "base" / "config.json").read_text()))
    keys = torch.load(folder / "adapter" / "pytorch_adapter.bin", weights_only=True).keys()
    places = {key.split(".adapters.")[0] + ".adapters" for key in keys}
    assert places == {
        f"{spec.prefix}.{spec.layers}.{index}.{sites.adapterhub}"
        for index in range(spec.num_layers)
        for sites in (spec.attention, spec.ffn)
        if sites is not None
    }


CHATGLM3 = {
    "model_type": "chatglm",
    "hidden_size": 4096,
    "num_layers": 28,
    "ffn_hidden_size": 13696,
    "kv_channels": 128,
    "num_attention_heads": 32,
    "multi_query_group_num": 2,
    "padded_vocab_size": 65024,
    "add_qkv_bias": True,
}
QWEN = {"model_type": "qwen", **shape(4096, 32, 32, 32, 22016, 151936), "kv_channels": 128, "no_bias": True}
MINICPM = {"model_type": "minicpm", **shape(2304, 40, 36, 36, 5760, 122753)}


def remote_spec(model_type: str) -> ModelSpec:
    return ModelSpec.from_config({"chatglm": CHATGLM3, "qwen": QWEN, "minicpm": MINICPM}[model_type])


@pytest.mark.parametrize(
    ("name", "config", "total"),
    [
        ("bert", shape(768, 12, 12, 12, 3072, 30522), 109_482_240),  # bert-base-uncased
        ("bert", shape(768, 12, 12, 12, 3072, 21128), 102_267_648),  # bert-base-chinese
        ("bert", shape(1024, 24, 16, 16, 4096, 21128), 325_522_432),  # bge-large-zh
        ("bert", shape(384, 6, 12, 12, 1536, 30522), 22_713_216),  # all-MiniLM-L6-v2
        ("distilbert", {"dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072, "vocab_size": 30522}, 66_362_880),
        ("roberta", shape(768, 12, 12, 12, 3072, 50265, max_position_embeddings=514, type_vocab_size=1), 124_055_040),
        ("modernbert", shape(768, 22, 12, 12, 1152, 50368), 149_014_272),
        ("gpt2", {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257}, 124_439_808),
        ("llama", shape(576, 30, 9, 3, 1536, 49152, tie_word_embeddings=True), 134_515_008),  # SmolLM2-135M
        ("llama", shape(4096, 32, 32, 8, 14336, 128256), 8_030_261_248),  # Llama-3.1-8B
        ("mistral", shape(4096, 32, 32, 8, 14336, 32000), 7_241_732_096),  # Mistral-7B-v0.1
        ("qwen2", shape(3584, 28, 28, 4, 18944, 152064), 7_615_616_512),  # Qwen2.5-7B
        ("qwen3", shape(4096, 36, 32, 8, 12288, 151936, head_dim=128), 8_190_735_360),  # Qwen3-8B
        ("gemma", shape(2048, 18, 8, 1, 16384, 256000, head_dim=256), 2_506_172_416),  # gemma-2b
        ("gemma2", shape(2304, 26, 8, 4, 9216, 256000, head_dim=256), 2_614_341_888),  # gemma-2-2b
        ("gemma3_text", shape(1152, 26, 4, 1, 6912, 262144, head_dim=256), 999_885_952),  # gemma-3-1b
        ("chatglm", CHATGLM3, 6_243_584_000),
        ("qwen", QWEN, 7_721_324_544),
        ("minicpm", MINICPM, 2_724_880_896),
    ],
)
def test_full_size_models_have_their_published_totals(name: str, config: dict[str, Any], total: int) -> None:
    spec = ModelSpec.from_config({**config, "model_type": name})
    assert spec.base_parameters + spec.lm_head_parameters == total


def test_chatglm_fuses_query_key_value_and_qwen_v1_halves_its_width() -> None:
    chatglm, qwen = remote_spec("chatglm"), remote_spec("qwen")
    assert chatglm.linears[0] == Linear(
        "transformer.encoder.layers.0.self_attention.query_key_value", 4096, 4608, bias=True
    )
    assert qwen.linears[2] == Linear("transformer.h.0.mlp.w1", 4096, 11008, bias=False)
    assert chatglm.ffn is None
    assert qwen.ffn is None


def test_an_unknown_model_type_is_refused_with_the_known_ones_and_the_way_out() -> None:
    with pytest.raises(TargetError, match=r"'lama' are not known \(did you mean 'llama'\?\).*bert.*target_modules"):
        ModelSpec.from_config({"model_type": "lama"})


def test_cross_attention_is_refused() -> None:
    with pytest.raises(TargetError, match="'bert' model has cross-attention"):
        ModelSpec.from_config({"model_type": "bert", "add_cross_attention": True})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "names no model_type"),
        ({"model_type": "llama", "vocab_size": 8}, "'llama' model lacks 'hidden_size'"),
        ({"model_type": "llama", "hidden_size": "big"}, "hidden_size .* 1 or more, got 'big'"),
        ({"model_type": "llama", "hidden_size": 0}, "hidden_size .* 1 or more, got 0"),
    ],
)
def test_a_config_that_does_not_say_the_sizes_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelSpec.from_config(config)
