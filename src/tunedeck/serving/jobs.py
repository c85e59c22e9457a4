"""Represent one load in progress and the callers that wait for it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import final

from tunedeck.core.errors import TunedeckError
from tunedeck.serving.adapter_cache import Lease


@final
@dataclass(eq=False)
class Job:
    """One load in progress; all callers that ask for the name meanwhile wait for it."""

    name: str
    version: int
    pin: bool | None
    """None: as it was before."""
    explicit: bool
    """Requested by an operator: continues even if no request waits for it any more."""
    waiting: list[Future[Lease]] = field(default_factory=list)
    withdrawn: bool = False

    @property
    def wanted(self) -> bool:
        """Tell whether anybody is still interested."""
        return not self.withdrawn and (self.explicit or any(not one.cancelled() for one in self.waiting))

    def still_waiting(self) -> list[Future[Lease]]:
        """Return the futures that are not cancelled; from here on they cannot be."""
        return [one for one in self.waiting if one.set_running_or_notify_cancel()]

    def fail(self, error: TunedeckError) -> None:
        """Tell everybody who still waits."""
        for future in self.still_waiting():
            future.set_exception(error)
