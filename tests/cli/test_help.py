"""Help: an example of every command that runs, titles in the user's language, completion in the shell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from support import tiny_models
from support.command_line import Command

from tunedeck.cli import adapters, data, export, label
from tunedeck.cli.app import SHORTENED, app
from tunedeck.cli.examples import EXAMPLES

RUN = [
    "plan",
    "data check",
    "train",
    "eval",
    "predict",
    "embed",
    "adapters list",
    "adapters show",
    "adapters convert",
    "export merge",
    "export peft",
    "export card",
    "schema",
    "explain",
    "doctor",
    "deploy-cost",
]
"""Those that need no download, no server and no other kind of adapter, in an order in which each finds its files."""


HELP_OF_ALL = """
import sys
from tunedeck.cli.main import main
lang, *commands = sys.argv[1:]
for command in ("", *commands):
    sys.argv = ["tunedeck", "--lang", lang, *command.split(), "--help"]
    try:
        main()
    except SystemExit as left:
        assert left.code == 0, command
"""


def test_every_command_has_an_example_and_no_other_is_shown() -> None:
    groups = {
        "": app,
        "data ": data.app,
        "label ": label.app,
        "adapters ": adapters.app,
        "export ": export.app,
    }
    names = [f"{group}{one.name}" for group, one_app in groups.items() for one in one_app.registered_commands]
    assert sorted(names) == sorted(EXAMPLES)


@pytest.mark.parametrize("command", EXAMPLES)
def test_the_help_shows_an_example_whose_options_exist(
    tunedeck: Command, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    program, *arguments = EXAMPLES[command].split()
    said = tunedeck(*arguments, "--help")
    assert (program, said.code) == ("tunedeck", 0), said.err
    assert EXAMPLES[command] in said.out


@pytest.mark.parametrize("command", SHORTENED)
def test_the_help_of_a_command_with_many_options_fits_a_screen_and_names_the_rest(
    tunedeck: Command, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    short, whole = tunedeck(command, "--help").out, tunedeck(command, "--help-all").out
    assert short.count("\n") <= (62 if command in ("compare", "race") else 50)
    assert f"tunedeck {command} --help-all" in short
    options = set(re.findall(r"--[a-z-]+", short))
    assert options < set(re.findall(r"--[a-z-]+", whole))


def test_the_examples_run(
    tunedeck: Command, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(words, "reviews.csv")
    model = tiny_models.folder_of("bert", "classifier")
    for command in RUN:
        arguments = EXAMPLES[command].replace("bundled:all-minilm-l6-v2", model).split()[1:]
        with subtests.test(command):
            said = tunedeck(*arguments, *(("--max-steps", 2) if command == "train" else ()))
            assert said.code == 0, said.err
    assert Path("predicted.csv").read_text(encoding="utf-8").startswith("text,label,predicted,score\n")


def test_titles_of_the_help_are_in_the_chosen_language() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tunedeck", "adapters", "show", "--help", "--lang", "zh"],
        capture_output=True,
        encoding="utf-8",
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "80"},
    )
    for text in ("用法：", "参数", "选项", "[必填]", "显示本帮助", "示例：tunedeck adapters show"):
        assert text in done.stdout


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("tunedeck exp", ["explain", "export"]), ("tunedeck train --learning", ["--learning-rate"])],
)
def test_the_shell_completes_commands_and_options(typed: str, completed: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from tunedeck.cli.main import main; main()"],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "_TUNEDECK_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(typed.count(" ")),
        },
    )
    assert sorted(done.stdout.split()) == completed


@pytest.mark.parametrize(
    ("lang", "texts"),
    [("en", ("Usage: ", "Options:", "show this help")), ("zh", ("用法：", "选项：", "显示本帮助", "[默认：auto]"))],
)
def test_the_help_of_every_command_fits_a_narrow_terminal(lang: str, texts: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP_OF_ALL, lang, *EXAMPLES],
        capture_output=True,
        encoding="utf-8",
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "40"},
    )
    assert all(text in done.stdout for text in (*texts, "--allow-base-mismatch"))
    assert re.findall(r"\w\.\.\.$", done.stdout, re.MULTILINE) == []  # nothing is cut off
    too_wide = [line for line in done.stdout.splitlines() if cell_len(line) > 40]
    assert [line for line in too_wide if len(line.split()) > 1] == []  # a path is not broken


def test_a_closed_pipe_ends_a_process_without_a_word() -> None:
    command = [sys.executable, "-m", "tunedeck", "explain", "lora"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
