"""Pairs of texts: token ids and types, truncation, columns, classification."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import pytest
import torch
from support import tiny_models
from support.scored_texts import pairs, write_csv

import tunedeck as td
from tunedeck.core.errors import ConfigError, DataError
from tunedeck.core.text_pair import PairIds, pair_lengths
from tunedeck.data import pieces
from tunedeck.data.labelled import Example
from tunedeck.data.paired import second_column
from tunedeck.data.settings import DataSettings
from tunedeck.data.table import Table
from tunedeck.tasks.text import padded, tokenize
from tunedeck.tasks.text_head import logits_of_ids, text_ids


def words(count: int, seed: int) -> str:
    return " ".join(f"w{random.Random(seed * 100 + number).randint(4, 119)}" for number in range(count))


@pytest.mark.parametrize("seed", range(30))
def test_ids_and_types_are_those_of_the_tokenizer_which_cuts_the_longer_text_first(seed: int) -> None:
    deck = tiny_models.deck_of("bert")
    lengths = random.Random(seed)
    pair = td.TextPair(words(lengths.randint(1, 40), seed), words(lengths.randint(1, 40), seed + 1))
    limit = lengths.randint(5, 40)
    (found,) = tokenize(deck, [pair], limit)
    wanted = tiny_models.tiny_tokenizer("bert")(
        pair.first, pair.second, truncation="longest_first", max_length=limit, return_token_type_ids=True
    )
    assert isinstance(found, PairIds)
    assert found == wanted["input_ids"]
    assert found.types == wanted["token_type_ids"]


def test_half_of_the_room_is_left_to_each_of_two_long_texts() -> None:
    assert pair_lengths(3, 4, 10) == (3, 4)
    assert pair_lengths(3, 40, 10) == (3, 7)
    assert pair_lengths(40, 3, 10) == (7, 3)
    assert pair_lengths(40, 41, 11) == (5, 6)
    assert pair_lengths(41, 40, 11) == (6, 5)


def test_token_types_reach_the_model_and_virtual_tokens_go_before_them() -> None:
    deck = tiny_models.deck_of("bert")
    deck.add("prompt", td.PromptTuningConfig(num_virtual_tokens=3))
    deck.add("lora", td.LoraConfig(r=2, target_modules="all-linear"))
    pair = td.TextPair("w4 w5 w6", "w7 w8")
    for name in (None, "prompt", "lora"):
        if name:
            tiny_models.stir(deck, name)
        (ids,) = text_ids(deck, [pair], [name], 64)
        inputs = padded(deck, [ids])
        assert inputs.token_type_ids is not None
        assert inputs.token_type_ids[0, : len(ids)].tolist() == [0] * 5 + [1] * 3
        own = deck(**inputs.named(), adapter=name).logits
        assert torch.allclose(logits_of_ids(deck, [ids], [name]), own.float(), atol=1e-6)
        without = deck(inputs.input_ids, inputs.attention_mask, adapter=name).logits
        assert not torch.allclose(own, without, atol=1e-4)
    encoded = tiny_models.tiny_tokenizer("bert")(
        pair.first, pair.second, return_tensors="pt", return_token_type_ids=True
    )
    (theirs,) = deck.model(**encoded).logits
    assert torch.allclose(logits_of_ids(deck, text_ids(deck, [pair], [None], 64), [None])[0], theirs, atol=1e-5)


def test_a_single_text_in_a_batch_of_pairs_is_read_as_alone() -> None:
    deck = tiny_models.deck_of("bert")
    ids = text_ids(deck, ["w4 w5", td.TextPair("w4", "w5 w6")], [None, None], 64)
    assert torch.allclose(logits_of_ids(deck, ids, [None, None])[0], logits_of_ids(deck, ids[:1], [None])[0], atol=1e-5)


def test_a_pair_survives_pickling_and_is_shown_with_both_texts() -> None:
    pair = pickle.loads(pickle.dumps(td.TextPair("a b", "c")))
    assert (pair.first, pair.second, str(pair)) == ("a b", "c", "a b | c")


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (("text", "text_pair", "label"), "text_pair"),
        (("premise", "Hypothesis", "label"), "Hypothesis"),
        (("句子1", "句子2", "标签"), "句子2"),
        (("查询", "文档", "相关性"), "文档"),
        (("query", "passage", "score"), "passage"),
        (("text", "label"), None),
        (("question", "answer", "label"), None),
    ],
)
def test_the_usual_columns_of_pairs_are_known(columns: tuple[str, ...], found: str | None) -> None:
    table = Table("a.csv", columns, [dict.fromkeys(columns, "x")])
    assert second_column(table, None, None, None) == found
    assert second_column(table, None, None, False) is None
    assert second_column(table, None, columns[1], None) == columns[1]


def test_a_classifier_learns_pairs_and_says_so(tmp_path: Path) -> None:
    rows = [(one.text.first, one.text.second, "yes" if one.scores[0] else "no") for one in pairs(160)]  # type: ignore[attr-defined]
    file = write_csv(tmp_path / "pairs.csv", ["premise", "hypothesis", "label"], rows)
    deck = tiny_models.deck_of("bert")
    deck.add("a", td.LoraConfig(r=4, target_modules="all-linear"), labels=("no", "yes"))
    settings = td.TrainingSettings(epochs=8, batch_size=8, learning_rate=3e-3)
    run = td.train(deck, "a", file, settings=settings, progress=False, out=tmp_path / "run")
    assert run.metrics["accuracy"] > 0.75
    again = td.Deck.open(tmp_path / "run" / "adapter", dtype="float32", device="cpu")
    asked = [td.TextPair("w50 w51", f"w60 {key}") for key in ("w14", "w10")]
    assert [one.label for one in again.predict(asked, "run")] == ["yes", "no"]
    with pytest.raises(ConfigError, match=r"'w50' has no second text; give td\.TextPair"):
        again.predict(["w50"], "run")
    assert td.evaluate(again, file).metrics["run"]["accuracy"] > 0.8


def test_pairs_of_a_large_file_are_those_of_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(f"w{number}", f"w{number + 1} w9", "ab"[number % 2]) for number in range(40)]
    settings = DataSettings(train=write_csv(tmp_path / "a.csv", ["sentence1", "sentence2", "label"], rows))
    small = td.Classify().read(settings)
    monkeypatch.setattr(pieces, "LARGE_BYTES", 1)
    large = td.Classify().read(settings)
    assert [*large.train] == [*small.train]
    assert isinstance(large.train[0].text, td.TextPair)
    assert large.train[0] == Example(td.TextPair("w0", "w1 w9"), ("a",))
    assert large.task_values == small.task_values == {"pairs": True}


@pytest.mark.parametrize("large", [False, True])
def test_a_pair_without_its_second_text_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr(pieces, "LARGE_BYTES", 1)
    rows = [(f"w{number}", "" if number == 4 else "w9", "ab"[number % 2]) for number in range(40)]
    file = write_csv(tmp_path / "a.csv", ["text", "text_pair", "label"], rows)
    with pytest.raises(DataError, match=r"pairs without a second text in column 'text_pair': 1 \(rows 5\)"):
        td.Classify().read(DataSettings(train=file))
    data = td.Classify().read(DataSettings(train=file, drop_empty=True))
    assert len(data.train) + len(data.evaluation) == 39
