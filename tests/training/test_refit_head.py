"""With `refit_head` a head ends as the solution for all examples, and the metrics are those from before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.command_line import Command
from support.labelled_words import rows, write_csv
from support.tiny_models import LABELS, deck_of, folder_of

import tunedeck as td
from tunedeck.comparison.examine import held_out_data
from tunedeck.core.errors import ConfigError
from tunedeck.deck.heads import last_linear
from tunedeck.methods.base import MethodConfig
from tunedeck.tasks.classify.metrics import targets_of
from tunedeck.tasks.linear_probe import fit_linear_head
from tunedeck.tasks.text_head import text_ids
from tunedeck.tasks.vectors import head_inputs
from tunedeck.training.config import TrainingSettings
from tunedeck.training.jobs import Job


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(write_csv(tmp_path / "words.csv", rows(60)))


@pytest.mark.parametrize("method", [td.FullConfig("head"), td.LoraConfig(r=2)], ids=["head", "lora"])
def test_a_refit_head_is_the_solution_for_all_examples(file: str, method: MethodConfig) -> None:
    deck = deck_of("bert")
    data = td.Classify(labels=LABELS).read(td.DataSettings(train=file))
    task = td.Classify(labels=data.labels, pooling="mean")
    settings = TrainingSettings(max_steps=3, learning_rate=0.05, eval_steps=1, early_stopping_patience=0)
    runs: dict[str, td.TrainingRun] = {}
    for name, again in (("plain", False), ("refit", True)):
        deck.add(name, method, task=task)
        runs |= td.train(deck, {name: Job(data, settings, again)}, progress=False)
    assert runs["refit"].metrics == pytest.approx(runs["plain"].metrics)

    examples = [*data.train, *data.evaluation]
    ids = text_ids(deck, [one.text for one in examples], ["refit"] * len(examples), task.max_length)
    targets = targets_of(data.labels or (), [one.labels for one in examples], False)
    solution = fit_linear_head(head_inputs(deck, "refit", ids), targets, len(LABELS), multi_label=False)
    refit, plain = (last_linear(deck.adapter(name).head).weight for name in ("refit", "plain"))
    torch.testing.assert_close(refit, solution.weight, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(refit, plain, rtol=1e-3, atol=1e-3)


def test_a_task_without_a_head_has_none_to_refit() -> None:
    deck = td.Deck(deck_of("bert", "plain").base, td.Embed())
    deck.add("a", td.LoraConfig(r=2))
    texts = td.Embed().read(td.DataSettings(train="bundled:tweets", train_size=20, eval_size=10))
    with pytest.raises(ConfigError, match="refit_head"):
        td.train(deck, {"a": Job(texts, refit_head=True)}, progress=False)


def test_examples_apart_are_not_learned_from(file: str, tmp_path: Path) -> None:
    deck = deck_of("bert")
    deck.add("a", td.FullConfig("head"), task=td.Classify(labels=LABELS, pooling="mean"))
    deck.save("a", tmp_path / "adapter")
    for apart in ({"data.eval": "other.csv"}, {"start_from": str(tmp_path / "adapter")}):
        with pytest.raises(ConfigError, match="refit_head"):
            td.train_run({"model": "none", "data": {"train": file}, "refit_head": True}, apart, out=tmp_path / "run")


def test_a_comparison_refits_no_head(file: str) -> None:
    values = {"model": "none", "data": {"train": file}, "refit_head": True}
    with pytest.raises(ConfigError, match="refit_head"):
        td.compare(values, methods="head")
    with pytest.raises(ConfigError, match="refit_head"):
        td.race(values)


def test_held_out_examples_that_were_learned_from_examine_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {train: words.csv}\nrefit_head: true\n")
    assert held_out_data(tmp_path / "adapter") is None
    (tmp_path / "config.yaml").write_text("data: {train: words.csv}\nrefit_head: false\n")
    assert held_out_data(tmp_path / "adapter") is not None


def test_a_run_of_few_examples_names_the_flag(tunedeck: Command, tmp_path: Path) -> None:
    def notes(count: int, *options: object) -> str:
        data = write_csv(tmp_path / f"{count}.csv", rows(count))
        model = folder_of("bert", "classifier")
        said = tunedeck(
            "train",
            "--model",
            model,
            "--data",
            data,
            "--out",
            tmp_path / "run",
            "--max-steps",
            1,
            "--overwrite",
            *options,
        )
        assert said.code == 0, said.err
        return said.err

    hint = "with --refit-head the head learns from the 6 held-out ones as well"
    assert hint in notes(60)
    assert "refit" not in notes(200)
    assert "refit" not in notes(60, "--train-size", 4)  # more are held out, to measure by
    assert "few examples" not in notes(60, "--refit-head")
    assert "few examples" not in notes(60, "--eval-data", write_csv(tmp_path / "other.csv", rows(20)))
