"""A run in stages is the run in one go, also where another's stages come between and where it is resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import stopped_runs, tiny_models

import tunedeck as td
from tunedeck.core.errors import TrainingError
from tunedeck.training.signals import StopSignals
from tunedeck.training.stages import StagedRun

SETTINGS = td.TrainingSettings(max_steps=9, batch_size=8, early_stopping_patience=None, learning_rate=1e-2)
LORA = td.LoraConfig(r=2, lora_dropout=0.2)


def deck_with(*names: str) -> td.Deck:
    deck = tiny_models.deck_of("bert")
    for name in names:
        deck.add(name, LORA, labels=stopped_runs.dataset().labels)
    return deck


def weights(deck: td.Deck, name: str) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in deck.adapter(name).parameters()]


def test_stages_come_to_the_same_weights(tmp_path: Path) -> None:
    data, signals = stopped_runs.dataset(), StopSignals()
    whole = deck_with("a")
    run = StagedRun(whole, "a", data, SETTINGS, tmp_path / "whole")
    assert run.train_to(1.0, signals) == "finished"
    deck = deck_with("a", "b")
    first = StagedRun(deck, "a", data, SETTINGS, tmp_path / "a")
    assert first.steps == 9
    assert first.train_to(1 / 9, signals) == "paused"
    StagedRun(deck, "b", data, SETTINGS, tmp_path / "b").train_to(1.0, signals)  # with random numbers of its own
    assert first.train_to(1 / 3, signals) == "paused"
    assert first.train_to(1 / 3, signals) == "paused"  # it is there already
    first.save()
    first.close()
    deck.remove("a")
    deck.add("a", LORA, labels=data.labels)
    resumed = StagedRun(deck, "a", data, SETTINGS, tmp_path / "a")
    assert resumed.train_to(1.0, signals) == "finished"
    assert all(torch.equal(one, other) for one, other in zip(weights(whole, "a"), weights(deck, "a"), strict=True))


def test_the_best_state_that_was_recorded_is_left_and_a_signal_ends_a_stage(tmp_path: Path) -> None:
    deck, signals = deck_with("a"), StopSignals()
    run = StagedRun(deck, "a", stopped_runs.dataset(), SETTINGS, tmp_path / "a")
    run.train_to(1 / 3, signals)
    run.record({"accuracy": 0.9}, 0.1)
    best = weights(deck, "a")
    run.train_to(1.0, signals)
    run.record({"accuracy": 0.8}, 0.1)
    run.leave()
    assert run.best_step == 3
    assert all(torch.equal(one, other) for one, other in zip(weights(deck, "a"), best, strict=True))
    done = run.finish({"accuracy": 0.85}, 0)
    assert (done.stopped, done.metrics["accuracy"]) == ("finished", 0.85)
    assert (tmp_path / "a" / "adapter" / "adapter_model.safetensors").exists()


def test_a_recorded_evaluation_is_in_the_checkpoint_that_is_saved_after_it(tmp_path: Path) -> None:
    deck, signals = deck_with("a"), StopSignals()
    run = StagedRun(deck, "a", stopped_runs.dataset(), SETTINGS, tmp_path / "a")
    run.train_to(1 / 3, signals)
    run.save()
    run.record({"accuracy": 0.9}, 0.1)
    run.save()
    run.close()
    again = deck_with("a")
    resumed = StagedRun(again, "a", stopped_runs.dataset(), SETTINGS, tmp_path / "a")
    resumed.train_to(1.0, signals)
    resumed.record({"accuracy": 0.8}, 0.1)
    resumed.leave()
    assert resumed.best_step == 3
    resumed.close()


def test_a_loss_that_is_not_a_number_is_a_training_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deck = deck_with("a")
    run = StagedRun(deck, "a", stopped_runs.dataset(), SETTINGS, tmp_path / "a")

    def poison() -> None:
        with torch.no_grad():
            next(deck.adapter("a").parameters()).fill_(float("nan"))

    stopped_runs.at_loss(monkeypatch, 2, poison)
    with pytest.raises(TrainingError, match="the loss is nan"):
        run.train_to(1.0, StopSignals())
