"""(IA)³ in PEFT's form: `base_model.model.<path>.ia3_l`, (out, 1), or (1, in) where the input is scaled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tunedeck.core.errors import AdapterFileError
from tunedeck.core.i18n import say
from tunedeck.formats.peft.targets import named_linears, read_targets
from tunedeck.formats.tensors import ModelNames
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.ia3.config import Ia3Config

HEAD = "base_model.model."
READ = frozenset(("target_modules", "feedforward_modules", "init_ia3_weights"))
_VECTOR = ".ia3_l"


def holds(config: MethodConfig) -> bool:
    """Tell whether the adapter is an (IA)³ adapter."""
    return isinstance(config, Ia3Config)


def read(
    config: Mapping[str, Any], tensors: dict[str, torch.Tensor], names: ModelNames
) -> tuple[MethodConfig, dict[str, torch.Tensor]]:
    """Take the vectors out of a file's tensors; the shape of each says whether it scales an input."""
    keys = [key for key in tensors if key.endswith(_VECTOR)]
    found = {names.in_model(key.removeprefix(HEAD).removesuffix(_VECTOR)): tensors.pop(key) for key in keys}
    for path, tensor in found.items():
        if tensor.dim() != 2 or 1 not in tensor.shape:
            raise AdapterFileError(
                say(
                    "tensor {name} has the shape {got}; a vector of (IA)³ is (out, 1) or (1, in)",
                    name=f"{path}{_VECTOR}",
                    got=tuple(tensor.shape),
                )
            )
    inputs = sorted(path for path, tensor in found.items() if tensor.shape[0] == 1)
    targets, _ = read_targets(config, found.keys() | named_linears(config, names))  # what lacks a vector is noticed
    method = Ia3Config(target_modules=targets, feedforward_modules=tuple(inputs))
    return method, {f"{path}{_VECTOR}": tensor.flatten() for path, tensor in found.items()}


def write(
    config: MethodConfig, tensors: dict[str, torch.Tensor], names: ModelNames, bare: str
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the settings, which name each module by its whole path, and the tensors of a file."""
    assert isinstance(config, Ia3Config)
    inputs = config.scaled_inputs([name.removesuffix(_VECTOR) for name in tensors], names.spec)
    written = {
        f"{HEAD}{name.removeprefix(bare)}": tensor[None] if name.removesuffix(_VECTOR) in inputs else tensor[:, None]
        for name, tensor in tensors.items()
    }
    settings = {
        "fan_in_fan_out": False,
        "feedforward_modules": sorted(path.removeprefix(bare) for path in inputs),
        "init_ia3_weights": True,
        "target_modules": sorted(name.removesuffix(_VECTOR).removeprefix(bare) for name in tensors),
    }
    return settings, written
