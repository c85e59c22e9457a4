from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tunedeck.data.intents import LEAST_SENTENCES, SENTENCES_PER_INTENT, read_intents
from tunedeck.data.rows import Rows

VALUES: dict[str, Any] = {"area": ["厨房", "书房"], "name": {"light": ["吊灯"], "fan": ["吊扇", "风扇"]}}


def block(*sentences: str, domain: str | None = None) -> dict[str, Any]:
    return {"sentences": list(sentences)} | ({"requires_context": {"domain": [domain]}} if domain else {})


def read(tmp_path: Path, intents: dict[str, list[dict[str, Any]]]) -> Rows:
    content = {
        "settings": {"ignore_whitespace": True},
        "intents": {intent: {"data": data} for intent, data in intents.items()},
        "expansion_rules": {"on": "打开|开"},
        "lists": {
            "percent": {"range": {"from": 0, "to": 100}},
            "state": {"values": [{"in": "(开着|亮着)", "out": "on"}]},
            "area": {"wildcard": True},
        },
    }
    path = tmp_path / "zh.json"
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    columns, rows = read_intents(path, VALUES)
    assert columns == ("text", "label", "template", "slots")
    return rows


def test_an_intent_has_a_bounded_number_of_sentences_from_all_its_templates(tmp_path: Path) -> None:
    rows = read(tmp_path, {"Set": [block("调到{percent}", "{area}调到{percent}"), block("设为{percent:level}[%]")]})
    counts = Counter(row["template"] for row in rows)
    assert set(counts) == {"调到{percent}", "{area}调到{percent}", "设为{percent:level}[%]"}
    assert max(counts.values()) <= SENTENCES_PER_INTENT / 3
    assert len({row["text"] for row in rows}) == len(rows) > SENTENCES_PER_INTENT / 2


def test_every_slot_is_found_again_in_its_text(tmp_path: Path) -> None:
    rows = read(tmp_path, {"Set": [block("<on>{area}到{percent:level}"), block("{area}{state}到{percent:level}")]})
    for row in rows:
        slots: Any = row["slots"]
        assert [slot["slot"] for slot in slots][-1] == "level"
        assert all(str(row["text"])[slot["start"] : slot["end"]] == slot["value"] for slot in slots)


def test_a_name_is_one_of_the_domain_that_a_template_asks_for(tmp_path: Path) -> None:
    rows = read(
        tmp_path, {"On": [block("{name}开{percent}", domain="fan"), block("开{name}{percent}", domain="light")]}
    )
    names: dict[object, set[str]] = {"{name}开{percent}": {"吊扇", "风扇"}, "开{name}{percent}": {"吊灯"}}
    for row in rows:
        slots: Any = row["slots"]
        assert slots[0]["value"] in names[row["template"]]


@pytest.mark.parametrize(
    "data", [[block("再见", "没事")], [block("调到{percent}")]], ids=["few sentences", "one template"]
)
def test_an_intent_without_enough_to_hold_out_is_left_out(tmp_path: Path, data: list[dict[str, Any]]) -> None:
    rows = read(tmp_path, {"Small": data, "Set": [block("设为{percent}", "变成{percent}")]})
    assert {row["label"] for row in rows} == {"Set"}
    assert len(rows) >= LEAST_SENTENCES


def test_a_sentence_of_two_intents_belongs_to_neither(tmp_path: Path) -> None:
    rows = read(
        tmp_path,
        {"A": [block("调到{percent}", "好的", "甲{percent}")], "B": [block("好的", "设为{percent}")]},
    )
    assert "好的" not in {row["text"] for row in rows}
    assert {row["label"] for row in rows} == {"A", "B"}
