"""Texts with several labels are learnt with the default settings."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import tunedeck as td
from tunedeck.data.table import read_table

INTENTS = (
    "HassTurnOn",
    "HassTurnOff",
    "HassGetWeather",
    "HassGetCurrentTime",
    "HassStartTimer",
    "HassClimateSetTemperature",
    "HassShoppingListAddItem",
    "HassMediaPause",
)
ROWS = 350


def commands(side: str, count: int) -> list[dict[str, str]]:
    """Commands of eight intents; every other one is two commands of different intents in a sentence."""
    source = random.Random(0)
    of_intent = {
        intent: [
            str(row["text"]) for row in read_table(f"bundled:home-intents-en:{side}").rows if row["label"] == intent
        ]
        for intent in INTENTS
    }
    rows = []
    for number in range(count):
        chosen = source.sample(INTENTS, 1 + number % 2)
        texts = [source.choice(of_intent[intent]) for intent in chosen]
        rows.append({"text": " and ".join(texts), "label": "|".join(chosen)})
    return rows


@pytest.mark.slow
@pytest.mark.network
def test_lora_with_its_defaults_learns_several_labels_a_text(tmp_path: Path) -> None:
    for side, count in (("train", ROWS), ("test", 200)):
        lines = [json.dumps(row) for row in commands(side, count)]
        (tmp_path / f"{side}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    deck = td.Deck.load("bundled:all-minilm-l6-v2", td.Classify(multi_label=True))
    deck.add("commands", td.LoraConfig())
    run = td.train(deck, "commands", str(tmp_path / "train.jsonl"), progress=False)
    assert run.start["macro_f1"] > 0.85
    unseen = td.evaluate(deck, str(tmp_path / "test.jsonl")).metrics["commands"]
    assert unseen["macro_f1"] >= 0.95
    (answer,) = deck.predict(["turn on the kitchen light and what time is it"], adapter="commands")
    assert set(answer.labels) == {"HassTurnOn", "HassGetCurrentTime"}
