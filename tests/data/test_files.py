"""Files as people and their programs make them."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import sys
import zipfile
from pathlib import Path

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunedeck.core.errors import DataError
from tunedeck.data import pieces
from tunedeck.data.encoding import SAMPLE_BYTES
from tunedeck.data.files import read_standard_input
from tunedeck.data.labelled import Example, labelled_examples, text_column_of
from tunedeck.data.separated import noticed_delimiter
from tunedeck.data.table import Table, read_table

LIBREOFFICE = Path(__file__).with_name("libreoffice")
"""A table with two title rows and merged labels, which LibreOffice 7.4 saved in each format."""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(name: str, content: str | bytes, encoding: str = "auto") -> Table:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return read_table(name, encoding)


def workbook(*rows: list[object], merged: str | None = None, sheets: int = 1) -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    for row in rows:
        sheet.append(row)
    if merged:
        sheet.merge_cells(merged)
    for number in range(1, sheets):
        book.create_sheet(f"more {number}").append(["text", number])
    held = io.BytesIO()
    book.save(held)
    return held.getvalue()


def examples(table: Table) -> list[tuple[str, str]]:
    return [(one.text, one.labels[0]) for one in labelled_examples(table, None, None)]


CHINESE = "评论内容,情感\n这家酒店的服务非常好，房间干净，下次还会来。,正面\n电池不耐用，不推荐购买,负面\n"
TAIWANESE = "評論,類別\n這家酒店的服務非常好，房間乾淨，下次還會來。,正面\n電池不耐用，螢幕有刮痕，不推薦購買,負面\n"
JAPANESE = "text,label\nこのホテルのサービスはとても良いです。,ポジティブ\n電池がすぐ切れます,ネガティブ\n"
FRENCH = "text,label\nDéjà vu, très déçu,neg\nun café – c’était bien,pos\n".replace("vu, t", "vu; t")


@pytest.mark.parametrize(
    ("text", "encoding", "said"),
    [
        (CHINESE, "utf-8", None),
        (CHINESE, "utf-8-sig", None),
        (CHINESE, "utf-16", "utf-16"),
        (FRENCH, "utf-16-le", "utf-16-le"),
        (FRENCH, "utf-16-be", "utf-16-be"),
        (CHINESE, "gb18030", "gb18030"),
        (TAIWANESE, "big5", "big5"),
        (JAPANESE, "shift-jis", "cp932"),
        (FRENCH, "cp1252", "cp1252"),
        (FRENCH.replace("–", "-").replace("’", "'"), "latin-1", "cp1252"),
    ],
)
def test_an_encoding_is_detected_and_said(text: str, encoding: str, said: str | None) -> None:
    table = read("a.csv", text.encode(encoding))
    assert table.rows == read("b.csv", text).rows
    assert [note.split(" is read as ")[1].split(";")[0] for note in table.notes] == ([said] if said else [])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.sampled_from("这家酒店的服务非常好房间干净下次还会来电池不耐用推荐购买书写得很有意思"),
        min_size=6,
        unique=True,
    )
)
def test_everyday_chinese_is_told_from_other_encodings(characters: list[str]) -> None:
    text = "text,label\n" + "".join(characters) + ",1\n"
    assert read("a.csv", text.encode("gb18030")).rows == read("b.csv", text).rows


def test_an_encoding_that_is_insisted_on_is_not_detected() -> None:
    assert read("a.csv", "text,label\né,x\n".encode(), "latin-1").rows == [{"text": "Ã©", "label": "x"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text;label\na, b;x\nc;x\n"),
        ("a.csv", "text\tlabel\na, b\tx\nc\tx\n"),
        ("a.tsv", 'text,label\n"a, b",x\nc,x\n'),
        ("a.csv", '\n"text";"label"\n"a, b";"x"\nc;x\n'),
        ("a.csv", "Export of 3 May;\ntext;label\na, b;x\nc;x\n"),
    ],
)
def test_semicolons_and_tabs_are_noticed_and_said(name: str, content: str) -> None:
    table = read(name, content)
    assert examples(table) == [("a, b", "x"), ("c", "x")]
    assert "the values are separated by" in table.notes[0]


@pytest.mark.parametrize("content", ["text; no label\nplain\n", "text,note;more\na;b,c\n", "one", "text\na; b\nc; d\n"])
def test_a_delimiter_that_does_not_divide_the_rows_is_text(content: str) -> None:
    assert noticed_delimiter(content, ",") == ","


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1), st.sampled_from("xyz")),
        min_size=1,
    ),
    st.sampled_from(",;\t"),
)
def test_what_csv_writes_is_read_whatever_the_delimiter(rows: list[tuple[str, str]], delimiter: str) -> None:
    import csv

    held = io.StringIO(newline="")
    writer = csv.writer(held, delimiter=delimiter)
    writer.writerows([("text", "label"), *rows])
    assert [tuple(row.values()) for row in read("a.csv", held.getvalue()).rows] == rows


def test_title_rows_above_the_header_are_left_out_and_said() -> None:
    table = read("a.csv", "评论汇总,,\n导出时间 5 月,,\n内容,标签,来源\n很好,正,a\n差,负,b\n")
    assert (table.columns, len(table.rows)) == (("内容", "标签", "来源"), 2)
    assert table.notes == ("a.csv: 2 title rows above the header are left out; the columns are 内容, 标签, 来源",)


def test_a_file_without_a_header_is_noticed_and_its_columns_are_told_by_their_content() -> None:
    table = read("a.csv", "a good film,pos\na bad film,neg\nfine,pos\ndull,neg\n")
    assert examples(table)[0] == ("a good film", "pos")
    assert len(table.rows) == 4
    assert table.notes[0].startswith("a.csv has no header row")


def test_numbers_alone_in_a_column_are_no_header() -> None:
    table = read("a.csv", "1,a good film\n2,a bad film\n")
    assert (table.named, table.columns) == (False, ("column 1", "column 2"))
    assert read("b.csv", "2020,2021\na,b\n").named


@pytest.mark.parametrize(
    ("columns", "text", "label"),
    [
        (("评论内容", "情感倾向"), "评论内容", "情感倾向"),
        (("ＴＥＸＴ", " Label "), "ＴＥＸＴ", "Label"),
        (("编号", "文本内容", "类别"), "文本内容", "类别"),
        (("内容", "评论内容", "标签"), "内容", "标签"),
    ],
)
def test_names_of_columns_are_known_in_chinese_and_full_width(columns: tuple[str, ...], text: str, label: str) -> None:
    row = ["T" if column == text else "L" if column.strip() == label else "7" for column in columns]
    table = read("a.csv", ",".join(columns) + "\n" + ",".join(row) + "\n")
    assert labelled_examples(table, None, None) == [Example("T", ("L",))]


def test_a_question_about_columns_shows_two_values_of_each() -> None:
    table = read("a.csv", "one,two,three\nlong text here,b,\nother,b,\nthird,c,\n")
    with pytest.raises(
        DataError, match=r"one \('long text here', 'other'\), two \('b', 'c'\), three \(empty\).*--text"
    ):
        text_column_of(table, None, None)


def test_a_workbook_is_read_with_its_titles_merged_labels_and_whole_numbers() -> None:
    content = workbook(
        ["客户评论"],
        [],
        ["内容", "标签", None],
        ["很好", 1.0, None],
        [" 不错 ", None, None],
        ["差", 2, None],
        merged="B4:B5",
    )
    table = read("a.xlsx", content)
    assert table.columns == ("内容", "标签")
    assert examples(table) == [("很好", "1"), (" 不错 ", "1"), ("差", "2")]
    assert "1 title rows" in table.notes[0]


@pytest.mark.parametrize("ending", ["xlsx", "xls", "ods"])
def test_merged_labels_of_a_workbook_that_libreoffice_wrote_are_read(ending: str) -> None:
    table = read_table(str(LIBREOFFICE / f"reviews.{ending}"))
    assert table.columns == ("序号", "评论内容", "情感")
    assert [one.labels for one in labelled_examples(table, None, None)] == [("正面",)] * 4 + [("负面",)] * 4
    assert table.rows[4]["评论内容"] == "手机太差了，第5次购买，ＡＢＣ430"
    assert "2 title rows" in table.notes[0]


@pytest.mark.parametrize("encoding", ["utf-16", "gb18030"])
def test_the_encoding_of_a_csv_that_libreoffice_wrote_is_detected(encoding: str) -> None:
    table = read_table(str(LIBREOFFICE / f"reviews-{encoding}.csv"))
    assert f"is read as {encoding}" in table.notes[0]
    assert table.rows[7]["评论内容"] == read_table(str(LIBREOFFICE / "reviews.xlsx")).rows[7]["评论内容"]


def test_a_sheet_can_be_named() -> None:
    table = read("a.xlsx", workbook(["text", "label"], ["a", "x"], sheets=2))
    assert (table.rows, "'Sheet' is read" in table.notes[0]) == ([{"text": "a", "label": "x"}], True)
    with pytest.raises(DataError, match="no rows"):
        read_table("a.xlsx:more 1")
    with pytest.raises(DataError, match="no sheet 'other'; it has: Sheet, more 1"):
        read_table("a.xlsx:other")


def test_full_width_labels_become_plain() -> None:
    assert examples(read("a.csv", "text,label\na,１\nb,1 \nc,Ａ级　\n")) == [("a", "1"), ("b", "1"), ("c", "A级")]


def test_gzip_is_unpacked() -> None:
    assert read("a.csv.gz", gzip.compress(b"text,label\na,x\n")).rows == [{"text": "a", "label": "x"}]
    assert read("a.xlsx.gz", gzip.compress(workbook(["text"], ["a"]))).rows == [{"text": "a"}]
    assert read("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n')).rows == [{"text": "a"}]


def test_a_folder_of_texts_by_class_is_read() -> None:
    for name, text in {"pos/1.txt": "good\n", "pos/2.txt": "", "neg/1.txt": "很差，不推荐购买"}.items():
        Path("reviews", name).parent.mkdir(parents=True, exist_ok=True)
        Path("reviews", name).write_bytes(text.encode("gb18030"))
    table = read_table("reviews")
    assert examples(table) == [("很差，不推荐购买", "neg"), ("good", "pos")]
    assert [note.split(": ")[-1] for note in table.notes][1] == "1 empty files are left out"


@pytest.mark.parametrize(
    "content",
    [b"text,label\na,x\n", b'[{"text": "a", "label": "x"}]', gzip.compress(b'{"text": "a", "label": "x"}')],
    ids=("csv", "json", "gzip"),
)
def test_standard_input_is_told_by_its_first_bytes(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunedeck.data import files

    files._standard_input.cache_clear()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert read_table("-").rows == read_standard_input().rows == [{"text": "a", "label": "x"}]
    files._standard_input.cache_clear()


def spread_out() -> bytes:
    book = openpyxl.Workbook()
    book.active["A1"], book.active["XFD1048576"] = "text", "x"
    held = io.BytesIO()
    book.save(held)
    return held.getvalue()


def cut_short(content: bytes) -> bytes:
    return content[: len(content) // 2]


def zipped(**parts: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return held.getvalue()


ENCRYPTED = bytes.fromhex("d0cf11e0a1b11ae1") + b"\0" * 504 + "EncryptedPackage".encode("utf-16-le") + b"\0" * 512


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is a binary file"),
        ("a.jsonl", bytes(range(256)) * 4, "is a binary file"),
        ("a.csv.gz", b"text,label", "damaged or not a gzip file"),
        ("a.csv.gz", cut_short(gzip.compress(bytes(range(256)) * 9)), "damaged or not a gzip file"),
        ("a.csv.gz", gzip.compress(b""), "is empty"),
        ("a.xlsx", b"", "is empty"),
        ("a.csv.gz", gzip.compress(b"text,label")[:12], "damaged or not a gzip file: it is cut short"),
        ("a.csv", b"\xef\xbb\xbf", "is empty"),
        ("a.xlsx", b"text", "holds text, not a spreadsheet; rename it so that it ends in .csv"),
        ("a.xls", b"text\tlabel\na\tb\n", "holds text, not a spreadsheet"),
        ("a.xls", b"<html><body><table><tr><td>text", r"is a web page \(HTML\), not a table"),
        ("a.xls", b"\xef\xbb\xbf<!DOCTYPE html>", "is a web page"),
        ("a.xls", b"MIME-Version: 1.0\nContent-Type: multipart/related", "is a web page"),
        ("a.csv", b"<html>\n<table><tr><td>text</td></tr></table>\n", "is a web page"),
        (
            "a.xls",
            b'<?xml version="1.0"?><Workbook xmlns="urn:schemas-microsoft-com:office:spreadsheet">',
            "Excel 2003",
        ),
        ("a.csv", zipped(x=b"y"), "is a file of the kind .xlsx; rename it"),
        ("a.csv", gzip.compress(b"text,label"), "is a file of the kind .gz"),
        ("a.xlsx", zipped(**{"word/document.xml": b"x"}), "it is damaged, or the document of another program"),
        ("a.csv", b'text,label\n"a,b\nc,d\n', "a double quote is not closed"),
        ("a.json", b'[{"text": "a", "label": ' + b"1" * 5000 + b"}]", "a number has more than 4,300 digits"),
        ("a.xlsx", cut_short(workbook(["text"], ["a"])), "as a spreadsheet"),
        ("a.ods", zipped(other=b"x"), "as a spreadsheet"),
        ("a.xlsx", workbook(), "is empty"),
        ("a.xlsx", workbook(["text", "label"]), "no rows"),
        ("a.xlsx", workbook(["text", "text"], ["a", "b"]), "more than one column named: text"),
        ("a.xlsx", ENCRYPTED, "protected by a password"),
        ("a.xlsx", spread_out(), "too large for a spreadsheet .1048576 rows of 16384 columns."),
        ("a.parquet", b"PAR1" * 9, "as Parquet"),
        ("a.parquet", b"PAR1" + bytes(40), "it is cut short, or another kind of file"),
        ("a.parquet", b"PAR1" + b"x" * 40 + b"\x28\0\0\0PAR1", "as Parquet: it is damaged; write it again"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else None,  # gzip and zip write the time into it
)
def test_damaged_empty_huge_and_protected_files_are_told_in_one_line(name: str, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(name, content)
    assert "\n" not in str(caught.value)


def test_a_text_that_does_not_fit_in_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reviews" / "good").mkdir(parents=True)
    (tmp_path / "reviews" / "good" / "1.txt").write_text("fine")

    def too_large(_: Path) -> bytes:
        raise MemoryError

    monkeypatch.setattr(Path, "read_bytes", too_large)
    with pytest.raises(DataError, match=r"1\.txt \(4 B\) does not fit in memory; split it"):
        read_table(str(tmp_path / "reviews"))
    (tmp_path / "reviews.xlsx").write_bytes(b"PK\3\4")
    with pytest.raises(DataError, match=r"reviews\.xlsx \(4 B\) does not fit in memory"):
        read_table(str(tmp_path / "reviews.xlsx"))


def test_a_large_file_of_zeros_is_refused_by_its_first_bytes() -> None:
    content = io.BytesIO(bytes(10 * SAMPLE_BYTES))
    with pytest.raises(DataError, match="is a binary file"):
        pieces._found_encoding(Path("a.csv"), content)
    assert content.tell() == SAMPLE_BYTES


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(DataError, match="is a pipe or a device, not a file"):
        read_table(str(tmp_path / "a.csv"))


@pytest.mark.parametrize("ending", ["xlsx", "xls", "ods"])
def test_a_workbook_that_libreoffice_saved_with_a_password_is_told_as_such(ending: str) -> None:
    with pytest.raises(DataError, match="is protected by a password; open it, save it without one"):
        read_table(str(LIBREOFFICE / f"protected.{ending}"))


@settings(deadline=None, max_examples=80)
@given(st.binary(min_size=1), st.sampled_from(["a.csv", "a.tsv", "a.json", "a.xlsx", "a.xls", "a.ods", "a.csv.gz"]))
def test_any_bytes_are_read_or_refused(content: bytes, name: str) -> None:
    with contextlib.suppress(DataError):
        read(name, content)
