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

from tunedeck.cli.app import COMMANDS, SHORTENED, loaded
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
    names = [" ".join([name, one]).strip() for name in COMMANDS for one in getattr(loaded(name), "commands", [""])]
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
    [("en", ("Usage: ", "Options:", "show this help")), ("zh", ("用法：", "选项：", "显示本帮助", "[默认值：auto]"))],
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


@pytest.mark.parametrize(("lang", "title"), [("en", "Training"), ("zh", "训练")])
def test_every_frame_of_the_help_has_straight_sides(
    tunedeck: Command, monkeypatch: pytest.MonkeyPatch, lang: str, title: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = tunedeck("--lang", lang, "compare", "--help-all").out
    framed = [line for line in said.splitlines() if line[:1] in "│╭╰"]
    assert f"╭─ {title} ─" in said
    assert "│ --no-deduplicate" in said  # a switch that only turns something off
    assert {cell_len(line) for line in framed if line} == {80}
    assert {line[-1] for line in framed if line} == {*"│╮╯"}


@pytest.mark.parametrize("columns", ["40", "80"])
@pytest.mark.parametrize("group", [(), ("data",)])
def test_a_group_without_a_command_prints_its_help_and_ends_with_the_code_of_a_mistake(
    tunedeck: Command, monkeypatch: pytest.MonkeyPatch, columns: str, group: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    said = tunedeck(*group)
    assert (said.code, said.err) == (2, "")
    assert said.out == tunedeck(*group, "--help").out


def test_the_help_has_no_frames_where_the_encoding_lacks_them() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tunedeck", "export", "--help"],
        capture_output=True,
        encoding="latin-1",
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1", "COLUMNS": "80", "TUNEDECK_LANG": "en"},
    )
    assert "  onnx\n    labels, entities" in done.stdout


def test_a_closed_pipe_ends_a_process_without_a_word() -> None:
    command = [sys.executable, "-m", "tunedeck", "explain", "lora"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
