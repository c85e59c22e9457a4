"""Which modules a setting means, and the errors that keep it from meaning none or only some."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.tiny_models import deck_of

import tunedeck as td
from tunedeck.core.errors import ConfigError, TargetError
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.targets import select_targets

LINEARS = [f"model.layers.{layer}.{name}" for layer in range(3) for name in ("attn.q_proj", "attn.v_proj", "mlp.up")]
UNEVEN = [*LINEARS, "model.layers.1.mlp.gate", "model.layers.2.mlp.gate"]


def test_names_match_at_the_end_of_a_path_in_model_order() -> None:
    chosen = select_targets(("up", "attn.q_proj"), LINEARS)
    assert chosen == [f"model.layers.{layer}.{name}" for layer in range(3) for name in ("attn.q_proj", "mlp.up")]
    assert select_targets("all-linear", LINEARS) == LINEARS
    assert select_targets(("q_proj",), LINEARS, layers_to_transform=(2, 0)) == [LINEARS[0], LINEARS[6]]
    assert select_targets(r".*\.[12]\.mlp\.up", LINEARS) == [LINEARS[5], LINEARS[8]]
    assert select_targets(("layers.1.mlp.up",), LINEARS) == [LINEARS[5]]


@pytest.mark.parametrize(
    ("targets", "layers", "message"),
    [
        (
            ("q_prj",),
            None,
            r"'q_prj' matches no linear layer \(did you mean 'q_proj'\?\); this model has: q_proj, up, v",
        ),
        (("proj",), None, "'proj' matches no linear layer"),
        (("q_proj", "nothing"), None, "'nothing' matches no linear layer"),
        ("q_proj", None, "'q_proj' matches no linear layer; a path looks like model.layers.0.attn.q_proj"),
        ("(", None, r"'\(' is not a regular expression"),
        (("q_proj",), (1, 7), "layers_to_transform names layers 7 that the model lacks"),
    ],
)
def test_what_matches_nothing_is_an_error(
    targets: tuple[str, ...] | str, layers: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(TargetError, match=message):
        select_targets(targets, LINEARS, layers_to_transform=layers)


def test_a_name_in_only_some_layers_is_an_error_unless_the_layers_are_named() -> None:
    message = (
        r"'gate' matches only 2 of 3 layers \(not in: 0\); to mean just these, set layers_to_transform to \[1, 2\]"
    )
    with pytest.raises(TargetError, match=message):
        select_targets(("q_proj", "gate"), UNEVEN)
    assert select_targets(("gate",), UNEVEN, layers_to_transform=(1, 2)) == UNEVEN[-2:]
    with pytest.raises(TargetError, match="'gate' matches only 1 of 2 layers"):
        select_targets(("gate",), UNEVEN, layers_to_transform=(0, 1))


def test_a_model_without_linears_is_not_adapted_in_silence() -> None:
    with pytest.raises(TargetError, match="'all-linear' matches no linear layer"):
        select_targets("all-linear", [])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (td.LoraConfig(target_modules=("querry",)), r"did you mean 'query'\?"),
        (td.LoraConfig(target_modules=("q_proj",)), "this model has: dense, key, query, value"),
        (td.LoraConfig(target_modules=("classifier",)), "'classifier' matches no linear layer"),
        (td.LoraConfig(target_modules=("LayerNorm",)), "'LayerNorm' matches no linear layer"),
        (td.LoraConfig(layers_to_transform=(2,)), "names layers 2 that the model lacks"),
        (td.BottleneckConfig(leave_out=(0, 5)), "leave_out names layers 5; the model has layers 0 to 1"),
        (td.FullConfig(3), "layers: 3 is more than the model's 2 layers"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_target_errors(config: MethodConfig, message: str) -> None:
    deck = deck_of("bert")
    spec = deck.base.spec
    assert spec is not None
    with pytest.raises(TargetError, match=message):
        deck.add("new", config)
    with pytest.raises(TargetError, match=message):
        config.count_parameters(spec)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: td.LoraConfig(r=0), "r must be 1 or more, got 0"),
        (lambda: td.LoraConfig(rank_pattern={"query": 0}), "query must be 1 or more, got 0"),
        (lambda: td.LoraConfig(lora_dropout=1.0), "lora_dropout must be at least 0 and below 1, got 1.0"),
        (lambda: td.LoraConfig(target_modules=()), "target_modules is empty"),
        (lambda: td.LoraConfig(layers_to_transform=()), "layers_to_transform is empty"),
        (lambda: td.BottleneckConfig("seq_bm"), r"unknown bottleneck kind 'seq_bm' \(did you mean 'seq_bn'\?\)"),
        (lambda: td.BottleneckConfig(non_linearity="rellu"), r"non_linearity must be one of .*'rellu'.*'relu'"),
        (lambda: td.BottleneckConfig(reduction_factor=0), "reduction_factor must be above 0, got 0"),
        (lambda: td.BottleneckConfig(scaling="lerned"), r"scaling must be one of learned, channel"),
        (lambda: td.BottleneckConfig(output_adapter=False), "both off; nothing would be trained"),
        (lambda: td.PromptTuningConfig(0), "num_virtual_tokens must be 1 or more, got 0"),
        (lambda: td.PromptTuningConfig(prompt_tuning_init="TEXT"), "go together"),
        (lambda: td.PromptTuningConfig(prompt_tuning_init_text="x"), "go together"),
        (lambda: td.FullConfig(0), "layers must be all, head, or how many"),
        (lambda: td.FullConfig("top"), "layers must be all, head, or how many"),  # type: ignore[arg-type]
    ],
)
def test_a_value_out_of_range_is_a_config_error(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_reduction_factor_for_some_layers_needs_a_default_for_the_rest() -> None:
    with pytest.raises(ConfigError, match="neither a value for layer 1 nor a default"):
        deck_of("bert").add("new", td.BottleneckConfig(reduction_factor={"0": 4}))


def test_a_prompt_from_a_text_needs_one_with_tokens() -> None:
    with pytest.raises(ConfigError, match="prompt_tuning_init_text has no tokens"):
        deck_of("bert").add("new", td.PromptTuningConfig(3, "TEXT", "  "))
