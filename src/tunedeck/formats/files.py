"""Open files of untrusted adapter folders: regular files only, and text of a bounded length."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from tunedeck.core.errors import AdapterFileError
from tunedeck.core.i18n import say
from tunedeck.core.system_reason import system_reason

_LARGEST_TEXT = 16 << 20
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Opening a FIFO would else wait until somebody writes into it; on Windows a file is text unless said otherwise."""


def open_regular(file: Path) -> BinaryIO:
    """Open a file for reading; AdapterFileError for a FIFO, a device or a socket, and for what cannot be read."""
    try:
        descriptor = os.open(file, os.O_RDONLY | _AT_ONCE)
    except OSError as error:
        raise AdapterFileError(say("cannot read {path}: {reason}", path=file, reason=system_reason(error))) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise AdapterFileError(not_regular(file))
    return os.fdopen(descriptor, "rb")


def read_bytes(file: Path) -> bytes:
    """Return the content of a regular file; AdapterFileError where it cannot be read."""
    with open_regular(file) as opened:
        try:
            return opened.read()
        except OSError as error:
            raise AdapterFileError(
                say("cannot read {path}: {reason}", path=file, reason=system_reason(error))
            ) from error


def read_text(file: Path) -> str:
    """Return the text of a regular file in UTF-8 of at most 16 MiB; AdapterFileError for any other."""
    with open_regular(file) as opened:
        size = os.fstat(opened.fileno()).st_size
    if size > _LARGEST_TEXT:
        raise AdapterFileError(
            say("{path} has {size} bytes; at most {limit} are read", path=file, size=size, limit=_LARGEST_TEXT)
        )
    try:
        return read_bytes(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise AdapterFileError(say("{path} is damaged: {reason}", path=file, reason=error)) from error


def not_regular(file: Path) -> str:
    """Return why a FIFO, a device or a socket is refused."""
    return say("{path} is not a regular file; an adapter folder holds files and folders only", path=file)
