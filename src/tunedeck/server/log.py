"""Write the log as JSON lines to stderr in a separate thread, so that a blocked reader does not block the server."""

from __future__ import annotations

import io
import json
import logging
import queue
import sys
import threading
import time
import traceback
import unicodedata
from collections.abc import Callable
from typing import Any, final

_MOST = 4096
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


@final
class Line(dict[str, Any]):
    """A message with fields; as text it is one line of JSON."""

    def __str__(self) -> str:
        text = _ENCODER.encode(self)
        if text.isascii() and "\x7f" not in text:
            return text
        return "".join(json.dumps(sign)[1:-1] if unicodedata.category(sign) in _HIDDEN else sign for sign in text)


@final
class _Lines(logging.Formatter):
    """Format every record as one line of JSON, including those of libraries; a traceback is its field `error`."""

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.msg, Line):
            return str(record.msg)
        line = Line(
            time=round(record.created, 3),
            level=record.levelname.lower(),
            logger=record.name,
            message=record.getMessage(),
        )
        if request_id := record.__dict__.get("request_id"):
            line["request_id"] = request_id
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = "".join(traceback.format_exception(record.exc_info[1]))
        return str(line)


@final
class DroppingHandler(logging.Handler):
    """Put lines into a bounded queue for another thread. Lines that do not fit are dropped and counted; the count
    is logged when there is room again. The standard library's QueueHandler copies each record and has nothing to say of
    what it drops.
    """

    def __init__(self, lines: queue.SimpleQueue[str | None], most: int) -> None:
        super().__init__()
        self.setFormatter(_Lines())
        self._lines, self._most, self._dropped = lines, most, 0

    def emit(self, record: logging.LogRecord) -> None:
        """Never wait; `handle` lets one record in at a time."""
        if self._lines.qsize() >= self._most:
            self._dropped += 1
            return
        if self._dropped:
            note = Line(time=round(time.time(), 3), level="warning", message="lines dropped", dropped=self._dropped)
            self._lines.put(str(note))
            self._dropped = 0
        try:
            self._lines.put(self.format(record))
        except Exception:
            self.handleError(record)


@final
class Log:
    """Everything that is logged in this process, from now until `close`, as lines given to `write` by a thread."""

    def __init__(self, write: Callable[[bytes], object], most: int = _MOST) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._write = write
        handler = DroppingHandler(self._lines, most)
        root, server = logging.getLogger(), logging.getLogger("tunedeck.server")
        self._before = root.handlers, server.level, threading.excepthook
        root.handlers = [handler]
        server.setLevel(logging.INFO)
        logging.captureWarnings(True)
        threading.excepthook = _thread_ended
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def close(self, patience_s: float = 1.0) -> None:
        """Write what is left, if it can be written soon."""
        root, server = logging.getLogger(), logging.getLogger("tunedeck.server")
        root.handlers, level, threading.excepthook = self._before
        server.setLevel(level)
        logging.captureWarnings(False)
        self._lines.put(None)
        self._thread.join(patience_s)

    def _work(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._write(f"{line}\n".encode("utf-8", "backslashreplace"))
            except OSError:  # a full disk, a reader that has gone: there is no other place to say so
                continue


def to_stderr() -> Callable[[bytes], object]:
    """Write to the file below sys.stderr, past Python's buffer: its lock would hold up the end of the process while a
    write waits.
    """
    sys.stderr.flush()
    return io.FileIO(sys.stderr.fileno(), "w", closefd=False).write


def _thread_ended(what: threading.ExceptHookArgs) -> None:
    if what.exc_value is not None:
        name = "?" if what.thread is None else what.thread.name
        logging.getLogger("tunedeck.server").error("thread %s has ended", name, exc_info=what.exc_value)
