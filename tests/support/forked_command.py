"""The command line in a process forked from this one, for tests that kill it: another would load torch first."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import final

import torch

from tunedeck.cli.main import main


@final
class Forked:
    """A process that runs a command, and leads a process group; what it prints goes to a file.

    Its results go to the descriptor `results` instead, if given. Without `with_input` its standard input is closed.
    """

    def __init__(
        self, arguments: list[str], output: Path, *, results: int | None = None, with_input: bool = True
    ) -> None:
        self._output = output
        self._results = results
        self._with_input = with_input
        self.pid = os.fork()
        if self.pid == 0:
            self._run(arguments)

    def _run(self, arguments: list[str]) -> None:
        code = 1
        try:
            os.setsid()
            gc.freeze()  # looking through what is loaded would copy every page of it
            torch.set_num_threads(torch.get_num_threads())  # torch makes its pool anew; two threads at once cannot
            descriptor = os.open(self._output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout = sys.stderr = open(descriptor, "w", encoding="utf-8", buffering=1)  # noqa: SIM115, PTH123
            if self._results is not None:
                sys.stdout = open(self._results, "w", encoding="utf-8")  # noqa: SIM115, PTH123
            if not self._with_input:
                os.close(0)
                sys.stdin = None  # as Python starts then
            sys.argv = ["tunedeck", *arguments]
            main()
        except SystemExit as left:
            code = int(left.code or 0)
        finally:
            try:
                sys.stdout.flush()
            finally:
                os._exit(code)

    @property
    def ended(self) -> bool:
        """Tell whether it has ended, without waiting for it."""
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return found is not None

    def wait(self) -> tuple[int, str]:
        """Wait for its end; returns the exit code, or minus the signal that killed it, and what it printed."""
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status), self._output.read_text(encoding="utf-8")
