"""API keys: hashed, compared in constant time, each with its adapters and rates; read again when their file
changes.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import stat
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.system_reason import system_reason
from tunedeck.core.toml import parse_toml
from tunedeck.core.validation import reason_of
from tunedeck.serving.bounds import Bounds

log = logging.getLogger("tunedeck.server")


class KeyRecord(BaseModel):
    """A `[[key]]` table of the key file."""

    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True
    )  # who takes sha256 for the key must not see it logged
    name: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The digest of the key itself: `printf %s "$KEY" | sha256sum`."""
    admin: bool = False
    metrics: bool = False
    """Whether it may read /metrics, which shows every adapter's name and traffic; admins may."""
    models: list[str] = ["*"]
    """Names or patterns (`team/*`) of the adapters it may use; the base model by its name."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Tokens of prompts and answers together; a key that is over its limit waits."""
    max_requests: int | None = Field(default=None, ge=1)
    """Inputs of this key that may wait or run at once."""


@final
class Bucket:
    """A token bucket that holds one minute's rate; it may go below zero, and then nothing is let through until it is
    filled again.
    """

    def __init__(self, a_minute: int) -> None:
        self.a_minute = a_minute
        self._left, self._counted = float(a_minute), time.monotonic()
        self._lock = threading.Lock()

    def wait_s(self, least: float) -> float:
        """Return seconds until `least` is there; 0 when it is there now."""
        with self._lock:
            now = time.monotonic()
            self._left = min(self.a_minute, self._left + (now - self._counted) * self.a_minute / 60)
            self._counted = now
            return max(0.0, (least - self._left) * 60 / self.a_minute)

    def take(self, amount: float) -> None:
        """Count what has been used."""
        with self._lock:
            self._left -= amount


@final
@dataclass(eq=False)
class Caller:
    """The caller. Logs and metrics show `name`, never the key."""

    name: str
    admin: bool
    models: tuple[str, ...]
    metrics: bool = False
    max_requests: int | None = None
    alone: bool = True
    """Whether there is no other key."""
    requests: Bucket | None = None
    tokens: Bucket | None = None

    def may_use(self, model: str) -> bool:
        """Tell whether a model is on its list."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)

    def most(self, bounds: Bounds) -> int:
        """Return inputs of this key that may wait or run at once: its own limit, else its share where there are several
        keys.
        """
        if self.max_requests is not None:
            return self.max_requests
        return bounds.max_requests if self.alone else max(1, int(bounds.key_share * bounds.max_requests))

    def wait_s(self) -> float:
        """Count one request; 0 when it is allowed, else the seconds until the next may come."""
        wait_s = max(
            0.0 if self.requests is None else self.requests.wait_s(1.0),
            0.0 if self.tokens is None else self.tokens.wait_s(0.0),
        )
        if not wait_s and self.requests is not None:
            self.requests.take(1)
        return wait_s


ANYBODY = Caller("anybody", True, ("*",))
"""Who asks a server without keys, which listens on this machine alone."""


@final
class Keys:
    """The keys of a file, or none at all: then everybody is ANYBODY."""

    def __init__(self, records: list[KeyRecord] | None) -> None:
        self.needed = records is not None
        """Whether a request must bring one."""
        self._callers: list[tuple[str, Caller]] = []
        self._named: dict[str, Caller] = {}
        if records is not None:
            self.take(records)

    def take(self, records: list[KeyRecord]) -> None:
        """Use these keys from now on; what a key of the same name has used of its rates stays used."""
        alone = len(records) == 1
        callers = [(record.sha256, _caller(record, self._named.get(record.name), alone)) for record in records]
        self._callers, self._named = callers, {caller.name: caller for _, caller in callers}

    def caller(self, authorization: str | None) -> Caller | None:
        """Return the caller of this Authorization header; None for an unknown one. Takes as long for a near miss as for
        a far one.
        """
        if not self.needed:
            return ANYBODY
        scheme, _, key = (authorization or "").partition(" ")
        seen = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for digest, caller in self._callers:
            if hmac.compare_digest(seen, digest) and scheme.lower() == "bearer":
                found = caller
        return found

    def charge(self, name: str, tokens: int) -> None:
        """Count tokens that a key of this name has used."""
        caller = self._named.get(name)
        if caller is not None and caller.tokens is not None:
            caller.tokens.take(tokens)


@final
class KeyFile:
    """A key file and the keys in it. Raises ConfigError when it cannot be read at first; later the keys of before
    stay.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _signature(path)
        self.keys = Keys(_records(path))
        if _readable_by_others(path):
            log.warning(say("{path} can be read by others; its permissions should be 0600", path=path))

    def reload_if_changed(self) -> None:
        """Read the file again when it is another than it was."""
        if _signature(self._path) != self._seen:
            self.reload()

    def reload(self) -> None:
        """Read the file again; say how that went."""
        self._seen = _signature(self._path)
        try:
            self.keys.take(_records(self._path))
        except ConfigError as error:
            log.warning(say("the keys stay as they were: {reason}", reason=error))
        else:
            log.info(say("the keys have been read again: {path}", path=self._path))


