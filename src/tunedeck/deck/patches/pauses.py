"""Let another batch run in the middle of a long one: a batch cannot be stopped, but it can pause between its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import final

from tunedeck.models.load import LoadedBase


@final
@dataclass(frozen=True, slots=True)
class Pauses:
    """Call `pause` before each part of each layer, such as its attention and its feed-forward part.

    `pause` may run another batch through the same model, but not while parameters of the base are replaced (full
    adapters).
    """

    pause: Callable[[], None]

    @contextmanager
    def on(self, base: LoadedBase) -> Iterator[None]:
        """Pause while the block runs; an architecture whose layers are not known does not."""
        with ExitStack() as handles:
            for part in (part for layer in base.layers or () for part in layer.children()):
                # First, so that no other hook of this module has kept anything yet.
                handle = part.register_forward_pre_hook(lambda *_: self.pause(), prepend=True)
                handles.callback(handle.remove)
            yield
