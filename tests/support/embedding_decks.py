"""A tiny embedding deck, and pairs that a random tiny encoder can learn: the first word of the anchor decides."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

import tunedeck as td
from support import tiny_models
from tunedeck.data.pairs import Pair
from tunedeck.methods.base import MethodConfig

TEXTS = ["w10 w20 w30", "w44", "w5 w6 w7 w8 w9 w10 w11 w12", "w90 w91"]
CONFIGS: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(target_modules="all-linear"),
    "bottleneck": td.BottleneckConfig("double_seq_bn"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=3),
    "full": td.FullConfig(1),
}


def embed_deck(model_type: str = "bert", seed: int = 0, **settings: Any) -> td.Deck:
    """A deck for embeddings on a tiny base without a head."""
    return td.Deck.load(tiny_models.folder_of(model_type, "plain", seed), td.Embed(**settings), dtype="float32")


def pairs(count: int, seed: int = 0) -> list[Pair]:
    """Anchors and positives about one of ten topics: topic k is w(10+k) in an anchor and w(30+k) in a positive."""
    chooser = random.Random(seed)

    def text(word: int) -> str:
        return " ".join([f"w{word}", *(f"w{chooser.randint(60, 119)}" for _ in range(chooser.randint(1, 3)))])

    return [Pair(text(10 + n % 10), text(30 + n % 10)) for n in range(count)]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """One JSON object per line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def gradients(deck: td.Deck, name: str) -> dict[str, torch.Tensor]:
    """The adapter's gradients, taken away from it."""
    found = {key: p.grad.clone() for key, p in deck.adapter(name).named_parameters() if p.grad is not None}
    deck.adapter(name).zero_grad()
    return found
