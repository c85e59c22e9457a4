"""Private interfaces of torch, as of 2.13."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


def tensor_version(tensor: torch.Tensor) -> int:
    """Return a number that grows with every change in place; RuntimeError for a tensor made in inference mode."""
    return tensor._version


def replace_parameter(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Put any tensor in the place of a module's parameter, as torch.func.functional_call does."""
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


def forward_hooks(module: nn.Module) -> list[Callable[..., Any]]:
    """Return a module's forward pre-hooks and forward hooks, without those of its children."""
    return [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]


def forward_hook_numbers(module: nn.Module) -> list[int]:
    """Return torch's numbers of a module's forward hooks and forward pre-hooks; no two hooks ever have the same."""
    return [*module._forward_pre_hooks, *module._forward_hooks]


def call_with_hooks(module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what a module would with another function in the place of its `forward`: its hooks are called as well."""
    for number, before in module._forward_pre_hooks.items():
        if number in module._forward_pre_hooks_with_kwargs:
            changed = before(module, args, kwargs)
            args, kwargs = (args, kwargs) if changed is None else changed
        else:
            changed = before(module, args)
            args = args if changed is None else changed if isinstance(changed, tuple) else (changed,)
    output = forward(*args, **kwargs)
    for number, after in module._forward_hooks.items():
        named = number in module._forward_hooks_with_kwargs
        changed = after(module, args, kwargs, output) if named else after(module, args, output)
        output = output if changed is None else changed
    return output


def cpu_features() -> dict[str, bool]:
    """Return the instruction sets of this CPU by torch's names, such as `avx512_bf16` and `amx_bf16`."""
    return {name: value for name, value in torch.cpu.get_capabilities().items() if isinstance(value, bool)}


def int8_product(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return scale · (weight x) for x (rows, in), weight (out, in) in int8 and scale (out,), summed in float32.

    The kernel reads past the end of rows that `fits_int8_product` does not let through.
    """
    product: torch.Tensor = torch.ops.aten._weight_int8pack_mm(x.contiguous(), weight, scale)
    return product


def fits_int8_product(weight: torch.Tensor) -> bool:
    """Tell whether `int8_product` takes a weight (out, in): on a CPU, in whole blocks of 4 rows and 64 columns."""
    return weight.device.type == "cpu" and weight.shape[0] % 4 == 0 and weight.shape[1] % 64 == 0


def softmax_backward_(gradient: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Turn the gradient of a softmax's output over the last dimension into that of its input, in place."""
    torch.ops.aten._softmax_backward_data.out(gradient, output, -1, gradient.dtype, grad_input=gradient)
    return gradient


@final
class MetaWithoutSympy(TorchFunctionMode):
    """Create models on the meta device without what torch imports for three functions there: sympy and torch._dynamo.

    Nothing is drawn for tensors without storage, and ranges are made on the CPU first.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function, or what gives the same on the meta device."""
        named = kwargs or {}
        if func in (nn.init.normal_, torch.Tensor.normal_):
            tensor = args[0] if args else named["tensor"]
            if tensor.is_meta:
                return tensor
        if func is torch.arange and str(named.get("device")) == "meta":
            return func(*args, **{**named, "device": "cpu"}).to("meta")
        if func is torch.empty_like and args[0].is_meta and "device" in named:
            return torch.empty(args[0].shape, **{"dtype": args[0].dtype, **named})
        return func(*args, **named)
