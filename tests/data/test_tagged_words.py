"""Files with a word and its tags to a line, and lists of words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.errors import DataError
from tunedeck.data.table import Table, read_table
from tunedeck.data.tagged_words import is_by_character, join_words, scheme_of

CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC
call NN I-NP O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER
"""
CHINESE = "海 O\n钓 O\n在 O\n厦 B-LOC\n门 I-LOC\n与 O\n金 B-LOC\n门 I-LOC\n。 O\n"


def read(tmp_path: Path, text: str, name: str = "train.conll") -> Table:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_table(str(tmp_path / name))


def found(table: Table) -> list[tuple[str, list[tuple[str, str]]]]:
    rows: list[dict[str, Any]] = table.rows
    return [
        (row["text"], [(row["text"][one["start"] : one["end"]], one["label"]) for one in row["entities"]])
        for row in rows
    ]


@pytest.mark.parametrize("name", ["train.conll", "train.bio", "train.txt"])
def test_the_first_column_is_the_word_the_last_the_tag_and_a_blank_line_ends_a_text(tmp_path: Path, name: str) -> None:
    table = read(tmp_path, CONLL_2003, name)
    assert found(table) == [
        ("EU rejects German call", [("EU", "ORG"), ("German", "MISC")]),
        ("Peter Blackburn", [("Peter Blackburn", "PER")]),
    ]
    assert "2 texts, tagged in IOB2" in table.notes[0]


def test_chinese_characters_are_joined_without_spaces(tmp_path: Path) -> None:
    assert found(read(tmp_path, CHINESE)) == [("海钓在厦门与金门。", [("厦门", "LOC"), ("金门", "LOC")])]


def test_digits_in_a_file_of_characters_are_joined_as_well(tmp_path: Path) -> None:
    table = read(tmp_path, "在 O\n2 B-T\n0 I-T\n1 I-T\n9 I-T\n年 I-T\n的 O\n北 B-L\n京 I-L\n城 O\n里 O\n")
    assert found(table) == [("在2019年的北京城里", [("2019年", "T"), ("北京", "L")])]


def test_a_full_width_space_is_a_word_and_tabs_divide_columns(tmp_path: Path) -> None:
    assert found(read(tmp_path, "在\tO\n\u3000\tO\n北\tB-L\n京\tI-L\n")) == [("在\u3000北京", [("北京", "L")])]


def test_windows_line_ends_comments_and_several_blank_lines_are_read(tmp_path: Path) -> None:
    table = read(tmp_path, "# id = 1\r\nA O\r\n# B-TAG\r\n\r\n\r\n# id = 2\r\nParis B-LOC\r\n")
    assert found(table) == [("A #", [("#", "TAG")]), ("Paris", [("Paris", "LOC")])]


@pytest.mark.parametrize(
    ("texts", "scheme"),
    [
        (["B-P I-P O B-P", "O"], "IOB2"),
        (["I-P I-P O I-L B-L"], "IOB1"),
        (["B-P I-P O", "O I-P"], "IOB"),
        (["B-P E-P O S-L"], "IOBES"),
        (["B-P M-P E-P"], "IOBES"),
        (["O O"], "IOB2"),
    ],
)
def test_schemes_are_told_apart(texts: list[str], scheme: str) -> None:
    assert scheme_of([text.split() for text in texts]) == scheme


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("EU B-ORG\nrejects\n", "line 2: expected a word and its tag, such as B-PER, I-PER or O.*'rejects'"),
        ("EU X-ORG\n", "line 1: expected a word and its tag"),
        ("EU ORG\n", "line 1: expected a word and its tag"),
        ("\n\n", "is empty"),
        ("# a\n# b\n", "no rows"),
    ],
)
def test_what_is_no_word_with_a_tag_is_refused_with_its_line(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read(tmp_path, text)


def test_words_are_joined_as_their_scripts_write_them() -> None:
    assert join_words(["用", "my", "iPhone", "打", "开"], False) == (
        "用my iPhone打开",
        [(0, 1), (1, 3), (4, 10), (10, 11), (11, 12)],
    )
    assert join_words(["서울", "역"], False)[0] == "서울 역"
    assert is_by_character(["打", "开", "灯", "A"] * 3)
    assert not is_by_character(["I", "a", "A"])
    assert not is_by_character([])
