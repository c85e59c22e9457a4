"""Define patches and replace a module's forward so that patches nest in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Protocol, TypeAlias, final

from torch import nn

from tunedeck.models.load import LoadedBase

Forward: TypeAlias = Callable[..., Any]


class Patch(Protocol):
    """A change to what a base computes."""

    def on(self, base: LoadedBase) -> AbstractContextManager[None]:
        """Return a block in which the change is in force; after it the model is what it was before."""
        ...


@final
class Unchanged:
    """The patch that changes nothing."""

    def on(self, base: LoadedBase) -> AbstractContextManager[None]:
        """Return a block that does nothing."""
        return nullcontext()


@contextmanager
def patched(base: LoadedBase, *patches: Patch) -> Iterator[None]:
    """Apply patches in the order given while the block runs; the last one sees the changes of those before it."""
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch.on(base))
        yield


@contextmanager
def replaced_forward(module: nn.Module, wrap: Callable[[Forward], Forward]) -> Iterator[None]:
    """Set a module's forward to `wrap(forward)` while the block runs; blocks for the same module nest."""
    before = vars(module).get("forward")
    module.forward = wrap(module.forward)
    try:
        yield
    finally:
        if before is None:
            del module.forward  # the method of its class again
        else:
            module.forward = before
