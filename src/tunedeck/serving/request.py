"""One request in the engine: waiting for its adapter, waiting for its turn, running, done."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, final

from typing_extensions import TypeVar

from tunedeck.core.errors import DeadlineError
from tunedeck.core.i18n import say
from tunedeck.generation.sequence import Chunk
from tunedeck.serving.adapter_cache import Lease

Content = TypeVar("Content", default=Any)
"""The input: a text, token ids, or a `Sequence` to generate."""
Answer = TypeVar("Answer", default=Any)
"""The output: a `Prediction`, a vector, or the `Sequence` itself."""


@final
@dataclass(eq=False)
class Request(Generic[Content, Answer]):
    """The envelope of one input: `content` for `adapter` (None: the base model); `done` brings the answer or the error.

    `on_piece` gets every piece of a generated text, on the engine's thread. Times are of `time.monotonic`, in seconds.
    """

    adapter: str | None
    content: Content
    timeout_s: float = 60.0
    caller: str = ""
    """The name of the key that asks."""
    on_piece: Callable[[Chunk], None] | None = None
    done: Future[Answer] = field(default_factory=Future)
    arrived_s: float = field(default_factory=time.monotonic)
    started_s: float | None = None
    first_token_s: float | None = None
    ended_s: float | None = None
    ids: list[int] = field(default_factory=list)
    width: int = 0
    """Positions, virtual tokens included."""
    lease: Lease | None = None
    cancelled: bool = False

    @property
    def key(self) -> str | None:
        """Return the adapter's name in the backend."""
        return None if self.lease is None else self.lease.adapter.key

    @property
    def expired(self) -> bool:
        """Tell whether its time is up."""
        return time.monotonic() > self.arrived_s + self.timeout_s

    def start(self) -> bool:
        """Begin to answer; False when the request is cancelled or too late."""
        if self.expired:
            self.fail_late()
        if self.done.done() or not self.done.set_running_or_notify_cancel():
            return False
        self.started_s = time.monotonic()
        return True

    def cancel(self) -> None:
        """Give the answer up: leave the queue, or the running batch at its next step."""
        self.cancelled = True
        self.done.cancel()

    def answer(self, value: Answer) -> None:
        """Finish."""
        self.ended_s = time.monotonic()
        with suppress(InvalidStateError):  # cancelled in the same moment
            self.done.set_result(value)

    def fail_late(self) -> None:
        """Finish because its time is up."""
        self.fail(self.late())

    def late(self) -> DeadlineError:
        """Return the error of a request whose time is up."""
        return DeadlineError(say("no answer within {seconds} s; try again later", seconds=self.timeout_s))

    def fail(self, error: BaseException) -> None:
        """Finish with an error."""
        with suppress(InvalidStateError):
            self.done.set_exception(error)
