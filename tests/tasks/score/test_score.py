"""Scores: training with every method, answers in the scores' own unit, mixed batches, data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny_models
from support.scored_texts import dataset, pairs, score_deck, texts, write_csv

import tunedeck as td
from tunedeck.core.errors import ConfigError, DataError
from tunedeck.data.settings import DataSettings
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.registry import config_of
from tunedeck.tasks.score.data import ScoredText

METHODS: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(r=4, target_modules="all-linear"),
    "bottleneck": td.BottleneckConfig("double_seq_bn"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=5),
    "full": td.FullConfig(1),
    "head": config_of("full", {"layers": "head"}),
}
SETTINGS = td.TrainingSettings(epochs=8, batch_size=8, learning_rate=3e-3)
SHORT = td.TrainingSettings(epochs=1, batch_size=8, learning_rate=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_scores_in_their_own_unit(method: str) -> None:
    deck = score_deck()
    deck.add("a", METHODS[method])
    run = td.train(deck, "a", dataset(texts(140)), settings=SETTINGS, progress=False)
    assert run.metrics["r2"] > (0.1 if method == "prompt" else 0.55)
    assert run.metrics["r2"] >= run.start["r2"]
    assert run.metrics.keys() == {"mae", "rmse", "r2", "spearman", "pearson", "loss"}
    low, high = (
        sum(answer.score for answer in deck.predict([f"w50 {key} w{number}" for number in range(40, 60)], "a")) / 20
        for key in ("w10", "w14")
    )
    assert 90 < low < 120 < high < 150


def test_scores_in_another_unit_are_learnt_alike() -> None:
    """Standardising inside makes training the same for any unit."""
    examples, answers = texts(60), []
    for scale, shift in ((1, 0), (1e6, -3e7)):
        deck = score_deck()
        deck.add("a", METHODS["lora"])
        own = [ScoredText(one.text, (one.scores[0] * scale + shift,)) for one in examples]
        td.train(deck, "a", dataset(own), settings=SHORT, progress=False)
        answers.append([(answer.score - shift) / scale for answer in deck.predict([one.text for one in own], "a")])
    assert answers[0] == pytest.approx(answers[1], abs=1e-3)


def test_pairs_are_ranked_by_a_score_between_0_and_1() -> None:
    deck = score_deck()
    deck.add("a", METHODS["lora"])
    run = td.train(deck, "a", dataset(pairs(160)), settings=SETTINGS, progress=False)
    task = deck.adapter("a").task
    assert isinstance(task, td.Score)
    assert (task.loss, task.pairs, task.target_means) == ("logistic", True, None)
    assert run.metrics["spearman"] > 0.5
    asked = [td.TextPair("w50 w51", f"w60 {key}") for key in ("w14", "w10")]
    relevant, other = deck.predict(asked, adapter="a")
    assert 1 > relevant.score > other.score > 0


def test_ordinal_scores_stay_on_their_scale_and_have_a_kappa() -> None:
    deck = score_deck(ordinal=True)
    deck.add("a", METHODS["head"])
    examples = [ScoredText(one.text, ((one.scores[0] - 90) / 10,)) for one in texts(140)]
    run = td.train(deck, "a", dataset(examples, ordinal=True), settings=SETTINGS, progress=False)
    assert run.metrics["kappa"] > 0.6
    answers = deck.predict([one.text for one in examples], adapter="a")
    assert all(1 <= one.score <= 5 for one in answers)
    assert {one.levels["target 0"] for one in answers if one.levels} == {1, 2, 3, 4, 5}


def test_several_targets_have_a_head_and_a_scale_each() -> None:
    deck = score_deck()
    deck.add("a", METHODS["head"])
    examples = [ScoredText(one.text, (one.scores[0], -5 * one.scores[0])) for one in texts(140)]
    run = td.train(deck, "a", dataset(examples), settings=SHORT, progress=False)
    assert run.metrics["mae target 1"] == pytest.approx(5 * run.metrics["mae target 0"], rel=0.2)
    (answer,) = deck.predict(["w50 w12"], adapter="a")
    assert answer.score == answer.scores["target 0"]
    assert answer.scores["target 1"] == pytest.approx(-5 * answer.score, rel=0.1)


def stirred(deck: td.Deck) -> list[str | None]:
    for seed, (name, config) in enumerate(METHODS.items(), start=1):
        deck.add(name, config, labels=("a", "b")[: 1 + seed % 2])
        tiny_models.stir(deck, name, seed)
        means = (3.0, 40.0)[: 1 + seed % 2]
        deck.set_task(name, td.Score(deck.adapter(name).labels, target_means=means, target_stds=means, pooling="mean"))
    return [*METHODS]


def test_a_mixed_batch_equals_its_parts() -> None:
    deck = score_deck()
    names = stirred(deck)
    asked = ["w4 w5 w6", td.TextPair("w9 w8", "w7"), "w30", td.TextPair("w11", "w12 w13"), "w90 w4 w4"]
    for text, name, mixed in zip(asked, names, deck.predict(asked, adapter=names), strict=True):
        (alone,) = deck.predict([text], adapter=name)
        assert mixed.scores == pytest.approx(alone.scores, abs=1e-4)


def test_two_adapters_trained_in_one_pass_end_as_alone() -> None:
    found = []
    for together in (True, False):
        deck = score_deck()
        jobs = {"one": dataset(texts(60)), "two": dataset(pairs(60))}
        for name, method in (("one", "lora"), ("two", "bottleneck")):
            deck.add(name, METHODS[method])
        if together:
            td.train(deck, jobs, settings=SHORT, progress=False)
        else:
            for name, data in jobs.items():
                td.train(deck, name, data, settings=SHORT, progress=False)
        asked = [td.TextPair("w50 w14", "w10"), td.TextPair("w50", "w14 w10")]
        found.append([answer.score for name in jobs for answer in deck.predict(asked, adapter=name)])
    assert found[0] == pytest.approx(found[1], rel=1e-3)


@pytest.mark.parametrize("method", ["lora", "bottleneck", "prompt", "head"])
def test_a_saved_adapter_keeps_its_scale(method: str, tmp_path: Path) -> None:
    deck = score_deck()
    deck.add("a", METHODS[method])
    td.train(deck, "a", dataset(pairs(60)), settings=SHORT, progress=False)
    deck.save("a", tmp_path / "a")
    again = td.Deck.open(tmp_path / "a", dtype="float32", device="cpu")
    asked = [td.TextPair("w50 w14", "w10"), td.TextPair("w50", "w14 w10")]
    before, after = (one.predict(asked, adapter="a") for one in (deck, again))
    assert [one.scores for one in after] == [pytest.approx(one.scores, abs=1e-5) for one in before]
    assert again.adapter("a").task == deck.adapter("a").task
    with pytest.raises(ConfigError, match="has no second text"):
        again.predict(["w50"], adapter="a")


def test_a_run_says_what_guessing_would_be_off_by(tmp_path: Path) -> None:
    rows = [(f"w{number} w9", value) for number, value in enumerate([1, 1, 1, 5] * 10)]
    data = td.Score().read(DataSettings(train=write_csv(tmp_path / "a.csv", ["text", "stars"], rows)))
    assert data.labels == ("stars",)
    assert data.description.endswith(
        "always predicting the mean, 2.11, is off by 1.11 on average (RMSE 1.11), the median, 1, by 0"
    )


@pytest.mark.parametrize(
    ("columns", "row", "settings", "says"),
    [
        (("text", "score"), ("w4", "good"), {}, "row 7: column 'score' holds 'good', not a number"),
        (("text", "score"), ("w4", ""), {}, "row 7: column 'score' holds"),
        (("text", "text_pair", "score"), ("w4", "", 1), {}, "pairs without a second text in column 'text_pair': 1"),
        (("text", "score"), ("w4", 2.5), {"ordinal": True}, "the score 2.5 is not a whole number from 1 to 4"),
        (("text", "score"), ("w4", 7), {"ordinal": True, "levels": (1, 5)}, "not a whole number from 1 to 5"),
        (("text", "score"), ("w4", 2), {"loss": "logistic"}, "scores must be between 0 and 1, got"),
        (("text", "one", "two"), ("w4", 1, 2), {}, "which column holds the score?"),
        (("text", "score"), ("w4", 1), {"pairs": True}, "which column holds the second text of each pair?"),
    ],
)
def test_bad_data_is_one_clear_line(
    columns: tuple[str, ...], row: tuple[object, ...], settings: dict[str, Any], says: str, tmp_path: Path
) -> None:
    good = [[f"w{number}"] * (len(row) - 1) + [1 + number % 4] for number in range(6)]
    if len(columns) == 3 and columns[1] == "one":
        good = [[f"w{number}", 1 + number % 4, 3] for number in range(6)]
    file = write_csv(tmp_path / "a.csv", columns, [*good, row])
    with pytest.raises(DataError, match=says.replace("?", r"\?")):
        td.Score(**settings).read(DataSettings(train=file, deduplicate=False))


def test_scores_that_are_all_the_same_are_refused(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "a.csv", ["text", "score"], [(f"w{number} w5", 3) for number in range(20)])
    with pytest.raises(DataError, match="every score of score is 3; there is nothing to learn"):
        td.Score().read(DataSettings(train=file))


@pytest.mark.parametrize("settings", [{"levels": (5, 1)}, {"labels": ("a", "a")}, {"target_stds": (0.0,)}])
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        td.Score(**settings)


def test_a_decoder_scores_as_well() -> None:
    deck = score_deck("llama", "plain")
    deck.add("a", METHODS["lora"])
    run = td.train(deck, "a", dataset(pairs(100)), settings=SHORT, progress=False)
    assert torch.isfinite(torch.tensor(list(run.metrics.values()))).all()
