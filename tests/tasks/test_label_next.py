"""What to label next, and the file that was filled in read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import labelled_words, tiny_models
from support.command_line import Command

import tunedeck as td
from tunedeck.data.table import read_table
from tunedeck.tasks.classify.selection import choose_rows, margins


def test_margins_are_the_lead_of_the_likeliest_label_or_the_answer_nearest_to_even() -> None:
    chances = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0]])
    assert margins(chances, multi_label=False).tolist() == pytest.approx([0.5, 0.0])
    assert margins(chances, multi_label=True).tolist() == pytest.approx([0.4, 0.0])


def test_texts_are_chosen_from_every_group_and_from_the_unsure_ones() -> None:
    corners = torch.eye(4).repeat_interleave(30, 0) * 10
    vectors = corners + torch.randn(120, 4, generator=torch.Generator().manual_seed(0)) * 0.1
    assert sorted(row // 30 for row in choose_rows(vectors, 4)) == [0, 1, 2, 3]
    sure = torch.ones(120)
    sure[40:60] = torch.linspace(0, 0.2, 20)
    chosen = choose_rows(vectors, 2, sure)
    assert len(set(chosen)) == 2
    assert all(40 <= row < 60 for row in chosen)
    assert sure[chosen[0]] <= sure[chosen[1]]


@pytest.mark.parametrize("count", [3, 6, 50])
def test_repeated_vectors_are_chosen_once_each(count: int) -> None:
    chosen = choose_rows(torch.zeros(6, 3), count)
    assert sorted(set(chosen)) == sorted(chosen)
    assert len(chosen) == min(count, 6)


@pytest.fixture(scope="module")
def model() -> str:
    return str(tiny_models.folder_of("bert", "classifier"))


@pytest.mark.parametrize("ending", [".csv", ".xlsx"])
def test_a_file_is_written_filled_in_and_read_back(
    tunedeck: Command, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.chdir(tmp_path)
    data = labelled_words.rows(60)
    labelled_words.write_csv(tmp_path / "train.csv", data[:20])
    labelled_words.write_csv(tmp_path / "pool.csv", data)
    Path("pool.csv").write_text(
        "".join(f"{line.rpartition(',')[0]}\n" for line in Path("pool.csv").read_text().splitlines())
    )
    options = ["--pool", "pool.csv", "--n", 5, "--model", model, "--out", f"next{ending}"]
    said = tunedeck("label", "next", *options, "--data", "train.csv")
    assert said.code == 0, said.err
    assert f"tunedeck label add next{ending} --data train.csv" in said.err + said.out
    rows = read_table(f"next{ending}").rows
    known = {str(row["text"]) for row in read_table("train.csv").rows}
    assert len(rows) == 5
    assert not known & {row["text"] for row in rows}
    assert all(row["suggested"] in labelled_words.WORD_OF and 0 < float(str(row["probability"])) <= 1 for row in rows)
    again = tunedeck("label", "next", *options)
    assert (again.code, again.err.count("\n")) == (2, 1)
    blank = tunedeck("label", "add", f"next{ending}", "--data", "train.csv", "--out", "more.csv")
    assert "has a label; fill in its column 'label'" in blank.err


def filled(path: Path, *rows: tuple[str, str]) -> str:
    path.write_text("text,label,suggested,row\n" + "".join(f"{text},{label},x,1\n" for text, label in rows))
    return str(path)


def test_labels_are_added_in_the_columns_of_the_data_and_in_place(tmp_path: Path) -> None:
    train = tmp_path / "train.csv"
    train.write_text("id,Review,Sentiment\n7,good film,pos\n8,bad film,neg\n")
    done = filled(tmp_path / "done.csv", ("fine", "pos"), ("Good film!", "pos"), ("dull", "neg"))
    found = td.label_add(done, train, data=str(train))
    assert (found.added, found.labels, found.repeated, found.total) == (2, {"pos": 1, "neg": 1}, 1, 4)
    assert train.read_text().splitlines()[3:] == [",fine,pos", ",dull,neg"]


def test_labels_that_cannot_be_taken_are_told_and_nothing_is_written(tmp_path: Path) -> None:
    train = tmp_path / "train.csv"
    train.write_text("text,label\ngood film,positive\nbad film,negative\n")
    out = tmp_path / "out.csv"
    for rows, told in (
        ([("fine", "positiv")], r"row 1: the label 'positiv' is unknown \(did you mean 'positive'\?\)"),
        ([("fine", "positive"), ("so", "")], r"rows without a label: 1 \(rows 2\)"),
        ([("good film", "negative")], "is labelled negative, and in .* row 1 positive"),
    ):
        with pytest.raises(td.TunedeckError, match=told):
            td.label_add(filled(tmp_path / "done.csv", *rows), out, data=str(train))
    assert not out.exists()
    with pytest.raises(td.TunedeckError, match="exists already"):
        td.label_add(filled(tmp_path / "done.csv", ("fine", "positive")), train)
    found = td.label_add(
        filled(tmp_path / "done.csv", ("fine", "mixed"), ("so", "")),
        out,
        data=str(train),
        new_labels=["mixed"],
        skip_blank=True,
    )
    assert (found.added, found.blank) == (1, 1)


def test_an_adapter_suggests_and_one_of_another_task_is_refused(tmp_path: Path, model: str) -> None:
    deck = td.Deck.load(model, td.Classify(labels=("a", "b", "c")))
    deck.add("a", td.LoraConfig(r=2, target_modules=("query",)))
    deck.save("a", tmp_path / "a")
    pool = [" ".join(f"w{place * 7 % 50}" for place in range(start, start + 4)) for start in range(12)]
    found = td.label_next(pool, 3, adapter=tmp_path / "a", model=model)
    assert len({one.text for one in found.texts}) == 3
    chances = [one.probability for one in found.texts]
    assert all(one is not None and one >= 1 / 3 for one in chances)
    deck = td.Deck.load(model, td.Embed())
    deck.add("e", td.LoraConfig(r=2, target_modules=("query",)))
    deck.save("e", tmp_path / "e")
    with pytest.raises(td.TunedeckError, match="is an adapter for embed"):
        td.label_next(pool, 3, adapter=tmp_path / "e", model=model)
    with pytest.raises(td.TunedeckError, match="n must be 1 or more, got 0"):
        td.label_next(pool, 0)


def test_rows_of_the_pool_with_several_labels_teach_and_the_likely_ones_are_suggested(
    tmp_path: Path, model: str
) -> None:
    pool = tmp_path / "pool.csv"
    lines = [f'w{row % 9} w{row % 5} w{row},"{"a,b" if row % 2 else "b"}"' for row in range(20)]
    pool.write_text("text,labels\n" + "\n".join(lines) + "\n" + "".join(f"w{row} w{row + 1},\n" for row in range(10)))
    found = td.label_next(str(pool), 4, model=model, multi_label=True)
    assert (found.labelled, found.pool, len(found.texts)) == (20, 10, 4)
    assert all("b" in one.suggested.split(", ") and one.row > 20 for one in found.texts)
