"""A settings.json that no answer could be made with is refused when it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.errors import AdapterFileError
from tunedeck.serving.backends.onnx_folders import read_settings

ADAPTER = {"labels": ["a", "b"], "multi_label": False, "max_length": 8}
SETTINGS = {
    "format": 1,
    "task": "classify",
    "base": "b",
    "files": {"float32": "model.onnx"},
    "pad_id": 0,
    "truncation_side": "right",
}


def read(folder: Path, adapter: Any, **changes: Any) -> dict[str, Any]:
    text = json.dumps({**SETTINGS, "adapters": {"law": adapter}, **changes})
    (folder / "settings.json").write_text(text, encoding="utf-8")
    return read_settings(folder)


def test_settings_as_they_are_exported_are_read(tmp_path: Path) -> None:
    assert read(tmp_path, ADAPTER)["adapters"] == {"law": ADAPTER}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"max_length": "8"}, "max_length"),
        ({"max_length": 0}, "max_length"),
        ({"max_length": True}, "max_length"),
        ({"max_length": 10**12}, "max_length"),
        ({"labels": "ab"}, "labels"),
        ({"labels": [1, 2]}, "labels"),
        ({"labels": []}, "labels"),
        ({"multi_label": "no"}, "multi_label"),
        ({"virtual_tokens": -1}, "virtual_tokens"),
        ({"document_instruction": 5}, "instructions"),
    ],
    ids=str,
)
def test_a_value_that_no_answer_could_be_made_with_is_named(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    with pytest.raises(AdapterFileError, match=rf"settings.json is damaged: .*{told}"):
        read(tmp_path, {**ADAPTER, **change})


@pytest.mark.parametrize(("key", "value"), [("pad_id", None), ("pad_id", -1), ("truncation_side", "up")])
def test_so_is_one_of_the_whole_export(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(AdapterFileError, match=key):
        read(tmp_path, ADAPTER, **{key: value})
