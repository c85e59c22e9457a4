"""`tunedeck threshold` writes what predict then honours."""

from __future__ import annotations

import json
from pathlib import Path

from support import labelled_words, tiny_models
from support.command_line import Command

import tunedeck as td


def test_the_command_writes_prints_and_clears(tunedeck: Command, tmp_path: Path) -> None:
    train = labelled_words.write_csv(tmp_path / "train.csv", labelled_words.rows(300))
    data = labelled_words.write_csv(tmp_path / "held-out.csv", labelled_words.rows(200, seed=5))
    deck = tiny_models.deck_of("bert")
    deck.add("a", td.LoraConfig(r=2))
    td.train(deck, "a", str(train), epochs=6, out=tmp_path / "run", progress=False)
    adapter = tmp_path / "run" / "adapter"
    assert tunedeck("threshold", adapter, "--data", data, "--precision", "0.8", "--dtype", "float32").code == 0
    manifest = json.loads((adapter / "tunedeck.json").read_text())
    assert set(manifest["confidence"]["thresholds"]) == set(labelled_words.WORD_OF)
    manifest["confidence"]["thresholds"] = dict.fromkeys(labelled_words.WORD_OF)
    (adapter / "tunedeck.json").write_text(json.dumps(manifest))
    said = tunedeck("predict", "--adapter", adapter, "w10 w50", "--dtype", "float32")
    assert "unsure" in said.out
    assert tunedeck("threshold", adapter, "--clear").code == 0
    assert "unsure" not in tunedeck("predict", "--adapter", adapter, "w10 w50", "--dtype", "float32").out
    for wrong in (["--precision", "1.5", "--data", data], [], ["--data", data, "--training-data", "nowhere.csv"]):
        said = tunedeck("threshold", adapter, *wrong)
        assert (said.code, said.err.count("\n"), "Traceback" in said.err) == (2, 1, False)
