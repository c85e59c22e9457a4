"""An adapter answers only where held-out texts show that its answers are right, and says so everywhere."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy
import pytest
import torch
from support import labelled_words, tiny_models

import tunedeck as td
from tunedeck.core.errors import AdapterFileError, ConfigError, DataError
from tunedeck.core.reliability import fewest_right, wilson
from tunedeck.formats.confidence import NONE_OF_THESE, UNSURE, Confidence
from tunedeck.serving.backends.deck import batch_backend
from tunedeck.tasks.classify.novelty import distances_to_training, fit_novelty
from tunedeck.tasks.classify.thresholds import choose_thresholds


def test_the_interval_is_wilsons() -> None:
    low, high = wilson(90, 100)  # the example of Newcombe 1998 is of the same formula
    assert (low, high) == pytest.approx((0.82563, 0.94477), abs=1e-5)
    assert wilson(0, 0) == (0.0, 1.0)
    fewest = fewest_right(0.95)
    assert wilson(fewest, fewest)[0] >= 0.95 > wilson(fewest - 1, fewest - 1)[0]


def two_labels(count: int) -> tuple[list[dict[str, float]], list[tuple[str, ...]]]:
    """Texts of which those predicted as a are right as often as they say, and those predicted as b half the time."""
    chooser = random.Random(0)
    chances: list[dict[str, float]] = []
    wanted: list[tuple[str, ...]] = []
    for _ in range(count):
        sure, is_a = 0.5 + chooser.random() / 2, chooser.random() < 0.5
        chances.append({"a": sure, "b": 1 - sure} if is_a else {"a": 1 - sure, "b": sure})
        right = chooser.random() < (sure if is_a else 0.5)
        wanted.append(("a",) if right == is_a else ("b",))
    return chances, wanted


def test_a_threshold_holds_the_precision_and_a_label_that_cannot_is_never_answered() -> None:
    chances, wanted = two_labels(4000)
    found = choose_thresholds(chances, wanted, multi_label=False, precision=0.9, confidence=0.95)
    a, b = found.labels
    assert a.threshold is not None
    assert a.held_out.low >= 0.9
    assert 0.8 < a.threshold < 0.9  # calibrated probabilities above t are right in (1 + t) / 2
    assert b.threshold is None
    assert b.shared
    assert found.answered_texts == a.held_out.given == sum(one["a"] >= a.threshold for one in chances)


def test_labels_with_few_texts_share_a_threshold() -> None:
    chances = [{f"l{n}": 0.9 if n == row % 20 else 0.1 / 19 for n in range(20)} for row in range(400)]
    wanted = [(f"l{row % 20}",) for row in range(400)]
    found = choose_thresholds(chances, wanted, multi_label=False, precision=0.95, confidence=0.95)
    assert {row.threshold for row in found.labels} == {0.9}
    assert all(row.shared for row in found.labels)
    assert found.answered_texts == 400


def test_a_precision_out_of_reach_is_an_error_that_says_what_it_takes() -> None:
    with pytest.raises(DataError, match="it takes 73 right answers"):
        choose_thresholds(
            [{"a": 0.9, "b": 0.1}] * 20, [("a",)] * 20, multi_label=False, precision=0.95, confidence=0.95
        )


def test_several_labels_have_a_threshold_each() -> None:
    generator = torch.Generator().manual_seed(0)
    chances = torch.rand(3000, 2, generator=generator, dtype=torch.double)
    drawn = torch.bernoulli(chances, generator=generator)
    rows = [dict(zip("ab", row, strict=True)) for row in chances.tolist()]
    wanted = [tuple(label for label, has in zip("ab", row, strict=True) if has) for row in drawn.tolist()]
    found = choose_thresholds(rows, wanted, multi_label=True, precision=0.8, confidence=0.95)
    assert all(row.threshold is not None and 0.58 < row.threshold < 0.7 for row in found.labels)
    known = Confidence(thresholds={row.label: row.threshold for row in found.labels})
    assert known.answered({"a": 0.75, "b": 0.3}, True) == (("a",), None)


def test_the_distance_is_the_relative_mahalanobis_distance() -> None:
    generator = numpy.random.default_rng(0)
    centres = 3 * generator.normal(size=(40, 6))
    targets = numpy.repeat(numpy.arange(40), 20)
    x = centres[targets] + generator.normal(size=(800, 6)) @ generator.normal(size=(6, 6))
    apart = generator.normal(size=(50, 6)) * 5
    novelty = fit_novelty(torch.tensor(x), torch.tensor(targets), torch.tensor(apart), 0.9)
    found = distances_to_training(novelty, torch.tensor(apart)).numpy()
    means = numpy.stack([x[targets == one].mean(0) for one in range(40)])
    within = (x - means[targets]).T @ (x - means[targets]) / len(x)
    within += 0.01 * within.diagonal().mean() * numpy.eye(6)
    total = within + (means[targets] - x.mean(0)).T @ (means[targets] - x.mean(0)) / len(x)

    def squared(offsets: numpy.ndarray, covariance: numpy.ndarray) -> numpy.ndarray:
        return numpy.einsum("...i,ij,...j->...", offsets, numpy.linalg.inv(covariance), offsets)

    expected = squared(apart[:, None] - means[None], within).min(1) - squared(apart - x.mean(0), total)
    numpy.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert (found > novelty.farthest).mean() == pytest.approx(0.1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a head that is nearly always right, its training texts and others."""
    folder = tmp_path_factory.mktemp("trained")
    labelled_words.write_csv(folder / "train.csv", labelled_words.rows(300))
    labelled_words.write_csv(folder / "held-out.csv", labelled_words.rows(200, seed=5))
    deck = tiny_models.deck_of("bert")
    deck.add("a", td.LoraConfig(r=2))
    td.train(deck, "a", str(folder / "train.csv"), epochs=6, out=folder / "run", progress=False)
    return folder


