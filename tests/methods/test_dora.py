"""DoRA: a hand-computed number, and rows of DoRA, LoRA and the base in one batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tunedeck.methods.lora.dora import scale_to_length
from tunedeck.methods.lora.layer import FrozenLoraLayer, LoraLayer, add_low_rank
from tunedeck.methods.sites import RowDispatch


def linear_and_layers() -> tuple[nn.Linear, LoraLayer, LoraLayer]:
    """W = (3, 0), b = 7; a DoRA whose B A is (0, 4) and whose m is 10, and a LoRA with the same B A."""
    linear = nn.Linear(2, 1)
    linear.weight.data, linear.bias.data = torch.tensor([[3.0, 0.0]]), torch.tensor([7.0])
    layers = LoraLayer(2, 1, 1, 1.0, 0.0, torch.tensor([10.0])), LoraLayer(2, 1, 1, 1.0, 0.0)
    for one in layers:
        one.lora_A.data, one.lora_B.data = torch.tensor([[0.0, 1.0]]), torch.tensor([[4.0]])
    return linear, *layers


def output_of(linear: nn.Linear, x: torch.Tensor, dispatch: RowDispatch) -> list[float]:
    return scale_to_length(linear, add_low_rank(x, linear(x), dispatch), dispatch).flatten().tolist()


def test_one_row_by_hand() -> None:
    linear, dora, _ = linear_and_layers()
    # W + B A = (3, 4), of length 5, so g = 2: 2 · (3 · 1 + 4 · 2) + 7
    x = torch.tensor([[[1.0, 2.0]]])
    assert output_of(linear, x, RowDispatch([(slice(0, 1), dora)])) == [29.0]
    with torch.no_grad():
        frozen = FrozenLoraLayer(dora)
        assert output_of(linear, x, RowDispatch([(slice(0, 1), frozen)])) == [29.0]
        assert frozen.gain is not None


def test_rows_of_dora_lora_and_the_base_share_a_batch() -> None:
    linear, dora, lora = linear_and_layers()
    parts = [(slice(0, 1), None), (slice(1, 2), lora), (slice(2, 3), None), (slice(3, 5), dora), (slice(5, 6), None)]
    x = torch.tensor([[[1.0, 2.0]]]).repeat(6, 1, 1)
    assert output_of(linear, x, RowDispatch(parts)) == [10.0, 18.0, 10.0, 29.0, 29.0, 10.0]


def test_no_gradient_flows_through_the_length() -> None:
    linear, dora, _ = linear_and_layers()
    x, dispatch = torch.tensor([[[1.0, 2.0]]]), RowDispatch([(slice(0, 1), dora)])
    scale_to_length(linear, add_low_rank(x, linear(x), dispatch), dispatch).sum().backward()
    assert dora.lora_B.grad is not None
    assert dora.lora_B.grad.item() == 4.0  # g · A x
    assert dora.lora_magnitude_vector is not None
    assert dora.lora_magnitude_vector.grad is not None
    assert dora.lora_magnitude_vector.grad.item() == pytest.approx(11 / 5)
