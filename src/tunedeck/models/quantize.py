"""A base in fewer bits: the linear layers inside its layers as NF4 (arXiv 2305.14314) or as int8.

Embeddings, norms, the pooler, the output layer and every head keep their precision. The quantized layers are
bitsandbytes' Linear4bit and our Int8Linear; sites, hooks and adapters see linear layers as before.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import nn

from tunedeck.core.checks import require
from tunedeck.core.compat.bitsandbytes import is_nf4, nf4_linear, nf4_numel, nf4_tensors
from tunedeck.core.compat.transformers import kept_in_float32
from tunedeck.core.errors import ModelError
from tunedeck.core.i18n import listing, say
from tunedeck.methods.int8 import Int8Linear
from tunedeck.methods.linears import is_conv1d, linear_shape, linears_in_layers
from tunedeck.methods.packed_embedding import packed_embeddings

Quantize = Literal["nf4", "int8"]
_NF4_BLOCK = 64
"""Weights that share a scale."""


@dataclass(frozen=True, slots=True)
class BasePart:
    """One part of a base: its parameters, counted as before quantization, and the bytes they take with their scales."""

    name: str
    """"linears", "embeddings", "head" or "other" (norms, pooler)."""
    parameters: int
    bytes: int


def check_scheme(scheme: str | None) -> None:
    """Raise ModelError for a scheme that is not known, or that needs a package which is not there."""
    if scheme is None:
        return
    if scheme not in get_args(Quantize):
        raise ModelError(
            say(
                "quantize must be one of {allowed}, or left out, got {value!r}",
                allowed=listing(get_args(Quantize)),
                value=scheme,
            )
        )
    if scheme == "nf4":
        instead = say("or use quantize: int8")
        require("quantize: nf4", ["bitsandbytes"], "'tunedeck[qlora]'", otherwise=instead, error=ModelError)


def quantize_linears(model: nn.Module, prefix: str, scheme: Quantize, dtype: torch.dtype, device: torch.device) -> None:
    """Quantize the linear layers one after another to compute in `dtype`; convert the rest to `dtype`.

    Warns when a layer cannot be quantized. Raises ModelError when the checkpoint is quantized already or none can be.
    """
    if not all(parameter.is_floating_point() for parameter in model.parameters()):
        raise ModelError(say("this checkpoint is quantized already; leave quantize out, or take one that is not"))
    paths = linears_in_layers(model, prefix)
    left = [path for path in paths if not _can_pack(model, path, scheme)]
    if len(left) == len(paths):
        raise ModelError(say("quantize found no linear layer to quantize in this model; leave it out"))
    if left:
        warnings.warn(
            say(
                "{count} of {total} linear layers are not quantized, such as {path}: {scheme} does not "
                "support their shape, or the model computes them in a special way",
                count=len(left),
                total=len(paths),
                path=left[0],
                scheme=scheme,
            ),
            stacklevel=4,
        )
    quantized_linear = nf4_linear if scheme == "nf4" else Int8Linear
    for path in paths:
        if path in left:
            continue
        module = model.get_submodule(path)
        weight = cast(torch.Tensor, module.weight).detach()
        weight = weight.T.contiguous() if is_conv1d(module) else weight
        bias = cast("torch.Tensor | None", module.bias)
        bias = None if bias is None else bias.detach().to(device, dtype)
        model.set_submodule(path, quantized_linear(weight.to(device, dtype), bias).eval())
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    model.to(device)


def _can_pack(model: nn.Module, path: str, scheme: Quantize) -> bool:
    """Tell whether a linear is a plain one that its model does not keep in float32, with rows that the scheme takes.

    bitsandbytes 0.50.2 unpacks NF4 wrongly on a CPU where rows are a multiple of 16 but not of its blocks of 64.
    """
    module = model.get_submodule(path)
    plain = type(module) is nn.Linear or is_conv1d(module)
    kept = kept_in_float32(model).intersection(path.split("."))
    return plain and not kept and (scheme != "nf4" or linear_shape(module)[0] % _NF4_BLOCK == 0)


def parameter_count(model: nn.Module) -> int:
    """Return the model's parameters, counted as before quantization."""
    packed = sum(embedding.numel() for embedding in packed_embeddings(model).values())
    return packed + sum(_count(parameter) for parameter in model.parameters())


def base_parts(model: nn.Module, prefix: str) -> tuple[BasePart, ...]:
    """Return the memory of each part of a base; a tied output layer counts as the embedding.

    Small tables of positions are left out.
    """
    in_layers = _starts(linears_in_layers(model, prefix))
    embeddings = _starts([path for path, module in model.named_modules() if isinstance(module, nn.Embedding)])
    counts: dict[str, int] = {"linears": 0, "embeddings": 0, "head": 0, "other": 0}
    held: dict[str, dict[int, int]] = {part: {} for part in counts}
    for name, parameter in model.named_parameters():
        outside = bool(prefix) and not name.startswith(f"{prefix}.")
        rest = "head" if outside else "other"
        part = "linears" if name.startswith(in_layers) else "embeddings" if name.startswith(embeddings) else rest
        counts[part] += _count(parameter)
        held[part].update((tensor.data_ptr(), tensor.nbytes) for tensor in _stored(parameter))
    for embedding in packed_embeddings(model).values():
        counts["embeddings"] += embedding.numel()
        held["embeddings"].update((buffer.data_ptr(), buffer.nbytes) for buffer in embedding.buffers())
    scales = [cast(torch.Tensor, module.scale) for module in model.modules() if isinstance(module, Int8Linear)]
    held["linears"].update((scale.data_ptr(), scale.nbytes) for scale in scales)
    return tuple(BasePart(part, count, sum(held[part].values())) for part, count in counts.items())


def _starts(paths: list[str]) -> tuple[str, ...]:
    return tuple(f"{path}." for path in paths)


def _count(parameter: nn.Parameter) -> int:
    return nf4_numel(parameter) if is_nf4(parameter) else parameter.numel()


def _stored(parameter: nn.Parameter) -> Iterable[torch.Tensor]:
    """Return the tensors behind a parameter: itself, and the tables of a quantized one."""
    return nf4_tensors(parameter) if is_nf4(parameter) else [parameter.data]
