"""Skip positions that are not used: a classifier of BERT's kind uses the first one only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

from torch import nn

from tunedeck.models.load import LoadedBase


@final
class FirstPositionOnly:
    """Let the last layer compute the first position only, from where positions no longer mix.

    That is its feed-forward part: two thirds of the layer, a ninth of a model of six layers. The classifier's logits
    stay the same; hidden states become (batch, 1, hidden). Does nothing for models whose classifier reads more.
    """

    @contextmanager
    def on(self, base: LoadedBase) -> Iterator[None]:
        """Cut the hidden states inside the last layer while the block runs."""
        spec, layers = base.spec, base.layers
        if spec is None or spec.first_position_from is None or layers is None:
            yield
            return
        handle = layers[-1].get_submodule(spec.first_position_from).register_forward_hook(_first_position)
        try:
            yield
        finally:
            handle.remove()


def _first_position(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    hidden = output[0] if isinstance(output, tuple) else output
    cut = hidden[:, :1].contiguous()  # else the linear layers copy their weights for every row
    return (cut, *output[1:]) if isinstance(output, tuple) else cut
