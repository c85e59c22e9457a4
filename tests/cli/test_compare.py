"""`tunedeck compare` says what `td.compare` finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import tiny_models
from support.command_line import Command

import tunedeck as td

TIMED = {
    *("latency_ms", "latency_ratio", "texts_per_s", "mixed_texts_per_s"),
    *("switch_ms", "switch_interval_ms", "load_ms", "planned"),
}
"""What every comparison of the same runs times again, or predicts by the load of the moment."""


def without_timing(result: dict[str, Any]) -> dict[str, Any]:
    rows = [{key: value for key, value in row.items() if key not in TIMED} for row in result["rows"]]
    measured = {"repeat", "total_s", "base_latency_ms", "base_texts_per_s"}
    return {**{key: value for key, value in result.items() if key not in measured}, "rows": rows}


def test_the_command_and_the_function_give_the_same(
    tunedeck: Command, words: Path, tmp_path: Path, in_process: list[str]
) -> None:
    model = tiny_models.folder_of("bert", "classifier")
    found = td.compare(
        model=model, data=str(words), methods="lora:r=2,head", training={"max_steps": 4}, out=tmp_path / "c"
    )
    assert in_process == ["lora/0", "head/0"]
    asked = ["compare", "--model", model, "--data", words, "--max-steps", 4, "--out", tmp_path / "c"]
    said = tunedeck(*asked, "--methods", "lora:r=2,head", "--json")
    assert said.code == 0, said.err
    assert in_process == ["lora/0", "head/0"]
    result = json.loads(said.out)
    assert result == json.loads((tmp_path / "c" / "comparison.json").read_text(encoding="utf-8"))
    assert without_timing(result) == without_timing(json.loads(json.dumps(found.to_json())))
    assert result["repeat"]["command"].startswith("tunedeck compare --model")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--methods", "lorra"), "methods: 'lorra' is not a method (did you mean 'lora'?)"),
        (("--seeds", "x"), "seeds takes how many (3) or which (0,7,13)"),
        (("--minutes", "0"), "minutes must be above 0, got 0"),
        (("--budget", "2", "--minutes", "2"), "not both"),
        (("--price-per-hour", "-1"), "price_per_hour must be above 0"),
    ],
)
def test_what_does_not_fit_is_one_line(
    arguments: tuple[str, ...], said: str, tunedeck: Command, words: Path, tmp_path: Path
) -> None:
    found = tunedeck("compare", "--model", "any", "--data", words, "--out", tmp_path, *arguments)
    assert found.code == 2
    assert said in found.err
