"""Probe inputs, and how far an export's answers to them are from the deck's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch

from tunedeck.core.errors import AdapterError
from tunedeck.core.i18n import say
from tunedeck.deck.deck import Deck
from tunedeck.methods.packed_embedding import vocabulary_size

Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Token ids and mask, each (batch, seq), padded on the right."""
SHAPES = ((1, 4), (1, 33), (2, 9), (5, 17), (8, 64))
"""Rows and tokens of the probe batches."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two sides' answers to the same inputs are apart."""

    max_abs: float
    scale: float
    """Largest absolute output, at least 1: the scale for `max_abs`."""
    same: float
    """Share of outputs with the same largest entry, 0 to 1: the same label, or the same next token."""
    answers: int

    def check(self, bound: float, what: str) -> None:
        """Raise AdapterError when `max_abs` is above `bound` times `scale`."""
        if not self.max_abs <= bound * self.scale:
            raise AdapterError(
                say(
                    "{what} does not answer as the adapter in the deck does: they differ by {seen:.2g} where "
                    "{allowed:.2g} is "
                    "allowed (largest answer {scale:.3g}); nothing was written",
                    what=what,
                    seen=self.max_abs,
                    allowed=bound * self.scale,
                    scale=self.scale,
                )
            )


def probe_batches(deck: Deck, name: str, seed: int = 0) -> list[Batch]:
    """Return batches of several sizes and lengths of random tokens, every row but the first shorter, within the model's
    positions.
    """
    generator = torch.Generator().manual_seed(seed)
    vocabulary, padding = vocabulary_size(deck.model), deck.model.config.pad_token_id
    room = deck.text_limit(name)
    batches = []
    for rows, length in SHAPES:
        length = min(length, room)
        ids = torch.randint(vocabulary - 1, (rows, length), generator=generator)
        ids += ids >= padding
        lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
        lengths[0] = length
        mask = (torch.arange(length) < lengths).long()
        device = next(deck.model.parameters()).device
        batches.append((ids.where(mask.bool(), padding).to(device), mask.to(device)))
    return batches


def compare(left: list[torch.Tensor], right: list[torch.Tensor], masks: list[torch.Tensor]) -> Difference:
    """Return the difference of two sides' answers, batch by batch, (batch, labels) or (batch, seq, vocab); padding is
    left out.
    """
    kept = [
        (a[mask.bool()], b[mask.bool()]) if a.dim() == 3 else (a, b)
        for a, b, mask in zip(left, right, masks, strict=True)
    ]
    pairs = [(a.float().cpu(), b.float().cpu()) for a, b in kept]
    same = torch.cat([a.argmax(-1) == b.argmax(-1) for a, b in pairs])
    return Difference(
        max_abs=max((a - b).abs().max().item() for a, b in pairs),
        scale=max(1.0, *(a.abs().max().item() for a, _ in pairs)),
        same=same.float().mean().item(),
        answers=len(same),
    )
