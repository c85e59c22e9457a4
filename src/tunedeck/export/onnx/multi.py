"""One ONNX graph of the base that takes LoRA matrices and a head as inputs, and a small file of them for each adapter.

ONNX Runtime fills the inputs from the adapter that a run names. Ranks and numbers of labels are dimensions that vary,
and every input has a default of rank 0, without which Python's session asks for the tensors before it looks at the
adapter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import nn
from torch.func import functional_call

from tunedeck.core.errors import AdapterError, ConfigError, UnsupportedKindError
from tunedeck.core.i18n import say
from tunedeck.core.storage import replacing_folder
from tunedeck.deck.adapter import Adapter
from tunedeck.deck.deck import Deck
from tunedeck.deck.heads import last_linear
from tunedeck.deck.task import has_labels
from tunedeck.export.onnx.folder import FLOAT32, INT8, distance, verify, write_beside, write_probes
from tunedeck.export.onnx.graph import check_exportable, example_inputs, graph_of, onnx_view, trace
from tunedeck.export.onnx.int8 import write_int8
from tunedeck.export.probe import Difference
from tunedeck.export.transformers_folder import empty_place
from tunedeck.formats.low_rank import kind_name, low_rank
from tunedeck.formats.onnx.settings import ADAPTERS, adapter_file
from tunedeck.methods.registry import config_of

if TYPE_CHECKING:
    import numpy

_SLOT = "(slot)"
_EXAMPLE_RANK, _EXAMPLE_LABELS = 3, ("0", "1", "2", "3")


@dataclass(frozen=True, slots=True)
class MultiExport:
    """How far each adapter's answers are from the deck's, and bytes of the files."""

    differences: dict[str, Difference]
    float32_bytes: int
    adapter_bytes: dict[str, int]
    int8: dict[str, Difference] | None
    """The int8 graph against the float32 one."""
    int8_bytes: int | None


@final
class _Inputs(nn.Module):
    """A graph whose adapter tensors are inputs: `tensors` by the names in the adapter files."""

    def __init__(self, graph: nn.Module, owned: dict[str, str]) -> None:
        super().__init__()
        self.way, self._owned = graph, owned

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        *,
        tensors: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        own = {self._owned[name]: tensor for name, tensor in tensors.items()}
        answer: torch.Tensor = functional_call(self.way, own, (input_ids, attention_mask, token_type_ids))
        return answer


def save_onnx_multi(
    deck: Deck, names: Sequence[str], folder: str | Path, *, int8: bool = False, opset: int | None = None
) -> MultiExport:
    """Write one graph, adapters/NAME.onnx_adapter for each adapter, tokenizer.json, settings.json and run.py.

    LoRA of any rank and target, and head-only adapters, each with its labels. Every adapter must answer probe inputs as
    the deck does. Raises UnsupportedKindError for other kinds, else what save_onnx raises.
    """
    from tunedeck.formats.onnx.runner import Runner

    target = empty_place(folder)
    check_exportable(deck, names)
    _check_sharable(deck, names)
    with _slot(deck, names) as slot, replacing_folder(target) as staging:
        _write_graph(deck, names, slot, staging / FLOAT32, opset)
        if (
            int8
        ):  # before the defaults: the quantizer would turn a head it takes for a constant, and give it another name
            write_int8(staging / FLOAT32, staging / INT8)
        files = {"float32": FLOAT32, "int8": INT8} if int8 else {"float32": FLOAT32}
        for file in files.values():
            _add_defaults(slot, staging / file)
        version = int.from_bytes(hashlib.sha256((staging / FLOAT32).read_bytes()).digest()[:4], "big") >> 1
        (staging / ADAPTERS).mkdir()
        for name in names:
            _write_adapter(_tensors_of(deck, name, slot), staging / adapter_file(name), version)
        write_beside(staging, deck, names, files, version)
        runner = Runner(staging)
        differences = {name: verify(deck, name, runner) for name in names}
        small = Runner(staging, "int8") if int8 else None
        write_probes(staging, names, {"float32": runner} | ({"int8": small} if small else {}))
        return MultiExport(
            differences=differences,
            float32_bytes=(staging / FLOAT32).stat().st_size,
            adapter_bytes={name: (staging / adapter_file(name)).stat().st_size for name in names},
            int8={name: distance(deck, name, runner, small)[0] for name in names} if small else None,
            int8_bytes=(staging / INT8).stat().st_size if int8 else None,
        )


def _check_sharable(deck: Deck, names: Sequence[str]) -> None:
    for name in names:
        adapter = deck.adapter(name)
        if low_rank(adapter.config) is None and adapter.config.trains != "head":
            raise UnsupportedKindError(
                say(
                    "{name!r} is of the kind {kind}; only LoRA adapters and heads can share one graph. Export it "
                    "in a separate graph, without --multi-adapter",
                    name=name,
                    kind=kind_name(adapter.config),
                )
            )
        if Path(name).name != name:
            raise AdapterError(say("{name!r} cannot be a file's name; load the adapter under another", name=name))
    if len({onnx_view(deck).graph_key(deck.adapter(name).task) for name in names}) > 1:
        raise ConfigError(say("these adapters pool or normalise in different ways; export each in a separate graph"))


@contextmanager
def _slot(deck: Deck, names: Sequence[str]) -> Iterator[Adapter]:
    """An adapter with a place for every tensor of any of them, in the deck while the graph is taken."""
    paths = tuple(dict.fromkeys(path for name in names for path in deck.adapter(name).built.placements))
    rank = float(_EXAMPLE_RANK)
    lora = {"r": _EXAMPLE_RANK, "lora_alpha": rank, "target_modules": paths}
    config = config_of("lora", lora) if paths else config_of("full", {"layers": "head"})
    task = deck.adapter(names[0]).task
    deck.add(_SLOT, config, labels=_EXAMPLE_LABELS if has_labels(task) else None, task=task)
    try:
        slot = deck.adapter(_SLOT)
        for name in names:
            left = set(deck.adapter(name).head) - set(slot.head)
            if left:
                raise UnsupportedKindError(
                    say(
                        "{name!r} has a trained {module}, which the other adapters share with the base; "
                        "export it in a separate graph, without --multi-adapter",
                        name=name,
                        module=sorted(left)[0],
                    )
                )
        yield slot
    finally:
        deck.remove(_SLOT)


def _inputs(slot: Adapter) -> dict[str, tuple[nn.Parameter, dict[int, str]]]:
    """Return each input's example tensor and the dimensions of it that vary, by the name it has in the graph and in the
    files.
    """
    found: dict[str, tuple[nn.Parameter, dict[int, str]]] = {}
    for number, (path, placement) in enumerate(slot.built.placements.items()):
        for axis, matrix in enumerate(("lora_A", "lora_B")):  # (rank, in) and (out, rank)
            found[f"{path}.{matrix}"] = (placement.layer.get_parameter(matrix), {axis: f"rank_{number}"})
    last = list(last_linear(slot.head).parameters()) if slot.head else []
    for path, module in slot.head.items():
        for key, parameter in module.named_parameters():
            found[f"{path}.{key}"] = (parameter, {0: "labels"} if any(parameter is p for p in last) else {})
    return found


def _write_graph(deck: Deck, adapters: Sequence[str], slot: Adapter, file: Path, opset: int | None) -> None:
    graph, inputs = graph_of(deck, slot.name, merge=False), _inputs(slot)
    names = {id(parameter): name for name, parameter in graph.named_parameters()}
    batch, shapes = example_inputs(deck, adapters)
    tensors = {name: parameter.detach().clone() for name, (parameter, _) in inputs.items()}
    program = trace(
        _Inputs(graph, {name: names[id(parameter)] for name, (parameter, _) in inputs.items()}).eval(),
        {**batch, "tensors": tensors},
        {**shapes, "tensors": {name: varying for name, (_, varying) in inputs.items()}},
        (*batch, *inputs),
        opset,
    )
    program.save(file)


def _add_defaults(slot: Adapter, file: Path) -> None:
    """Give every adapter input a default: rank 0, no labels, the base's values where the head is not the last
    layer.
    """
    import onnx_ir

    model = onnx_ir.load(file)
    inputs = _inputs(slot)
    for value in model.graph.inputs:
        if value.name in inputs:
            parameter, varying = inputs[value.name]
            shape = [0 if axis in varying else size for axis, size in enumerate(parameter.shape)]
            default = parameter.detach().new_zeros(shape) if varying else parameter.detach()
            value.const_value = onnx_ir.tensor(default.cpu().numpy(), name=value.name)
            model.graph.register_initializer(value)
    onnx_ir.save(model, file)


def _tensors_of(deck: Deck, name: str, slot: Adapter) -> dict[str, numpy.ndarray[Any, Any]]:
    """Return an adapter's tensors by input, B with the scaling in it; the base's head where the adapter brings
    none.
    """
    adapter = deck.adapter(name)
    found = {
        f"{path}.{key}": deck.model.get_submodule(path).get_parameter(key).detach()
        for path, module in slot.head.items()
        if path not in adapter.head
        for key, _ in module.named_parameters()
    }
    found |= adapter.head_tensors()
    found |= adapter.tensors()
    if (lora := low_rank(adapter.config)) is not None:
        for path in adapter.built.placements:
            found[f"{path}.lora_B"] = found[f"{path}.lora_B"] * lora.scaling(path)
    return {name: tensor.cpu().contiguous().numpy() for name, tensor in found.items()}


def _write_adapter(tensors: dict[str, numpy.ndarray[Any, Any]], file: Path, version: int) -> None:
    from onnxruntime import AdapterFormat, OrtValue

    content = AdapterFormat()
    content.set_adapter_version(1)
    content.set_model_version(version)
    content.set_parameters({name: OrtValue.ortvalue_from_numpy(tensor) for name, tensor in tensors.items()})
    content.export_adapter(str(file))
