"""Set how Typer shows help: titles in the user's language, long words folded, no panels in a narrow terminal.

Chinese has no spaces, so that Rich takes a whole sentence for a word and would cut it at the end of the column.
"""

from __future__ import annotations

import shutil
from typing import Literal, final

from rich.text import Text
from typer import rich_utils

from tunedeck.core.i18n import say

NARROW = 70


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
