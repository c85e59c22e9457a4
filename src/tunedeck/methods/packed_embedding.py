"""A token embedding in 4 bits: 18 bytes for 32 numbers, unpacked for the tokens of a batch alone.

The blocks are GGUF's Q4_0: a scale d in float16 and 32 numbers q from 0 to 15, whose value is d · (q - 8), exact in
float32. Byte k of a block holds number k in its low half and number k + 16 in its high half.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast, final

import torch
from torch import nn
from torch.nn import functional as F

BLOCK = 32
ROWS_AT_ONCE = 16_384
"""Number of rows that are unpacked at once when the whole table is needed."""


@final
class PackedEmbedding(nn.Module):
    """codes (rows, hidden / 2) uint8 and scales (rows, hidden / 32), the bits of float16 as int16.

    The scales are kept as integers because `model.to(dtype)` would round them. `weight` is None, or a table that is put
    in for the packed one: an unpacked copy, or that of a fully fine-tuned adapter.
    """

    weight: nn.Parameter | None

    def __init__(self, codes: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = codes.shape[0], 2 * codes.shape[1]
        self.dtype = dtype
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self.register_parameter("weight", None)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Look up ids of any shape: (..., hidden), rounded to the precision as an unpacked table would be."""
        if self.weight is not None:
            return F.embedding(ids, self.weight)
        return self._unpacked(ids.reshape(-1)).reshape(*ids.shape, self.embedding_dim).to(self.dtype)

    def dense(self) -> torch.Tensor:
        """Return the whole table, (rows, hidden)."""
        table = torch.empty(self.num_embeddings, self.embedding_dim, dtype=self.dtype, device=self._codes.device)
        for start in range(0, self.num_embeddings, ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, self.num_embeddings)
            table[start:stop] = self._unpacked(torch.arange(start, stop, device=table.device))
        return table

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, hidden) of the table."""
        return self.num_embeddings, self.embedding_dim

    def numel(self) -> int:
        """Return the numbers of the table."""
        return self.num_embeddings * self.embedding_dim

    def values_at(self, places: slice) -> torch.Tensor:
        """Return single numbers by their place in the flattened table."""
        at = torch.arange(places.start, places.stop, places.step, device=self._codes.device)
        rows, columns = at // self.embedding_dim, at % self.embedding_dim
        return self._unpacked(rows).gather(1, columns[:, None]).flatten().to(self.dtype)

    @property
    def _codes(self) -> torch.Tensor:
        return cast(torch.Tensor, self.codes)

    def _unpacked(self, rows: torch.Tensor) -> torch.Tensor:
        """(rows,) to (rows, hidden), float32."""
        codes = F.embedding(rows, self._codes).reshape(len(rows), -1, BLOCK // 2)
        scales = F.embedding(rows, cast(torch.Tensor, self.scales)).view(torch.float16)
        numbers = torch.cat([codes & 15, codes >> 4], dim=-1).float()
        return ((numbers - 8) * scales.float()[..., None]).flatten(1)


def packed_embeddings(model: nn.Module) -> dict[str, PackedEmbedding]:
    """Return the packed embeddings of a model by path."""
    return {path: module for path, module in model.named_modules() if isinstance(module, PackedEmbedding)}


@contextmanager
def unpacked(model: nn.Module) -> Iterator[None]:
    """Let a model look up its tokens in an unpacked table meanwhile."""
    found = packed_embeddings(model).values()
    for module in found:
        module.weight = nn.Parameter(module.dense(), requires_grad=False)
    try:
        yield
    finally:
        for module in found:
            module.weight = None


def embedding_shape(embedding: nn.Module) -> tuple[int, int]:
    """Return (rows, hidden) of a token embedding, packed or not."""
    if isinstance(embedding, PackedEmbedding):
        return embedding.shape
    rows, hidden = cast(torch.Tensor, embedding.weight).shape
    return rows, hidden


def vocabulary_size(model: nn.Module) -> int:
    """Return the rows of a model's token embedding."""
    return embedding_shape(cast(Any, model).get_input_embeddings())[0]
