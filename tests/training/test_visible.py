"""What a run shows: its events to trackers, its losses as a figure, its rate in the bar."""

from __future__ import annotations

import json
import re
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.stopped_runs import dataset
from support.tiny_models import deck_of

import tunedeck as td
from tunedeck.core.errors import ConfigError
from tunedeck.training.events import PROJECT
from tunedeck.training.progress import Progress
from tunedeck.training.record import WINDOWS, draw

SETTINGS = td.TrainingSettings(batch_size=8, max_steps=6, eval_steps=3, learning_rate=1e-2)


def trained(folder: Path, **changes: object) -> list[dict[str, object]]:
    """The events of a short run."""
    deck = deck_of("bert")
    deck.add("a", td.LoraConfig(), labels=("blue", "green", "red"))
    settings = SETTINGS.model_copy(update=changes)
    td.train(deck, "a", dataset(), settings=settings, out=folder, progress=False)
    return [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def scalars(file: Path) -> list[tuple[str, int, float]]:
    """(name, step, value) in a TensorBoard file: length, checksum, event, checksum, again and again."""
    from tensorboardX.proto.event_pb2 import Event

    content, found = file.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        event = Event.FromString(content[12 : 12 + length])
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value if "/" in value.tag]
        content = content[16 + length :]
    return [one for one in found if one[0].startswith(("train/", "eval/"))]


def test_a_tracker_is_told_what_the_events_say(tmp_path: Path) -> None:
    events = trained(tmp_path, trackers=("tensorboard",))
    files = [file for file in (tmp_path / PROJECT).iterdir() if "tfevents" in file.name]
    told = {(name, step): value for file in files for name, step, value in scalars(file)}
    losses = {step: value for (name, step), value in told.items() if name == "train/loss"}
    assert losses == pytest.approx({event["step"]: event["loss"] for event in events if event["event"] == "step"})
    accuracies = {step: value for (name, step), value in told.items() if name == "eval/accuracy"}
    assert accuracies == pytest.approx(
        {event["step"]: event["accuracy"] for event in events if event["event"] == "eval"}
    )
    assert list(accuracies) == [0, 3, 6]
    assert ("train/learning_rate", 1) in told


def test_a_tracker_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunedeck.core.checks.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="mlflow needs the package mlflow; run: pip install mlflow"):
        trained(tmp_path, trackers=("mlflow",))


@pytest.mark.figures
def test_the_end_of_a_run_is_drawn(tmp_path: Path) -> None:
    trained(tmp_path)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    drawn = ElementTree.parse(tmp_path / "loss.svg")
    comments = (tmp_path / "loss.svg").read_text(encoding="utf-8")
    assert drawn.getroot().tag.endswith("svg")
    assert "<!-- accuracy -->" in comments
    assert "<!-- held out -->" in comments


def test_nothing_is_drawn_of_a_run_without_a_step(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"event": "start", "steps": 3}\n', encoding="utf-8")
    draw(tmp_path, "a", ("loss",))
    assert not (tmp_path / "loss.png").exists()


def heights(drawing: Path) -> list[list[float]]:
    """Of every line in the axes of an SVG drawing, how far down each of its points lies."""
    paths = ElementTree.parse(drawing).iter("{http://www.w3.org/2000/svg}path")
    lines = [path.get("d", "") for path in paths if path.get("clip-path")]
    return [[float(y) for y in re.findall(r"[ML] \S+ (\S+)", line)] for line in lines]


@pytest.mark.figures
def test_the_smoothed_loss_is_the_mean_of_the_last_steps(tmp_path: Path) -> None:
    losses = [4.0, 2.0, 0.0, 1.0] * 8
    assert len(losses) // WINDOWS == 2  # a mean of two
    steps = [{"event": "step", "step": number, "loss": loss} for number, loss in enumerate(losses, start=1)]
    (tmp_path / "events.jsonl").write_text("".join(f"{json.dumps(step)}\n" for step in steps), encoding="utf-8")
    draw(tmp_path, "a", ())
    every, smoothed = (line for line in heights(tmp_path / "loss.svg") if len(line) == len(losses))
    unit = (every[1] - every[0]) / (2.0 - 4.0)
    assert [(y - every[2]) / unit for y in smoothed[:5]] == pytest.approx([4.0, 3.0, 1.0, 0.5, 2.5], abs=1e-3)


def test_the_bar_shows_the_step_and_the_rate_of_the_last_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([10.0, 12.0, 13.0])
    monkeypatch.setattr("tunedeck.training.progress.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setenv("COLUMNS", "120")
    with Progress(torch.device("cpu")) as bar:
        progress = bar.row("a", ())
        progress.start(9, done=4)
        for step, tokens in ((5, 900), (6, 300), (7, 600)):
            progress.step(step, 0.5, tokens)
    shown = capsys.readouterr().err
    assert "7/9" in shown
    assert "loss 0.500  300 tokens/s  " in shown  # 300 and 600 in the three seconds since the first of them
