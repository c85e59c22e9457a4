"""Commands to a house with their intent and slots, drawn from the sentence templates of Home Assistant."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunedeck.data.files import read_text
from tunedeck.data.rows import Columns, Rows
from tunedeck.data.sentence_templates import Grammar, Template, parse

SENTENCES_PER_INTENT = 120
LEAST_SENTENCES = 20
"""An intent with fewer sentences or a single template is left out: nothing could be held out that differs."""
_DRAWS_PER_SENTENCE = 5
_RANGE_VALUES = 40


def read_intents(path: Path, values: Mapping[str, Any]) -> tuple[Columns, Rows]:
    """Return sentences of each intent, about SENTENCES_PER_INTENT, in equal parts from its templates.

    `values` holds what the file leaves to each house: the names of areas, of devices by domain (`name`), the texts of
    its free slots. Columns: `text`, `label` (the intent), `template` and `slots`, a list of slots with `value`, `start`
    and `end`. A sentence that two templates give counts for the first; one of two intents is left out. The same on
    every machine.
    """
    content = json.loads(read_text(path, "utf-8"))
    keeps_spaces = not content.get("settings", {}).get("ignore_whitespace", False)
    rules = {name: parse(rule) for name, rule in content["expansion_rules"].items()}
    lists = {name: _list_values(entry) for name, entry in content["lists"].items() if "wildcard" not in entry}
    lists |= {name: [parse(value) for value in given] for name, given in values.items() if name != "name"}
    rows: Rows = []
    for intent, entry in content["intents"].items():
        templates = _templates(entry["data"], values["name"])
        count = max(1, round(SENTENCES_PER_INTENT / len(templates)))
        found: dict[str, dict[str, object]] = {}
        for template, names in templates.items():
            grammar = Grammar(rules, {**lists, "name": [parse(name) for name in names]}, keeps_spaces)
            for row in _sentences(grammar, parse(template), count, random.Random(f"{intent} {template}")):
                found.setdefault(str(row["text"]), row | {"label": intent, "template": template})
        if len(templates) > 1 and len(found) >= LEAST_SENTENCES:
            rows.extend(found.values())
    intents_of = Counter(row["text"] for row in rows)
    return ("text", "label", "template", "slots"), [row for row in rows if intents_of[row["text"]] == 1]


def _templates(blocks: Sequence[Mapping[str, Any]], names: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return each template with the names that its `{name}` may have: those of the domains it asks for."""
    found: dict[str, list[str]] = {}
    for block in blocks:
        domains = block.get("requires_context", {}).get("domain", [])
        for sentence in block["sentences"]:
            found.setdefault(sentence, []).extend(name for domain in domains for name in names[domain])
    return found


def _list_values(entry: Mapping[str, Any]) -> list[Template]:
    """Return the values of a list, of a range about _RANGE_VALUES evenly spaced numbers."""
    if "range" in entry:
        numbers = range(entry["range"]["from"], entry["range"]["to"] + 1, entry["range"].get("step", 1))
        return [(str(number),) for number in numbers[:: max(1, len(numbers) // _RANGE_VALUES)]]
    return [parse(value["in"]) for value in entry["values"]]


def _sentences(grammar: Grammar, template: Template, count: int, source: random.Random) -> Rows:
    """At most `count` different sentences of one template."""
    found: dict[str, dict[str, object]] = {}
    for _ in range(count * _DRAWS_PER_SENTENCE):
        sentence = grammar.draw(template, source)
        found.setdefault(sentence.text, {"text": sentence.text, "slots": sentence.slots})
        if len(found) == count:
            break
    return list(found.values())
