"""Compute the input of the head's last layer for each text; cached on disk where it depends on the frozen base only."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from tunedeck.core.bundle import cache_folder
from tunedeck.core.errors import AdapterFileError, StorageError
from tunedeck.core.storage import replacing_file
from tunedeck.core.text_pair import PairIds
from tunedeck.data.batches import batches_by_length
from tunedeck.deck.deck import Deck
from tunedeck.deck.heads import last_linear, reads_trained
from tunedeck.deck.pooling import pool
from tunedeck.deck.task import pooling_of
from tunedeck.formats.tensors import read_safetensors, write_safetensors
from tunedeck.methods.registry import config_of
from tunedeck.tasks.text import padded

KEPT_BYTES = 1 << 30
"""The largest size of the folder of vectors; the oldest are deleted first."""
_BATCH = 32
_COMPARED = 4
_BARE = "(bare)"


def head_inputs(deck: Deck, name: str, ids: Sequence[Sequence[int]], *, of_base: bool = False) -> torch.Tensor:
    """Return vectors (rows, size), float32, on the CPU, that an adapter's last layer is given for rows of token ids.

    `of_base` gives those of the frozen base without the adapter; these are read from disk where the same rows were
    computed before, for any adapter.
    """
    if not of_base:
        return _computed(deck, name, ids)
    return _kept(_key(deck, name, ids), lambda: _computed_by_base(deck, name, ids))


def start_inputs(deck: Deck, name: str, ids: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return what `head_inputs` does, of a fresh adapter: read from disk where one that begins alike was there before.

    The virtual tokens of candidates that differ in their learning rate begin alike.
    """
    return _kept(_start_key(deck, name, ids), lambda: _computed(deck, name, ids))


def are_kept(deck: Deck, name: str, ids: Sequence[Sequence[int]], *, of_base: bool) -> bool:
    """Tell whether `head_inputs` of the base, or else `start_inputs`, will be read from disk."""
    return _file(_key(deck, name, ids) if of_base else _start_key(deck, name, ids)).is_file()


def _kept(key: str, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
    file = _file(key)
    try:
        return read_safetensors(file)["vectors"]
    except (AdapterFileError, OSError, KeyError):
        vectors = compute()
        keep_tensors(file, {"vectors": vectors})
        return vectors


def _file(key: str) -> Path:
    return cache_folder() / "vectors" / f"{key}.safetensors"


def _computed(deck: Deck, name: str, ids: Sequence[Sequence[int]]) -> torch.Tensor:
    found: dict[int, torch.Tensor] = {}
    read: list[torch.Tensor] = []
    layer = last_linear(deck.adapter(name).head)
    handle = layer.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    try:
        with torch.inference_mode():
            for rows in batches_by_length([len(row) for row in ids], _BATCH):
                read.clear()
                inputs = padded(deck, [ids[row] for row in rows])
                deck(**inputs.named(), adapter=name)
                (states,) = read
                if states.dim() == 3:  # a decoder's head is given all positions, and its last is read
                    states = states[:, deck.virtual_tokens(name) :]
                    states = pool(states, inputs.attention_mask[:, : states.shape[1]], "last")
                found.update(zip(rows, states.float().cpu(), strict=True))
    finally:
        handle.remove()
    return torch.stack([found[row] for row in range(len(ids))])


def distance_to_base(deck: Deck, name: str, ids: Sequence[Sequence[int]]) -> float:
    """Return how far the adapter moves what the head reads of a few of the rows, in lengths of the base's vectors."""
    rows = ids[:_COMPARED]
    own, base = _computed(deck, name, rows), head_inputs(deck, name, rows, of_base=True)
    return float(((own - base).norm(dim=-1) / base.norm(dim=-1)).max())


def _computed_by_base(deck: Deck, name: str, ids: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the input of the head's last layer without the rest of the adapter."""
    adapter = deck.adapter(name)
    deck.add(_BARE, config_of("full", {"layers": "head"}), task=adapter.task)
    try:
        for path, module in deck.adapter(_BARE).head.items():
            module.load_state_dict(adapter.head[path].state_dict())
        return _computed(deck, _BARE, ids)
    finally:
        deck.remove(_BARE)


def reads_base(deck: Deck, name: str) -> bool:
    """Tell whether the head has no randomly initialized layer before the last."""
    return pooling_of(deck.adapter(name).task) != "model" or reads_trained(deck.base)


def _key(deck: Deck, name: str, ids: Sequence[Sequence[int]]) -> str:
    digest = hashlib.sha256()
    for part in (deck.base.fingerprint, deck.base.quantize, deck.base.dtype, pooling_of(deck.adapter(name).task)):
        digest.update(f"{part}\n".encode())
    for row in ids:
        digest.update(array("q", [len(row), *row]).tobytes())
        if isinstance(row, PairIds):
            digest.update(array("q", row.types).tobytes())
    return digest.hexdigest()


def _start_key(deck: Deck, name: str, ids: Sequence[Sequence[int]]) -> str:
    adapter = deck.adapter(name)
    digest = hashlib.sha256(f"{_key(deck, name, ids)} {adapter.config}".encode())
    digest.update(digest_of([*adapter.tensors().values(), *adapter.head_tensors().values()]))
    return digest.hexdigest()


def digest_of(tensors: Iterable[torch.Tensor]) -> bytes:
    """Return a digest of the numbers, types and shapes of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.digest()


def keep_tensors(file: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors for later runs, and remove the oldest files of their folder where they are too large together.

    A full disk is not an error.
    """
    with suppress(OSError, StorageError):
        with replacing_file(file) as temporary:
            write_safetensors(temporary, tensors)
        total = 0
        for kept in sorted(file.parent.glob("*.safetensors"), key=lambda one: -one.stat().st_mtime):
            total += kept.stat().st_size
            if total > KEPT_BYTES:
                kept.unlink(missing_ok=True)
