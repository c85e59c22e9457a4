"""A stored question with its answer: a loaded adapter that answers otherwise is not the one that was saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tunedeck.core.errors import AdapterFileError
from tunedeck.core.i18n import say
from tunedeck.deck.forward import answer_name
from tunedeck.formats.manifest import Probe

if TYPE_CHECKING:
    from tunedeck.deck.deck import Deck

_TEXT = "Tunedeck, 1 2 3"
_VALUES = 16
_TOLERANCE = {"float32": 2e-3, "bfloat16": 0.1, "float16": 0.02}
"""Of the largest value; the rounding of each precision through some thirty layers."""


def take_probe(deck: Deck, name: str) -> Probe | None:
    """The adapter's answer to a short text.

    None for a base without a tokenizer or without room for any text, and for one sharded over processes, which only all of them can run.
    """
    if deck.tokenizer is None or any(type(parameter).__name__ == "DTensor" for parameter in deck.model.parameters()):
        return None
    ids = deck.tokenizer(_TEXT)["input_ids"]
    if deck.positions is not None and len(ids) + deck.virtual_tokens(name) > deck.positions:
        return None
    return Probe(input_ids=ids, output=_answer(deck, name, ids), precision=_precision(deck))


def check_probe(deck: Deck, name: str) -> bool:
    """Ask an adapter's stored question again; False when it brings none.

    Raises AdapterFileError when the answer differs by more than the precisions of then and now explain.
    """
    probe = deck.adapter(name).manifest.probe
    if probe is None:
        return False
    vocabulary = deck.model.get_input_embeddings().weight.shape[0]
    strange = [token for token in probe.input_ids if not 0 <= token < vocabulary]
    if strange:
        raise AdapterFileError(
            say(
                "the stored probe of adapter {name!r} has the token id {token}, this base has 0 to {last}; save it again",
                name=name,
                token=strange[0],
                last=vocabulary - 1,
            )
        )
    got, stored = torch.tensor(_answer(deck, name, probe.input_ids)), torch.tensor(probe.output)
    allowed = max(_TOLERANCE.get(precision, 0.1) for precision in (probe.precision, _precision(deck)))
    if got.shape != stored.shape or not (got - stored).abs().max() <= allowed * stored.abs().max():
        raise AdapterFileError(
            say(
                "adapter {name!r} does not answer its stored probe as it did when it was saved "
                "(seen {got}, stored {stored}); its files have changed, or the base has: save it again",
                name=name,
                got=[round(value, 4) for value in got[:3].tolist()],
                stored=probe.output[:3],
            )
        )
    return True


def _answer(deck: Deck, name: str, ids: list[int]) -> list[float]:
    """Evenly spaced values of the last position's logits, of all logits of a classifier, or of a hidden state."""
    adapter = deck.adapter(name)
    trains = adapter.training
    with torch.inference_mode():
        adapter.eval()
        output = deck(torch.tensor([ids], device=deck.model.device), adapter=name)
        adapter.train(trains)
    values = output[answer_name(output)][0].float()
    last = values[-1] if values.dim() == 2 else values
    chosen = torch.linspace(0, len(last) - 1, min(_VALUES, len(last))).long()
    return [float(f"{value:.5g}") for value in last[chosen].tolist()]


def _precision(deck: Deck) -> str:
    """The base's precision; a packed base rounds like bfloat16 or worse."""
    return "packed" if deck.base.quantize else str(deck.base.dtype).removeprefix("torch.")
