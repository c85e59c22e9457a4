"""Keys and values of prompts that have been computed, for later prompts of the same adapter that begin alike.

A prompt is stored in blocks of tokens, each under a digest of its adapter and of all tokens up to its end, so that
prompts with a common beginning share its blocks: the scheme of vLLM's automatic prefix caching (docs.vllm.ai).
"""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import final

import torch

from tunedeck.generation.kv_cache import Tensors

BLOCK_TOKENS = 8
"""Tokens of a block; only whole blocks are stored and found."""


@final
class PromptCache:
    """At most `max_bytes` of keys and values, least recently used first to go. Any thread may call it."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._blocks: OrderedDict[tuple[str | None, bytes], Tensors] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0
        """Bytes of all blocks."""

    def __len__(self) -> int:
        return len(self._blocks)

    def matching(self, adapter: str | None, prompt_ids: Sequence[int]) -> int:
        """Return the tokens at the beginning of a prompt that are stored; at least its last token never counts."""
        with self._lock:
            return BLOCK_TOKENS * len(self._found(adapter, prompt_ids))

    def get(self, adapter: str | None, prompt_ids: Sequence[int]) -> list[Tensors]:
        """Return the blocks that a prompt begins with, which count as used now."""
        with self._lock:
            found = self._found(adapter, prompt_ids)
            self._touch(found)
            return [self._blocks[key] for key in found]

    def put(self, adapter: str | None, prompt_ids: Sequence[int], tensors: Tensors) -> None:
        """Store what is new of a prompt, the keys and values of its tokens, (layers, heads, positions, size)."""
        with self._lock:
            keys = list(_keys(adapter, prompt_ids))
            for number, key in enumerate(keys):
                if key not in self._blocks:
                    at = slice(BLOCK_TOKENS * number, BLOCK_TOKENS * (number + 1))
                    block = tensors[0][:, :, at].clone(), tensors[1][:, :, at].clone()
                    self._blocks[key] = block
                    self.bytes += _size(block)
            self._touch(keys)
            while self.bytes > self.max_bytes:
                self.bytes -= _size(self._blocks.popitem(last=False)[1])

    def forget(self, adapter: str | None) -> None:
        """Free all that belongs to an adapter."""
        with self._lock:
            for key in [one for one in self._blocks if one[0] == adapter]:
                self.bytes -= _size(self._blocks.pop(key))

    def _found(self, adapter: str | None, prompt_ids: Sequence[int]) -> list[tuple[str | None, bytes]]:
        if not self._blocks:
            return []
        return list(takewhile(self._blocks.__contains__, _keys(adapter, prompt_ids[:-1])))

    def _touch(self, keys: list[tuple[str | None, bytes]]) -> None:
        """Count blocks as used now, a prompt's first block last: without it the others cannot be found."""
        for key in reversed(keys):
            self._blocks.move_to_end(key)


def _keys(adapter: str | None, prompt_ids: Sequence[int]) -> Iterator[tuple[str | None, bytes]]:
    """Yield the key of each whole block."""
    digest = hashlib.sha256()
    for begin in range(0, len(prompt_ids) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        digest.update(array("q", prompt_ids[begin : begin + BLOCK_TOKENS]).tobytes())
        yield adapter, digest.digest()


def _size(block: Tensors) -> int:
    return block[0].nbytes + block[1].nbytes


def concatenated(parts: Sequence[Tensors]) -> list[Tensors]:
    """Return the keys and values of each layer, (1, heads, positions, size), of parts that follow each other."""
    keys, values = (torch.cat(tensors, 2) for tensors in zip(*parts, strict=True))
    return list(zip(keys[:, None], values[:, None], strict=True))
