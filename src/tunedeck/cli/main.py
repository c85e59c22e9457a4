"""Choose the language, run the command, and turn every error a user can cause into one line."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import warnings
from functools import cache
from importlib import import_module

from tunedeck.cli.renamed import with_new_names
from tunedeck.core.errors import ConfigError, TunedeckError
from tunedeck.core.i18n import LANGUAGES, listing, say, set_language
from tunedeck.core.process import INTERRUPTED, PIPE_CLOSED, USER_ERROR, process_rank


def main() -> None:
    """Run the command in sys.argv.

    The exit code is 2 for an error the user can mend, 130 after Ctrl-C, 143 after SIGTERM, and 141 when the reader of a
    pipe has gone.
    """
    atexit.register(gc.freeze)  # else the interpreter's end looks for cycles among all that torch has made
    warnings.showwarning = _note  # type: ignore[assignment]
    try:
        sys.argv[1:] = with_new_names(_choose_language(sys.argv[1:]))
        code = import_module("tunedeck.cli.app").run()
        print(end="", flush=True)  # a closed pipe is noticed here and not by the interpreter's end, which prints it
    except TunedeckError as error:
        text = " ".join(str(error).split())
        print(say("error: {text} [{code}]", text=text, code=error.code), file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        print(say("stopped; nothing was left half-written"), file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        _discard_output()  # Rich has turned the error into an exit with code 1
        sys.exit(PIPE_CLOSED)
    sys.exit(code)


def _discard_output() -> None:
    """Let what is still to be written to a closed pipe go nowhere, the interpreter's last flush included."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())


def _choose_language(arguments: list[str]) -> list[str]:
    """Set the language before any text is made, help texts included, and return the arguments without --lang.

    The option is allowed before and after the command, as far as a bare `--`.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options, kept = iter(arguments[:end]), []
    for argument in options:
        name, equals, value = argument.partition("=")
        if name != "--lang":
            kept.append(argument)
        elif (chosen := value if equals else next(options, None)) is not None:
            set_language(chosen)
        else:
            raise ConfigError(say("--lang needs a language: {allowed}", allowed=listing(LANGUAGES)))
    return kept + arguments[end:]


def _note(message: Warning | str, category: type[Warning], *_: object) -> None:
    if process_rank() == 0 and (issubclass(category, UserWarning) or os.environ.get("PYTHONWARNINGS")):
        _print_once(say("note: {text}", text=" ".join(str(message).split())))


@cache
def _print_once(note: str) -> None:
    print(note, file=sys.stderr)
