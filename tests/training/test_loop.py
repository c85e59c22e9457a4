"""Training: every method learns, the base stays as it was, runs repeat, and what is left behind is whole."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from support import labelled_words, tiny_models

import tunedeck as td
from tunedeck.core.errors import DataError, TrainingError
from tunedeck.core.run_length import warmup_steps
from tunedeck.data.labelled import Example
from tunedeck.data.prepare import digest
from tunedeck.methods.base import MethodConfig
from tunedeck.tasks.base import Dataset
from tunedeck.training.optimizer import schedule

METHODS: dict[str, tuple[MethodConfig, float]] = {
    "lora": (td.LoraConfig(r=4, target_modules="all-linear"), 2e-2),
    "bottleneck": (td.BottleneckConfig("double_seq_bn", reduction_factor=2), 2e-2),
    "prompt": (td.PromptTuningConfig(num_virtual_tokens=4), 1e-1),
    "full": (td.FullConfig(), 1e-2),
}


def dataset(train: int = 240, held_out: int = 60, seed: int = 0) -> Dataset[Example]:
    pairs = labelled_words.rows(train + held_out, seed)
    examples = [Example(text, (label,)) for text, label in pairs]
    return words_dataset(examples, train, tuple(sorted(labelled_words.WORD_OF)))


def words_dataset(examples: list[Example], train: int, labels: tuple[str, ...]) -> Dataset[Example]:
    return Dataset("words", examples[:train], examples[train:], digest(examples[:train]), "words", labels)


def words_deck() -> td.Deck:
    return td.Deck.load(tiny_models.folder_of("bert", "classifier"), td.Classify(), dtype="float32")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_and_the_base_keeps_every_bit(name: str) -> None:
    deck = words_deck()
    config, rate = METHODS[name]
    before = {key: value.clone() for key, value in deck.model.state_dict().items()}
    deck.add("a", config)
    run = td.train(
        deck, "a", dataset(), epochs=8, settings=td.TrainingSettings(learning_rate=rate, batch_size=16), progress=False
    )
    assert run.metrics["accuracy"] > 0.6  # a third by chance
    centroids = deck.adapter(run.adapter).manifest.centroids
    assert centroids is not None
    assert centroids.size == tiny_models.HIDDEN
    assert all(torch.equal(value, before[key]) for key, value in deck.model.state_dict().items())
    answers = deck.predict(["w10 w50", "w30 w60 w70"], adapter="a")
    assert {answer.label for answer in answers} <= {"red", "green", "blue"}


def test_the_same_seed_gives_the_same_losses(tmp_path: Path) -> None:
    def losses(folder: str, seed: int) -> list[float]:
        deck = words_deck()
        deck.add("a", td.LoraConfig(lora_dropout=0.1))
        settings = td.TrainingSettings(max_steps=6, seed=seed)
        td.train(deck, "a", dataset(), settings=settings, out=tmp_path / folder, progress=False)
        events = [json.loads(line) for line in (tmp_path / folder / "events.jsonl").read_text().splitlines()]
        return [event["loss"] for event in events if event["event"] == "step"]

    first = losses("a", 0)
    assert len(first) == 6
    assert losses("b", 0) == first
    assert losses("c", 1) != first


def test_accumulated_small_batches_move_as_one_large_batch(tmp_path: Path) -> None:
    def losses(batch_size: int, accumulated: int) -> list[float]:
        deck = words_deck()
        deck.add("a", td.LoraConfig())
        settings = td.TrainingSettings(
            batch_size=batch_size,
            gradient_accumulation_steps=accumulated,
            max_steps=4,
            learning_rate=1e-2,
            head_init="random",
        )
        td.train(deck, "a", dataset(train=32), settings=settings, out=tmp_path / str(accumulated), progress=False)
        lines = (tmp_path / str(accumulated) / "events.jsonl").read_text().splitlines()
        return [event["loss"] for event in map(json.loads, lines) if event["event"] == "step"]

    whole, parts = losses(32, 1), losses(10, 4)  # ten, ten, ten and two of the same 32 examples
    assert parts == pytest.approx(whole, abs=2e-6)
    assert whole[3] < whole[0]


def test_the_best_evaluation_is_what_remains_and_what_is_saved(tmp_path: Path) -> None:
    deck = words_deck()
    deck.add("a", td.LoraConfig(r=4, target_modules="all-linear"))
    data = dataset()
    settings = td.TrainingSettings(epochs=4, learning_rate=5e-2, eval_steps=5, batch_size=16)
    run = td.train(deck, "a", data, settings=settings, out=tmp_path / "run", progress=False)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    evaluations = {event["step"]: event["accuracy"] for event in events if event["event"] == "eval"}
    assert run.metrics["accuracy"] == max(evaluations.values())
    assert evaluations[run.best_step] == run.metrics["accuracy"]
    fresh = words_deck()
    fresh.load_adapter(tmp_path / "run" / "adapter", "again")
    texts = [example.text for example in data.evaluation]
    right = [a.label == e.labels[0] for a, e in zip(fresh.predict(texts, "again"), data.evaluation, strict=True)]
    assert sum(right) / len(right) == pytest.approx(run.metrics["accuracy"])


def test_by_default_a_run_that_no_longer_improves_stops_and_says_what_that_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deck = words_deck()
    deck.add("a", td.FullConfig(layers="head"))
    settings = td.TrainingSettings(epochs=5, learning_rate=1e-9, head_init="random")
    run = td.train(deck, "a", dataset(), settings=settings, out=tmp_path / "r")
    assert (run.stopped, run.best_step) == ("early", 8)  # eight steps an epoch, and equals keep the earlier
    measured = run.measurement
    assert (measured.steps, measured.planned_steps) == (24, 40)
    assert measured.saved_s == pytest.approx((measured.train_s + measured.eval_s) * 16 / 24)
    assert run.to_json()["saved_s"] == json.loads((tmp_path / "r" / "measurement.json").read_text())["saved_s"] > 0
    end = json.loads((tmp_path / "r" / "events.jsonl").read_text().splitlines()[-1])
    assert (end["stopped"], end["step"], end["planned_steps"], end["best_step"]) == ("early", 24, 40, 8)
    said = " ".join(capsys.readouterr().err.split())
    assert "stopped after 24 of 40 steps: no better for 2 evaluations; saved about" in said
    assert said.endswith("kept step 8") or "kept step 8 " in said


def test_patience_0_never_stops_early_and_the_learning_rate_is_planned_over_all_steps(tmp_path: Path) -> None:
    def rates(patience: int) -> list[float]:
        deck = words_deck()
        deck.add("a", td.FullConfig(layers="head"))
        settings = td.TrainingSettings(
            epochs=5, learning_rate=1e-9, early_stopping_patience=patience, head_init="random"
        )
        td.train(deck, "a", dataset(), settings=settings, out=tmp_path / str(patience), progress=False)
        events = map(json.loads, (tmp_path / str(patience) / "events.jsonl").read_text().splitlines())
        return [event["learning_rate"] for event in events if event["event"] == "step"]

    whole, cut = rates(0), rates(2)
    assert (len(whole), len(cut)) == (40, 24)
    assert cut == whole[:24]


def test_a_run_without_held_out_examples_has_no_evaluation_and_ends_in_its_last_state() -> None:
    deck = words_deck()
    deck.add("a", td.LoraConfig())
    settings = td.TrainingSettings(epochs=1, head_init="random")
    run = td.train(deck, "a", dataset(held_out=0), settings=settings, progress=False)
    assert (run.stopped, run.measurement.steps, run.metrics) == ("finished", 8, {})


def test_a_run_ends_when_its_minutes_are_over_with_an_evaluation() -> None:
    deck = words_deck()
    deck.add("a", td.LoraConfig())
    settings = td.TrainingSettings(epochs=10**6, eval_steps=10**6, max_minutes=0.005)
    run = td.train(deck, "a", dataset(), settings=settings, progress=False)
    assert run.stopped == "time"
    assert run.measurement.train_s >= 0.3
    assert run.measurement.train_s * (1 - 1 / run.measurement.steps) < 0.6  # not many steps later
    assert run.best_step == run.measurement.steps
    assert run.metrics["accuracy"] > 0


def test_the_caller_may_end_a_run_after_an_evaluation() -> None:
    deck = words_deck()
    deck.add("a", td.LoraConfig())
    seen: list[dict[str, float]] = []

    def should_stop(metrics: dict[str, float]) -> bool:
        seen.append(metrics)
        return len(seen) == 3

    settings = td.TrainingSettings(eval_steps=2)
    run = td.train(deck, "a", dataset(), settings=settings, progress=False, should_stop=should_stop)
    assert (run.stopped, run.measurement.steps) == ("stopped", 6)
    assert run.metrics in seen


def test_the_rate_follows_the_time_where_that_is_further_than_the_steps() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    used = [0.0]
    rates = schedule(optimizer, td.TrainingSettings(schedule="linear", warmup_ratio=0.0), 100, lambda: used[0])
    for step, share, expected in ((1, 0.0, 0.99), (2, 0.5, 0.5), (3, 1.0, 0.0)):
        used[0] = share
        optimizer.step()
        rates.step()
        assert rates.get_last_lr()[0] == pytest.approx(expected), step


def test_a_run_folder_holds_config_metrics_measurement_events_and_the_adapter(tmp_path: Path) -> None:
    deck = words_deck()
    deck.add("a", td.LoraConfig())
    run = td.train(deck, "a", dataset(), settings=td.TrainingSettings(max_steps=3), out=tmp_path / "r", progress=False)
    assert run.adapter_folder == tmp_path / "r" / "adapter"
    measurement = json.loads((tmp_path / "r" / "measurement.json").read_text())
    assert measurement["steps"] == 3
    assert measurement["step_s"] > 0
    assert measurement["tokens_per_s"] > 0
    assert measurement["peak_memory_bytes"] > 1e6
    assert 0 <= measurement["padded_share"] < 1
    manifest = json.loads((run.adapter_folder / "tunedeck.json").read_text())
    assert {**manifest["metrics"], "temperature": manifest["confidence"]["temperature"]} == run.metrics
    assert manifest["data"]["examples"] == 240
    assert len(manifest["data"]["sha256"]) == 64


def test_a_loss_that_is_no_number_ends_with_advice() -> None:
    deck = words_deck()
    deck.add("a", td.LoraConfig())
    with torch.no_grad():
        next(iter(deck.adapter("a").parameters())).fill_(float("nan"))
    with pytest.raises(TrainingError, match="lower the learning rate"):
        td.train(deck, "a", dataset(), epochs=1, progress=False)


def test_ctrl_c_ends_the_run_with_its_adapter_saved_whole(tmp_path: Path) -> None:
    deck = words_deck()
    deck.add("a", td.LoraConfig())
    seen: list[dict[str, float]] = []

    def interrupted(metrics: dict[str, float]) -> bool:
        seen.append(metrics)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return False

    settings = td.TrainingSettings(eval_steps=1)
    with pytest.warns(UserWarning, match="training was stopped by Ctrl-C after step 3; resume with td.train"):
        run = td.train(
            deck, "a", dataset(), settings=settings, out=tmp_path / "r", progress=False, should_stop=interrupted
        )
    assert run.stopped == "interrupted"
    assert run.measurement.steps == 3
    assert json.loads((tmp_path / "r" / "metrics.json").read_text())["stopped"] == "interrupted"
    words_deck().load_adapter(tmp_path / "r" / "adapter", "again")


def test_labels_that_differ_from_the_adapters_are_refused() -> None:
    deck = tiny_models.deck_of("bert")
    deck.add("a", td.LoraConfig(), labels=("x", "y"))
    with pytest.raises(DataError, match="the data has the labels"):
        td.train(deck, "a", dataset(), epochs=1, progress=False)


def test_multi_label_training_learns_two_labels_at_once() -> None:
    pairs = labelled_words.rows(300)
    examples = [Example(text, (label, "long") if len(text.split()) > 6 else (label,)) for text, label in pairs]
    data = words_dataset(examples, 240, ("blue", "green", "long", "red"))
    deck = td.Deck.load(tiny_models.folder_of("bert", "classifier"), td.Classify(multi_label=True), dtype="float32")
    deck.add("a", td.LoraConfig(r=4, target_modules="all-linear"))
    settings = td.TrainingSettings(epochs=8, learning_rate=2e-2, batch_size=16, metric_for_best_model="micro_f1")
    run = td.train(deck, "a", data, settings=settings, progress=False)
    assert run.metrics["micro_f1"] > 0.7
    assert isinstance(deck.predict(["w10 w50"], adapter="a")[0].labels, tuple)


@pytest.mark.parametrize(
    ("kind", "middle", "last"), [("cosine", 0.5, 0.0), ("linear", 0.5, 0.0), ("constant", 1.0, 1.0)]
)
def test_the_rate_warms_up_and_then_follows_its_schedule(kind: str, middle: float, last: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    rates = schedule(optimizer, td.TrainingSettings(schedule=kind, warmup_ratio=0.2), total_steps=100)
    seen = []
    for _ in range(101):
        seen.append(rates.get_last_lr()[0])
        optimizer.step()
        rates.step()
    assert seen[0] == pytest.approx(1 / 20)
    assert seen[19] == pytest.approx(1.0)
    assert seen[60] == pytest.approx(middle)
    assert seen[100] == pytest.approx(last, abs=1e-9)


@pytest.mark.parametrize(("steps", "warmup"), [(3, 1), (10, 2), (40, 8), (100, 8), (250, 15)])
def test_a_short_run_warms_up_over_a_larger_share(steps: int, warmup: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    rates = schedule(optimizer, td.TrainingSettings(), total_steps=steps)
    for step in range(1, warmup + 1):
        assert rates.get_last_lr()[0] == pytest.approx(step / warmup)
        optimizer.step()
        rates.step()
    assert warmup_steps(0.06, steps) == math.ceil(0.06 * steps)
    assert warmup_steps(0.0, steps) == 0


@pytest.mark.parametrize(
    "method",
    [
        td.LoraConfig(target_modules="all-linear"),
        td.LoraConfig(target_modules="all-linear", layers_to_transform=(1,)),
        td.FullConfig(),
    ],
    ids=["lora", "upper layers", "full"],
)
def test_a_run_with_checkpointing_learns_the_same(method: MethodConfig) -> None:
    losses = []
    for checkpointing in (False, True, 1):
        deck = words_deck()
        deck.add("a", method)
        settings = td.TrainingSettings(epochs=2, batch_size=8, gradient_checkpointing=checkpointing)
        losses.append(td.train(deck, "a", dataset(), settings=settings, progress=False).metrics["loss"])
    assert losses[0] == losses[1] == losses[2]
