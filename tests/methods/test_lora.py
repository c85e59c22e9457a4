"""The LoRA formula: a hand-computed number, and the same patch for a row whatever stands beside it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_models import deck_of

import tunedeck as td
from tunedeck.methods.lora.layer import LoraLayer, add_low_rank
from tunedeck.methods.sites import RowDispatch


def layer(in_features: int, out_features: int, r: int, scaling: float, seed: int) -> LoraLayer:
    torch.manual_seed(seed)
    made = LoraLayer(in_features, out_features, r, scaling, 0.0)
    torch.nn.init.normal_(made.lora_B)
    return made.eval()


def dispatch_of(owners: list[int | None], layers: list[LoraLayer]) -> RowDispatch:
    """The dispatch of a batch whose rows stand in order of their owners."""
    segments: list[tuple[slice, LoraLayer | None]] = []
    for owner in dict.fromkeys(owners):
        first, count = owners.index(owner), owners.count(owner)
        segments.append((slice(first, first + count), None if owner is None else layers[owner]))
    return RowDispatch(segments)


def any_owner(owners: list[int | None]) -> bool:
    return any(owner is not None for owner in owners)


def test_one_row_by_hand() -> None:
    made = LoraLayer(2, 2, 1, scaling=0.5, dropout=0.0)
    made.lora_A.data = torch.tensor([[1.0, 2.0]])
    made.lora_B.data = torch.tensor([[3.0], [-1.0]])
    x, output = torch.tensor([[[4.0, 5.0]]]), torch.tensor([[[10.0, 20.0]]])
    # A x = 4 + 10 = 14; B A x = (42, -14); half of it on top of (10, 20)
    assert add_low_rank(x, output, dispatch_of([0], [made])).tolist() == [[[31.0, 13.0]]]
    assert made.delta().tolist() == [[1.5, 3.0], [-0.5, -1.0]]


def test_scaling_is_alpha_over_r_or_over_its_root() -> None:
    assert td.LoraConfig(r=4, lora_alpha=8).scaling("any") == 2
    assert td.LoraConfig(r=4, lora_alpha=8, use_rslora=True).scaling("any") == 4
    patterned = td.LoraConfig(r=4, lora_alpha=8, rank_pattern={"query": 2}, alpha_pattern={"query": 6})
    assert patterned.scaling("bert.encoder.layer.0.attention.self.query") == 3
    assert patterned.scaling("bert.encoder.layer.0.attention.self.value") == 2


@pytest.mark.parametrize("shape", [(), (1,), (6,)], ids=["pooled", "one token", "a text"])
@settings(max_examples=20, deadline=None)
@given(
    owners=st.lists(st.sampled_from([None, 0, 1, 2, 3]), min_size=1, max_size=9)
    .map(lambda x: sorted(x, key=str))
    .filter(any_owner)
)
def test_every_row_of_a_batch_gets_its_own_patch_whatever_its_rank(
    shape: tuple[int, ...], owners: list[int | None]
) -> None:
    layers = [layer(12, 10, r=2 + seed, scaling=0.5 + seed, seed=seed) for seed in range(4)]
    torch.manual_seed(9)
    x, output = torch.randn(len(owners), *shape, 12), torch.randn(len(owners), *shape, 10)
    dispatch = dispatch_of(owners, layers)
    rows = []
    for row, owner in enumerate(owners):
        rows.append(output[row] + (0 if owner is None else x[row] @ layers[owner].delta().T))
    expected = torch.stack(rows)
    assert (add_low_rank(x, output, dispatch) - expected).abs().max() < 1e-5
    for row, owner in enumerate(owners):  # a batch of one takes the other form of the product
        if owner is not None:
            alone = add_low_rank(x[[row]], output[[row]], dispatch_of([owner], layers))
            assert (alone - expected[[row]]).abs().max() < 1e-5


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_patch_follows_its_weights_from_one_batch_to_the_next(mode: type[torch.no_grad]) -> None:
    layers = [layer(12, 10, r=2, scaling=0.5, seed=seed) for seed in range(2)]
    x, output, dispatch = torch.randn(3, 2, 12), torch.randn(3, 2, 10), dispatch_of([None, 0, 1], layers)
    for change in (lambda w: w, lambda w: w.mul_(2), lambda w: w.set_(torch.randn(10, 2))):
        with mode():
            change(layers[1].lora_B)
            got = add_low_rank(x, output.clone(), dispatch)
        alone = [output[0], *(output[row] + x[row] @ layers[row - 1].delta().T for row in (1, 2))]
        assert (got - torch.stack(alone)).abs().max() < 1e-5


def test_gradients_reach_each_adapter_from_its_own_rows_alone() -> None:
    layers = [layer(12, 10, r=2 + seed, scaling=0.5 + seed, seed=seed) for seed in range(2)]
    x, output = torch.randn(4, 3, 12), torch.randn(4, 3, 10)
    add_low_rank(x, output, dispatch_of([0, 0, 1, None], layers)).square().sum().backward()
    mixed = [tuple(p.grad.clone() for p in (made.lora_A, made.lora_B) if p.grad is not None) for made in layers]
    for made, rows, (grad_a, grad_b) in zip(layers, (slice(0, 2), slice(2, 3)), mixed, strict=True):
        made.zero_grad()
        (output[rows] + x[rows] @ made.delta().T).square().sum().backward()
        assert made.lora_A.grad is not None
        assert made.lora_B.grad is not None
        assert torch.allclose(grad_a, made.lora_A.grad, rtol=1e-4, atol=1e-4)
        assert torch.allclose(grad_b, made.lora_B.grad, rtol=1e-4, atol=1e-4)


def test_dropout_acts_in_training_alone() -> None:
    made = LoraLayer(64, 8, 4, scaling=1.0, dropout=0.5)
    torch.nn.init.normal_(made.lora_B)
    x, output = torch.ones(1, 3, 64), torch.zeros(1, 3, 8)
    dispatch = dispatch_of([0], [made])
    made.eval()
    assert torch.equal(add_low_rank(x, output, dispatch), add_low_rank(x, output, dispatch))
    made.train()
    torch.manual_seed(0)
    assert not torch.equal(add_low_rank(x, output, dispatch), add_low_rank(x, output, dispatch))


def test_dropout_of_one_adapter_spares_the_rows_of_another() -> None:
    layers = [layer(64, 8, 4, scaling=1.0, seed=seed) for seed in range(2)]
    layers[0].dropout = 0.5
    layers[0].train()
    x, output = torch.ones(3, 2, 64), torch.zeros(3, 2, 8)
    torch.manual_seed(0)
    mixed = add_low_rank(x, output, dispatch_of([0, 1, None], layers))
    assert not torch.allclose(mixed[0], x[0] @ layers[0].delta().T)
    assert torch.allclose(mixed[1], x[1] @ layers[1].delta().T, atol=1e-5)
    assert torch.equal(mixed[2], output[2])


def test_a_rank_above_the_size_of_a_layer_is_noted() -> None:
    with pytest.warns(UserWarning, match=r"the rank 999 is above the size \d+ of the layer .*query"):
        deck_of("bert").add("a", td.LoraConfig(r=999, target_modules=("query",)), labels=("x", "y"))
