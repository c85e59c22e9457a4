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
    "HassLightSet",
    "HassGetWeather",
    "HassStartTimer",
    "HassClimateSetTemperature",
    "HassShoppingListAddItem",
    "HassMediaPause",
    "HassVacuumCleanArea",
)


def commands(count: int) -> list[dict[str, str]]:
    """Commands of eight intents; every other one is two commands of different intents in a sentence."""
    source = random.Random(0)
    rows = read_table("bundled:home-intents-en:train").rows
    texts = {intent: [str(row["text"]) for row in rows if row["label"] == intent] for intent in INTENTS}
    found = []
    for number in range(count):
        chosen = source.sample(INTENTS, 1 + number % 2)
        text = " and ".join(source.choice(texts[intent]) for intent in chosen)
        found.append({"text": text, "label": "|".join(chosen)})
    return found


@pytest.mark.slow
@pytest.mark.network
def test_lora_with_its_defaults_learns_several_labels_a_text(tmp_path: Path) -> None:
    file = tmp_path / "commands.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in commands(500)), encoding="utf-8")
    deck = td.Deck.load("bundled:all-minilm-l6-v2", td.Classify(multi_label=True))
    deck.add("commands", td.LoraConfig())
    run = td.train(deck, "commands", td.DataSettings(train=str(file), eval_fraction=0.3), progress=False)
    assert min(run.start["macro_f1"], run.metrics["macro_f1"]) >= 0.95
    answers = deck.predict(
        ["turn on the kitchen light and how is the weather in london", "pause the music"], adapter="commands"
    )
    assert [set(answer.labels) for answer in answers] == [{"HassTurnOn", "HassGetWeather"}, {"HassMediaPause"}]
