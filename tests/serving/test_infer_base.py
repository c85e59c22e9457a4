"""Base and task of a server are what its adapters agree on; one stray folder changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tunedeck as td
from tunedeck.core.errors import ConfigError
from tunedeck.serving.backends.onnx_folders import first_settings
from tunedeck.serving.infer_base import task_and_base


def ours(root: Path, name: str, base: str, **task: Any) -> None:
    (root / name).mkdir(parents=True)
    text = json.dumps({"base": {"reference": base}, "task": {"kind": "classify", **task}})
    (root / name / "tunedeck.json").write_text(text)


def plain_peft(root: Path, name: str, base: str | None = None) -> None:
    (root / name).mkdir()
    (root / name / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": base}))


def export(root: Path, name: str, base: str, task: str = "classify") -> None:
    (root / name).mkdir()
    files = {"float32": "model.onnx"}
    settings = {
        "format": 1,
        "task": task,
        "base": base,
        "files": files,
        "adapters": {name: {"labels": ["a"], "multi_label": False, "max_length": 8}},
    }
    (root / name / "settings.json").write_text(json.dumps({**settings, "pad_id": 0, "truncation_side": "right"}))
    (root / name / "tokenizer.json").write_text("{}")


def test_adapters_that_agree_decide_and_those_that_say_nothing_do_not_matter(tmp_path: Path) -> None:
    plain_peft(tmp_path, "0first")
    (tmp_path / "1damaged").mkdir()
    (tmp_path / "1damaged" / "tunedeck.json").write_text("{")
    ours(tmp_path, "law", "base-a", labels=["x", "y"], max_length=77)
    ours(tmp_path, "tax", "base-a", max_length=77)
    task, base, packed = task_and_base(tmp_path, None, None)
    assert isinstance(task, td.Classify)
    assert (task.labels, base, packed) == (None, "base-a", None)


def test_one_stray_adapter_of_another_base_is_an_error_that_names_them_all(tmp_path: Path) -> None:
    ours(tmp_path, "0first", "attacker/model")
    ours(tmp_path, "law", "base-a")
    ours(tmp_path, "tax", "base-a")
    with pytest.raises(ConfigError) as error:
        task_and_base(tmp_path, None, None)
    assert "base-a (2, law for example), attacker/model (1, 0first for example)" in str(error.value)
    assert "--model" in str(error.value)
    assert task_and_base(tmp_path, None, "base-a")[1] == "base-a"


def test_a_plain_folders_base_counts_as_well(tmp_path: Path) -> None:
    plain_peft(tmp_path, "0first", "attacker/model")
    ours(tmp_path, "law", "base-a")
    with pytest.raises(ConfigError, match="attacker/model"):
        task_and_base(tmp_path, "classify", None)


def test_adapters_of_several_tasks_are_an_error_until_one_is_named(tmp_path: Path) -> None:
    ours(tmp_path, "law", "base-a")
    ours(tmp_path, "seek", "base-a", kind="embed")
    with pytest.raises(ConfigError, match=r"classify \(1, law for example\), embed \(1, seek for example\).*--task"):
        task_and_base(tmp_path, None, None)
    assert task_and_base(tmp_path, "embed", None)[0].kind == "embed"


def test_a_named_base_leaves_out_what_belongs_to_another(tmp_path: Path) -> None:
    ours(tmp_path, "0first", "base-b", kind="embed")
    ours(tmp_path, "law", "base-a")
    assert task_and_base(tmp_path, None, "base-a")[0].kind == "classify"
    assert task_and_base(tmp_path, "embed", None)[1] == "base-b"


def test_exports_of_several_bases_or_tasks_are_an_error(tmp_path: Path) -> None:
    export(tmp_path, "a", "base-a")
    export(tmp_path, "b", "base-a")
    assert first_settings(tmp_path, "float32", None)["base"] == "base-a"
    export(tmp_path, "c", "base-a", task="embed")
    with pytest.raises(ConfigError, match="different tasks"):
        first_settings(tmp_path, "float32", None)
    export(tmp_path, "d", "base-b")
    with pytest.raises(ConfigError, match=r"base-a \(2, a for example\), base-b \(1, d for example\)"):
        first_settings(tmp_path, "float32", "classify")
