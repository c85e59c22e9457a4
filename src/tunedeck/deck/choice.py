"""Choose an adapter for a text: the one whose training texts are nearest in the frozen base's vectors.

A vector is the mean of the base's last hidden states over the first tokens of a text, scaled to length 1. An adapter
keeps the means of a few groups of its training texts' vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from tunedeck.core.errors import ConfigError, ModelError, NoNearAdapterError
from tunedeck.core.i18n import say
from tunedeck.data.batches import batches_by_length
from tunedeck.deck.forward import position_limit
from tunedeck.formats.centroids import Centroids
from tunedeck.methods.routing import Router
from tunedeck.models.load import LoadedBase

AUTO = "auto"
"""Stands for the adapter that is chosen."""
TOKENS = 64
"""How much of a text is read."""
MOST_TEXTS, SHARE = 256, 10
"""Training texts that an adapter's centroids are made from: one in SHARE, but no more than the first number."""
FEWEST_TEXTS = 64
GROUPS, TEXTS_A_GROUP = 8, 8
ROUNDS = 10
NEAR = 0.95
"""Share of training texts, left out when the centroids were made, that are near to them."""
TEMPERATURE = 0.06
"""Cosines are divided by this share of the adapters' mean spread, 1 - `least`, before the softmax that says how sure a
choice is: bases differ in how close together their cosines are. Fitted with bench/choose_adapter.py.
"""
SMALLEST_SPREAD = 1e-3
_BATCH = 32
_CHARACTERS = 16 * TOKENS


@dataclass(frozen=True, slots=True)
class Choice:
    """The adapter that is chosen for a text."""

    adapter: str
    near: bool
    """Whether the text is no further from the adapter's centroids than almost all of its training texts."""
    similarity: float
    """The cosine to the nearest centroid."""
    certainty: float
    """About the probability that the choice among all adapters is right, from 0 to 1."""


def text_vectors(base: LoadedBase, router: Router, contents: Sequence[Any]) -> torch.Tensor:
    """Return vectors (texts, hidden), float32, on the CPU, of the frozen base; of a chat, of its last user's turn."""
    if base.tokenizer is None:
        raise ModelError(say("{model} has no tokenizer, so no adapter can be chosen", model=base.reference))
    model: Any = base.model
    body = model.get_submodule(base.prefix)
    tokens = min(TOKENS, position_limit(model) or TOKENS)
    encoded = [ids[:tokens] for ids in _token_ids(base.tokenizer, [text_of(one)[:_CHARACTERS] for one in contents])]
    found: dict[int, torch.Tensor] = {}
    for rows in batches_by_length([len(ids) for ids in encoded], _BATCH):
        ids, mask = _padded([encoded[row] for row in rows], model.device)
        with torch.inference_mode(), router.routed(()):
            output = body(input_ids=ids, attention_mask=mask)
            states = (output if isinstance(output, torch.Tensor) else output[0]).float()  # a model's code
        means = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        found.update(zip(rows, F.normalize(means, dim=-1).cpu(), strict=True))
    return torch.stack([found[row] for row in range(len(encoded))])


def _token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return token ids of each text, at least one; a tokenizer that other threads use is not changed."""
    if not tokenizer.is_fast:
        found = tokenizer(list(texts), return_attention_mask=False)["input_ids"]
    else:  # its file may ask for padding
        encodings = tokenizer.backend_tokenizer.encode_batch_fast(list(texts))
        found = [[i for i, kept in zip(one.ids, one.attention_mask, strict=True) if kept] for one in encodings]
    return [ids or [0] for ids in found]


def text_of(content: Any) -> str:
    """Return what an input is about: a text itself, or the last user's turn of a chat; ConfigError for token ids."""
    if isinstance(content, str):
        return content
    turns = [one.get("content") for one in content if isinstance(one, Mapping) and one.get("role") == "user"]
    if not turns or not isinstance(turns[-1], str):
        raise ConfigError(say("an adapter is chosen by a text; name the adapter for token ids and other inputs"))
    return turns[-1]


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids, mask = (torch.zeros((len(rows), width), dtype=torch.long) for _ in range(2))
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[index, : len(row)] = 1
    return ids.to(device), mask.to(device)


def sample_size(examples: int) -> int:
    """Return how many of an adapter's training texts its centroids are made from."""
    return min(examples, max(FEWEST_TEXTS, min(MOST_TEXTS, examples // SHARE)))


def fit_centroids(vectors: torch.Tensor) -> Centroids:
    """Return the centroids of vectors (texts, size), and the cosine that NEAR of the texts reach with those of the
    others.
    """
    halves = vectors[::2], vectors[1::2]
    left_out = [_nearest(own, _means(other)) for own, other in (halves, halves[::-1]) if len(own) and len(other)]
    cosines = torch.cat(left_out) if left_out else torch.ones(1)
    return Centroids.of(_means(vectors).numpy(), float(cosines.quantile(1 - NEAR).clamp(-1, 1)))


def _means(vectors: torch.Tensor) -> torch.Tensor:
    """Return the means of groups, of length 1, by k-means on the sphere."""
    count = max(1, min(GROUPS, len(vectors) // TEXTS_A_GROUP))
    means = vectors[torch.linspace(0, len(vectors) - 1, count).long()].clone()
    for _ in range(ROUNDS):
        nearest = (vectors @ means.T).argmax(1)
        for group in set(nearest.tolist()):
            means[group] = F.normalize(vectors[nearest == group].mean(0), dim=0)
    return means


def _nearest(vectors: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    return (vectors @ means.T).amax(1)


def choose(vectors: torch.Tensor, known: Mapping[str, Centroids]) -> list[Choice]:
    """Return the nearest adapter to each vector (texts, size), if there is one that it is near to, among those.

    NoNearAdapterError where there is nothing to choose from.
    """
    if not known:
        raise NoNearAdapterError(
            say("no adapter can be chosen: none of them keeps the centroids of its training texts; name one")
        )
    names = list(known)
    cosines = torch.stack([_nearest(vectors, torch.from_numpy(one.array)) for one in known.values()], dim=1)
    least = torch.tensor([one.least for one in known.values()])
    spread = (1 - least).mean().clamp(min=SMALLEST_SPREAD)
    sure = (cosines / (TEMPERATURE * spread)).softmax(1)
    near = cosines >= least
    best = cosines.where(near | ~near.any(1, keepdim=True), -2.0).argmax(1).tolist()
    return [
        Choice(names[column], bool(near[row, column]), float(cosines[row, column]), float(sure[row, column]))
        for row, column in enumerate(best)
    ]


def chosen_names(choices: Sequence[Choice], contents: Sequence[Any]) -> list[str]:
    """Return the adapter chosen for each content; NoNearAdapterError for one that is near to none."""
    for choice, content in zip(choices, contents, strict=True):
        if not choice.near:
            raise NoNearAdapterError(
                say(
                    "no adapter is near the text {text!r}: the nearest is {name}, with a cosine of {cosine:.2f}; "
                    "name an adapter",
                    text=text_of(content)[:80],
                    name=choice.adapter,
                    cosine=choice.similarity,
                )
            )
    return [choice.adapter for choice in choices]
