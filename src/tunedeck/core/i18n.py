"""What Tunedeck says to people, in English or Chinese.

The English text is the key: `say("no column {name!r}", name="label")`. A text without a translation is said in English;
a test keeps the Chinese table complete.
"""

from __future__ import annotations

import difflib
import locale
import os
from collections.abc import Iterable
from contextvars import ContextVar
from functools import cache
from importlib.resources import files
from typing import Any

from tunedeck.core.errors import ConfigError
from tunedeck.core.toml import parse_toml

LANGUAGES = ("en", "zh")
_language: ContextVar[str | None] = ContextVar("language", default=None)


def set_language(language: str) -> None:
    """Choose the language of messages, `en` or `zh`; ConfigError for any other."""
    if language not in LANGUAGES:
        raise ConfigError(f"unknown language {language!r}, choose one of: {', '.join(LANGUAGES)}")
    _language.set(language)


def language() -> str:
    """The chosen language, else the one of the environment (TUNEDECK_LANG, LC_ALL, LC_MESSAGES, LANG)."""
    return _language.get() or _language_of_environment()


def say(text: str, /, **values: Any) -> str:
    """Translate `text` and fill in its `{names}` as str.format does."""
    template = _chinese().get(text, text) if language() == "zh" else text
    return template.format(**values)


def listing(names: Iterable[object]) -> str:
    """Names in one line for an error message: `a, b, c`, or `none`."""
    return ", ".join(str(name) for name in names) or say("none")


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A hint ` (did you mean 'x'?)` when one of the allowed names is close, else nothing."""
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return say(" (did you mean {name!r}?)", name=close[0]) if close else ""


def renamed(old: str, new: str) -> str:
    """A note that a setting, an argument or a flag has another name now."""
    return say("{old} is called {new} now; the old name works until the next release", old=old, new=new)


@cache
def _language_of_environment() -> str:
    named = next(
        (os.environ[key] for key in ("TUNEDECK_LANG", "LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(key)), ""
    )
    return "zh" if (named or locale.getlocale()[0] or "").lower().startswith(("zh", "chinese")) else "en"


@cache
def _chinese() -> dict[str, str]:
    table = parse_toml(files("tunedeck.core").joinpath("messages_zh.toml").read_text(encoding="utf-8"))
    return {entry["en"]: entry["zh"] for entry in table["message"]}
