"""A run that is interrupted and resumed is the run that was left alone; what cannot go on says why."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.stopped_runs import at_loss, dataset, left_behind
from support.tiny_models import deck_of

import tunedeck as td
from tunedeck.core.errors import ConfigError, StorageError, TrainingError
from tunedeck.formats.tensors import write_safetensors
from tunedeck.tasks.embed.objective import EmbedObjective
from tunedeck.tasks.text_head import HeadObjective
from tunedeck.training import checkpoint as checkpoint_file
from tunedeck.training import trainer as trainer_file
from tunedeck.training.events import EventLog

LABELS = ("blue", "green", "red")
LORA = td.LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.1)
SETTINGS = td.TrainingSettings(
    batch_size=8,
    gradient_accumulation_steps=2,
    max_steps=12,
    eval_steps=4,
    learning_rate=1e-2,
    checkpoint_every=3,
    early_stopping_patience=2,
)


def go(
    folder: Path | None, config: Any = LORA, settings: td.TrainingSettings = SETTINGS, **more: Any
) -> td.TrainingRun:
    deck = deck_of("bert")
    deck.add("a", config, labels=LABELS)
    return td.train(deck, "a", **{"data": dataset(), "settings": settings, "out": folder, "progress": False, **more})


def at_evaluation(number: int, happens: Callable[[], object]) -> Callable[[dict[str, float]], bool]:
    """A `should_stop` that stops nothing; something happens after the n-th evaluation."""
    seen: list[dict[str, float]] = []

    def should_stop(metrics: dict[str, float]) -> bool:
        seen.append(metrics)
        if len(seen) == number:
            happens()
        return False

    return should_stop


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


@pytest.mark.parametrize(
    ("stop", "config", "changes"),
    [
        (signal.SIGINT, LORA, {}),
        (signal.SIGTERM, LORA, {}),
        (
            signal.SIGINT,
            LORA,
            {"schedule": "linear", "gradient_accumulation_steps": 1, "max_grad_norm": None, "seed": 3},
        ),
        (
            signal.SIGTERM,
            td.LoraConfig(128, target_modules="all-linear", lora_dropout=0.1),
            {"optimizer": "adamw_8bit"},
        ),
        (signal.SIGINT, td.PromptTuningConfig(num_virtual_tokens=4), {"learning_rate": 0.1}),
        (signal.SIGTERM, td.PrefixTuningConfig(num_virtual_tokens=4), {}),
        (signal.SIGTERM, td.FullConfig(), {"eval_steps": 1, "early_stopping_patience": None}),
        (signal.SIGINT, td.FullConfig(layers="head"), {"learning_rate": 1e-9, "eval_steps": 3, "head_init": "random"}),
        (signal.SIGTERM, td.LoraConfig(r=4, layers_to_transform=(1,)), {"early_stopping_patience": None}),
        (
            signal.SIGTERM,
            td.LoraConfig(r=4, layers_to_transform=(1,)),
            {"early_stopping_patience": None, "sampler": "balanced"},
        ),
    ],
    ids=["Ctrl-C", "SIGTERM", "linear", "8-bit", "prompt", "prefix", "full", "early", "kept lower layers", "balanced"],
)
def test_a_stopped_and_resumed_run_ends_as_one_left_alone(
    stop: signal.Signals, config: Any, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS.model_copy(update=changes)
    alone = go(tmp_path / "alone", config, settings)
    at_loss(monkeypatch, 9, lambda: signal.raise_signal(stop))
    first = go(tmp_path / "twice", config, settings)
    assert first.stopped == ("interrupted" if stop is signal.SIGINT else "terminated")
    assert signal.getsignal(stop) in (signal.SIG_DFL, signal.default_int_handler)
    again = go(tmp_path / "twice", config, settings, resume=True)
    assert len(events(tmp_path / "twice", "resume")) == 1
    assert left_behind(tmp_path / "twice") == left_behind(tmp_path / "alone")
    assert (again.metrics, again.best_step, again.stopped) == (alone.metrics, alone.best_step, alone.stopped)
    assert again.measurement.steps == alone.measurement.steps
    assert not (tmp_path / "twice" / "checkpoints").exists()


def test_what_the_first_epoch_left_in_memory_is_made_again_from_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, asked = HeadObjective.loss, []

    def loss(self: HeadObjective, rows: Any) -> Any:
        asked.append(list(rows))
        if len(asked) == 15:  # in the second epoch of ten batches
            signal.raise_signal(signal.SIGINT)
        return plain(self, rows)

    monkeypatch.setattr(HeadObjective, "loss", loss)
    upper = td.LoraConfig(layers_to_transform=(1,))
    go(tmp_path / "upper", upper, SETTINGS.model_copy(update={"early_stopping_patience": None}))
    first, count = asked[:10], len(asked)
    go(tmp_path / "upper", upper, SETTINGS.model_copy(update={"early_stopping_patience": None}), resume=True)
    assert asked[count : count + 10] == first
    assert len(asked) == 24 + 10


def test_a_signal_during_an_evaluation_breaks_it_off_and_the_resumed_run_makes_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, asked = HeadObjective.evaluate, []

    def evaluate(self: HeadObjective) -> dict[str, float]:
        asked.append(torch.rand(3))  # an evaluation may draw random numbers
        metrics = plain(self)
        if len(asked) == 2:
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("the evaluation went on")
        return metrics

    monkeypatch.setattr(HeadObjective, "evaluate", lambda self: (torch.rand(3), plain(self))[1])
    go(tmp_path / "alone")
    monkeypatch.setattr(HeadObjective, "evaluate", evaluate)
    assert go(tmp_path / "twice").measurement.steps == 8
    go(tmp_path / "twice", resume=True)
    assert left_behind(tmp_path / "twice") == left_behind(tmp_path / "alone")


def signal_twice(stop: signal.Signals) -> None:
    signal.raise_signal(stop)
    signal.raise_signal(stop)


def test_a_second_sigterm_lets_the_step_be_finished_and_a_second_ctrl_c_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stop, saved in ((signal.SIGTERM, True), (signal.SIGINT, False)):
        with monkeypatch.context() as patch:
            at_loss(patch, 9, partial(signal_twice, stop))
            go(tmp_path / stop.name)
        assert (tmp_path / stop.name / "checkpoints" / "step-00000005").exists() is saved


def test_killed_runs_end_as_one_left_alone() -> None:
    script = Path(__file__).with_name("kill_many.py")
    said = subprocess.run([sys.executable, script, "--times", "4"], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "every loss, metric and adapter equal to the last bit" in said.stdout


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was left alone; write nothing there."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    go(folder)
    return folder


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    go(folder, should_stop=at_evaluation(2, lambda: signal.raise_signal(signal.SIGTERM)))
    return folder


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """A copy of a run with checkpoints of the steps 6 and 8, whose best state and events end there."""
    return Path(shutil.copytree(stopped_once, tmp_path / "stopped"))


def test_two_checkpoints_stay_and_a_damaged_newest_one_is_passed_over(stopped: Path, alone: Path) -> None:
    folder = stopped
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["step-00000006", "step-00000008"]
    damaged = folder / "checkpoints" / "step-00000008" / "optimizer.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.warns(UserWarning, match="step-00000008 is damaged: its checksums differ"):
        go(folder, resume=True)
    assert [event["step"] for event in events(folder, "resume")] == [6]
    assert left_behind(folder) == left_behind(alone)


@pytest.mark.parametrize("harm", ["a file is missing", "a file is too many", "no list", "an empty list"])
def test_any_damage_is_noticed(harm: str, stopped: Path) -> None:
    for folder in (stopped / "checkpoints").iterdir():
        sums = folder / checkpoint_file.CHECKSUMS
        harms: dict[str, Callable[[], object]] = {
            "a file is missing": (folder / "best.safetensors").unlink,
            "a file is too many": (folder / "more.safetensors").touch,
            "no list": sums.unlink,
            "an empty list": partial(sums.write_text, "{}"),
        }
        harms[harm]()
    with pytest.warns(UserWarning, match="is damaged"), pytest.raises(TrainingError, match="every checkpoint in"):
        go(stopped, resume=True)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"settings": SETTINGS.model_copy(update={"learning_rate": 0.5})}, "training.learning_rate was 0.01, is 0.5"),
        ({"settings": SETTINGS.model_copy(update={"max_steps": 13})}, "training.max_steps was 12, is 13"),
        ({"config": td.LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.1)}, "method.r was 4, is 2"),
        ({"config": td.FullConfig("head")}, "method.kind was lora, is full"),
    ],
)
def test_another_run_is_refused_and_the_difference_named(changes: dict[str, Any], text: str, stopped: Path) -> None:
    before = (stopped / "events.jsonl").read_bytes()
    with pytest.raises(TrainingError) as error:
        go(stopped, resume=True, **changes)
    assert text in str(error.value)
    assert (stopped / "events.jsonl").read_bytes() == before


def test_other_data_and_another_model_are_refused(stopped: Path) -> None:
    data = dataset()
    other = td.tasks.base.Dataset("x", data.train, data.evaluation[1:], "0" * 64, "x", data.labels)
    with pytest.raises(TrainingError, match=r"data.train was [0-9a-f]{12}, is 000000000000; data.evaluation was"):
        go(stopped, resume=True, data=other)
    deck = deck_of("bert", seed=1)
    deck.add("a", LORA, labels=LABELS)
    with pytest.raises(TrainingError, match=r"model\.fingerprint was"):
        td.train(deck, "a", data, settings=SETTINGS, out=stopped, resume=True, progress=False)


def test_settings_that_change_no_step_may_change(stopped: Path) -> None:
    run = go(stopped, settings=SETTINGS.model_copy(update={"checkpoint_every": 1, "keep_checkpoints": 5}), resume=True)
    assert run.stopped == "finished"


def test_a_finished_run_says_so_and_a_run_without_a_folder_cannot_be_resumed(alone: Path) -> None:
    with pytest.raises(TrainingError, match="is finished; its adapter is in"):
        go(alone, resume=True)
    with pytest.raises(ConfigError, match="resume needs out"):
        go(None, resume=True)


def test_a_run_without_a_checkpoint_begins_anew_and_says_so(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="holds no checkpoint yet"):
        run = go(tmp_path, settings=SETTINGS.model_copy(update={"keep_checkpoints": 0}), resume=True)
    assert run.stopped == "finished"
    assert not events(tmp_path, "checkpoint")


def test_a_new_run_in_the_folder_leaves_nothing_of_the_old_one_to_resume(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_loss(monkeypatch, 1, lambda: signal.raise_signal(signal.SIGINT))
    go(stopped)
    assert [path.name for path in (stopped / "checkpoints").iterdir()] == ["step-00000001"]


def test_by_default_a_checkpoint_follows_each_evaluation_and_ten_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS.model_copy(update={"checkpoint_every": None})
    go(tmp_path / "a", settings=settings)
    assert [event["step"] for event in events(tmp_path / "a", "checkpoint")] == [4, 8]
    clock = iter(range(0, 100_000, 100))  # every look at the clock is 100 seconds later: once in a step, once in a save
    own_time = SimpleNamespace(monotonic=lambda: float(next(clock)), perf_counter=time.perf_counter)
    monkeypatch.setattr(trainer_file, "time", own_time)  # other threads look at the clock, too
    go(tmp_path / "b", settings=settings.model_copy(update={"eval_steps": 100}))
    assert [event["step"] for event in events(tmp_path / "b", "checkpoint")] == [7]


def test_a_full_disk_ends_the_run_with_the_last_good_checkpoint(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, written = write_safetensors, list[Path]()

    def full(file: Path, tensors: Any) -> None:
        written.append(file)
        if len(written) == 9:  # the last file of the third checkpoint
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(file, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_file, "write_safetensors", full)
        with pytest.raises(StorageError) as error:
            go(tmp_path / "r")
    assert "step-00000009: No space left on device; free some space" in str(error.value)
    assert f"The last good checkpoint is {tmp_path / 'r' / 'checkpoints' / 'step-00000006'}" in str(error.value)
    go(tmp_path / "r", resume=True)
    assert left_behind(tmp_path / "r") == left_behind(alone)


def test_a_loss_that_is_no_number_names_the_checkpoint_and_leaves_the_best_adapter(tmp_path: Path) -> None:
    deck = deck_of("bert")
    deck.add("a", LORA, labels=LABELS)
    parameters = list(deck.adapter("a").parameters())
    poisoned = at_evaluation(1, lambda: parameters[0].data.fill_(float("nan")))
    with pytest.raises(TrainingError, match=r"the loss is nan at step 5.*The last good checkpoint is .*step-00000003"):
        td.train(deck, "a", dataset(), settings=SETTINGS, out=tmp_path, progress=False, should_stop=poisoned)
    assert json.loads((tmp_path / "metrics.json").read_text())["stopped"] == "failed"
    assert events(tmp_path, "failed")
    deck_of("bert").load_adapter(tmp_path / "adapter", "best")


def too_large(
    monkeypatch: pytest.MonkeyPatch, rows_that_fit: int, error: BaseException, objective: Any = HeadObjective
) -> None:
    """The loss of more rows than that does not fit into memory."""
    plain = objective.loss

    def loss(self: Any, rows: Any) -> Any:
        mean, positions = plain(self, rows)
        if len(rows) > rows_that_fit:
            raise error
        return mean, positions

    monkeypatch.setattr(objective, "loss", loss)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        MemoryError(),
    ],
    ids=["gpu", "cpu", "python"],
)
def test_out_of_memory_the_same_steps_are_taken_in_smaller_pieces(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = td.LoraConfig(r=4, target_modules="all-linear")
    go(tmp_path / "whole", plain)
    too_large(monkeypatch, 3, error)
    with pytest.warns(
        UserWarning, match="out of memory at step 1: batches are worked through in pieces of 2 from here"
    ):
        go(tmp_path / "pieces", plain)
    assert [(event["rows"], event["splits"]) for event in events(tmp_path / "pieces", "out_of_memory")] == [
        (4, 2),
        (2, 4),
    ]
    whole, pieces = ([e["loss"] for e in events(tmp_path / name, "step")] for name in ("whole", "pieces"))
    assert pieces == pytest.approx(whole, rel=1e-5, abs=1.5e-6)  # events have six digits
    assert [e["examples"] for e in events(tmp_path / "pieces", "start")] == [80]


def test_a_resumed_run_keeps_its_smaller_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    too_large(monkeypatch, 4, MemoryError())
    at_loss(monkeypatch, 15, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.warns(UserWarning, match="out of memory"):
        go(tmp_path)
    assert go(tmp_path, resume=True).stopped == "finished"
    assert len(events(tmp_path, "out_of_memory")) == 1


def test_a_single_example_that_does_not_fit_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    too_large(monkeypatch, 0, MemoryError())
    with pytest.warns(UserWarning, match="pieces of 1"), pytest.raises(TrainingError, match="with a single example"):
        go(None)


def test_a_loss_that_needs_its_batch_whole_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    too_large(monkeypatch, 4, MemoryError(), EmbedObjective)
    deck = td.Deck.load(deck_of("bert").base.reference, td.Embed(), dtype="float32")
    deck.add("a", td.LoraConfig())
    data = dataset()
    unlabelled = td.tasks.base.Dataset("x", data.train, data.evaluation, "", "x")
    with pytest.raises(TrainingError, match=r"needs its batch whole; set task\.chunk_size"):
        td.train(deck, "a", unlabelled, settings=SETTINGS, progress=False)


def test_other_errors_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    too_large(monkeypatch, 4, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        go(None)


def test_memory_that_runs_out_in_an_evaluation_is_told(tmp_path: Path) -> None:
    def no_memory(metrics: dict[str, float]) -> bool:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(TrainingError, match=r"out of memory even with smaller micro-batches.*step-00000003"):
        go(tmp_path, should_stop=no_memory)


def test_sigterm_again_and_again_until_all_is_written_is_one_sigterm(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, escaped = os.fsync, []

    def signal_and_flush(descriptor: int) -> None:
        signal.raise_signal(signal.SIGTERM)
        flush(descriptor)

    before = signal.signal(signal.SIGTERM, lambda number, frame: escaped.append(number))
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", signal_and_flush)  # the checkpoint, the adapter, the metrics
            with pytest.warns(UserWarning, match="was stopped by SIGTERM after step 3; resume with td.train"):
                go(tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not escaped
    assert json.loads((tmp_path / "metrics.json").read_text())["stopped"] == "terminated"
    deck_of("bert").load_adapter(tmp_path / "adapter", "best")
    go(tmp_path, resume=True)
    assert left_behind(tmp_path) == left_behind(alone)


def test_a_signal_before_the_first_step_ends_the_run_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = EventLog.write

    def at_start(self: EventLog, kind: str, **values: Any) -> None:
        write(self, kind, **values)
        if kind == "start":
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(EventLog, "write", at_start)
        run = go(tmp_path)
    assert (run.stopped, run.measurement.steps) == ("terminated", 0)
    with pytest.warns(UserWarning, match="holds no checkpoint yet"):
        assert go(tmp_path, resume=True).stopped == "finished"
