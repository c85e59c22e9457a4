"""Set how Typer shows help: titles in the user's language, long words folded, no panels in a narrow terminal.

Chinese has no spaces, so that Rich takes a whole sentence for a word and would cut it at the end of the column.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from typing import Any, Literal, final

from rich.cells import cell_len
from rich.text import Text
from typer import _click, core, rich_utils

from tunedeck.core.i18n import say

NARROW = 70
_SIDE_BY_SIDE = 14
"""In a terminal without panels, names up to this width have their text beside them, longer ones below."""
_PIECES = re.compile(r"[（《“[]*[\u2e80-\uffef][，。、；：？！）》”]*\s*|[^\s\u2e80-\uffef]+\s*")
"""A Chinese character with its punctuation, or a word: neither is broken at the end of a line."""


@final
class _Formatter(_click.HelpFormatter):
    """Typer's help in a terminal without panels, in the user's language and within the terminal's width."""

    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None) -> None:
        super().__init__(indent_increment, width or shutil.get_terminal_size().columns, max_width)

    def write_heading(self, heading: str) -> None:
        """Write the title of a section."""
        self.write(say("{title}:", title=heading) + "\n")

    def write_text(self, text: str) -> None:
        """Write paragraphs, with their indentation."""
        self.write("\n\n".join(self._filled(part, self.current_indent) for part in text.split("\n\n")) + "\n")

    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names with their texts: beside them where all names are short, else below each."""
        names = max((cell_len(name) for name, _ in rows), default=0)
        beside = names <= _SIDE_BY_SIDE
        indent = self.current_indent + (names + col_spacing if beside else 4)
        for name, text in rows:
            filled = self._filled(text, indent)
            first = " " * self.current_indent + name
            self.write(f"{first}{filled[len(first) :]}\n" if beside else f"{first}\n{filled}\n")

    def _filled(self, text: str, indent: int) -> str:
        """Return lines that are no wider than the terminal, each with an indentation."""
        lines = [""]
        for piece in _PIECES.findall(" ".join(text.split())):
            if lines[-1] and indent + cell_len((lines[-1] + piece).rstrip()) > self.width:
                lines.append("")
            lines[-1] += piece
        return "\n".join(" " * indent + line.rstrip() for line in lines)

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write the line of the command's arguments."""
        first = say("Usage: ") if prefix is None else prefix
        self.write(self._filled(f"{first}{prog} {args}", 0) + "\n")


@final
class _Folding(rich_utils.OptionHighlighter):
    """Typer's colours; words that are longer than their column continue in the next line."""

    def __call__(self, text: str | Text) -> Text:
        """Return the coloured text."""
        shown = super().__call__(text)
        shown.overflow = "fold"
        return shown


def markup_mode() -> Literal["rich"] | None:
    """Return Typer's markup mode: panels, or none in a narrow terminal, where they would break the names of options."""
    return "rich" if shutil.get_terminal_size().columns >= NARROW else None


def set_help_style() -> None:
    """Set Typer's titles, and the way it folds, in the language that is chosen by now."""
    rich_utils.ARGUMENTS_PANEL_TITLE = say("Arguments")
    rich_utils.OPTIONS_PANEL_TITLE = say("Options")
    rich_utils.COMMANDS_PANEL_TITLE = say("Commands")
    rich_utils.REQUIRED_LONG_STRING = say("[required]")
    rich_utils.DEFAULT_STRING = say("[default: {{}}]")
    rich_utils.highlighter = _Folding()
    _click.Context.formatter_class = _Formatter
    core._ = _translated  # type: ignore[assignment,attr-defined]  # titles in a terminal without panels


def translate_help(command: Any, ctx: Any) -> None:
    """Put the texts that Typer adds itself to a command, and to those of a group, into the user's language."""
    inner = command.commands.values() if isinstance(command, core.TyperGroup) else ()
    for one in (command, *inner):
        one.short_help = one.help  # else Typer cuts it off
        if option := one.get_help_option(ctx):
            option.help = say("show this help")
    for parameter in (each for one in (command, *inner) for each in one.params):
        parameter.display_type = _always(_shown_type(parameter.display_type(ctx)))
        if parameter.name == "install_completion":
            parameter.help = say("set up completion in this shell")
        elif parameter.name == "show_completion":
            parameter.help = say("print the completion script of this shell")


def _always(text: str) -> Callable[[Any], str]:
    return lambda _: text


def _shown_type(shown: str) -> str:
    """Return `<str>` for Typer's `<list[str]>`, and `<int>` for its `<int range>`."""
    return re.sub(r"<(?:list\[)?(.*?)(?:\]| range)?>", r"<\1>", shown).lower()


def _translated(text: str) -> str:
    """Return one of the words that Typer prints in a terminal without panels in the user's language."""
    words = {
        "Arguments": say("Arguments"),
        "Options": say("Options"),
        "Commands": say("Commands"),
        "required": say("required"),
        "default: {default}": say("default: {{default}}"),
    }
    return words.get(text, text)
