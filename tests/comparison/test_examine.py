"""An adapter examined on held-out examples."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import tiny_models

import tunedeck as td
from tunedeck.comparison.examine import examine, held_out_data
from tunedeck.core.errors import ConfigError
from tunedeck.data.settings import DataSettings


def test_every_held_out_text_is_in_one_cell_and_every_mistake_beside_the_diagonal(tmp_path: Path) -> None:
    deck = tiny_models.deck_of("bert")
    tiny_models.add_stirred(deck, "mail", td.LoraConfig(target_modules=("query", "value")))
    deck.save("mail", tmp_path / "mail")
    file = tmp_path / "a.csv"
    rows = [f"w{4 + number} w{5 + number},{tiny_models.LABELS[number % 3]}" for number in range(30)]
    file.write_text("\n".join(["text,label", *rows]))
    found = examine(tmp_path / "mail", DataSettings(train=str(file)), whole=True)
    assert found.confusion is not None
    assert found.scaling is not None
    labels = found.confusion.labels
    assert set(labels) == set(tiny_models.LABELS)
    assert sum(map(sum, found.confusion.counts)) == len(found.answered) == 30
    for wanted, counts in zip(labels, found.confusion.counts, strict=True):
        for predicted, count in zip(labels, counts, strict=True):
            assert sum(one[1:] == (wanted, predicted) for one in found.answered) == count
    answers = deck.predict([text for text, _, _ in found.answered], adapter="mail")
    assert [one.label for one in answers] == [predicted for _, _, predicted in found.answered]
    assert found.mistakes
    assert {(one.text, one.wanted, one.answered) for one in found.mistakes} <= set(found.answered)
    assert all(one.wanted != one.answered for one in found.mistakes)


def test_the_held_out_data_of_a_run_is_that_of_its_run_file(tmp_path: Path) -> None:
    assert held_out_data(tmp_path / "run/adapter") is None
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("data: {train: a.csv, split_seed: 3}")
    assert held_out_data(tmp_path / "run/adapter") == DataSettings(train="a.csv", split_seed=3)
    (tmp_path / "run/config.yaml").write_text("data: {train: a.csv, gone: 3}")
    with pytest.raises(ConfigError, match="gone"):
        held_out_data(tmp_path / "run/adapter")
