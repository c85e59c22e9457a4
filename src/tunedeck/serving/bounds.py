"""Every bound of a server in one place: its default, its flag, and the sentence that says it has been exceeded.

The defaults fit a container of 4 GiB. The command line, the table in docs/serving.md and the OpenAPI document are made
from this class.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import Any, final

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say

BYTES, SECONDS, COUNT = "bytes", "seconds", "count"


def _bound(default: float, unit: str, text: Callable[[], str]) -> Any:
    return field(default=default, metadata={"unit": unit, "text": text})


@final
@dataclass(frozen=True, slots=True)
class Bounds:
    """Limit one request, key, connection and adapter folder. Raises ConfigError for a value below the minimum.

    The flag of a field is its name with dashes: `max_inputs` is `--max-inputs`.
    """

    max_inputs: int = _bound(256, COUNT, lambda: say("inputs per request"))
    max_input_chars: int = _bound(200_000, COUNT, lambda: say("characters per input"))
    max_input_tokens: int = _bound(32_768, COUNT, lambda: say("tokens per prompt"))
    max_stops: int = _bound(16, COUNT, lambda: say("stop strings per request"))
    max_stop_chars: int = _bound(256, COUNT, lambda: say("characters per stop string"))
    max_tokens: int = _bound(4096, COUNT, lambda: say("tokens per answer"))
    max_choices: int = _bound(8, COUNT, lambda: say("answers per prompt"))
    max_messages: int = _bound(1024, COUNT, lambda: say("messages per conversation"))
    max_schema_chars: int = _bound(16_384, COUNT, lambda: say("characters per JSON schema"))
    max_body: int = _bound(1_000_000, BYTES, lambda: say("size of a request body with inputs"))
    max_admin_body: int = _bound(16_384, BYTES, lambda: say("size of a request body to load or unload"))
    max_json_parts: int = _bound(50_000, COUNT, lambda: say("lists, objects and names in the JSON of a request body"))
    body_memory: int = _bound(64_000_000, BYTES, lambda: say("size of all request bodies held in memory together"))
    body_time: float = _bound(30.0, SECONDS, lambda: say("time for a request body to arrive"))
    header_time: float = _bound(10.0, SECONDS, lambda: say("time for the head of a request to arrive"))
    max_connections: int = _bound(1024, COUNT, lambda: say("open connections"))
    max_requests: int = _bound(1024, COUNT, lambda: say("inputs waiting or running"))
    key_share: float = _bound(
        0.5,
        "share",
        lambda: say(
            "share of the inputs in flight and of the body memory that one key may take when there are several keys"
        ),
    )
    tokenizers: int = _bound(1, COUNT, lambda: say("threads that tokenize"))
    max_loading: int = _bound(64, COUNT, lambda: say("adapters being loaded or waiting to be loaded"))
    max_folder_memory: int = _bound(512 << 20, BYTES, lambda: say("memory of one adapter, by the headers of its files"))
    pattern_time: float = _bound(0.5, SECONDS, lambda: say("time for matching the patterns of an adapter folder"))
    timeout: float = _bound(60.0, SECONDS, lambda: say("time for one answer, from the arrival of its request"))
    stall_time: float = _bound(
        120.0, SECONDS, lambda: say("time for one step of the engine or the loader before /health answers 503")
    )

    def __post_init__(self) -> None:
        for name, value in ((one.name, getattr(self, one.name)) for one in fields(self)):
            if not (0 < value <= 1 if name == "key_share" else value > 0):
                raise ConfigError(say("{flag} cannot be {value}; it must be above 0", flag=flag_of(name), value=value))


current_bounds: ContextVar[Bounds] = ContextVar("current_bounds", default=Bounds())  # noqa: B039 - frozen
"""The bounds of the server whose request is being read."""


def flag_of(name: str) -> str:
    """Return the command line's flag for a bound: `max_inputs` is `--max-inputs`."""
    return f"--{name.replace('_', '-')}"


def text_of(name: str) -> str:
    """Return the description of a bound in the user's language."""
    return str(next(one.metadata["text"]() for one in fields(Bounds) if one.name == name))


def exceeded(name: str, seen: float, limit: float) -> str:
    """Return the sentence for a request that is over a bound; it names the limit and the server's flag."""
    return say(
        "{what}: at most {limit} are allowed, got {seen}; the server's flag is {flag}",
        what=text_of(name),
        limit=limit,
        seen=seen,
        flag=flag_of(name),
    )
