"""A run that names no model, and a data file where a run file is expected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.errors import ConfigError
from tunedeck.training.config import read_run_file
from tunedeck.training.left_out import with_left_out

ENGLISH = [("the crew was kind to all of us", "good"), ("they lost my bag and did not answer", "bad")]
CHINESE = [("物流很快，非常满意", "好评"), ("用了两天就坏了", "差评")]
GERMAN = [("Die Besatzung war sehr freundlich zu uns", "gut"), ("Der Koffer kam leider nie bei uns an", "schlecht")]


def table(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8")
    return str(path)


def filled(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    notes: list[str] = []
    return with_left_out(values, notes.append), notes


@pytest.mark.parametrize(
    ("rows", "model"),
    [
        (ENGLISH, "bundled:all-minilm-l6-v2"),
        (CHINESE, "bundled:multilingual-e5-small"),
        (GERMAN, "bundled:multilingual-e5-small"),
    ],
    ids=["English", "Chinese", "German"],
)
def test_the_base_reads_the_language_of_the_texts(tmp_path: Path, rows: list[tuple[str, str]], model: str) -> None:
    values, (note,) = filled({"data": {"train": table(tmp_path / "a.csv", rows)}})
    assert values["model"] == model
    assert model in note
    assert "task" not in values


def test_conversations_are_for_a_chat_model(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "what is the capital of France"}, {"role": "assistant", "content": "Paris"}]
    (tmp_path / "chat.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    values, _ = filled({"data": {"train": str(tmp_path / "chat.jsonl")}})
    assert (values["model"], values["task"]) == ("bundled:smollm2-135m-instruct", "generate")


def test_a_language_that_no_bundled_chat_model_writes_is_refused(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "法国的首都是哪里"}, {"role": "assistant", "content": "巴黎"}]
    (tmp_path / "chat.jsonl").write_text(json.dumps({"messages": turns}) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="name one, such as --model ms:Qwen"):
        filled({"data": {"train": str(tmp_path / "chat.jsonl")}})


def test_what_is_named_stays_and_the_data_is_not_read() -> None:
    values = {"model": "a-folder", "data": {"train": "no-such-file.csv"}}
    assert filled(values) == (values, [])


@pytest.mark.parametrize("name", ["a.csv", "a.xlsx", "a.jsonl", "a.csv.gz", "bundled:tweets"])
def test_a_data_file_is_a_run_on_it(name: str) -> None:
    assert read_run_file(Path(name)) == {"data": {"train": name}}


def test_a_json_file_is_a_run_file_or_data_by_its_content(tmp_path: Path) -> None:
    data, run = tmp_path / "data.json", tmp_path / "run.json"
    data.write_text('[{"text": "a", "label": "b"}]')
    run.write_text('{"model": "a-folder"}')
    assert read_run_file(data) == {"data": {"train": str(data)}}
    assert read_run_file(run) == {"model": "a-folder"}
