"""Task heads: each adapter has its own copy, with its number of labels, and its rows go through it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from tunedeck.core.compat.torch import forget_forward_hooks
from tunedeck.core.errors import AdapterFileError, ConfigError
from tunedeck.core.i18n import listing, say
from tunedeck.core.pooling import HeadPooling, Pooling
from tunedeck.deck.pooling import head_input
from tunedeck.formats.tensors import POOLED_HEAD
from tunedeck.methods.packed_embedding import vocabulary_size
from tunedeck.methods.sites import Placement, RowDispatch, first_tensor
from tunedeck.models.load import LoadedBase

UNUSED_LABEL = float("-inf")
NEW_ROWS_STD = 0.02


@dataclass(frozen=True, slots=True)
class ModuleOutput:
    """The output of the head module at `path`, replaced row by row; narrower outputs are filled up with -inf.

    The last module of a head, which gives the logits, answers in float32.
    """

    path: str
    last: bool

    def install(self, model: nn.Module, dispatch: Callable[[], RowDispatch | None]) -> Sequence[RemovableHandle]:
        """Register the hook that replaces the head's output in the active rows."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: torch.Tensor) -> torch.Tensor:
            now = dispatch()
            if now is None:
                return output
            x = first_tensor(args, kwargs)
            parts = [output[rows].float() if head is None else head(x[rows].float()) for rows, head in now.parts]
            return concatenate_padded(parts).to(torch.float32 if self.last else output.dtype)

        return [model.get_submodule(self.path).register_forward_hook(hook, with_kwargs=True)]


@dataclass(frozen=True, slots=True)
class PooledOutput:
    """The model's logits, replaced row by row by a head on the pooled last hidden states of the base inside it.

    A text is pooled over its tokens, not over virtual ones; narrower outputs are filled up with -inf.
    """

    pooling: Pooling

    def install(self, model: nn.Module, dispatch: Callable[[], RowDispatch | None]) -> Sequence[RemovableHandle]:
        """Register hooks that note the base's hidden states and replace the logits of the active rows."""
        hidden = torch.empty(0)
        vocabulary = vocabulary_size(model)

        def keep_hidden(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            nonlocal hidden
            hidden = output[0]

        def answer(_: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any], output: Any) -> None:
            nonlocal hidden
            states, hidden = hidden, torch.empty(0)  # the states are not kept until the next batch
            now = dispatch()
            if now is not None:
                mask = inputs["attention_mask"] * (inputs["input_ids"] < vocabulary)
                output.logits = concatenate_padded(
                    [
                        output.logits[rows].float()
                        if head is None
                        else head(head_input(states[rows], mask[rows], self.pooling))
                        for rows, head in now.parts
                    ]
                )

        return [
            cast(Any, model).base_model.register_forward_hook(keep_hidden),
            model.register_forward_hook(answer, with_kwargs=True),
        ]


