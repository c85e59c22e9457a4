"""Mistakes in the command line itself, which Typer finds, in one line and in the user's language."""

from __future__ import annotations

import re
from collections.abc import Callable

from tunedeck.core.i18n import listing, nearest, say


def usage_message(text: str, commands: list[str]) -> str:
    """Translate a message of Typer; one that is not known here stays as it is. `commands` are those there are."""
    for pattern, translate in _MESSAGES:
        if match := pattern.fullmatch(text):
            message = translate(*match.groups(default=""))
            return message + (_instead(match[1], commands) if translate is _no_command else "")
    return text


def _instead(name: str, commands: list[str]) -> str:
    return nearest(name, commands) or say("; there are: {commands}", commands=listing(commands))


def _no_option(name: str, close: str) -> str:
    return say("there is no option {name}", name=name) + nearest(name, close.split(", "))


def _no_command(name: str) -> str:
    return say("there is no command {name!r}", name=name)


def _missing(name: str) -> str:
    return say("{name} is missing", name=name)


def _no_value(name: str) -> str:
    return say("{name} needs a value", name=name)


def _too_much(values: str) -> str:
    return say("unexpected argument: {values}", values=values)


def _not_whole(name: str) -> str:
    return say("{name} must be a whole number", name=name)


def _not_a_number(name: str) -> str:
    return say("{name} must be a number", name=name)


def _below(name: str, limit: str) -> str:
    return say("{name} must be {limit} or more", name=name, limit=limit)


def _above(name: str, limit: str) -> str:
    return say("{name} must be {limit} or less", name=name, limit=limit)


_MESSAGES: tuple[tuple[re.Pattern[str], Callable[..., str]], ...] = (
    (re.compile(r"No such option: (\S+)(?: \(Possible options: (.*)\))?"), _no_option),
    (re.compile(r"No such command '(.*?)'.*", re.DOTALL), _no_command),
    (re.compile(r"Missing (?:option|argument) '(.*?)'.*", re.DOTALL), _missing),
    (re.compile(r"Option '(.*?)' requires an argument\."), _no_value),
    (re.compile(r"Got unexpected extra argument(?:\(s\)|s)? \((.*)\)"), _too_much),
    (re.compile(r"Invalid value for '(.*?)': Input should be a valid integer.*"), _not_whole),
    (re.compile(r"Invalid value for '(.*?)': Input should be a valid number.*"), _not_a_number),
    (re.compile(r"Invalid value for '(.*?)': Input should be greater than or equal to (.*)"), _below),
    (re.compile(r"Invalid value for '(.*?)': Input should be less than or equal to (.*)"), _above),
)
