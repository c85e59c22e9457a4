"""Tagged texts that a tiny random encoder can learn: some words are the names of rooms, some of devices."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import tunedeck as td
from support import tiny_models
from tunedeck.tasks.tag.reading import Span, TaggedText

TAGS = ("O", "B-device", "I-device", "B-room", "I-room")
_ROOM, _DEVICE = ("w10 w11", "w12", "w13 w14 w15"), ("w20", "w21 w22")


def texts(count: int, seed: int = 0) -> list[TaggedText]:
    """Texts of a room and a device among other words, no text twice."""
    chooser = random.Random(seed)
    found: dict[str, TaggedText] = {}
    while len(found) < count:
        parts = [("room", chooser.choice(_ROOM)), ("device", chooser.choice(_DEVICE))]
        chooser.shuffle(parts)
        text, spans = "", []
        for label, value in parts:
            text += " ".join(f"w{chooser.randint(40, 119)}" for _ in range(chooser.randint(1, 3))) + " "
            spans.append(Span(len(text), len(text) + len(value), label))
            text += value + " "
        text = text.rstrip()
        found.setdefault(text, TaggedText(text, tuple(spans)))
    return list(found.values())


def write_jsonl(path: Path, examples: list[TaggedText]) -> Path:
    """A file of the texts with their spans."""
    rows: list[dict[str, Any]] = [
        {"text": one.text, "entities": [span._asdict() for span in one.spans]} for one in examples
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def tag_deck(model_type: str = "bert", form: str = "unpooled", **settings: Any) -> td.Deck:
    """A deck for tagging on a tiny base without a head."""
    return td.Deck.load(
        tiny_models.folder_of(model_type, form), td.Tag(labels=TAGS, **settings), dtype="float32", device="cpu"
    )
