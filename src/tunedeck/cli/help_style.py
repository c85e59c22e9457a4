"""Set how Typer shows help: titles in the user's language, long words folded, no panels in a narrow terminal.

Chinese has no spaces, so that Rich takes a whole sentence for a word and would cut it at the end of the column.
"""

from __future__ import annotations

import shutil
from typing import Any, Literal, final

from rich.text import Text
from typer import _click, core, rich_utils

from tunedeck.core.i18n import say

NARROW = 70


@final
class _Formatter(_click.HelpFormatter):
    """Typer's help, which begins with its first word in the user's language."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write the line of the command's arguments."""
        super().write_usage(prog, args, say("Usage: ") if prefix is None else prefix)


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
        if option := one.get_help_option(ctx):
            option.help = say("show this help")
    for parameter in command.params:
        if parameter.name == "install_completion":
            parameter.help = say("set up completion in this shell")
        elif parameter.name == "show_completion":
            parameter.help = say("print the completion script of this shell")


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
