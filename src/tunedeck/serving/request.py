"""One request on its way: waiting for its adapter, waiting for its turn, running, done."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, final

from tunedeck.core.errors import DeadlineError
from tunedeck.core.i18n import say
from tunedeck.generation.sequence import Chunk
from tunedeck.serving.adapter_cache import Lease


@final
@dataclass(eq=False)
class Request:
    """`content` for `adapter` (None: the bare base); `done` brings the answer or the error.

    `on_piece` hears every piece of a generated text from the engine's thread. Times are of `time.monotonic`, in seconds.
    """

    adapter: str | None
    content: Any
    timeout_s: float = 60.0
    caller: str = ""
    """The name of the key that asks."""
    on_piece: Callable[[Chunk], None] | None = None
    done: Future[Any] = field(default_factory=Future)
    arrived_s: float = field(default_factory=time.monotonic)
    started_s: float | None = None
    first_token_s: float | None = None
    ended_s: float | None = None
    generated: int = 0
    """Tokens of the answer so far."""
    ids: list[int] = field(default_factory=list)
    width: int = 0
    """Positions, virtual tokens included."""
    lease: Lease | None = None
    cancelled: bool = False

    @property
    def key(self) -> str | None:
        """The adapter's name in the backend."""
        return None if self.lease is None else self.lease.resident.key

    @property
    def expired(self) -> bool:
        """Whether its time is up."""
        return time.monotonic() > self.arrived_s + self.timeout_s

    def start(self) -> bool:
        """Begin to answer; False when nobody wants the answer any more."""
        if self.expired:
            self.fail_late()
        if self.done.done() or not self.done.set_running_or_notify_cancel():
            return False
        self.started_s = time.monotonic()
        return True

    def cancel(self) -> None:
        """Nobody wants the answer: leave the queue, or the running batch at its next step."""
        self.cancelled = True
        self.done.cancel()

    def answer(self, value: Any) -> None:
        """Finish."""
        self.ended_s = time.monotonic()
        with suppress(InvalidStateError):  # cancelled in the same moment
            self.done.set_result(value)

    def fail_late(self) -> None:
        """Finish because its time is up."""
        self.fail(self.late())

    def late(self) -> DeadlineError:
        """The error of a request whose time is up."""
        return DeadlineError(say("no answer within {seconds} s; try again later", seconds=self.timeout_s))

    def fail(self, error: BaseException) -> None:
        """Finish with an error."""
        with suppress(InvalidStateError):
            self.done.set_exception(error)
