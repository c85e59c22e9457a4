"""The log: JSON lines on stderr, written by a thread of their own, so that whoever does not read them stops nothing."""

from __future__ import annotations

import io
import json
import logging
import logging.handlers
import queue
import sys
import threading
import time
import traceback
import unicodedata
from collections.abc import Callable
from typing import Any, final

_MOST = 4096
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


@final
class Line(dict[str, Any]):
    """A message with fields; as text it is one line of JSON."""

    def __str__(self) -> str:
        text = json.dumps(self, ensure_ascii=False)
        if text.isascii() and "\x7f" not in text:
            return text
        return "".join(json.dumps(sign)[1:-1] if unicodedata.category(sign) in _HIDDEN else sign for sign in text)


@final
class _Lines(logging.Formatter):
    """Every record as one line of JSON, whoever has logged it; a traceback is its field `error`."""

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
class DroppingHandler(logging.handlers.QueueHandler):
    """Puts lines into a bounded queue. What finds no room is dropped and counted; the count is logged when there is room again."""

    def __init__(self, lines: queue.Queue[Any]) -> None:
        super().__init__(lines)
        self.setFormatter(_Lines())
        self._dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        """Never wait."""
        try:
            if self._dropped:
                note = Line(time=round(time.time(), 3), level="warning", message="lines dropped", dropped=self._dropped)
                self.queue.put_nowait(logging.makeLogRecord({"msg": str(note)}))
                self._dropped = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1


@final
class Log:
    """Everything that is logged in this process, from now until `close`, as lines given to `write` by a thread."""

    def __init__(self, write: Callable[[bytes], object], most: int = _MOST) -> None:
        self._lines: queue.Queue[Any] = queue.Queue(most)
        self._write = write
        self._handler = DroppingHandler(self._lines)
        root, server = logging.getLogger(), logging.getLogger("tunedeck.server")
        self._before = root.handlers, server.level, threading.excepthook
        root.handlers = [self._handler]
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
        try:
            self._lines.put(None, timeout=patience_s)
        except queue.Full:
            return
        self._thread.join(patience_s)

    def _work(self) -> None:
        while (record := self._lines.get()) is not None:
            try:
                self._write(f"{record.msg}\n".encode("utf-8", "backslashreplace"))
            except OSError:  # a full disk, a reader that has gone: there is no other place to say so
                continue


def to_stderr() -> Callable[[bytes], object]:
    """Write to the file below sys.stderr, past Python's buffer: its lock would hold up the end of the process while a write waits."""
    sys.stderr.flush()
    return io.FileIO(sys.stderr.fileno(), "w", closefd=False).write


def _thread_ended(what: threading.ExceptHookArgs) -> None:
    if what.exc_value is not None:
        name = "?" if what.thread is None else what.thread.name
        logging.getLogger("tunedeck.server").error("thread %s has ended", name, exc_info=what.exc_value)
