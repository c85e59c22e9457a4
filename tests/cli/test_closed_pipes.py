"""A reader of a pipe that has gone, a closed standard input, and texts that look like a terminal's markup."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import tiny_models
from support.command_line import Command
from support.forked_command import Forked

import tunedeck as td
from tunedeck.cli.console import print_table

PRINTING = (
    "--help",
    "train --help-all",
    "explain",
    "explain lora --json",
    "schema",
    "fetch",
    "data check WORDS",
    "adapters list ADAPTERS",
    "adapters show ADAPTERS/reds --json",
    "predict --adapter ADAPTERS/reds w5",
    "predict --adapter ADAPTERS/reds w5 --json",
    "plan --model qwen-7b --data WORDS",
    "deploy-cost --model qwen-7b",
)
"""Commands that print results, by their functions for it: Typer's help, print, tables and JSON."""


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    for kind, name in (("classifier", "reds"), ("causal", "words")):
        deck = tiny_models.deck_of("bert" if kind == "classifier" else "llama", kind)
        targets = ("query", "value") if kind == "classifier" else ("q_proj", "v_proj")
        tiny_models.add_stirred(deck, name, td.LoraConfig(target_modules=targets))
        deck.save(name, folder / name)
    return folder


@pytest.mark.parametrize("command", PRINTING)
def test_a_command_whose_reader_has_gone_ends_without_a_word(
    command: str, adapters: Path, words: Path, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    arguments = command.replace("ADAPTERS", str(adapters)).replace("WORDS", str(words)).split()
    forked = Forked(arguments, tmp_path / "errors", results=writing)
    os.close(writing)
    code, errors = forked.wait()
    assert (code, errors if "Error" in errors else "") == (141, "")


@pytest.mark.parametrize(
    ("command", "code", "end"),
    [
        ("predict --adapter ADAPTERS/reds", 2, "lines on standard input [TD-E003]"),
        ("embed --model MODEL", 2, "lines on standard input [TD-E003]"),
        ("data check -", 2, "nothing is piped into it [TD-E003]"),
        ("chat --adapter ADAPTERS/words", 0, "/quit ends"),
    ],
)
def test_a_closed_standard_input_is_an_empty_one(
    command: str, code: int, end: str, adapters: Path, tmp_path: Path
) -> None:
    model = tiny_models.folder_of("bert", "plain")
    arguments = command.replace("ADAPTERS", str(adapters)).replace("MODEL", model).split()
    found, output = Forked(arguments, tmp_path / "output", with_input=False).wait()
    assert (found, output.rstrip()[-len(end) :]) == (code, end)


@pytest.mark.parametrize("columns", ["40", "100"])
def test_a_text_like_markup_is_shown_as_it_is(
    columns: str, tunedeck: Command, adapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    text = "w5 [/b] :smile: [red]"
    said = tunedeck("predict", "--adapter", adapters / "reds", text)
    assert said.code == 0, said.err
    assert text in said.out


def test_long_cells_in_a_narrow_terminal_are_lines_with_their_examples_below(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    finding, examples = "near copies of another text with another label", ["row 1: " + "a word " * 5, "row 2: a word"]
    print_table("", ["what", "examples"], [[finding, "\n".join(examples)]], numbers_from=9)
    assert capsys.readouterr().out.splitlines() == [finding, *(f"  {one}" for one in examples)]
