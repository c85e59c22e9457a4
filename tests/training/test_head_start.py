"""A run of classification starts from the solution on the frozen base's vectors, and never ends below it in silence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.labelled_words import rows, write_csv
from support.tiny_models import LABELS, deck_of

import tunedeck as td
from tunedeck.core.pooling import HeadPooling
from tunedeck.data.labelled import Example
from tunedeck.data.settings import DataSettings
from tunedeck.methods.base import MethodConfig
from tunedeck.tasks import vectors
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.classify.task import evaluate_labelled
from tunedeck.tasks.text_head import HeadObjective
from tunedeck.training import jobs
from tunedeck.training.config import TrainingSettings
from tunedeck.training.record import read_run
from tunedeck.training.trainer import AdapterTrainer

METHODS: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(r=2),
    "bottleneck": td.BottleneckConfig("seq_bn"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=3),
    "full": td.FullConfig(1),
    "head": td.FullConfig("head"),
}
STILL = TrainingSettings(max_steps=1, learning_rate=1e-12)


@pytest.fixture(autouse=True)
def _shared_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache for all tests that do not look into theirs: heads on the same vectors are fitted once."""
    monkeypatch.setenv("TUNEDECK_CACHE", str(tmp_path_factory.getbasetemp() / "head-start"))


