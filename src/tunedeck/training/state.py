"""Everything a run's next step depends on, taken from the live objects and given back to them, to the last bit."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import torch

from tunedeck.core.errors import TrainingError
from tunedeck.core.i18n import say
from tunedeck.deck.adapter import Adapter
from tunedeck.training.checkpoint import Checkpoint
from tunedeck.training.outcome import Outcome


def adapter_tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    """The adapter's parameters, head included, detached and shared with it."""
    return {name: parameter.detach() for name, parameter in adapter.named_parameters()}


def fill_adapter(adapter: Adapter, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give the adapter the values of `adapter_tensors`."""
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            parameter.copy_(tensors[name])


def captured(
    adapter: Adapter,
    best: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    outcome: Outcome,
    values: Mapping[str, Any],
) -> Checkpoint:
    """The state at the end of a step, `values` included; its tensors are shared with the live objects, not copied.

    Raises TrainingError when a weight is no longer a number.
    """
    if not all(bool(parameter.isfinite().all()) for parameter in adapter.parameters()):
        raise TrainingError(
            say("the weights are no longer numbers after step {step}; lower the learning rate", step=outcome.steps)
        )
    tensors, numbers = optimizer_state(optimizer)
    groups = {"adapter": adapter_tensors(adapter), "best": best, "optimizer": tensors}
    return Checkpoint(outcome.steps, groups, {"outcome": asdict(outcome), "optimizer": numbers, **values})


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Per parameter in order, `<number>.<name>`: tensors, and plain numbers.

    Tensors that parameters share, as the code books of 8-bit states, are kept for the first of them; the others' entries
    among the numbers name it.
    """
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, Any] = {}
    first: dict[int, str] = {}
    for index, parameter in enumerate(_parameters(optimizer)):
        for name, value in optimizer.state.get(parameter, {}).items():
            key = f"{index}.{name}"
            if not isinstance(value, torch.Tensor):
                numbers[key] = value
            elif id(value) in first:
                numbers[key] = first[id(value)]
            else:
                tensors[key] = value
                first[id(value)] = key
    return tensors, numbers


def fill_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]
) -> None:
    """Give a fresh optimizer over the same parameters the state of `optimizer_state`."""
    parameters = _parameters(optimizer)
    own = {key: tensor.to(parameters[int(key.partition(".")[0])].device) for key, tensor in tensors.items()}
    shared = {key: own[value] for key, value in numbers.items() if isinstance(value, str)}
    for key, value in {**numbers, **own, **shared}.items():
        index, _, name = key.partition(".")
        optimizer.state[parameters[int(index)]][name] = value


def random_state() -> dict[str, Any]:
    """The states of all random numbers that a step may draw, as JSON values: torch's on the CPU and the GPU, Python's, numpy's."""
    name, keys, *rest = cast("tuple[Any, ...]", np.random.get_state())
    return {
        "torch": _hex(torch.get_rng_state()),
        "cuda": _hex(torch.cuda.get_rng_state()) if torch.cuda.is_available() else None,
        "python": random.getstate(),
        "numpy": [name, keys.tolist(), *rest],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Draw on from a state of `random_state`."""
    torch.set_rng_state(_tensor(state["torch"]))
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(_tensor(state["cuda"]))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(tuple(state["numpy"]))


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _hex(state: torch.Tensor) -> str:
    return bytes(state.tolist()).hex()


def _tensor(digits: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(digits)), dtype=torch.uint8)
