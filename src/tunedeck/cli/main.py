"""The front door: chooses the language, runs the command, and turns every error a user can cause into one line."""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module

from tunedeck.cli.renamed import with_new_names
from tunedeck.core.errors import TunedeckError
from tunedeck.core.i18n import say, set_language
from tunedeck.core.process import INTERRUPTED, process_rank

USER_ERROR = 2


def main() -> None:
    """Run the command in sys.argv; exit code 2 for an error the user can mend, 130 after Ctrl-C, 143 after SIGTERM."""
    warnings.showwarning = _note  # type: ignore[assignment]
    try:
        _choose_language(sys.argv[1:])
        sys.argv[1:] = with_new_names(sys.argv[1:])
        import_module("tunedeck.cli.app").app(prog_name="tunedeck")
    except TunedeckError as error:
        text = " ".join(str(error).split())
        print(say("error: {text}", text=text), file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        print(say("stopped; nothing was left half-written"), file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _choose_language(arguments: list[str]) -> None:
    """--lang counts before anything is said, help texts included."""
    for index, argument in enumerate(arguments):
        if argument.startswith("--lang="):
            set_language(argument.partition("=")[2])
        elif argument == "--lang" and index + 1 < len(arguments):
            set_language(arguments[index + 1])


def _note(message: Warning | str, category: type[Warning], *_: object) -> None:
    if process_rank() == 0 and (issubclass(category, UserWarning) or os.environ.get("PYTHONWARNINGS")):
        print(say("note: {text}", text=" ".join(str(message).split())), file=sys.stderr)
