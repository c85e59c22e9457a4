"""A temperature makes probabilities as large as the share of answers that are right, and is kept with the adapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support import labelled_words, tiny_models

import tunedeck as td
from tunedeck.core.errors import AdapterFileError
from tunedeck.core.reliability import BINS, binned
from tunedeck.formats.confidence import Confidence
from tunedeck.tasks.classify.confidence import fit_temperature, probabilities, reliability, temperature_scaling


def honest(count: int, labels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets drawn from the logits' own softmax."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(count, labels, generator=generator)
    return logits, torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


def test_the_error_is_the_mean_distance_of_the_bins() -> None:
    error, bins = binned([0.95, 0.95, 0.95, 0.55], [True, True, False, False])
    assert [one.count for one in bins] == [1, 3]
    assert error == pytest.approx(3 / 4 * abs(2 / 3 - 0.95) + 1 / 4 * 0.55)
    assert binned([1.0], [True])[0] == 0
    assert BINS == 15


def test_the_brier_score_sums_over_the_labels_of_a_text() -> None:
    chances = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.double)
    assert reliability(chances, torch.tensor([0]), False).brier == pytest.approx(0.09 + 0.04 + 0.01)
    assert reliability(chances, torch.tensor([[1.0, 0.0, 1.0]]), True).brier == pytest.approx((0.09 + 0.04 + 0.81) / 3)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_factor_on_honest_logits(factor: float) -> None:
    logits, targets = honest(4000, 4)
    assert fit_temperature(factor * logits, targets, False) == pytest.approx(factor, rel=0.05)
    found = temperature_scaling(3 * logits, targets, False, 3.0)
    assert found.before.ece > 0.1 > 0.03 > found.after.ece
    assert found.after.brier < found.before.brier


def test_the_temperature_of_several_labels_undoes_a_factor() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(4000, 3, generator=generator)
    targets = torch.bernoulli(logits.sigmoid(), generator=generator)
    assert fit_temperature(2 * logits, targets, True) == pytest.approx(2, rel=0.05)


def test_the_temperature_stays_finite_where_all_are_right_and_one_where_logits_are_not_finite() -> None:
    assert 0.01 < fit_temperature(torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 1]), False) < 1
    assert fit_temperature(torch.tensor([[float("nan"), 0.0]]), torch.tensor([0]), False) == 1.0


def calibrated_deck() -> td.Deck:
    deck = tiny_models.deck_of("bert")
    for seed, name in enumerate(("warm", "plain")):
        tiny_models.add_stirred(deck, name, td.LoraConfig(r=2, target_modules=("query",)), seed=seed)
    adapter = deck.adapter("warm")
    adapter.manifest = adapter.manifest.model_copy(update={"confidence": Confidence(temperature=2.5)})
    return deck


def test_each_row_of_a_mixed_batch_has_its_own_temperature(tmp_path: Path) -> None:
    deck, text = calibrated_deck(), "w10 w20 w30"
    deck.save("warm", tmp_path / "warm")
    deck.load_adapter(tmp_path / "warm", "again")
    assert deck.check_probe("again")  # logits are the probe's, without temperature
    names = ["warm", "plain", None, "again"]
    logits = [
        tiny_models.logits_of(deck, {"input_ids": torch.tensor([[1, 10, 20, 30, 2]])}, name)[0].double()
        for name in names
    ]
    answers = deck.predict([text] * 4, adapter=names)
    for answer, row, temperature in zip(answers, logits, (2.5, 1.0, 1.0, 2.5), strict=True):
        expected = probabilities(row, False, temperature)
        assert list(answer.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_run_keeps_the_temperature_of_its_best_state(tmp_path: Path) -> None:
    file = labelled_words.write_csv(tmp_path / "data.csv", labelled_words.rows(80))
    deck = tiny_models.deck_of("bert")
    deck.add("a", td.FullConfig("head"))
    run = td.train(deck, "a", str(file), out=tmp_path / "run", progress=False)
    manifest = json.loads((tmp_path / "run" / "adapter" / "tunedeck.json").read_text())
    assert manifest["confidence"]["temperature"] == run.metrics["temperature"] > 0
    assert "temperature" not in manifest["metrics"]
    found = td.evaluate(deck, str(file)).breakdowns["a"].scaling
    assert found is not None
    assert found.temperature == run.metrics["temperature"]


@pytest.mark.parametrize("value", [0, -1, "nan", "warm"])
def test_a_temperature_that_is_not_a_positive_number_is_refused(value: object, tmp_path: Path) -> None:
    calibrated_deck().save("warm", tmp_path / "a")
    file = tmp_path / "a" / "tunedeck.json"
    values = json.loads(file.read_text())
    values["confidence"]["temperature"] = value
    file.write_text(json.dumps(values))
    with pytest.raises(AdapterFileError, match="temperature"):
        tiny_models.deck_of("bert").load_adapter(tmp_path / "a")
