"""A stored question with its answer: a loaded adapter that answers otherwise is not the one that was saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from tunedeck.core.errors import AdapterFileError
from tunedeck.core.i18n import say
from tunedeck.deck.adapter import Adapter
from tunedeck.deck.forward import answer_name
from tunedeck.formats.probe import PROBE_TEXT, Probe, check_probe_values, probe_values
from tunedeck.methods.packed_embedding import vocabulary_size
from tunedeck.models.load import LoadedBase

Run: TypeAlias = Callable[[torch.Tensor], Any]
"""Token ids (1, seq) to the model's output by the adapter."""


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
    return Probe(input_ids=ids, output=_answer(base, adapter, run, ids), precision=_precision(base))


def check_probe(base: LoadedBase, adapter: Adapter, run: Run) -> bool:
    """Ask an adapter's stored question again; False when it brings none.

    Raises AdapterFileError when the answer differs by more than the precisions of then and now explain.
    """
    probe = adapter.manifest.probe
    if probe is None:
        return False
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
    seen = _answer(base, adapter, run, probe.input_ids)
    check_probe_values(
        seen, probe.output, say("adapter {name!r}", name=adapter.name), probe.precision, _precision(base)
    )
    return True


def _answer(base: LoadedBase, adapter: Adapter, run: Run, ids: list[int]) -> list[float]:
    """Return values of the last position's logits, of a classifier's logits, or of a hidden state."""
    trains = adapter.training
    with torch.inference_mode():
        adapter.eval()
        output = run(torch.tensor([ids], device=next(base.model.parameters()).device))
        adapter.train(trains)
    values = output[answer_name(output)][0].float()
    last = values[-1] if values.dim() == 2 else values
    return probe_values(last.cpu().numpy())


def _precision(base: LoadedBase) -> str:
    """Return the base's precision; a quantized base rounds like bfloat16 or worse."""
    return "packed" if base.quantize else str(base.dtype).removeprefix("torch.")
