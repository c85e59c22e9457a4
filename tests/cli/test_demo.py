"""The demo, on a tiny model and a tiny file: trains, compares, mixes, reports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support import tiny_models
from support.command_line import Command

from tunedeck.cli import demo


def test_the_demo_trains_four_methods_mixes_them_in_one_batch_and_reports(
    tunedeck: Command, words: Path, tmp_path: Path, in_process: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = replace(demo.CHINESE, model=tiny_models.folder_of("bert", "classifier"), data=str(words))
    monkeypatch.setitem(demo.BY_LANGUAGE, "zh", parts)
    said = tunedeck(
        "--lang", "zh", "demo", "--train-size", 60, "--eval-size", 10, "--epochs", 1, "--out", tmp_path / "demo"
    )
    assert said.code == 0, said.err
    result = json.loads((tmp_path / "demo" / "comparison.json").read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert set(rows) == {"lora", "bottleneck", "prompt-tuning", "head"}
    # rank 8 on query and value of two layers of width 32, and a head of three labels
    assert rows["lora"]["method_parameters"] == 2 * 2 * 8 * (32 + 32)
    assert rows["head"]["method_parameters"] == 0
    assert rows["head"]["trainable_parameters"] == 3 * 32 + 3
    assert rows["prompt-tuning"]["method_parameters"] == 8 * 32
    assert all(row["train_s"] > 0 and row["peak_memory_bytes"] > 1e6 and row["disk_bytes"] > 0 for row in rows.values())
    assert all(
        {"trainable_share", "accuracy", "macro_f1", "latency_ms", "latency_ratio"} <= row.keys()
        for row in rows.values()
    )
    assert [one["adapter"] for one in result["mixed_batch"]] == list(rows)
    assert (result["train_size"], result["eval_size"], result["epochs"]) == (60, 10, 1)
    assert result["base_latency_ms"] > 0
    assert [one["text"] for one in result["mixed_batch"]] == list(parts.texts)
    assert "准确率" in said.out
    assert (tmp_path / "demo" / "report.html").exists()
    assert "report.html" in said.err
