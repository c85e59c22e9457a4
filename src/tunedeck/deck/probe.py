"""A stored question with its answer: a loaded adapter that answers otherwise is not the one that was saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

import torch

from tunedeck.core.errors import AdapterFileError
from tunedeck.core.i18n import say
from tunedeck.deck.adapter import Adapter
from tunedeck.deck.forward import answer_name
from tunedeck.formats.probe import PROBE_TEXT, Probe, check_probe_values, probe_values
from tunedeck.methods.packed_embedding import vocabulary_size
from tunedeck.models.load import LoadedBase

Run: TypeAlias = Callable[[torch.Tensor], Any]
"""Token ids (adapters, seq) to the model's output, each row by its adapter."""


class RunRows(Protocol):
    """Answer each row of token ids (rows, seq) by the adapter of its name."""

    def __call__(self, ids: torch.Tensor, /, names: Sequence[str]) -> Any:
        """Return the model's output."""
        ...


def take_probe(base: LoadedBase, adapter: Adapter, run: Run, positions: int | None) -> Probe | None:
    """Return the adapter's answer to a short text.

    None for a base without a tokenizer or without room for any text, and for one sharded over processes, which only all
    of them can run.
    """
    if base.tokenizer is None or any(type(parameter).__name__ == "DTensor" for parameter in base.model.parameters()):
        return None
    ids = base.tokenizer(PROBE_TEXT)["input_ids"]
    if positions is not None and len(ids) + adapter.built.positions_before > positions:
        return None
    return Probe(input_ids=ids, output=_answers(base, [adapter], run, [ids])[0], precision=_precision(base))


def check_probes(base: LoadedBase, adapters: Sequence[Adapter], run: RunRows) -> list[bool]:
    """Ask the stored questions of adapters again, those of one length in one batch; False for each that brings none.

    Raises AdapterFileError for one whose answer differs by more than the precisions of then and now explain.
    """
    alike: dict[int, list[tuple[Adapter, Probe]]] = {}
    for adapter in adapters:
        if (probe := adapter.manifest.probe) is not None:
            _check_ids(base, adapter, probe)
            alike.setdefault(len(probe.input_ids), []).append((adapter, probe))
    for asked in alike.values():
        together = [adapter for adapter, _ in asked]
        answers = partial(run, names=[adapter.name for adapter in together])
        seen = _answers(base, together, answers, [probe.input_ids for _, probe in asked])
        for (adapter, probe), values in zip(asked, seen, strict=True):
            name = say("adapter {name!r}", name=adapter.name)
            check_probe_values(values, probe.output, name, probe.precision, _precision(base))
    return [adapter.manifest.probe is not None for adapter in adapters]


def _check_ids(base: LoadedBase, adapter: Adapter, probe: Probe) -> None:
    model: Any = base.model
    vocabulary = vocabulary_size(model)
    strange = [token for token in probe.input_ids if not 0 <= token < vocabulary]
    if strange:
        raise AdapterFileError(
            say(
                "the stored probe of adapter {name!r} has the token id {token}, this base has 0 to {last}; "
                "save it again",
                name=adapter.name,
                token=strange[0],
                last=vocabulary - 1,
            )
        )


def _answers(base: LoadedBase, adapters: Sequence[Adapter], run: Run, ids: list[list[int]]) -> list[list[float]]:
    """Return values of the last position's logits, of a classifier's logits, or of a hidden state, by each adapter."""
    trains = [adapter.training for adapter in adapters]
    with torch.inference_mode():
        for adapter in adapters:
            adapter.eval()
        output = run(torch.tensor(ids, device=next(base.model.parameters()).device))
        for adapter, trained in zip(adapters, trains, strict=True):
            adapter.train(trained)
    values = output[answer_name(output)].float()
    last = values[:, -1] if values.dim() == 3 else values
    own = [row[row != -torch.inf] for row in last.cpu()]  # without the labels of others in the batch
    return [probe_values(row.numpy()) for row in own]


def _precision(base: LoadedBase) -> str:
    """Return the base's precision; a quantized base rounds like bfloat16 or worse."""
    return "packed" if base.quantize else str(base.dtype).removeprefix("torch.")
