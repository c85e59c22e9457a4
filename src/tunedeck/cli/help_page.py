"""The help of a command in the user's language: sections in frames, or plain lists in a narrow terminal.

Typer's page is drawn by Rich, whose import takes longer than all else that --help needs; and Chinese has no spaces, so
that Rich takes a whole sentence for a word and breaks it anywhere.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import typer
from rich.cells import cell_len
from typer.core import TyperCommand, TyperGroup

from tunedeck.core.i18n import say
from tunedeck.core.process import USER_ERROR

NARROW = 70
_SIDE_BY_SIDE = 14
"""In a terminal without frames, names up to this width have their text beside them, longer ones below."""
_PIECES = re.compile(r"[（《“[]*[\u2e80-\uffef][，。、；：？！）》”]*\s*|[^\s\u2e80-\uffef]+\s*")
"""A Chinese character with its punctuation, or a word: neither is broken at the end of a line."""
_NAME_AND_TYPE = re.compile(r"(.*?)(?: (<.*>(?:\.\.\.)?|[A-Z]+))?")
_FLAG = re.compile(r"(?<!\w)--?[a-z][\w-]*")


@final
@dataclass(frozen=True, slots=True)
class _Row:
    """An argument, an option or a command."""

    names: list[str]
    """Its name, or both names of a switch."""
    type: str
    text: str
    required: bool = False


@final
class HelpCommand(TyperCommand):
    """A command with this page."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        formatter.write(help_page(self, ctx, []))


class HelpGroup(TyperGroup):
    """A group of commands with this page."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; without any, print the page and leave with the code of a user's mistake."""
        if not args and not ctx.resilient_parsing:
            typer.echo(self.get_help(ctx))
            raise typer.Exit(USER_ERROR)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        formatter.write(help_page(self, ctx, list(self.commands.values())))


def help_page(command: Any, ctx: Any, commands: Sequence[Any]) -> str:
    """Return the page of a command; `commands` are those of a group."""
    translate_help(command, ctx)
    width = shutil.get_terminal_size().columns
    framed = width >= NARROW and _can_show("╭")
    usage = say("Usage: ") + " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)])
    sections = [(title, rows) for title, rows in _sections(command, ctx, commands).items() if rows]
    drawn = ["\n".join((_framed if framed else _listed)(title, rows, width)) for title, rows in sections]
    blocks = [
        "\n".join(_styled(line, bold=True) for line in _lines(usage, width - framed, int(framed))),
        *_paragraphs(command.help, width - framed, 1 if framed else 2),
        *(["\n".join(drawn)] if framed else drawn),
        *_paragraphs(command.epilog, width - framed, 1 if framed else 2),
    ]
    return "\n" * framed + "\n\n".join(blocks) + "\n" * (1 + framed)


def translate_help(command: Any, ctx: Any) -> None:
    """Put the texts of the options that Typer adds itself to a command into the user's language."""
    if option := command.get_help_option(ctx):
        option.help = say("show this help")
    for parameter in command.params:
        if parameter.name == "install_completion":
            parameter.help = say("set up completion in this shell")
        elif parameter.name == "show_completion":
            parameter.help = say("print the completion script of this shell")


def _sections(command: Any, ctx: Any, commands: Sequence[Any]) -> dict[str, list[_Row]]:
    """Return the rows of each section: arguments, options, further panels of options, commands."""
    sections: dict[str, list[_Row]] = {say("Arguments"): [], say("Options"): []}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is None:  # hidden
            continue
        title = say("Arguments") if parameter.param_type_name == "argument" else say("Options")
        found = _NAME_AND_TYPE.fullmatch(record[0])
        assert found is not None
        names = [name for name in found[1].split(" / ") if name.strip()]
        row = _Row(names, _shown_type(found[2] or ""), _translated(record[1]), parameter.required)
        sections.setdefault(parameter.rich_help_panel or title, []).append(row)
    sections[say("Commands")] = [_Row([one.name], "", one.help or "") for one in commands if not one.hidden]
    return sections