@final
@dataclass
class Guesses:
    """Counts wrong keys by client address. A correct key passes regardless of wrong guesses from its address, which may
    be a proxy's.
    """

    a_minute: int = 20
    _most: int = 4096
    _buckets: OrderedDict[str, Bucket] = field(default_factory=OrderedDict)

    def wait_s(self, client: str) -> float:
        """Count a wrong key; 0 while there are few, else the seconds until the next may come."""
        bucket = self._buckets.setdefault(client, Bucket(self.a_minute))
        self._buckets.move_to_end(client)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        wait_s = bucket.wait_s(1.0)
        if not wait_s:
            bucket.take(1)
        return wait_s


def read_keys(file: Path | None) -> Keys:
    """Return the keys in a TOML file of `[[key]]` tables; ConfigError when it cannot be read or holds none."""
    return Keys(None) if file is None else KeyFile(file).keys


def _records(file: Path) -> list[KeyRecord]:
    try:
        table = parse_toml(file.read_text(encoding="utf-8"))
        records = [KeyRecord.model_validate(one) for one in table.get("key", [])]
        if not records:
            raise ValueError(say("no key"))
        for kind, given in (("name", [one.name for one in records]), ("sha256", [one.sha256 for one in records])):
            if len(set(given)) < len(given):
                raise ValueError(say("two keys have the same {field}", field=kind))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            say(
                "{path} is not a valid key file: {reason}; it holds a table [[key]] with name and sha256 for each key",
                path=file,
                reason=_reason(error),
            )
        ) from error
    return records


def _reason(error: Exception) -> str:
    """Return why a key file cannot be used, without a value of it."""
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            return say("{name} is missing", name=field)
        if first["type"] == "extra_forbidden":
            return say("unknown key {key!r}", key=field)
        if first["type"] == "string_pattern_mismatch":
            return say("sha256 must be 64 hexadecimal digits")
        return f"{field} {reason_of(first)}".strip()
    return say("[[key]] must be a table") if isinstance(error, TypeError) else system_reason(error)


def _caller(record: KeyRecord, before: Caller | None, alone: bool) -> Caller:
    return Caller(
        record.name,
        record.admin,
        tuple(record.models),
        record.metrics,
        record.max_requests,
        alone,
        _bucket(record.requests_per_minute, None if before is None else before.requests),
        _bucket(record.tokens_per_minute, None if before is None else before.tokens),
    )


def _bucket(a_minute: int | None, before: Bucket | None) -> Bucket | None:
    if a_minute is None or before is None:
        return None if a_minute is None else Bucket(a_minute)
    before.a_minute = a_minute
    return before


def _signature(path: Path) -> object:
    """Return the state of the file as it is now; None when it does not exist."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino


def _readable_by_others(path: Path) -> bool:
    return bool(path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH))
