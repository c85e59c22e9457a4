"""Virtual tokens at the token embedding: virtual token k has the id vocab_size + k, and each row looks up its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast, final

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from tunedeck.core.errors import ArchitectureError
from tunedeck.core.i18n import say
from tunedeck.methods.base import Base, Built, MethodConfig
from tunedeck.methods.initial_tokens import initial_tokens
from tunedeck.methods.packed_embedding import embedding_shape
from tunedeck.methods.prompt_tuning.config import PromptTuningConfig
from tunedeck.methods.sites import Placement, RowDispatch, map_rows

_SAMPLED_WORDS = 1024
"""Enough words of the vocabulary to learn how large its vectors are."""


@final
class PromptLayer(nn.Module):
    """prompt_embeddings (num_virtual_tokens, hidden), float32."""

    def __init__(self, prompt_embeddings: torch.Tensor) -> None:
        super().__init__()
        self.prompt_embeddings = nn.Parameter(prompt_embeddings)


@dataclass(frozen=True, slots=True)
class TokenEmbedding:
    """The token embedding at `path`."""

    path: str

    def install(self, model: nn.Module, dispatch: Callable[[], RowDispatch | None]) -> Sequence[RemovableHandle]:
        """Register hooks that put the adapters' vectors where virtual token ids are."""
        embedding = model.get_submodule(self.path)
        vocab_size, _ = embedding_shape(embedding)
        virtual: list[torch.Tensor] = []

        def without_virtual(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            now, ids = dispatch(), args[0]
            virtual.clear()
            if now is None or (
                ids.shape[-1] == 1 and int(ids.max()) < vocab_size
            ):  # a step of decoding has no virtual tokens
                return None
            virtual[:] = [ids - vocab_size]
            return (map_rows(ids, now, lambda _, rows: ids[rows].masked_fill(ids[rows] >= vocab_size, 0)), *args[1:])

        def with_virtual(_: nn.Module, __: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            now = dispatch()
            if now is None or not virtual:
                return output
            numbers = virtual.pop()

            def change(layer: nn.Module, rows: slice) -> torch.Tensor:
                assert isinstance(layer, PromptLayer)
                looked_up = F.embedding(numbers[rows].clamp(min=0), layer.prompt_embeddings.to(output.dtype))
                return torch.where(numbers[rows].unsqueeze(-1) >= 0, looked_up, output[rows])

            return map_rows(output, now, change)

        return [embedding.register_forward_pre_hook(without_virtual), embedding.register_forward_hook(with_virtual)]


def shapes(base: Base, config: MethodConfig) -> dict[str, tuple[int, ...]]:
    """Return the virtual tokens, (num_virtual_tokens, hidden)."""
    assert isinstance(config, PromptTuningConfig)
    _, embedding = _token_embedding(base.model)
    return {"prompt.prompt_embeddings": (config.num_virtual_tokens, embedding_shape(embedding)[1])}


def build(base: Base, config: MethodConfig) -> Built:
    """Return the virtual tokens of one adapter, named `prompt`."""
    assert isinstance(config, PromptTuningConfig)
    path, embedding = _token_embedding(base.model)
    layer = PromptLayer(_initial(embedding, config, base))
    return Built(
        placements={"prompt": Placement(TokenEmbedding(path), layer)}, virtual_tokens=config.num_virtual_tokens
    )


def _token_embedding(model: nn.Module) -> tuple[str, nn.Module]:
    if cast(Any, model).config.is_encoder_decoder:
        raise ArchitectureError(say("prompt tuning is not supported on encoder-decoder models; use lora"))
    embedding = cast(Any, model).get_input_embeddings()
    path = next(path for path, module in model.named_modules() if module is embedding)
    return path, embedding


def _initial(embedding: nn.Module, config: PromptTuningConfig, base: Base) -> torch.Tensor:
    """Return the embedding's output for the chosen words: Gemma 3 scales what it looks up."""
    count, text = config.num_virtual_tokens, config.prompt_tuning_init_text
    if config.prompt_tuning_init == "RANDOM":
        words = _embedded(embedding, torch.randint(embedding_shape(embedding)[0], (_SAMPLED_WORDS,)))
        return torch.randn(count, words.shape[1]) * words.std()
    return _embedded(
        embedding,
        initial_tokens(base, config.prompt_tuning_init, text, count, setting="prompt_tuning_init_text"),
    )


def _embedded(embedding: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        # Past the hooks: another thread may be running a batch through them.
        device = next(chain(embedding.parameters(), embedding.buffers())).device
        vectors: torch.Tensor = embedding.forward(ids.to(device))
    return vectors.to("cpu", torch.float32, copy=True)