def concatenate_padded(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Concatenate along the batch, the last dimension filled up with -inf to the widest part."""
    width = max(part.shape[-1] for part in parts)
    parts = [F.pad(p, (0, width - p.shape[-1]), value=UNUSED_LABEL) if p.shape[-1] < width else p for p in parts]
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def head_paths(base: LoadedBase) -> tuple[str, ...]:
    """Return the modules that make the task head: everything with tensors outside the base, and what the checkpoint
    lacks.

    Tensors that a checkpoint lacks are initialized randomly on load, so an adapter must bring its own (a BERT pooler,
    for example).
    """
    outside = [
        name
        for name, child in base.model.named_children()
        if name != base.prefix and any(True for _ in child.parameters())
    ]
    inside = {name.rpartition(".")[0] for name in base.untrained}
    return (*sorted(path for path in inside if path.split(".")[0] not in outside), *outside)


def reads_trained(base: LoadedBase) -> bool:
    """Tell whether the model's head lacks nothing but its last layer, if that: what it reads is then trained."""
    linears = [
        f"{path}.{name}".rstrip(".")
        for path in head_paths(base)
        for name, module in base.model.get_submodule(path).named_modules()
        if isinstance(module, nn.Linear)
    ]
    return {name.rpartition(".")[0] for name in base.untrained} <= set(linears[-1:])


def new_head(base: LoadedBase, num_labels: int, pooling: HeadPooling) -> dict[str, nn.Module]:
    """Return a fresh float32 head: one linear on pooled states, or copies of the base's head modules, by path.

    These copies have the base's values where the number of labels is the same, else a new last layer (normal, with the
    config's initializer_range, 0.02 where it has none). Raises ConfigError where states cannot be pooled.
    """
    if pooling != "model":
        if not base.prefix or cast(Any, base.model).config.is_encoder_decoder:
            raise ConfigError(
                say(
                    "{model} has no hidden states that a head of ours can pool; set task.pooling to model",
                    model=base.reference,
                )
            )
        return {POOLED_HEAD: _linear(base, num_labels)}
    head = {path: copy_of(base.model.get_submodule(path)) for path in head_paths(base)}
    old = cast(int, cast(Any, base.model).config.num_labels)
    if num_labels != old:
        _resize(head, old, num_labels, _initial_std(base))
    return head


def _linear(base: LoadedBase, num_labels: int) -> nn.Linear:
    linear = nn.Linear(cast(Any, base.model).config.hidden_size, num_labels)
    nn.init.normal_(linear.weight, std=_initial_std(base))
    nn.init.zeros_(linear.bias)
    return linear


def _initial_std(base: LoadedBase) -> float:
    return float(cast(Any, base.model).config.to_dict().get("initializer_range", 0.02))


def stored_head(base: LoadedBase, tensors: dict[str, torch.Tensor], pooling: HeadPooling) -> dict[str, nn.Module]:
    """Return a head from the tensors an adapter brings, `<module path>.<parameter>`; AdapterFileError where they do not
    fit.
    """
    originals: dict[str, nn.Module] = {POOLED_HEAD: _linear(base, 1)}
    if pooling == "model":
        order = [path for path, _ in base.model.named_modules()]
        owners = sorted(_owners(base.model, tensors), key=order.index)
        originals = {path: base.model.get_submodule(path) for path in owners}
    head: dict[str, nn.Module] = {}
    for path, original in originals.items():
        own = {name.removeprefix(f"{path}."): value for name, value in tensors.items() if _belongs(name, path)}
        expected = _expected_shapes(original, own)
        got = {name: tuple(value.shape) for name, value in own.items()}
        if expected != got:
            raise AdapterFileError(
                say(
                    "the head does not fit this base: it brings {got}, the base takes {expected}",
                    got=got,
                    expected=expected,
                )
            )
        for name, value in own.items():
            if not torch.isfinite(value).all():
                raise AdapterFileError(
                    say("tensor {name} holds values that are not finite numbers", name=f"{path}.{name}")
                )
        head[path] = module = copy_of(original)
        _fit_last_linear(module, own)
        module.load_state_dict({name: value.float() for name, value in own.items()})
    return head


def last_linear(head: dict[str, nn.Module]) -> nn.Linear:
    """Return the layer that gives the logits; its outputs are the labels."""
    return [m for module in head.values() for m in module.modules() if isinstance(m, nn.Linear)][-1]


def grown(head: dict[str, nn.Module], outputs: int, std: float) -> dict[str, nn.Module]:
    """Return a trainable copy of a head with more outputs, whose rows are drawn from a normal distribution."""
    found = {path: copy_of(module) for path, module in head.items()}
    last = last_linear(found)
    more = outputs - last.out_features
    last.out_features = outputs
    last.weight = nn.Parameter(torch.cat([last.weight.data, torch.randn(more, last.in_features) * std]))
    if last.bias is not None:
        last.bias = nn.Parameter(torch.cat([last.bias.data, torch.zeros(more)]))
    return found


def placements_of(head: dict[str, nn.Module], pooling: HeadPooling) -> dict[str, Placement]:
    """Return the placements of a head's modules."""
    if pooling != "model":
        return {path: Placement(PooledOutput(pooling), module) for path, module in head.items()}
    return {path: Placement(ModuleOutput(path, last=path == list(head)[-1]), module) for path, module in head.items()}


def copy_of(module: nn.Module) -> nn.Module:
    """Return a trainable float32 copy without the hooks of the original."""
    fresh = copy.deepcopy(module)
    for part in fresh.modules():
        forget_forward_hooks(part)
    return fresh.float().requires_grad_(True)


def _owners(model: nn.Module, tensors: dict[str, torch.Tensor]) -> list[str]:
    """Return the top-most modules that own the tensors: a child of the model, or the owner itself when inside the
    base.
    """
    prefix = cast(Any, model).base_model_prefix
    paths: list[str] = []
    for name in tensors:
        owner = name.rpartition(".")[0]
        path = owner if name.startswith(f"{prefix}.") else name.split(".")[0]
        try:
            model.get_submodule(path)
        except AttributeError:
            raise AdapterFileError(
                say(
                    "the adapter brings a head tensor {name!r}, but this model has no module {path!r} (it has: "
                    "{known})",
                    name=name,
                    path=path,
                    known=listing(child for child, _ in model.named_children()),
                )
            ) from None
        if path not in paths:
            paths.append(path)
    return paths


def _belongs(tensor: str, path: str) -> bool:
    """Tell whether a stored tensor is one of a module's; all are the pooled head's, so that none is left over."""
    return path == POOLED_HEAD or tensor.startswith(f"{path}.")


def _expected_shapes(module: nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes that a head's tensors must have to take the place of a module; nothing is copied."""
    expected = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    for name, linear, outputs in _resized(module, tensors):
        expected[f"{name}.weight".lstrip(".")] = (outputs, linear.in_features)
        if linear.bias is not None:
            expected[f"{name}.bias".lstrip(".")] = (outputs,)
    return expected


def _fit_last_linear(module: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Give every linear of a head copy the number of outputs that its stored weight has."""
    for _, linear, outputs in _resized(module, tensors):
        linear.out_features = outputs
        linear.weight = nn.Parameter(torch.empty(outputs, linear.in_features))
        if linear.bias is not None:
            linear.bias = nn.Parameter(torch.empty(outputs))


def _resized(module: nn.Module, tensors: dict[str, torch.Tensor]) -> list[tuple[str, nn.Linear, int]]:
    """Return the linear layers whose stored weight has another number of outputs, with that number."""
    found = []
    for name, linear in module.named_modules():
        weight = tensors.get(f"{name}.weight".lstrip("."))
        if isinstance(linear, nn.Linear) and weight is not None and weight.dim() == 2:
            outputs = weight.shape[0]
            if outputs != linear.out_features and weight.shape[1] == linear.in_features:
                found.append((name, linear, outputs))
    return found


def _resize(head: dict[str, nn.Module], old: int, new: int, std: float) -> None:
    last = last_linear(head)
    assert last.out_features == old
    last.out_features = new
    last.weight = nn.Parameter(torch.randn(new, last.in_features) * std)
    if last.bias is not None:
        last.bias = nn.Parameter(torch.zeros(new))
