"""Trained keys and values in front of each layer's own, where attention would take those of a key-value cache.

A batch without a cache is given the prefix inside each attention module: its hook joins the prefix to the keys and
values on their way into the cache and widens the mask. In generation a row's cache begins with the prefix
(`Built.prefix`), and the hooks do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle
from transformers import DynamicCache

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.model_spec import ModelSpec
from tunedeck.methods.base import Base, Built, MethodConfig, Prefix
from tunedeck.methods.initial_tokens import initial_tokens
from tunedeck.methods.prefix_tuning.config import PrefixTuningConfig
from tunedeck.methods.sites import Placement, RowDispatch, check_rows, first_tensor

_KEYS, _VALUES = "prefix_keys", "prefix_values"


@final
class PrefixLayer(nn.Module):
    """prefix_keys and prefix_values (num_virtual_tokens, heads * head size), float32, of one layer."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, heads: int) -> None:
        super().__init__()
        self.prefix_keys, self.prefix_values = nn.Parameter(keys), nn.Parameter(values)
        self.heads = heads

    def by_head(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values as (1, heads, num_virtual_tokens, head size)."""
        keys, values = (
            tensor.view(len(tensor), self.heads, -1).transpose(0, 1)[None]
            for tensor in (self.prefix_keys, self.prefix_values)
        )
        return keys, values


@final
class PositionShift(nn.Module):
    """How many positions the text begins after 0; no parameters."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count


@dataclass(frozen=True, slots=True)
class AttentionKeys:
    """The attention module at `path`; `window` is the number of positions that a position sees, None for all."""

    path: str
    layer: int
    causal: bool
    window: int | None

    def install(self, model: nn.Module, dispatch: Callable[[], RowDispatch | None]) -> Sequence[RemovableHandle]:
        """Register the hook that puts each row's prefix in front of its keys and values."""

        def before(
            _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            now, cache = dispatch(), kwargs.get("past_key_values")
            if now is None or (cache is not None and cache.get_seq_length(self.layer)):
                return None
            hidden = first_tensor(args, kwargs)
            check_rows(hidden, now)
            mask = self._mask(now, hidden, kwargs.get("attention_mask"), kwargs.get("position_ids"))
            return args, {**kwargs, "past_key_values": _WithPrefix(now, cache), "attention_mask": mask}

        return [model.get_submodule(self.path).register_forward_pre_hook(before, with_kwargs=True)]

    def _mask(
        self, now: RowDispatch, hidden: torch.Tensor, given: torch.Tensor | None, positions: torch.Tensor | None
    ) -> torch.Tensor | None:
        """Return the mask of the text with columns in front for the prefix, (rows, 1, seq, prefix + seq)."""
        rows, seq = hidden.shape[:2]
        lengths = _lengths(now, _prefix_length, rows, hidden.device)
        most = int(lengths.max())
        if given is None:
            if not self.causal and bool((lengths == most).all()):
                return None
            given = self._text_mask(hidden)
        place = torch.arange(most, device=hidden.device) - (
            most - lengths
        )  # (rows, most), below 0 where a row has none
        columns = (place >= 0)[:, None].expand(-1, seq, -1)
        if self.window is not None:
            text = torch.arange(seq, device=hidden.device) + lengths if positions is None else positions
            columns = columns & (text[:, :, None] - place[:, None] < self.window)
        if given.dtype != torch.bool:
            columns = _to_add(columns, given.dtype)
        return torch.cat([columns[:, None], given.expand(rows, -1, seq, -1)], dim=-1)

    def _text_mask(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return what a model without a mask means, (1, 1, seq, seq), to add to the scores."""
        seen = torch.ones(hidden.shape[1], hidden.shape[1], dtype=torch.bool, device=hidden.device)
        return _to_add(seen.tril() if self.causal else seen, hidden.dtype)[None, None]


def _to_add(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a mask to add to the scores: 0 where a position is seen, else the lowest number."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


@final
class _WithPrefix:
    """A cache as an attention module sees it: it returns the prefix of each row, then the keys and values."""

    def __init__(self, now: RowDispatch, cache: Any) -> None:
        self._now, self._cache = now, cache

    def update(self, keys: torch.Tensor, values: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values (rows, heads, prefix + seq, head size); a real cache is given those of the text."""
        if self._cache is not None:
            keys, values = self._cache.update(keys, values, *rest)
        most = max(map(_prefix_length, self._now.layers))
        parts = [self._part(layer, most, rows, keys) for rows, layer in self._now.parts]
        own = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        joined_keys, joined_values = (
            torch.cat([prefix, tensor], dim=2) for prefix, tensor in zip(own, (keys, values), strict=True)
        )
        return joined_keys, joined_values

    @staticmethod
    def _part(layer: Any, most: int, rows: slice, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the keys and values of some rows in the form of `like`, filled up in front to the longest prefix."""
        count = len(like[rows])
        if layer is None:
            nothing = like.new_zeros(count, like.shape[1], most, like.shape[3])
            return nothing, nothing
        missing = most - _prefix_length(layer)
        keys, values = (
            F.pad(tensor.to(like.dtype), (0, 0, missing, 0)).expand(count, -1, -1, -1) for tensor in layer.by_head()
        )
        return keys, values


@dataclass(frozen=True, slots=True)
class TextPositions:
    """The positions of the text that the base at `path` counts, up to `limit`."""

    path: str
    limit: int | None

    def install(self, model: nn.Module, dispatch: Callable[[], RowDispatch | None]) -> Sequence[RemovableHandle]:
        """Register the hook that counts them from behind each row's prefix."""

        def before(
            _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            now, cache = dispatch(), kwargs.get("past_key_values")
            if now is None or (cache is not None and cache.get_seq_length()):
                return None
            ids, positions = first_tensor(args, kwargs), kwargs.get("position_ids")
            if positions is None:
                positions = torch.arange(ids.shape[1], device=ids.device)[None]
            return args, {**kwargs, "position_ids": _shifted(positions, now, len(ids), self.limit)}

        return [model.get_submodule(self.path).register_forward_pre_hook(before, with_kwargs=True)]


@dataclass(frozen=True, slots=True)
class PositionTable:
    """The table of an encoder's positions at `path`."""

    path: str

    def install(self, model: nn.Module, dispatch: Callable[[], RowDispatch | None]) -> Sequence[RemovableHandle]:
        """Register the hook that looks positions up behind each row's prefix."""
        table = model.get_submodule(self.path)
        assert isinstance(table, nn.Embedding)

        def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            now = dispatch()
            if now is None:
                return None
            rows = now.parts[-1][0].stop or len(args[0])
            return (_shifted(args[0], now, rows, table.num_embeddings), *args[1:])

        return [table.register_forward_pre_hook(before)]


def _shifted(positions: torch.Tensor, now: RowDispatch, rows: int, limit: int | None) -> torch.Tensor:
    """Return the positions (rows, seq) moved by each row's prefix, at most the last one; only padding is cut."""
    moved = positions + _lengths(now, lambda shift: shift.count, rows, positions.device)
    return moved if limit is None else moved.clamp(max=limit - 1)


def _prefix_length(layer: PrefixLayer | None) -> int:
    return 0 if layer is None else layer.prefix_keys.shape[0]


def _lengths(now: RowDispatch, read: Callable[[Any], int], rows: int, device: torch.device) -> torch.Tensor:
    """Return a number of each row's layer, 0 where it has none, (rows, 1)."""
    counts = [(0 if layer is None else read(layer), len(range(rows)[part])) for part, layer in now.parts]
    return torch.tensor([count for count, repeated in counts for _ in range(repeated)], device=device)[:, None]


def shapes(base: Base, config: MethodConfig) -> dict[str, tuple[int, ...]]:
    """Return the keys and values of each layer, (num_virtual_tokens, heads * head size)."""
    assert isinstance(config, PrefixTuningConfig)
    paths, spec = _attentions(base, config)
    shape = config.num_virtual_tokens, spec.key_value_size
    return {f"{path}.{name}": shape for path in paths for name in (_KEYS, _VALUES)}


def build(base: Base, config: MethodConfig) -> Built:
    """Return the prefix of every layer, named by its attention module, and the shift of the text's positions."""
    assert isinstance(config, PrefixTuningConfig)
    paths, spec = _attentions(base, config)
    windows = _windows(base.model) if spec.causal else {}
    layers = [PrefixLayer(keys, values, spec.key_value_heads) for keys, values in _initial(base, spec, config)]
    placements = {
        path: Placement(AttentionKeys(path, number, spec.causal, windows.get(number)), layer)
        for number, (path, layer) in enumerate(zip(paths, layers, strict=True))
    }
    shifted = config.shift_positions is not False
    if shifted:
        placements["positions"] = Placement(_positions(base, spec), PositionShift(config.num_virtual_tokens))
    positions = config.num_virtual_tokens if shifted else 0
    return Built(placements, prefix=Prefix(positions, lambda: [layer.by_head() for layer in layers]))


def _attentions(base: Base, config: PrefixTuningConfig) -> tuple[list[str], ModelSpec]:
    model: Any = base.model
    paths = config.attentions(base.spec, model.config.model_type)
    assert base.spec is not None
    start = "" if base.prefix else f"{base.spec.prefix}."
    return [path.removeprefix(start) for path in paths], base.spec


def _positions(base: Base, spec: ModelSpec) -> TextPositions | PositionTable:
    """Return the site of the text's positions: an encoder's table, whose rows may begin behind a padding index, or the
    decoder's count.
    """
    model: Any = base.model
    if not spec.causal:
        return PositionTable(next(path for path, _ in model.named_modules() if path.endswith("position_embeddings")))
    return TextPositions(base.prefix, model.config.max_position_embeddings)


def _windows(model: Any) -> Mapping[int, int]:
    """Return how many positions a position sees in the layers with a sliding window."""
    layers: Any = DynamicCache(config=model.config).layers
    return {number: layer.sliding_window for number, layer in enumerate(layers) if layer.is_sliding}


def _initial(base: Base, spec: ModelSpec, config: PrefixTuningConfig) -> Iterable[Iterable[torch.Tensor]]:
    """Return each layer's keys and values, (num_virtual_tokens, heads * head size)."""
    model: Any = base.model
    count, limit = config.num_virtual_tokens, model.config.max_position_embeddings
    if count >= limit:
        raise ConfigError(
            say(
                "num_virtual_tokens: {count} leaves no room for a text in the model's {limit} positions; take fewer",
                count=count,
                limit=limit,
            )
        )
    if config.prefix_init == "RANDOM":
        return torch.randn(spec.num_layers, 2, count, spec.key_value_size).unbind()
    ids = initial_tokens(base, config.prefix_init, config.prefix_init_text, count, setting="prefix_init_text")
    return _computed(model.get_submodule(base.prefix), ids[None].to(model.device))


def _computed(model: nn.Module, ids: torch.Tensor) -> list[list[torch.Tensor]]:
    """Return the keys and values that the base computes for these tokens (1, seq) as a text."""
    cache = DynamicCache()
    with torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids), past_key_values=cache, use_cache=True)
    return [
        [tensor[0].transpose(0, 1).flatten(1).to("cpu", torch.float32) for tensor in (layer.keys, layer.values)]
        for layer in cast(Any, cache.layers)
    ]