def test_thresholds_are_written_and_honoured_by_every_batch(trained: Path) -> None:
    adapter = trained / "run" / "adapter"
    before = {file.name: file.read_bytes() for file in adapter.iterdir()}
    found = td.threshold(
        adapter, str(trained / "held-out.csv"), precision=0.8, training_data=str(trained / "train.csv"), dtype="float32"
    )
    assert found.none_of_these == pytest.approx(0.05, abs=0.01)
    assert {name for name, old in before.items() if (adapter / name).read_bytes() != old} == {"tunedeck.json"}
    deck = tiny_models.deck_of("bert")
    deck.load_adapter(adapter, "a")
    assert deck.check_probe("a")
    tiny_models.add_stirred(deck, "b", td.LoraConfig(r=2))
    texts = [text for text, _ in labelled_words.rows(200, seed=5)]
    answers = deck.predict([*texts, *texts], adapter=["a"] * 200 + ["b"] * 200)
    known = deck.adapter("a").manifest.confidence
    assert known is not None
    assert known.thresholds is not None
    assert sum(one.abstain == NONE_OF_THESE for one in answers[:200]) == round(200 * (found.none_of_these or 0))
    for one in answers[:200]:
        limit = known.thresholds[one.label]
        passes = limit is not None and one.score >= limit
        assert (one.labels, one.abstain) in (
            ((one.label,), None) if passes else ((), UNSURE),
            ((), NONE_OF_THESE),
        )
    assert all(one.abstain is None and one.labels == (one.label,) for one in answers[200:])
    given = td.evaluate(deck, str(trained / "held-out.csv"), adapters=["a"]).breakdowns["a"].answered
    assert given is not None
    assert given.given == sum(one.abstain is None for one in answers[:200])


def test_a_served_adapter_abstains_as_the_loaded_one(trained: Path) -> None:
    adapter = trained / "run" / "adapter"
    td.threshold(
        adapter, str(trained / "held-out.csv"), precision=0.8, training_data=str(trained / "train.csv"), dtype="float32"
    )
    deck, served = tiny_models.deck_of("bert"), tiny_models.deck_of("bert")
    deck.load_adapter(adapter, "a")
    backend = batch_backend(served)
    assert backend.load(adapter, "a") is None
    texts = [text for text, _ in labelled_words.rows(60, seed=5)]
    rows = backend.encode(texts, "a") + backend.encode(texts[:5], None)
    found = backend.answer(rows, ["a"] * 60 + [None] * 5)
    expected = [*deck.predict(texts, adapter="a"), *deck.predict(texts[:5])]
    assert [(one.labels, one.abstain) for one in found] == [(one.labels, one.abstain) for one in expected]
    assert NONE_OF_THESE in {one.abstain for one in found}


@pytest.mark.parametrize("values", ["", "AAAA", "not base64!", "AADAfw=="])
def test_a_damaged_distance_is_refused(values: str, tmp_path: Path) -> None:
    deck = tiny_models.deck_of("bert")
    tiny_models.add_stirred(deck, "a", td.FullConfig("head"))
    deck.save("a", tmp_path / "a")
    file = tmp_path / "a" / "tunedeck.json"
    manifest = json.loads(file.read_text())
    novelty = {"size": 32, "axes": 1, "groups": 2, "values": values, "farthest": 0.0}
    manifest["confidence"] = {"novelty": novelty}
    file.write_text(json.dumps(manifest))
    with pytest.raises(AdapterFileError):
        deck.load_adapter(tmp_path / "a", "b")


def test_numbers_out_of_range_are_refused(trained: Path) -> None:
    with pytest.raises(ConfigError, match="keep must be between 0 and 1"):
        td.threshold(trained / "run" / "adapter", "x.csv", keep=1.0)
