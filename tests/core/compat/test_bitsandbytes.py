"""What Tunedeck uses of bitsandbytes beyond its documented interface; one test for each function."""

from __future__ import annotations

import logging

import pytest
import torch

pytest.importorskip("bitsandbytes")

from tunedeck.core.compat.bitsandbytes import (
    import_bitsandbytes,
    is_nf4,
    keep_backward_pass,
    nf4_dense,
    nf4_linear,
    nf4_numel,
    nf4_tensors,
)

OUT, IN, BLOCK = 128, 256, 64


def linear() -> torch.nn.Module:
    weight = torch.randn(OUT, IN, generator=torch.Generator().manual_seed(0))
    return nf4_linear(weight, torch.ones(OUT))


def test_bitsandbytes_import_leaves_its_logger_as_it_was() -> None:
    level = logging.getLogger("bitsandbytes").level
    assert import_bitsandbytes().nn.Linear4bit
    assert logging.getLogger("bitsandbytes").level == level


def test_bitsandbytes_nf4_weights_are_recognised_and_others_are_not() -> None:
    assert is_nf4(linear().weight)
    assert not is_nf4(torch.nn.Linear(2, 2).weight)


def test_bitsandbytes_nf4_linear_multiplies_by_the_weight_that_nf4_dense_unpacks() -> None:
    module = linear()
    x = torch.randn(3, IN, generator=torch.Generator().manual_seed(1))
    dense = nf4_dense(module.weight)
    assert dense.shape == (OUT, IN)
    assert dense.unique().numel() > 16  # sixteen values a block, and a scale for each
    assert torch.allclose(module(x), x @ dense.T + 1, atol=1e-4)


def test_bitsandbytes_nf4_numel_counts_the_values_before_packing() -> None:
    assert nf4_numel(linear().weight) == OUT * IN


def test_bitsandbytes_nf4_tensors_are_half_a_byte_a_value_and_the_scales_twice_quantized() -> None:
    packed, absmax, code, offset, nested_absmax, nested_code = nf4_tensors(linear().weight)
    assert packed.nbytes == OUT * IN // 2
    assert (absmax.dtype, absmax.numel()) == (torch.uint8, OUT * IN // BLOCK)
    assert code.numel() == 16
    assert offset.numel() == 1
    assert (nested_absmax.numel(), nested_code.numel()) == (OUT * IN // BLOCK // 256, 256)


def test_bitsandbytes_linear_trains_on_after_an_answer_without_gradients() -> None:
    weight = torch.randn(OUT, IN, generator=torch.Generator().manual_seed(0)).bfloat16()
    module = nf4_linear(weight, None).eval()
    plain = import_bitsandbytes().nn.Linear4bit(IN, OUT, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    assert "support_avx512bf16_for_cpu" in vars(plain)  # the switch is still called so
    keep_backward_pass(module)
    x = torch.randn(2, IN).bfloat16()
    with torch.no_grad():
        module(x)
    x.requires_grad_()
    module(x).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad[0].float(), nf4_dense(module.weight).float().sum(0), rtol=0.05, atol=0.3)
