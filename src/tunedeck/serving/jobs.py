"""One load under way, and everybody who waits for it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import final

from tunedeck.core.errors import TunedeckError
from tunedeck.serving.adapter_cache import Lease


@final
@dataclass(eq=False)
class Job:
    """One load under way; everybody who asks for the name meanwhile waits for the same."""

    name: str
    version: int
    pin: bool | None
    """None: as it was before."""
    explicit: bool
    """Asked for by an operator: goes on even when nobody waits for its answer any more."""
    waiting: list[Future[Lease]] = field(default_factory=list)
    withdrawn: bool = False

    @property
    def wanted(self) -> bool:
        """Whether anybody is still interested."""
        return not self.withdrawn and (self.explicit or any(not one.cancelled() for one in self.waiting))

    def still_waiting(self) -> list[Future[Lease]]:
        """The futures that nobody has cancelled; from here on nobody can."""
        return [one for one in self.waiting if one.set_running_or_notify_cancel()]

    def fail(self, error: TunedeckError) -> None:
        """Tell everybody who still waits."""
        for future in self.still_waiting():
            future.set_exception(error)
