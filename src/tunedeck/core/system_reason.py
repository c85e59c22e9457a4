"""Why the operating system refused something, in the user's language."""

from __future__ import annotations

import errno
import socket

from tunedeck.core.i18n import say


def system_reason(error: Exception) -> str:
    """Return the reason of an OSError, or of text that is not UTF-8; any other error keeps its own text."""
    if isinstance(error, UnicodeDecodeError):
        return say("it is not UTF-8")
    if not isinstance(error, OSError):
        return str(error)
    if isinstance(error, socket.gaierror):
        return say("there is no such address")
    return _reasons().get(error.errno or 0) or error.strerror or str(error)


def _reasons() -> dict[int, str]:
    """Return the usual reasons; the English ones are those of the system where it says them plainly."""
    return {
        errno.ENOENT: say("No such file or directory"),
        errno.EACCES: say("Permission denied"),
        errno.EPERM: say("Operation not permitted"),
        errno.EEXIST: say("File exists"),
        errno.ENOTDIR: say("Not a directory"),
        errno.EISDIR: say("Is a directory"),
        errno.ENOTEMPTY: say("Directory not empty"),
        errno.ENOSPC: say("No space left on device"),
        errno.EROFS: say("Read-only file system"),
        errno.ENAMETOOLONG: say("File name too long"),
        errno.EADDRINUSE: say("another program uses this port"),
        errno.EADDRNOTAVAIL: say("this machine does not have that address"),
    }