@pytest.fixture
def cache(_shared_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("TUNEDECK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vectors"


@pytest.fixture
def data(tmp_path: Path) -> DataSettings:
    return DataSettings(train=str(write_csv(tmp_path / "words.csv", rows(90))), eval_fraction=0.3)


def read(data: DataSettings) -> Dataset[Example]:
    return td.Classify(labels=LABELS).read(data)


def trained(
    data: DataSettings, kind: str, settings: TrainingSettings, pooling: HeadPooling = "mean"
) -> tuple[td.Deck, td.TrainingRun]:
    deck = deck_of("bert")
    deck.add(kind, METHODS[kind], task=td.Classify(labels=read(data).labels, pooling=pooling))
    return deck, td.train(deck, kind, data, settings=settings, progress=False)


def evaluation(deck: td.Deck, name: str, data: DataSettings) -> Mapping[str, float]:
    """Return what an evaluation of the held-out part says of an adapter."""
    task = deck.adapter(name).task
    assert isinstance(task, td.Classify)
    return evaluate_labelled(deck, name, task, read(data).evaluation)


@pytest.mark.parametrize("pooling", ["mean", "model"])
@pytest.mark.parametrize("kind", METHODS)
def test_the_start_is_told_as_an_evaluation_tells_it(data: DataSettings, kind: str, pooling: HeadPooling) -> None:
    deck, run = trained(data, kind, STILL, pooling)
    evaluated = evaluation(deck, kind, data)
    assert run.start == pytest.approx(evaluated, abs=1e-4)
    assert run.start["accuracy"] > 0.6  # where a random head has a third


def test_a_head_alone_is_the_solution_and_takes_no_step(data: DataSettings, tmp_path: Path) -> None:
    _, run = trained(data, "head", TrainingSettings(epochs=5))
    assert (run.measurement.steps, run.best_step, run.stopped) == (0, 0, "finished")
    assert run.metrics == run.start
    assert run.measurement.start_s > 0
    split = read(data)
    assert run.measurement.evaluation_share == len(split.evaluation) / len(split.train) > 0.4


@pytest.mark.parametrize("kind", ["lora", "prompt"])
def test_a_second_run_says_that_its_start_was_kept(data: DataSettings, cache: Path, kind: str) -> None:
    kept = [trained(data, kind, STILL)[1].measurement.start_kept for _ in range(2)]
    assert kept == [False, True]


def test_a_random_head_alone_is_trained(data: DataSettings) -> None:
    _, run = trained(data, "head", TrainingSettings(epochs=1, head_init="random"))
    assert run.measurement.steps > 0
    assert run.start == {}


def test_a_run_that_ends_below_its_start_keeps_it(data: DataSettings, tmp_path: Path) -> None:
    deck = deck_of("bert")
    deck.add("law", METHODS["lora"], task=td.Classify(labels=read(data).labels, pooling="mean"))
    wild = TrainingSettings(epochs=1, learning_rate=5.0, schedule="constant", max_grad_norm=None)
    run = td.train(deck, "law", data, settings=wild, out=tmp_path / "run", progress=False)
    assert run.best_step == 0
    assert run.kept_start
    assert run.metrics == run.start == json.loads((tmp_path / "run" / "metrics.json").read_text())["start"]
    assert evaluation(deck, "law", data) == pytest.approx(run.start, abs=1e-4)


def test_a_prompt_is_compared_with_a_head_on_the_base_without_it(data: DataSettings, tmp_path: Path) -> None:
    deck = deck_of("bert")
    for kind in ("prompt", "head", "lora"):
        deck.add(kind, METHODS[kind], task=td.Classify(labels=read(data).labels, pooling="mean"))
    head = td.train(deck, "head", data, progress=False)
    prompt = td.train(deck, "prompt", data, settings=STILL, out=tmp_path / "run", progress=False)
    assert prompt.head_only == head.metrics
    assert prompt.head_only != prompt.start
    assert prompt.below_head_only == (head.metrics["accuracy"] > prompt.metrics["accuracy"])
    assert read_run("prompt", tmp_path / "run").head_only == prompt.head_only
    assert td.train(deck, "lora", data, settings=STILL, progress=False).head_only == {}


def test_a_run_that_rises_below_its_start_is_not_stopped(data: DataSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    rising = iter(range(1, 9))
    monkeypatch.setattr(HeadObjective, "evaluate", lambda self: {"accuracy": next(rising) / 100, "loss": 1.0})
    _, run = trained(data, "lora", TrainingSettings(max_steps=6, eval_steps=1))
    assert run.stopped == "finished"
    assert run.kept_start


def test_training_surpasses_the_start(data: DataSettings) -> None:
    _, run = trained(data, "lora", TrainingSettings(epochs=6, learning_rate=5e-3, batch_size=8))
    assert run.best_step > 0
    assert not run.kept_start
    assert run.metrics["loss"] < run.start["loss"]


def test_a_run_that_is_resumed_keeps_the_start_of_its_beginning(
    data: DataSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = read(data).labels

    def begin() -> td.Deck:
        deck = deck_of("bert")
        deck.add("law", METHODS["lora"], task=td.Classify(labels=labels, pooling="mean"))
        return deck

    step = AdapterTrainer.optimizer_step

    def break_off(trainer: AdapterTrainer, seconds: float) -> None:
        step(trainer, seconds)
        if trainer.state.steps == 3:
            raise RuntimeError("broken off")

    settings = TrainingSettings(max_steps=4, eval_steps=1, learning_rate=1e-12, early_stopping_patience=0)
    monkeypatch.setattr(AdapterTrainer, "optimizer_step", break_off)
    with pytest.raises(RuntimeError, match="broken off"):
        td.train(begin(), "law", data, settings=settings, out=tmp_path / "run", progress=False)
    monkeypatch.setattr(AdapterTrainer, "optimizer_step", step)
    whole = td.train(begin(), "law", data, settings=settings, progress=False)
    monkeypatch.setattr(jobs, "view_of", None)  # the head is not fitted again
    run = td.train(begin(), "law", data, settings=settings, out=tmp_path / "run", resume=True, progress=False)
    assert run.start == whole.start
    assert run.metrics == whole.metrics


def test_methods_that_hardly_change_the_base_share_its_vectors(
    data: DataSettings, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(data, "lora", STILL)
    files = sorted(cache.glob("*.safetensors"))
    assert len(files) == 3  # a few to compare, the training texts and those held out

    def refused(deck: td.Deck, name: str, ids: list[list[int]]) -> torch.Tensor:
        assert len(ids) <= vectors._COMPARED, "computed again"
        return computed(deck, name, ids)

    computed = vectors._computed
    monkeypatch.setattr(vectors, "_computed", refused)
    trained(data, "head", STILL)
    trained(data, "full", STILL)
    monkeypatch.setattr(vectors, "_computed", computed)
    trained(data, "bottleneck", STILL)  # the held-out texts are read with it, the training texts are not
    assert sorted(cache.glob("*.safetensors")) == files


def test_adapters_that_change_the_base_and_begin_alike_share_their_start(data: DataSettings, cache: Path) -> None:
    trained(data, "head", STILL)
    base = set(cache.glob("*.safetensors"))
    deck, prompt = trained(data, "prompt", STILL)
    assert prompt.start != prompt.head_only
    (own,) = set(cache.glob("*.safetensors")) - base
    faster, _ = trained(data, "prompt", STILL.model_copy(update={"learning_rate": 2e-12}))
    assert set(cache.glob("*.safetensors")) == base | {own}  # the learning rate is no part of the start
    starts = [one.adapter("prompt").head_tensors() for one in (deck, faster)]
    assert all(torch.allclose(starts[0][name], starts[1][name], atol=1e-6) for name in starts[0])
    other = deck_of("bert")
    other.add("prompt", METHODS["prompt"], task=td.Classify(labels=read(data).labels, pooling="mean"), seed=1)
    td.train(other, "prompt", data, settings=STILL, progress=False)
    assert len(set(cache.glob("*.safetensors")) - base - {own}) == 1  # other virtual tokens


def test_the_start_is_told_in_a_line_of_eighty_columns(
    data: DataSettings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    deck = deck_of("bert")
    deck.add("sentiment", METHODS["head"], task=td.Classify(labels=read(data).labels, pooling="mean"))
    run = td.train(deck, "sentiment", data)
    values = ", ".join(f"{name} {run.start[name]:.3f}" for name in ("accuracy", "macro_f1", "loss"))
    assert f"  start ({run.measurement.start_s:.1f} s): {values}\n" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["lora", "head"])
def test_a_run_without_held_out_texts_starts_and_keeps_its_last_state(data: DataSettings, kind: str) -> None:
    whole = read(data)
    nothing = replace(whole, train=[*whole.train, *whole.evaluation], evaluation=[])
    deck = deck_of("bert")
    deck.add(kind, METHODS[kind], task=td.Classify(labels=whole.labels, pooling="mean"))
    fresh = {name: tensor.clone() for name, tensor in deck.adapter(kind).tensors().items()}
    run = td.train(deck, kind, nothing, settings=TrainingSettings(max_steps=5, learning_rate=5e-3))
    assert (run.metrics, run.start, run.kept_start) == ({}, {}, False)
    assert run.measurement.steps == (0 if kind == "head" else 5)
    changed = {name for name, tensor in deck.adapter(kind).tensors().items() if not torch.equal(tensor, fresh[name])}
    assert changed == set(fresh)
    assert evaluation(deck, kind, data)["accuracy"] > 0.6


def test_a_damaged_file_of_vectors_is_made_again(data: DataSettings, cache: Path) -> None:
    _, before = trained(data, "head", STILL)
    for file in cache.glob("*.safetensors"):
        file.write_bytes(b"cut short")
    _, after = trained(data, "head", STILL)
    assert after.start == before.start


def test_the_oldest_vectors_go_where_they_are_too_many(
    data: DataSettings, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "KEPT_BYTES", 1)
    trained(data, "head", STILL)
    assert len(list(cache.glob("*.safetensors"))) == 0


def test_a_decoder_without_a_bias_starts_from_a_solution_without_one(data: DataSettings) -> None:
    deck = deck_of("llama")
    deck.add("law", METHODS["lora"], labels=read(data).labels)
    run = td.train(deck, "law", data, settings=STILL, progress=False)
    evaluated = evaluation(deck, "law", data)
    assert run.start == pytest.approx(evaluated, abs=1e-4)


def test_several_labels_a_text_have_a_start(tmp_path: Path) -> None:
    pairs = [(text, f"{label}|long" if len(text.split()) > 6 else label) for text, label in rows(120)]
    data = DataSettings(train=str(write_csv(tmp_path / "several.csv", pairs)), eval_fraction=0.3)
    dataset = td.Classify(multi_label=True).read(data)
    deck = td.Deck(deck_of("bert").base, td.Classify(labels=dataset.labels, multi_label=True, pooling="mean"))
    deck.add("tags", METHODS["head"])
    run = td.train(deck, "tags", data, progress=False)
    assert run.metrics["macro_f1"] > 0.5
