"""API keys: hashed, compared in constant time, each with its own adapters and rate."""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunedeck.core.errors import ConfigError
from tunedeck.core.messages import say
from tunedeck.core.toml import parse_toml
from tunedeck.serving.bounds import Bounds


class KeyRecord(BaseModel):
    """A `[[key]]` table of the key file."""

    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True
    )  # who takes sha256 for the key must not see it logged
    name: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the key itself: `printf %s "$KEY" | sha256sum`."""
    admin: bool = False
    models: list[str] = ["*"]
    """Names or patterns (`team/*`) of the adapters it may use; the bare base by its own name."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    max_requests: int | None = Field(default=None, ge=1)
    """Inputs that may wait or run at once."""


@final
@dataclass
class Caller:
    """Who asks. `name` stands in logs and metrics, the key never does."""

    name: str
    admin: bool
    models: tuple[str, ...]
    requests_per_minute: int | None = None
    max_requests: int | None = None
    alone: bool = True
    """Whether there is no other key."""
    _left: float = field(default=0.0, init=False)
    _counted: float = field(default=float("-inf"), init=False)

    def may_use(self, model: str) -> bool:
        """Whether a model is on its list."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)

    def most(self, bounds: Bounds) -> int:
        """Inputs of this key that may wait or run at once: its own limit, else its share where there are several keys."""
        if self.max_requests is not None:
            return self.max_requests
        return bounds.max_requests if self.alone else max(1, int(bounds.key_share * bounds.max_requests))

    def wait_s(self) -> float:
        """Count one request; 0 when it may go on, else the seconds until the next may come (a token bucket)."""
        if self.requests_per_minute is None:
            return 0.0
        a_second, now = self.requests_per_minute / 60, time.monotonic()
        self._left = min(self.requests_per_minute, self._left + (now - self._counted) * a_second)
        self._counted = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / a_second


ANYBODY = Caller("anybody", True, ("*",))
"""Who asks a server without keys, which listens on this machine alone."""


@final
class Keys:
    """The keys of a file, or none at all: then everybody is ANYBODY."""

    def __init__(self, records: list[KeyRecord] | None) -> None:
        self._callers = None
        if records is not None:
            self._callers = [
                (
                    record.sha256,
                    Caller(
                        record.name,
                        record.admin,
                        tuple(record.models),
                        record.requests_per_minute,
                        record.max_requests,
                        alone=len(records) == 1,
                    ),
                )
                for record in records
            ]

    @property
    def needed(self) -> bool:
        """Whether a request must bring one."""
        return self._callers is not None

    def caller(self, authorization: str | None) -> Caller | None:
        """Who sends this Authorization header; None for nobody we know. Takes as long for a near miss as for a far one."""
        if self._callers is None:
            return ANYBODY
        scheme, _, key = (authorization or "").partition(" ")
        seen = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for digest, caller in self._callers:
            if hmac.compare_digest(seen, digest) and scheme.lower() == "bearer":
                found = caller
        return found


def read_keys(file: Path | None) -> Keys:
    """The keys in a TOML file of `[[key]]` tables; ConfigError when it cannot be read or holds none."""
    if file is None:
        return Keys(None)
    try:
        table = parse_toml(file.read_text(encoding="utf-8"))
        records = [KeyRecord.model_validate(one) for one in table["key"]]
    except (OSError, ValueError, KeyError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            say("{path} is no key file: {reason}; see docs/serving.md", path=file, reason=reason)
        ) from error
    if not records:
        raise ConfigError(say("{path} is no key file: {reason}; see docs/serving.md", path=file, reason=say("no key")))
    return Keys(records)
