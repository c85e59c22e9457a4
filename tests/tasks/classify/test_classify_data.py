"""The line that a run prints on its labelled examples."""

from __future__ import annotations

from pathlib import Path

import tunedeck as td


def test_of_many_labels_the_most_frequent_are_named(tmp_path: Path) -> None:
    rows = [f"text {label} {place},label{label}" for label in range(12) for place in range(10 + label)]
    (tmp_path / "a.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    said = td.Classify().read(td.DataSettings(train=str(tmp_path / "a.csv"), deduplicate=False)).description
    assert "label11 11%, label10 11%" in said
    assert "8% and 4 more; length in characters" in said
    assert "label3 " not in said
