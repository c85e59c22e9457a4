"""Run a command in this process, as a person would, and see what it says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import labelled_words
import pytest

from tunedeck.cli.main import main


@dataclass(frozen=True)
class Said:
    """Exit code and the two streams of one command."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


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


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled CSV file."""
    return labelled_words.write_csv(tmp_path_factory.mktemp("data") / "words.csv", labelled_words.rows(120))
