"""One suite that every registered method goes through, with several settings, on encoders and decoders."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from support.method_examples import FAMILIES, examples
from support.tiny_models import (
    LABELS,
    add_stirred,
    deck_of,
    difference,
    hook_count,
    logits_of,
    rows_of,
    stir,
    tiny_config,
    tiny_model,
    token_batch,
)

import tunedeck as td
from tunedeck.core.errors import UnsupportedKindError
from tunedeck.core.model_spec import ModelSpec
from tunedeck.deck.reading import method_base
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.registry import METHODS, config_of, method_of

CASES = [
    pytest.param(model_type, form, config, id=f"{model_type}-{form}-{kind}-{name}".replace(" ", "-"))
    for model_type, form in FAMILIES
    for kind in METHODS
    for name, config in examples(kind, model_type, form).items()
]
every_case = pytest.mark.parametrize(("model_type", "form", "config"), CASES)
NATIVE = (
    *("bert", "roberta", "xlm-roberta", "distilbert", "modernbert", "llama", "mistral", "qwen2", "qwen3"),
    *("gemma", "gemma2", "gemma3_text", "gpt2", "glm", "glm4"),
)
FOUR_LABELS = ("n", "e", "s", "w")


def starts_as_the_base(config: MethodConfig) -> bool:
    """All but a prompt, a prefix, and a bottleneck whose up-projection does not start at zero (AdapterHub's other)."""
    return (
        config.kind not in ("bottleneck", "prompt_tuning", "prefix_tuning")
        or getattr(config, "init_weights", None) == "mam_adapter"
    )


def other_labels(form: str) -> tuple[str, ...] | None:
    return FOUR_LABELS if form == "classifier" else None


def loss_of(logits: torch.Tensor) -> torch.Tensor:
    """A loss that every logit of every row has a part in."""
    used = logits[logits.isfinite()].float()
    return (used * torch.linspace(-1, 1, used.numel())).sum()


def assert_same_tensors(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different


def gradients(deck: td.Deck, name: str) -> dict[str, torch.Tensor]:
    found = {key: p.grad.clone() for key, p in deck.adapter(name).named_parameters() if p.grad is not None}
    deck.adapter(name).zero_grad()
    return found


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize(("model_type", "form"), FAMILIES)
def test_every_method_has_examples(kind: str, model_type: str, form: str) -> None:
    assert examples(kind, model_type, form), f"give the method {kind!r} settings in tests/support/method_examples.py"


@pytest.mark.parametrize("kind", METHODS)
def test_a_config_is_the_same_after_a_trip_through_plain_values(kind: str) -> None:
    for config in examples(kind, "bert", "classifier").values():
        assert config_of(kind, dataclasses.asdict(cast(Any, config))) == config


@pytest.mark.parametrize(
    ("model_type", "form", "config"), [case for case in CASES if starts_as_the_base(cast(MethodConfig, case.values[2]))]
)
def test_a_fresh_adapter_changes_nothing(model_type: str, form: str, config: MethodConfig) -> None:
    deck, batch = deck_of(model_type, form), token_batch()
    deck.add("new", config)
    assert difference(logits_of(deck, batch, "new"), logits_of(deck, batch)) < 1e-6
    stir(deck, "new")
    assert difference(logits_of(deck, batch, "new"), logits_of(deck, batch)) > 1e-3


@every_case
def test_the_shapes_told_before_building_are_those_of_what_is_built(
    model_type: str, form: str, config: MethodConfig
) -> None:
    deck = deck_of(model_type, form)
    deck.add("a", config, labels=other_labels(form))
    place = method_base(deck.base, tuple(deck.adapter("a").head))
    built = {name: tuple(tensor.shape) for name, tensor in deck.adapter("a").tensors().items()}
    assert method_of(config).shapes(place, config) == built


@every_case
def test_only_its_own_tensors_and_its_head_train(model_type: str, form: str, config: MethodConfig) -> None:
    deck, batch = deck_of(model_type, form), token_batch()
    before = copy.deepcopy(deck.model.state_dict())
    hooks = hook_count(deck.model)
    add_stirred(deck, "new", config, labels=other_labels(form))
    add_stirred(deck, "idle", config, labels=other_labels(form))
    own = dict(deck.adapter("new").named_parameters())
    optimizer = torch.optim.SGD(own.values(), lr=0.1)
    started = {key: p.detach().clone() for key, p in own.items()}
    loss_of(deck(**batch, adapter="new").logits).backward()
    assert all(p.requires_grad and p.grad is not None and p.grad.abs().sum() > 0 for p in own.values())
    assert not any(p.requires_grad or p.grad is not None for p in deck.model.parameters())
    assert not any(p.grad is not None for p in deck.adapter("idle").parameters())
    optimizer.step()
    assert all(not torch.equal(p, started[key]) for key, p in own.items())
    for name in ("new", "idle"):
        assert_same_tensors(deck.model.state_dict(), before)
        deck.remove(name)
    assert_same_tensors(deck.model.state_dict(), before)
    assert hook_count(deck.model) == hooks


@every_case
def test_reading_a_written_adapter_gives_the_same_tensors_labels_and_logits(
    model_type: str, form: str, config: MethodConfig, tmp_path: Path
) -> None:
    deck, batch = deck_of(model_type, form), token_batch()
    add_stirred(deck, "written", config, labels=other_labels(form))
    deck.save("written", tmp_path / "adapter")
    fresh = deck_of(model_type, form)
    assert fresh.load_adapter(tmp_path / "adapter") == "adapter"
    assert_same_tensors(fresh.adapter("adapter").tensors(), deck.adapter("written").tensors())
    assert_same_tensors(fresh.adapter("adapter").head_tensors(), deck.adapter("written").head_tensors())
    assert fresh.adapter("adapter").labels == other_labels(form)
    assert torch.equal(logits_of(fresh, batch, "adapter"), logits_of(deck, batch, "written"))


@every_case
def test_merging_keeps_the_output_or_is_refused(model_type: str, form: str, config: MethodConfig) -> None:
    deck, batch = deck_of(model_type, form), token_batch()
    add_stirred(deck, "done", config, labels=other_labels(form))
    if not config.mergeable:
        with pytest.raises(UnsupportedKindError, match="cannot be merged into the base's weights"):
            deck.merge("done")
        return
    before = copy.deepcopy(deck.model.state_dict())
    merged: Any = deck.merge("done")
    with torch.no_grad():
        assert difference(merged(**batch).logits, logits_of(deck, batch, "done")) < 1e-5
    assert_same_tensors(deck.model.state_dict(), before)
    assert type(merged) is type(deck.model)
    assert hook_count(merged) == 0
    if form == "classifier":
        assert merged.config.id2label == dict(enumerate(FOUR_LABELS))


@every_case
def test_the_parameter_count_follows_from_the_config_alone(model_type: str, form: str, config: MethodConfig) -> None:
    deck = deck_of(model_type, form)
    deck.add("new", config)
    spec = ModelSpec.from_config(deck.model.config.to_dict())
    summary = deck.summary("new")
    assert config.count_parameters(spec) == summary.method_parameters
    assert summary.trainable_parameters == sum(p.numel() for p in deck.adapter("new").parameters())
    assert summary.head_parameters == (spec.head_parameters(len(LABELS)) if form == "classifier" else 0)
    assert summary.tensor_bytes == 4 * summary.trainable_parameters


@pytest.mark.parametrize("config", [td.LoraConfig(), td.LoraConfig(target_modules="all-linear"), td.FullConfig()])
@pytest.mark.parametrize("model_type", NATIVE)
def test_the_parameter_count_holds_on_every_architecture(model_type: str, config: MethodConfig, tmp_path: Path) -> None:
    tiny_model(model_type, "classifier").save_pretrained(tmp_path)
    deck = td.Deck.load(str(tmp_path), td.Classify(labels=LABELS), dtype="float32")
    deck.add("new", config)
    spec = ModelSpec.from_config(tiny_config(model_type).to_dict())
    assert config.count_parameters(spec) == deck.summary("new").method_parameters
    assert spec.base_parameters + spec.head_parameters(len(LABELS)) == deck.summary("new").base_parameters


@every_case
def test_a_mixed_batch_equals_its_parts(model_type: str, form: str, config: MethodConfig) -> None:
    deck, batch = deck_of(model_type, form), token_batch(6)
    add_stirred(deck, "one", config)
    add_stirred(deck, "two", config, seed=2)
    names = ["two", None, "one", "two", None, "one"]
    mixed = logits_of(deck, batch, names)
    for row, name in enumerate(names):
        alone = logits_of(deck, rows_of(batch, [row]), name)
        assert difference(mixed[[row]], alone) < 1e-5
    assert difference(mixed, logits_of(deck, batch)) > 1e-3


@every_case
def test_gradients_of_a_mixed_batch_equal_those_of_its_parts(model_type: str, form: str, config: MethodConfig) -> None:
    deck, batch = deck_of(model_type, form), token_batch(5)
    add_stirred(deck, "one", config)
    add_stirred(deck, "two", config, seed=2)
    names = ["two", "one", None, "one", "two"]
    logits = deck(**batch, adapter=names).logits
    weight = torch.linspace(-1, 1, logits.numel()).view_as(logits)
    (logits * weight).sum().backward()
    mixed = {name: gradients(deck, name) for name in ("one", "two")}
    for name in ("one", "two"):
        rows = [row for row, owner in enumerate(names) if owner == name]
        (deck(**rows_of(batch, rows), adapter=name).logits * weight[rows]).sum().backward()
        alone = gradients(deck, name)
        assert mixed[name].keys() == alone.keys() == dict(deck.adapter(name).named_parameters()).keys()
        for key, gradient in alone.items():
            assert difference(mixed[name][key], gradient) <= 1e-5 * max(1.0, gradient.abs().max().item())


def test_a_method_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(
        UnsupportedKindError, match=r"'lorra' is not supported \(supported: .*\) \(did you mean 'lora'\?\)"
    ):
        config_of("lorra", {})
