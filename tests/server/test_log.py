"""The log: lines of JSON whoever logs, and never in the way."""

from __future__ import annotations

import json
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tunedeck.server.log import Line, Log

log = logging.getLogger("tunedeck.server")


@contextmanager
def written(most: int = 100) -> Iterator[list[dict[str, Any]]]:
    lines: list[bytes] = []
    opened = Log(lines.append, most)
    found: list[dict[str, Any]] = []
    try:
        yield found
    finally:
        opened.close(20)
        found += [json.loads(line) for line in lines]


def test_a_log_that_nobody_reads_drops_lines_and_says_how_many_once_it_is_read() -> None:
    read, begun, lines, four = threading.Event(), threading.Event(), [], threading.Event()

    def write(line: bytes) -> None:
        begun.set()
        read.wait(20)
        lines.append(json.loads(line))
        if len(lines) == 4:
            four.set()

    opened = Log(write, most=3)
    log.info("first")
    assert begun.wait(20), "the writer is stuck in the first line"
    for number in range(10):  # three find room
        log.info("line %d", number)
    read.set()
    assert four.wait(20)
    log.info("last")
    opened.close(20)
    assert [line["message"] for line in lines] == ["first", "line 0", "line 1", "line 2", "lines dropped", "last"]
    assert lines[4]["dropped"] == 7


def test_closing_a_log_that_nobody_reads_does_not_wait_for_it() -> None:
    never = threading.Event()
    opened = Log(lambda _: never.wait(60), most=1)
    for _ in range(5):
        log.info("line")
    opened.close(0.01)
    assert not never.is_set()
    never.set()


def test_whatever_is_logged_is_one_line_of_json_and_a_traceback_is_a_field() -> None:
    def fails() -> None:
        raise ValueError("no\nway")

    with written() as lines:
        logging.getLogger("a.library").warning("careful")
        warnings.warn("old", UserWarning, stacklevel=1)
        try:
            fails()
        except ValueError as error:
            log.error("unexpected", exc_info=error, extra={"request_id": "r-1"})
        thread = threading.Thread(target=fails, name="worker")
        thread.start()
        thread.join()
    assert [line["logger"] for line in lines] == ["a.library", "py.warnings", "tunedeck.server", "tunedeck.server"]
    assert lines[2]["request_id"] == "r-1"
    assert lines[2]["error"].endswith("ValueError: no\nway\n")
    assert lines[3]["message"] == "thread worker has ended"


def test_signs_that_cannot_be_seen_are_escaped_and_chinese_is_not() -> None:
    text = str(Line(path="/律师\u2028\u009b\u202e\ud800\x1b\U000e0041"))
    assert text == '{"path": "/律师\\u2028\\u009b\\u202e\\ud800\\u001b\\udb40\\udc41"}'
    assert json.loads(text)["path"].startswith("/律师\u2028")
