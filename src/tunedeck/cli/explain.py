"""`tunedeck explain`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from tunedeck.cli import options
from tunedeck.cli.console import print_json, print_table
from tunedeck.core.errors import ConfigError
from tunedeck.core.glossary import ErrorCode, Term, error_codes, terms
from tunedeck.core.i18n import listing, nearest, say


@dataclass(frozen=True, slots=True)
class Entry:
    """A term, a setting or an error code with its text in the user's language, and the terms to read next."""

    title: str
    text: str
    see: tuple[str, ...] = ()


def explain(
    word: Annotated[
        list[str] | None,
        typer.Argument(help=say("a term, a method, a setting or an error code, in either language; none lists them")),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Explain a term, a method, a setting or an error code."""
    if not word:
        _list(as_json)
        return
    asked = " ".join(word)
    found = _found(asked)
    if as_json:
        print_json([asdict(entry) for entry in found])
        return
    for number, entry in enumerate(found):
        print("\n" * bool(number) + entry.title)
        print("  " + entry.text)
        if entry.see:
            print("  " + say("See also: {terms}", terms=listing(entry.see)))


def _found(asked: str) -> list[Entry]:
    """Return the entries of a word; ConfigError, with a close one, where there is none."""
    word = asked.strip().lower()
    name = word.lstrip("-").replace("-", "_")
    entries = [_of_code(one) for one in error_codes() if one.code.lower() == word]
    entries += [_of_term(one) for one in terms() if word in one.words or name in one.words]
    settings = run_settings()
    entries += [entry for key, entry in settings.items() if name in (key, key.rpartition(".")[2])]
    if not entries:
        known = [*(word for one in terms() for word in one.words), *(one.code for one in error_codes()), *settings]
        raise ConfigError(
            say("{word!r} is not in the glossary", word=asked)
            + nearest(word, known)
            + say("; for the list of terms run: tunedeck explain")
        )
    return entries


def _of_code(code: ErrorCode) -> Entry:
    return Entry(code.code, code.text)


def _of_term(term: Term) -> Entry:
    title = term.name if term.zh == term.name else f"{term.name} · {term.zh}"
    return Entry(title, term.text, term.see)


def run_settings() -> dict[str, Entry]:
    """Return the entry of every setting of a run, by its dotted key."""
    from tunedeck.cli.run_options import described_settings

    entries: dict[str, Entry] = {}
    for key, setting, text in described_settings():
        default = say("no default") if setting.default is None else say("default: {value}", value=setting.default)
        choices = [say("one of {allowed}", allowed=listing(setting.choices))] if setting.choices else []
        title = say("setting {key} ({details})", key=key, details=listing([*choices, default]))
        entries[key.lower()] = Entry(title, text)
    return entries


def _list(as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "terms": [{"en": one.name, "zh": one.zh} for one in terms()],
                "errors": [{"code": one.code, "text": one.text} for one in error_codes()],
                "settings": list(run_settings()),
            }
        )
        return
    print_table(say("Terms"), ["English", "中文"], [[one.name, one.zh] for one in terms()], numbers_from=9)
    print_table(say("Error codes"), [say("code"), say("meaning")], [[c.code, c.text] for c in error_codes()], 9)
    print(say("Settings: {names}", names=listing(run_settings())))