def _shown_type(shown: str) -> str:
    """Return `<str>` for Typer's `<list[str]>`, and `<int>` for its `<int range>`."""
    return re.sub(r"<(?:list\[)?(.*?)(?:\]| range)?>", lambda found: f"<{found[1].lower()}>", shown)


def _translated(text: str) -> str:
    """Return a text of Typer with what it adds, such as `[default: 3; required]`, in the user's language."""
    head, _, added = f"  {text}".rpartition("  [")
    if not added.endswith("]"):
        return text
    words = {"required": say("required")}
    parts = [
        say("default: {value}", value=part.removeprefix("default: "))
        if part.startswith("default: ")
        else words.get(part, part)
        for part in added[:-1].split("; ")
    ]
    return f"{head.strip()} [{'; '.join(parts)}]".strip()


def _paragraphs(text: str | None, width: int, indent: int) -> list[str]:
    return ["\n".join(_lines(part, width, indent)) for part in (text or "").split("\n\n") if part]


def _pieces(text: str, room: int) -> Iterator[str]:
    """Yield what stays in one line; a list with commas that is wider than a line is broken after them."""
    for piece in _PIECES.findall(" ".join(text.split())):
        yield from re.findall(r"[^,]+,?|,", piece) if cell_len(piece) > room else [piece]


def _lines(text: str, width: int, indent: int = 0) -> list[str]:
    """Return lines that are no wider than the terminal, each with an indentation."""
    lines = [""]
    for piece in _pieces(text, width - indent):
        if lines[-1] and indent + cell_len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [" " * indent + line.rstrip() for line in lines]


def _listed(title: str, rows: Sequence[_Row], width: int) -> Iterator[str]:
    """Yield the lines of a section without a frame: names with their texts beside them if all are short, else below."""
    names = [f"{' / '.join(row.names)} {row.type}".strip() for row in rows]
    widest = max(map(cell_len, names))
    beside = widest <= _SIDE_BY_SIDE
    yield _styled(say("{title}:", title=title), bold=True)
    for name, row in zip(names, rows, strict=True):
        lines = _lines(row.text, width, 4 + widest if beside else 4)
        if beside:
            lines[0] = f"  {name}{lines[0][2 + cell_len(name) :]}"
        yield from lines if beside else [f"  {name}", *lines]


def _framed(title: str, rows: Sequence[_Row], width: int) -> Iterator[str]:
    """Yield the lines of a section in a frame, with names, types and texts in columns."""
    starred = any(row.required for row in rows)
    names = max(cell_len(name) for row in rows for name in row.names)
    types = max(cell_len(row.type) for row in rows)
    room = width - 4 - 3 * starred - (names + 2) - (types + 2) * (types > 0)
    dim = _styled("│", dim=True)
    yield _styled(f"╭─ {title} {'─' * (width - 5 - cell_len(title))}╮", dim=True)
    for row in rows:
        left, right = row.names, _lines(row.text, room)
        for number in range(max(len(left), len(right))):
            name = left[number] if number < len(left) else ""
            kind = row.type if number == 0 else ""
            text = right[number] if number < len(right) else ""
            star = ("*  " if row.required and number == 0 else "   ") * starred
            cells = [_styled(star, fg="red"), _styled(name, fg="cyan", bold=True), " " * (names + 2 - cell_len(name))]
            if types:
                cells += [_styled(kind, fg="yellow", bold=True), " " * (types + 2 - cell_len(kind))]
            cells += [_FLAG.sub(lambda flag: _styled(flag[0], fg="cyan"), text), " " * (room - cell_len(text))]
            yield f"{dim} {''.join(cells)} {dim}"
    yield _styled(f"╰{'─' * (width - 2)}╯", dim=True)


def _styled(text: str, **style: Any) -> str:
    """Return a text in a style if standard output is a terminal with colours."""
    if not text.strip() or not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return typer.style(text, **style)


def _can_show(character: str) -> bool:
    """Return whether the encoding of standard output has a character."""
    try:
        character.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
