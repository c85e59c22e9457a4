"""Every bound of a server in one place: its default, its flag, and the sentence that says it has been exceeded.

The defaults fit a container of 4 GiB. The command line, the table in docs/serving.md and the OpenAPI document are made from this class.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import Any, final

from tunedeck.core.errors import ConfigError
from tunedeck.core.messages import say

BYTES, SECONDS, COUNT = "bytes", "seconds", "count"


def _bound(default: float, unit: str, text: Callable[[], str]) -> Any:
    return field(default=default, metadata={"unit": unit, "text": text})


@final
@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request, one key, one connection and one adapter folder may take. Raises ConfigError for a value below its least.

    The flag of a field is its name with dashes: `max_inputs` is `--max-inputs`.
    """

    max_inputs: int = _bound(256, COUNT, lambda: say("inputs a request"))
    max_input_chars: int = _bound(200_000, COUNT, lambda: say("characters an input"))
    max_input_tokens: int = _bound(32_768, COUNT, lambda: say("tokens a prompt"))
    max_stops: int = _bound(16, COUNT, lambda: say("stop strings a request"))
    max_stop_chars: int = _bound(256, COUNT, lambda: say("characters a stop string"))
    max_tokens: int = _bound(4096, COUNT, lambda: say("tokens an answer"))
    max_choices: int = _bound(8, COUNT, lambda: say("answers to one prompt"))
    max_messages: int = _bound(1024, COUNT, lambda: say("messages a conversation"))
    max_schema_chars: int = _bound(16_384, COUNT, lambda: say("characters a JSON schema"))
    max_body: int = _bound(2_000_000, BYTES, lambda: say("body of a request with inputs"))
    max_admin_body: int = _bound(16_384, BYTES, lambda: say("body of a request to load or unload"))
    body_memory: int = _bound(64_000_000, BYTES, lambda: say("bodies in memory together"))
    body_time: float = _bound(30.0, SECONDS, lambda: say("for a body to arrive"))
    header_time: float = _bound(10.0, SECONDS, lambda: say("for the head of a request to arrive"))
    max_connections: int = _bound(1024, COUNT, lambda: say("connections at once"))
    max_requests: int = _bound(512, COUNT, lambda: say("inputs that wait or run"))
    key_share: float = _bound(
        0.5, "share", lambda: say("of what waits and runs that one key may take, where there are several")
    )
    tokenizers: int = _bound(1, COUNT, lambda: say("threads that tokenize"))
    max_loading: int = _bound(64, COUNT, lambda: say("adapters that wait to be loaded or are being loaded"))
    max_folder_memory: int = _bound(
        512 << 20, BYTES, lambda: say("what one adapter folder may take once loaded, by its headers")
    )
    pattern_time: float = _bound(0.5, SECONDS, lambda: say("for the patterns of an adapter folder to be matched"))
    timeout: float = _bound(60.0, SECONDS, lambda: say("for one answer, from its arrival"))
    stall_time: float = _bound(
        120.0, SECONDS, lambda: say("for one step of the engine or the loader, before /health says 503")
    )

    def __post_init__(self) -> None:
        for name, value in ((one.name, getattr(self, one.name)) for one in fields(self)):
            if not (0 < value <= 1 if name == "key_share" else value > 0):
                raise ConfigError(say("{flag} cannot be {value}; it must be above 0", flag=flag_of(name), value=value))


current_bounds: ContextVar[Bounds] = ContextVar("current_bounds", default=Bounds())  # noqa: B039 - frozen
"""The bounds of the server whose request is being read."""


def flag_of(name: str) -> str:
    """The command line's flag for a bound: `max_inputs` is `--max-inputs`."""
    return f"--{name.replace('_', '-')}"


def text_of(name: str) -> str:
    """What a bound bounds, in the language of whoever asks."""
    return str(next(one.metadata["text"]() for one in fields(Bounds) if one.name == name))


def exceeded(name: str, seen: float, limit: float) -> str:
    """The sentence for a request that is over a bound; it names the limit and the server's flag."""
    return say(
        "{what}: at most {limit} are allowed, got {seen}; the server's flag is {flag}",
        what=text_of(name),
        limit=limit,
        seen=seen,
        flag=flag_of(name),
    )
