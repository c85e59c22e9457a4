"""Run a command in this process, as a person would, and see what it says."""

from __future__ import annotations

import sys

import pytest
from support.command_line import Command, Said

from tunedeck.cli.main import main


@pytest.fixture
def tunedeck(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`tunedeck("train", "--data", path)` gives what the command said."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["tunedeck", *(str(argument) for argument in arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return Said(int(left.value.code or 0), out, err)

    return run
