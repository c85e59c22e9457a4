"""What a run folder tells, read piece by piece."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunedeck.web.events import Tail, Watched


def append(file: Path, *events: dict[str, Any], end: str = "\n") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.write("\n".join(map(json.dumps, events)) + end)


def test_a_line_is_read_once_and_not_before_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    tail = Tail(file)
    assert list(tail.read()) == []
    append(file, {"a": 1}, {"a": 2}, end='\nnot json\n{"a": ')
    assert [one["a"] for one in tail.read()] == [1, 2]
    append(file, end="3}\n")
    assert [one["a"] for one in tail.read()] == [3]
    file.write_text('{"a": 4}\n')
    assert [one["a"] for one in tail.read()] == [4]


def test_every_run_of_a_comparison_is_a_line(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    assert not watched.read()
    append(
        tmp_path / "runs/lora/seed-0/events.jsonl",
        {"event": "start", "at_s": 1, "steps": 20, "step": 0},
        {"event": "step", "at_s": 2, "step": 1, "loss": 0.5},
        {"event": "eval", "at_s": 3, "step": 1, "accuracy": 0.75, "loss": 0.4},
        {"event": "end", "at_s": 4, "stopped": "finished", "step": 20},
    )
    assert watched.read()
    line = watched.lines["lora/seed-0"]
    assert (line.losses, line.qualities, line.metric) == ([(1, 0.5)], [(1, 0.75)], "accuracy")
    assert (line.steps, line.step, line.at_s, line.ended) == (20, 20, 4, "finished")
    assert not watched.read()


def test_candidates_of_a_race_are_lines_of_their_mean_scores(tmp_path: Path) -> None:
    rung = {"seconds": 1, "train_s": 1, "at_s": 5, "failed": "", "rows": 4}
    append(
        tmp_path / "race.jsonl",
        {"model": "x"},
        {"name": "lora", "share": 0.25, "scores": [1, 0, 1, 1], **rung},
        {"name": "full", "share": 0.25, "scores": [], **rung, "failed": "no memory"},
    )
    watched = Watched(tmp_path)
    assert watched.read()
    assert watched.lines["lora"].qualities == [(0.25, 0.75)]
    assert watched.lines["full"].ended == "no memory"


def test_a_day_of_steps_stays_a_short_line(tmp_path: Path) -> None:
    append(tmp_path / "events.jsonl", *({"event": "step", "step": one, "loss": 1.0} for one in range(1, 50_000)))
    watched = Watched(tmp_path)
    watched.read()
    assert 300 < len(watched.lines[""].losses) <= 800
