"""The commands and the Python code of the page for beginners run as they stand, on a tiny model."""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path

import pytest
from support import labelled_words, tiny_models
from support.command_line import Command

import tunedeck as td

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("start.md", "start.zh.md")
BASE = "bundled:all-minilm-l6-v2"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the two files that the page names."""
    monkeypatch.chdir(tmp_path)
    labelled_words.write_csv(tmp_path / "reviews.csv", labelled_words.rows(60))
    labelled_words.write_csv(tmp_path / "more-reviews.csv", labelled_words.rows(20, seed=1))
    return tmp_path


def blocks(page: str, language: str) -> str:
    text = (DOCS / page).read_text("utf-8").replace(BASE, str(tiny_models.folder_of("bert", "classifier")))
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_the_page_run(page: str, tunedeck: Command, files: Path) -> None:
    lines = blocks(page, "sh").replace("\\\n", " ").splitlines()
    run = [line for line in lines if line.startswith("tunedeck ") and " serve " not in line]
    assert [shlex.split(line)[1] for line in run] == ["train", "predict", "eval"]
    for line in run:
        said = tunedeck(*shlex.split(line)[1:])
        assert said.code == 0, said.err
    assert (files / "runs" / "reviews" / "adapter" / "tunedeck.json").exists()


def test_the_code_of_the_page_runs(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = blocks(PAGES[0], "python")
    assert code == blocks(PAGES[1], "python")
    exec(code, {})
    assert "label=" in capsys.readouterr().out
    assert td.Deck.open(files / "adapters" / "reviews")


def test_the_commands_of_the_handbook_run(tunedeck: Command, files: Path) -> None:
    """Those that take seconds; the others are parsed by tests/docs."""
    lines = "\n".join(blocks(f"handbook/{page}.md", "sh") for page in ("reviews", "better")).replace("\\\n", " ")
    run = [line for line in lines.splitlines() if line.split()[1:2] in (["train"], ["eval"], ["predict"], ["data"])]
    for line in dict.fromkeys(run):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the base has no head of its own, which --include-base asks
            said = tunedeck(*shlex.split(line)[1:])
        assert said.code == 0, said.err
    assert (files / "wrong.csv").exists()


def test_the_code_of_the_handbook_adds_three_adapters(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, td.Deck] = {}
    exec(blocks("handbook/methods.md", "python"), names)
    assert tuple(names["deck"].adapters) == ("sentiment", "law", "tiny")
    assert len(capsys.readouterr().out.split()) == 4
