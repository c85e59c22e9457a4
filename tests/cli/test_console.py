"""Tables in terminals of any width."""

from __future__ import annotations

import pytest

from tunedeck.cli.console import print_table

COLUMNS = ["method", "GPU", "hours", "cost"]
ROWS = [["qlora", "rtx-4090", "0.23", "1.1 (0.40-3.4)"], ["lora", "a100-80gb", "0.24", "1.2 (0.42-3.6)"]]


@pytest.mark.parametrize("width", [80, 44])
def test_a_table_breaks_no_word(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_table("Plan", COLUMNS, ROWS)
    out = capsys.readouterr().out
    assert "┃" in out
    assert all(cell in out for row in ROWS for cell in row[:3])
    assert max(map(len, out.splitlines())) <= width


def test_a_terminal_too_narrow_for_a_table_gets_a_line_for_each_cell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    print_table("Plan", COLUMNS, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == ["Plan", "method: qlora", "GPU: rtx-4090", "hours: 0.23", "cost: 1.1 (0.40-3.4)"]
    print_table("", ["what", "value"], [["a very long name", "12345678901234567890"], ["rows", "2"]])
    assert capsys.readouterr().out.splitlines()[-1] == "rows: 2"


def test_headings_are_broken_before_cells(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    columns = ["method", "GPU", "fits, GiB free", "peak GiB", "batch", "hours", "cost, CNY"]
    print_table("", columns, [["prompt_tuning", "this-machine", "yes +20.5", "0.67", "32x1", "0.03", "-"]])
    out = capsys.readouterr().out
    assert "│ prompt_tuning │ this-machine │ yes +20.5 │ 0.67 │  32x1 │  0.03 │     - │" in out
    assert "fits," in out
    assert max(map(len, out.splitlines())) <= 80
