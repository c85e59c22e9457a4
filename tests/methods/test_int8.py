"""The 8-bit linear: LLM.int8()'s weights, a plain product, the right gradients, each row by itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tunedeck.core.compat.torch import fits_int8_product
from tunedeck.methods.int8 import Int8Linear
from tunedeck.methods.linears import is_linear, linear_shape


def random_linear(in_features: int = 12, out_features: int = 7, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(in_features, out_features).requires_grad_(False)


def packed(linear: nn.Linear) -> Int8Linear:
    return Int8Linear(linear.weight.detach(), linear.bias)


def test_a_row_is_rounded_to_127_steps_of_its_largest_value() -> None:
    layer = Int8Linear(torch.tensor([[127.0, -12.7, 0.4], [0.0, 0.0, 0.0], [1.0, -2.0, 0.5]]), None)
    assert layer.weight.tolist() == [[127, -13, 0], [0, 0, 0], [64, -127, 32]]
    assert layer.get_buffer("scale").tolist() == pytest.approx([1.0, 0.0, 2 / 127])
    assert torch.equal(layer(torch.ones(1, 3))[0, :2], torch.tensor([114.0, 0.0]))


def test_it_answers_and_differentiates_as_a_linear_with_the_unpacked_weight() -> None:
    linear = random_linear()
    layer = packed(linear)
    x = torch.randn(2, 5, 12, requires_grad=True)
    same = x.detach().clone().requires_grad_()
    expected = nn.functional.linear(same, layer.dense(), linear.bias)
    assert torch.allclose(layer(x), expected, atol=1e-6)
    layer(x).square().sum().backward()
    expected.square().sum().backward()
    assert x.grad is not None
    assert same.grad is not None
    assert torch.allclose(x.grad, same.grad, atol=1e-5)


def test_the_backward_pass_keeps_no_unpacked_weight() -> None:
    layer, x = packed(random_linear()), torch.randn(3, 12, requires_grad=True)
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x)
    assert {tensor.dtype for tensor in kept if tensor.shape == layer.weight.shape} == {torch.int8}


def test_a_row_is_answered_the_same_beside_any_other() -> None:
    layer, x = packed(random_linear()), torch.randn(4, 12)
    beside_an_outlier = torch.cat([x[:1], torch.full((1, 12), 100.0)])
    assert torch.allclose(layer(beside_an_outlier)[0], layer(x)[0], atol=1e-6)


@pytest.mark.parametrize("rows", [(1, 1), (3,), (16, 1), (17, 1)])
def test_a_few_rows_in_bfloat16_are_answered_as_by_the_unpacked_weight(rows: tuple[int, ...]) -> None:
    layer = packed(random_linear(128, 12).bfloat16())
    x = torch.randn(*rows, 128).bfloat16()
    expected = nn.functional.linear(x.double(), layer.weight.double() * layer.get_buffer("scale").double()[:, None])
    with torch.inference_mode():
        answer = layer(x)
    assert answer.dtype == torch.bfloat16
    assert answer.shape == (*rows, 12)
    assert layer.bias is not None
    assert torch.allclose(answer.double(), expected + layer.bias.double(), rtol=0.02, atol=0.01)


def test_shapes_that_the_kernel_reads_past_are_unpacked() -> None:
    assert fits_int8_product(torch.zeros(12, 128, dtype=torch.int8))
    assert not fits_int8_product(torch.zeros(7, 128, dtype=torch.int8))
    assert not fits_int8_product(torch.zeros(12, 96, dtype=torch.int8))
    layer, x = packed(random_linear().bfloat16()), torch.randn(1, 12).bfloat16()
    with torch.inference_mode():
        assert torch.allclose(layer(x), layer.dense().matmul(x[0]) + layer.get_parameter("bias"), rtol=0.02, atol=0.02)


def test_its_weights_are_those_of_bitsandbytes() -> None:
    import bitsandbytes

    weight = random_linear(64, 32).weight.detach()
    codes, scales, _ = bitsandbytes.functional.int8_vectorwise_quant(weight.half())
    layer = Int8Linear(weight.half().float(), None)
    assert (codes.int() - layer.weight.int()).abs().max() <= 1  # where a value lies between two steps
    assert (codes != layer.weight).float().mean() < 0.01
    assert torch.allclose(scales / 127, layer.get_buffer("scale"), rtol=1e-5)


def test_it_is_a_linear_and_is_copied_whole() -> None:
    layer = packed(random_linear())
    assert is_linear(layer)
    assert linear_shape(layer) == (12, 7)
    again, x = copy.deepcopy(layer), torch.randn(2, 12)
    assert torch.equal(again(x), layer(x))
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    assert layer.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16
