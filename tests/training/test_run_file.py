"""A run file is trained from Python as by `tunedeck train`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support import tiny_models

import tunedeck as td
from tunedeck.core.errors import ConfigError


def test_a_run_file_with_changes_is_trained_into_its_folder(words: Path, tmp_path: Path) -> None:
    run_file, out = tmp_path / "run.yaml", tmp_path / "reds"
    values = {
        "model": str(tiny_models.folder_of("bert", "classifier")),
        "data": {"train": str(words)},
        "device": "cpu",
        "dtype": "float32",
        "training": {"max_steps": 3},
    }
    run_file.write_text(yaml.safe_dump(values))
    runs = td.train_run(run_file, {"training.max_steps": 2, "method.r": 4}, out=out, progress=False)
    assert (runs["reds"].measurement.steps, runs["reds"].folder) == (2, out)
    assert td.Deck.open(out / "adapter").adapters == ("reds",)
    stored = yaml.safe_load((out / "config.yaml").read_text())
    assert (stored["training"]["max_steps"], stored["method"]["r"]) == (2, 4)
    with pytest.raises(ConfigError, match="reds holds an earlier run"):
        td.train_run(values, out=out, progress=False)
    assert td.train_run(values, out=out, overwrite=True, progress=False)["reds"].measurement.steps == 3
