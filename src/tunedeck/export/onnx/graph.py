"""An adapter and its base as one ONNX graph: token ids and mask in, logits or vectors out, any batch and any length."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast, final

import torch
from torch import nn

from tunedeck.core.checks import require
from tunedeck.core.errors import AdapterError, ConfigError, ModelError, UnsupportedKindError
from tunedeck.core.i18n import listing, say
from tunedeck.deck.deck import Deck
from tunedeck.deck.forward import answer_name
from tunedeck.deck.task import Task
from tunedeck.export.transformers_folder import tokenizer_of
from tunedeck.methods.packed_embedding import unpacked, vocabulary_size
from tunedeck.tasks.base import OnnxView
from tunedeck.tasks.registry import view_of
from tunedeck.tasks.text import has_token_types
from tunedeck.tasks.text_head import reads_pairs

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUTS = ("input_ids", "attention_mask")
TYPES = "token_type_ids"
"""One more input, for pairs of texts on a base that has types of tokens."""
OPSETS = range(18, 24)
"""torch's exporter writes 18 and converts upwards; ONNX Runtime 1.32 reads up to 23 on a CPU."""


@final
class Graph(nn.Module):
    """ids, mask and, for pairs, token types (batch, seq) to logits (batch, labels) or vectors (batch, hidden), float32;
    virtual tokens are put in front.

    `run` is the model's call, `parts` the modules whose tensors it uses, and `output` turns the model's answer without
    virtual positions and the mask into the graph's output.
    """

    def __init__(
        self,
        run: Callable[[Mapping[str, torch.Tensor]], Any],
        parts: Sequence[nn.Module],
        virtual: torch.Tensor,
        output: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.register_buffer("virtual", virtual)
        self._run, self._output = run, output

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the adapter's answer to a batch padded on the right."""
        virtual = cast(torch.Tensor, self.virtual)
        count, ids, mask = len(virtual), input_ids, attention_mask
        if count:
            front = virtual.expand(ids.shape[0], count)
            ids = torch.cat([front, ids], dim=1)
            mask = torch.cat([torch.ones_like(front), mask], dim=1)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if token_type_ids is not None:
            own = [torch.zeros_like(front), token_type_ids] if count else [token_type_ids]
            inputs[TYPES] = torch.cat(own, dim=1)
        output = self._run(inputs)
        answer: torch.Tensor = output[answer_name(output)]
        return self._output(answer[:, count:] if answer.dim() == 3 else answer, attention_mask)


def graph_of(deck: Deck, name: str, *, merge: bool) -> Graph:
    """Return the graph of one adapter; with `merge` its weights are added to the base's first (UnsupportedKindError
    where they cannot).
    """
    adapter = deck.adapter(name)
    output = partial(onnx_view(deck).output, adapter.task)
    vocabulary = vocabulary_size(deck.model)
    virtual = torch.arange(
        vocabulary, vocabulary + deck.virtual_tokens(name), device=next(deck.model.parameters()).device
    )
    if merge:
        model = deck.merge(name)
        return Graph(lambda inputs: model(**inputs), [model, *adapter.head.values()], virtual, output).eval()
    return Graph(lambda inputs: deck.call([name], inputs), [deck.model, adapter], virtual, output).eval()


def check_exportable(deck: Deck, names: Sequence[str]) -> None:
    """Raise where ONNX is not possible.

    That is without the packages, for a task without such a form, for a base that is packed or not in float32, and
    without a tokenizer that the runner can read.
    """
    needs_packages()
    onnx_view(deck)
    for name in names:
        if deck.adapter(name).built.prefix is not None:
            raise UnsupportedKindError(
                say(
                    "{name!r} is a {kind} adapter, whose keys and values have no place in a graph; serve it with "
                    "tunedeck serve, or train lora",
                    name=name,
                    kind=deck.adapter(name).config.kind,
                )
            )
    if deck.base.quantize is not None or deck.base.dtype != torch.float32:
        raise AdapterError(
            say(
                "the graph is taken in float32, this deck is in {dtype}; load it with dtype='float32' and "
                "without quantize, and ask "
                "for int8=True to make it smaller",
                dtype=deck.base.quantize or str(deck.base.dtype).removeprefix("torch."),
            )
        )
    if not tokenizer_of(deck).is_fast:
        raise ModelError(
            say(
                "{model} has no tokenizer.json form of its tokenizer, which the runner needs", model=deck.base.reference
            )
        )


def onnx_view(deck: Deck) -> OnnxView:
    """Return how a deck's task becomes a graph; UnsupportedKindError for a task that does not."""
    return onnx_form(deck.task, deck.adapters)


def onnx_form(task: Task, adapters: Sequence[str]) -> OnnxView:
    """Return how a task becomes a graph; UnsupportedKindError, which names the adapters, for a task that does not."""
    view = view_of(task).onnx
    if view is not None:
        return view
    if "text" in task.capabilities:
        raise UnsupportedKindError(
            say(
                "ONNX export is for labels, entities, scores and vectors; for {names}, which generates text, use "
                "tunedeck export merge, gguf-lora or vllm",
                names=listing(adapters),
            )
        )
    raise UnsupportedKindError(say("the task {kind} has no ONNX form; use tunedeck export merge", kind=task.kind))


def needs_packages() -> None:
    """Raise ConfigError when a package that exports or runs ONNX is missing."""
    require("ONNX", PACKAGES, "'tunedeck[export]'")


def trace(
    module: nn.Module, inputs: Mapping[str, Any], shapes: Mapping[str, Any], names: Sequence[str], opset: int | None
) -> Any:
    """Return torch's ONNXProgram of a module called with keyword `inputs`; `shapes` names the dimensions that vary.

    `names` are the graph's inputs in order. Raises ConfigError for an opset out of range, ModelError when torch cannot
    trace the model.
    """
    if opset is not None and opset not in OPSETS:
        raise ConfigError(
            say("opset must be from {low} to {high}, got {value}", low=OPSETS[0], high=OPSETS[-1], value=opset)
        )
    try:
        with quiet(), torch.no_grad(), unpacked(module):
            return torch.onnx.export(
                module,
                kwargs=dict(inputs),
                dynamo=True,
                dynamic_shapes=dict(shapes),
                input_names=list(names),
                output_names=["answer"],
                opset_version=opset,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().split("\n")[0]
        raise ModelError(
            say("torch cannot turn this model into an ONNX graph: {reason}; use tunedeck export merge", reason=reason)
        ) from error


def example_inputs(deck: Deck, names: Sequence[str]) -> tuple[dict[str, torch.Tensor], dict[str, dict[int, str]]]:
    """Return a batch to trace with for some adapters, and which of its dimensions vary."""
    ids = torch.full((2, 7), 5, device=next(deck.model.parameters()).device)
    varying = {0: "batch", 1: "length"}
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if has_token_types(deck) and any(reads_pairs(deck.adapter(name).task) for name in names):
        inputs[TYPES] = torch.zeros_like(ids)
    return inputs, dict.fromkeys(inputs, varying)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the remarks of the exporter and the quantizer, which the user cannot act on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
