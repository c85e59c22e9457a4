"""No work for positions that nobody reads: a classifier of BERT's kind looks at the first one alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from tunedeck.models.load import LoadedBase


@contextmanager
def first_position_only(base: LoadedBase) -> Iterator[None]:
    """While the block runs, the last layer computes the first position alone from where positions no longer mix.

    That is its feed-forward part: two thirds of the layer, a ninth of a model of six. The classifier's logits stay what they were;
    hidden states become (batch, 1, hidden). Does nothing for models whose classifier reads more.
    """
    spec = base.spec
    if spec is None or spec.first_position_from is None or not base.prefix:
        yield
        return

    def first(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        cut = hidden[:, :1].contiguous()  # else the linears copy their weights for every row
        return (cut, *output[1:]) if isinstance(output, tuple) else cut

    last = f"{base.prefix}.{spec.layers}.{spec.num_layers - 1}.{spec.first_position_from}"
    handle = base.model.get_submodule(last).register_forward_hook(first)
    try:
        yield
    finally:
        handle.remove()
