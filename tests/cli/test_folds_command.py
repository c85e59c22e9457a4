"""`tunedeck train --folds` prints the mean of each metric with its interval."""

from __future__ import annotations

import json
from pathlib import Path

from support import labelled_words, tiny_models
from support.command_line import Command


def test_the_command_prints_means_and_the_file_of_predictions(tunedeck: Command, tmp_path: Path) -> None:
    data = labelled_words.write_csv(tmp_path / "data.csv", labelled_words.rows(60))
    command = [
        "train",
        "--model",
        tiny_models.folder_of("bert", "classifier"),
        "--data",
        data,
        "--method",
        "head",
        "--folds",
        "2",
    ]
    said = tunedeck(*command, "--out", tmp_path / "run")
    assert said.code == 0, said.err
    assert "Mean over 2 folds" in said.out
    assert "fold 2 of 2" in said.err
    assert "out-of-fold.jsonl" in said.err
    found = json.loads(tunedeck(*command, "--out", tmp_path / "again", "--json").out)
    assert Path(found["predictions"]).exists()
    assert found["metrics"]["accuracy"]["low"] <= found["metrics"]["accuracy"]["mean"]
    wrong = tunedeck(*command[:-1], "1", "--out", tmp_path / "wrong")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
