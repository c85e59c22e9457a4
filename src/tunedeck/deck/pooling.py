"""Pooling: one vector for each text from its last hidden states."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from tunedeck.core.pooling import Pooling


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Return (rows, hidden), float32, from the last hidden states (rows, seq, hidden) and their mask (rows, seq).

    Padding may be on either side. A text is pooled over its tokens: virtual tokens are not among the states, or
    are 0 in the mask, and the first position is the text's own (docs/guides/embeddings.md says why).
    """
    if pooling == "mean":
        weights = mask.unsqueeze(-1).float()
        return (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
    places = torch.arange(mask.shape[1], device=mask.device)
    place = mask.argmax(dim=1) if pooling == "first" else (mask * places).argmax(dim=1)
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), place].float()


def head_input(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Return pooled states (rows, hidden), float32, scaled to a mean square of 1: what a head reads is of the same size
    on any base.
    """
    return F.normalize(pool(hidden, mask, pooling), dim=-1) * math.sqrt(hidden.shape[-1])
