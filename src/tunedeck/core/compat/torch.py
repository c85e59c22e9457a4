"""Private interfaces of torch, as of 2.13."""

from __future__ import annotations

import torch
from torch import nn


def tensor_version(tensor: torch.Tensor) -> int:
    """Return a number that grows with every change in place; RuntimeError for a tensor made in inference mode."""
    return tensor._version


def replace_parameter(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Put any tensor in the place of a module's own parameter, as torch.func.functional_call does."""
    module._parameters[name] = value  # type: ignore[assignment]


def forget_forward_hooks(module: nn.Module) -> None:
    """Remove every forward hook and forward pre-hook of one module, such as those that came along in a copy."""
    for hooks in (
        module._forward_hooks,
        module._forward_hooks_with_kwargs,
        module._forward_hooks_always_called,
        module._forward_pre_hooks,
        module._forward_pre_hooks_with_kwargs,
    ):
        hooks.clear()


def forward_hook_count(module: nn.Module) -> int:
    """Return the number of a module's forward hooks and forward pre-hooks, without those of its children."""
    return len(module._forward_hooks) + len(module._forward_pre_hooks)


def cpu_features() -> dict[str, bool]:
    """Return the instruction sets of this CPU by torch's names, such as `avx512_bf16` and `amx_bf16`."""
    return {name: value for name, value in torch.cpu.get_capabilities().items() if isinstance(value, bool)}
