"""Translate messages to the user's language, English or Chinese.

The English text is the key: `say("no column {name!r}", name="label")`. Translations are gettext catalogues
(translations.py); a text without one is shown in English, and a test keeps the Chinese catalogue complete.
"""

from __future__ import annotations

import difflib
import locale
import os
from collections.abc import Iterable
from contextvars import ContextVar
from functools import cache
from typing import Any

from tunedeck.core.errors import ConfigError
from tunedeck.core.translations import sources, translations

LANGUAGES = ("en", "zh")
_language: ContextVar[str | None] = ContextVar("language", default=None)


def set_language(language: str) -> None:
    """Choose the language of messages, `en` or `zh`; ConfigError for any other."""
    if language not in LANGUAGES:
        allowed = listing(LANGUAGES)
        raise ConfigError(say("unknown language {name!r}, choose one of: {allowed}", name=language, allowed=allowed))
    _language.set(language)


def language() -> str:
    """Return the chosen language, else the one of the environment (TUNEDECK_LANG, LC_ALL, LC_MESSAGES, LANG)."""
    return _language.get() or _language_of_environment()


def say(text: str, /, **values: Any) -> str:
    """Translate `text` and fill in its `{names}` as str.format does."""
    return translations(language()).gettext(text).format(**values)


def say_plural(one: str, many: str, /, count: int, **values: Any) -> str:
    """Translate a text that depends on a number, which it can show as `{count}`: `one` for 1, `many` for any other."""
    return translations(language()).ngettext(one, many, count).format(count=count, **values)


def say_again(text: str) -> str:
    """Translate a text that `say` has translated before, when a module was imported; any other stays as it is."""
    return translations(language()).gettext(sources().get(text, text))


def listing(names: Iterable[object]) -> str:
    """Return names in one line for an error message: `a, b, c`, or `none`."""
    return ", ".join(str(name) for name in names) or say("none")


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return a hint ` (did you mean 'x'?)` when one of the allowed names is close, else nothing."""
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return say(" (did you mean {name!r}?)", name=close[0]) if close else ""


def renamed(old: str, new: str) -> str:
    """Return a note that a setting, an argument or a flag has another name now."""
    return say("{old} is called {new} now; the old name works until the next release", old=old, new=new)


@cache
def _language_of_environment() -> str:
    named = next(
        (os.environ[key] for key in ("TUNEDECK_LANG", "LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(key)), ""
    )
    return "zh" if (named or locale.getlocale()[0] or "").lower().startswith(("zh", "chinese")) else "en"
