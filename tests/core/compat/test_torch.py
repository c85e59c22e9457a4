"""What Tunedeck uses of torch beyond its documented interface; one test for each function."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tunedeck.core.compat.torch import (
    cpu_features,
    forget_forward_hooks,
    forward_hook_count,
    replace_parameter,
    softmax_backward_,
    tensor_version,
)


def test_torch_tensor_version_counts_changes() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    before = tensor_version(parameter)
    _ = parameter + 1
    assert tensor_version(parameter) == before
    with torch.no_grad():
        parameter.add_(1)
    after = tensor_version(parameter)
    assert after > before
    parameter.data.add_(1)  # what goes past autograd is not counted
    assert tensor_version(parameter) == after
    with torch.inference_mode():
        made = torch.zeros(2)
    with pytest.raises(RuntimeError):
        tensor_version(made)


def test_torch_replace_parameter_takes_a_plain_tensor_and_its_gradient_flows() -> None:
    linear = nn.Linear(2, 1, bias=False)
    own, other = linear.weight, torch.full((1, 2), 3.0, requires_grad=True)
    replace_parameter(linear, "weight", 2 * other)
    linear(torch.ones(1, 2)).sum().backward()
    assert torch.equal(other.grad, torch.full((1, 2), 2.0))  # type: ignore[arg-type]
    replace_parameter(linear, "weight", own)
    assert [id(parameter) for parameter in linear.parameters()] == [id(own)]


def test_torch_forget_forward_hooks_leaves_none_of_any_kind() -> None:
    linear, calls = nn.Linear(2, 2), []
    linear.register_forward_hook(lambda *_: calls.append(1))
    linear.register_forward_hook(lambda *_: calls.append(2), with_kwargs=True, always_call=True)
    linear.register_forward_pre_hook(lambda *_: calls.append(3))
    linear.register_forward_pre_hook(lambda *_: calls.append(4), with_kwargs=True)
    assert forward_hook_count(linear) == 4
    linear(torch.ones(1, 2))
    assert sorted(calls) == [1, 2, 3, 4]
    forget_forward_hooks(linear)
    assert forward_hook_count(linear) == 0
    tables = [value for name, value in vars(linear).items() if "forward" in name and "hooks" in name]
    assert len(tables) == 5
    assert not any(tables)
    linear(torch.ones(1, 2))
    assert len(calls) == 4


def test_torch_cpu_features_have_the_names_that_choose_bfloat16() -> None:
    names = {"avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"}
    features = cpu_features()
    assert "x86" not in torch.cpu.get_capabilities().get("architecture", "") or names <= set(features)
    assert all(type(value) is bool for value in features.values())


def test_torch_softmax_backward_changes_the_gradient_in_place() -> None:
    torch.manual_seed(0)
    scores, gradient = torch.randn(3, 5, 70, requires_grad=True), torch.randn(3, 5, 70)
    output = scores.softmax(-1)
    expected = torch.autograd.grad(output, scores, gradient)[0]
    found = softmax_backward_(gradient, output.detach())
    assert found is gradient
    torch.testing.assert_close(found, expected)
