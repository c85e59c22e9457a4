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
    rung = {"seconds": 2, "train_s": 1, "at_s": 5, "failed": "", "rows": 4}
    known = [
        {"name": name, "key": key, "text": text} for name, key, text in (("lora", "a", ""), ("full", "b", "worse"))
    ]
    (tmp_path / "standing.json").write_text(json.dumps({"candidates": known}))
    append(
        tmp_path / "race.jsonl",
        {"model": "x"},
        {"name": "a", "share": 0.25, "scores": [1, 0, 1, 1], **rung},
        {"name": "b", "share": 0.25, "scores": [], **rung, "failed": "no memory"},
        {"name": "of an earlier call", "share": 0.25, "scores": [1], **rung},
        {"name": "a", "share": 1, "scores": [1, 1, 1, 1], **rung},
    )
    watched = Watched(tmp_path)
    assert watched.is_race
    assert watched.read()
    assert watched.lines["lora"].qualities == [(2, 0.75), (4, 1)]
    assert (watched.lines["full"].ended, watched.lines["full"].reason) == ("no memory", "worse")
    assert len(watched.lines) == 2
    assert not watched.read()


def test_a_finished_race_is_read_from_its_result(tmp_path: Path) -> None:
    append(tmp_path / "race.jsonl", {"model": "x"}, {"name": "a", "share": 1, "scores": [0]})
    points = [{"share": 0.5, "quality": 0.7, "seconds": 3}, {"share": 1, "quality": 0.8, "seconds": 9}]
    given = {
        "candidates": [{"name": "lora", "points": points, "text": "behind", "status": "not best"}],
        "total_s": 20,
        "price": None,
    }
    (tmp_path / "race.json").write_text(json.dumps(given))
    watched = Watched(tmp_path)
    assert watched.read()
    line = watched.lines["lora"]
    assert (line.qualities, line.step, line.at_s, line.reason) == ([(3, 0.7), (9, 0.8)], 100, 9, "behind")
    assert watched.at_s == 20


def test_a_day_of_steps_stays_a_short_line_of_even_points(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    for part in range(5):
        steps = range(10_000 * part + 1, 10_000 * (part + 1) + 1)
        append(
            tmp_path / "events.jsonl", *({"event": "step", "step": one, "at_s": one / 4, "loss": 1.0} for one in steps)
        )
        watched.read()
    line = watched.lines[""]
    assert 300 < len(line.losses) <= 800
    apart = [after[0] - before[0] for before, after in zip(line.losses, line.losses[1:], strict=False)]
    assert max(apart) <= 3 * min(apart)
    assert line.step == 50_000
    assert line.steps_per_s == 4
