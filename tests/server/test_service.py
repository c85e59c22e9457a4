"""What a request's way through the service ends with: its time is up for some of its inputs; memory goes back to the
system.
"""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from tunedeck.core.errors import DeadlineError
from tunedeck.server import run
from tunedeck.server.auth import ANYBODY
from tunedeck.server.service import Service
from tunedeck.serving.bounds import Bounds
from tunedeck.serving.request import Request


class HalfAnswering:
    """An engine that answers the first of some inputs and never the others."""

    def submit(self, *requests: Request, most: int | None) -> None:
        requests[0].answer("done")


async def _never() -> Any:
    await asyncio.Event().wait()


def test_a_request_whose_time_is_up_after_some_of_its_answers_is_late_and_no_error_of_the_server() -> None:
    engine: Any = HalfAnswering()
    service = Service("classify", engine, SimpleNamespace(), "tiny", True, None, Bounds(timeout=0.05))  # type: ignore[arg-type]
    state = SimpleNamespace(caller=ANYBODY, arrived_s=time.monotonic())
    http: Any = SimpleNamespace(state=state, receive=_never)
    with pytest.raises(DeadlineError, match=r"no answer within 0\.05 s"):
        asyncio.run(service.ask(http, None, ["one", "two"]))


@pytest.mark.parametrize(
    ("grown", "in_flight", "busy_s", "given_back"),
    [(100 << 20, 0, 60.0, True), (1 << 20, 0, 60.0, False), (100 << 20, 3, 60.0, False), (100 << 20, 3, 0.0, True)],
)
def test_freed_memory_is_given_back_when_it_is_worth_it_and_disturbs_nobody(
    monkeypatch: pytest.MonkeyPatch, grown: int, in_flight: int, busy_s: float, given_back: bool
) -> None:
    sizes = iter([1 << 30])
    calls: list[bool] = []

    class Process:
        def memory_info(self) -> Any:
            return SimpleNamespace(rss=next(sizes, (1 << 30) + grown))

    monkeypatch.setattr("tunedeck.server.run.psutil.Process", Process)
    monkeypatch.setattr(run, "give_back_freed_memory", lambda: calls.append(True))
    monkeypatch.setattr(run, "_GIVE_BACK_S", 0.001)
    monkeypatch.setattr(run, "_BUSY_S", busy_s)
    engine: Any = SimpleNamespace(in_flight=in_flight)

    async def look() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(run._give_back(engine), 0.2)

    asyncio.run(look())
    assert bool(calls) == given_back
