from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tunedeck as td
from tunedeck.cli.data import app
from tunedeck.data import pieces
from tunedeck.data.table import read_table
from tunedeck.tasks import data_check
from tunedeck.tasks.data_check import DataCheck, Suspicion


def write(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows), encoding="utf-8")
    return str(path)


def test_files_are_checked_and_the_report_shows_texts_as_they_are(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", [("<script>alert(1)</script>", "x"), ("same", "x"), ("same", "y")])
    test = write(tmp_path / "test.csv", [("same", "x")])
    found = td.data_check(train, test)
    assert [file.rows for file in found.files] == [3, 1]
    assert {"conflicts", "overlap", "repeats"} <= {one.kind for one in found.files[0].findings}
    with_doubt = DataCheck(found.files, (Suspicion(1, "<b>", "x", "y", 0.1, 0.9),))
    with_doubt.report(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;b&gt;" in page
    assert "http" not in page.replace("https://", "http").split("</style>")[1]


def test_the_command_prints_json_and_writes_the_repaired_file(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", [(" a ", "x"), ("a", "x"), ("b", "y")])
    fixed = tmp_path / "fixed.jsonl"
    result = CliRunner().invoke(app, [train, "--json", "--fix", str(fixed)])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["files"][0]["labels"] == {"x": 2, "y": 1}
    assert [json.loads(line)["text"] for line in fixed.read_text().splitlines()] == ["a", "b"]


def test_too_few_rows_for_a_head_are_told(tmp_path: Path) -> None:
    with pytest.raises(td.TunedeckError, match="needs 50 labelled rows and two labels, there are 1 and 1"):
        td.data_check(write(tmp_path / "a.csv", [("a", "x")]), suspicious=True)
    with pytest.raises(td.TunedeckError, match="name one data file"):
        td.data_check()


def test_the_first_rows_of_a_large_file_are_checked_and_all_are_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "LARGE_BYTES", 1)
    monkeypatch.setattr(pieces, "PIECE", 4)
    monkeypatch.setattr(data_check, "CHECKED", 6)
    file = write(tmp_path / "train.csv", [(f"text {number % 8}", "x") for number in range(10)])
    (checked,) = td.data_check(file).files
    assert (checked.rows, checked.notes[-1]) == (6, f"{file} has 10 rows, of which the first 6 are checked")
    assert CliRunner().invoke(app, [file, "--fix", str(tmp_path / "fixed.csv")]).exit_code == 0
    assert len(read_table(str(tmp_path / "fixed.csv")).rows) == 8
