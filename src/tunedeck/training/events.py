"""What happens in a run, as lines of JSON in events.jsonl."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any, final


@final
class EventLog:
    """Appends one JSON object per event, flushed at once, with its kind and the seconds since the run began."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("w", encoding="utf-8") if path else None
        self._start = time.perf_counter()

    def write(self, kind: str, **values: Any) -> None:
        """Append an event."""
        if self._file:
            event = {"event": kind, "at_s": round(time.perf_counter() - self._start, 3), **values}
            self._file.write(json.dumps(event, ensure_ascii=False) + "\n")
            self._file.flush()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()
