"""Labels that look wrong, mended on the page into a new file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nicegui")

from support.simulated_page import simulated

from tunedeck.data.table import read_table
from tunedeck.tasks.data_check import Suspicion, data_check


def test_a_wrong_label_is_mended_into_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"{'good' if number % 2 else 'bad'} thing {number},{'yes' if number % 2 else 'no'}" for number in range(40)]
    file = tmp_path / "a.csv"
    file.write_text("\n".join(["review,label", *rows]), encoding="utf-8")
    before = file.read_bytes()
    doubts = (
        Suspicion(1, "bad thing 0", "no", "yes", 0.1, 0.9),
        Suspicion(2, "<b>good</b> thing 1", "yes", "no", 0.2, 0.8),
    )

    async def visit(user: Any) -> None:
        monkeypatch.setattr(
            sys.modules["tunedeck.web.pages.mend"],
            "_doubts",
            lambda *asked: type(plain)(plain.files, doubts),
        )
        await user.open("/data?file=a.csv")
        await user.should_see("Problems", retries=300)
        user.find("Look for wrong labels").click()
        await user.should_see("row 1: no (10%), likelier yes (90%)", retries=50)
        await user.should_see("<b>good</b> thing 1")
        await user.should_see("Save 0 changes as a new file")
        user.find("Change to yes").click()
        await user.should_see("Save 1 change as a new file")
        user.find("Change to no").click()
        await user.should_see("Save 2 changes as a new file")
        user.find("Save 2 changes as a new file").click()
        await user.should_see("data/a-mended.csv", retries=100)

    plain = data_check(str(file))
    simulated(tmp_path, visit)
    assert file.read_bytes() == before
    mended = read_table(str(tmp_path / "data/a-mended.csv")).rows
    assert [row["label"] for row in mended[:3]] == ["yes", "no", "no"]
    assert [row["review"] for row in mended] == [row["review"] for row in read_table(str(file)).rows]
