"""Segmented Chinese with parts of speech, read as sentences with entities."""

from __future__ import annotations

from pathlib import Path

from tunedeck.data.segmented import read_segmented

KINDS = {"nr": "person", "ns": "place", "nt": "organization"}


def entities(tmp_path: Path, line: str) -> list[tuple[str, str]]:
    (tmp_path / "corpus.txt").write_text(line + "\n\n", encoding="utf-8")
    _, (row,) = read_segmented(tmp_path / "corpus.txt", KINDS)
    text, spans = row["text"], row["entities"]
    assert isinstance(text, str)
    assert isinstance(spans, list)
    return [(text[span["start"] : span["end"]], span["label"]) for span in spans]


def test_a_surname_and_the_name_after_it_are_one_person(tmp_path: Path) -> None:
    found = entities(tmp_path, "中共中央/nt  总书记/n  江/nr  泽民/nr  李/nr  鹏/nr  在/p  北京/ns  叶利钦/nr  说/v")
    assert found == [
        ("中共中央", "organization"),
        ("江泽民", "person"),
        ("李鹏", "person"),
        ("北京", "place"),
        ("叶利钦", "person"),
    ]


def test_a_name_after_a_whole_name_is_another_person(tmp_path: Path) -> None:
    assert entities(tmp_path, "叶利钦/nr  江/nr  泽民/nr") == [("叶利钦", "person"), ("江泽民", "person")]


def test_a_slash_may_be_a_word(tmp_path: Path) -> None:
    assert entities(tmp_path, "１//w  上海/ns") == [("上海", "place")]


def test_lines_that_stand_together_are_in_one_block(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("好/a\n" * 120, encoding="utf-8")
    _, rows = read_segmented(tmp_path / "corpus.txt", KINDS)
    assert [row["block"] for row in rows] == [0] * 50 + [1] * 50 + [2] * 20
