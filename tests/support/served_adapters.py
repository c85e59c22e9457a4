"""Folders of saved adapters of mixed kinds on tiny bases, for the tests of serving; and a backend without a model."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

import tunedeck as td
from support import tiny_models
from tunedeck.core.errors import AdapterFileError
from tunedeck.methods.base import MethodConfig

KINDS: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(r=4, target_modules="all-linear"),
    "bottleneck": td.BottleneckConfig("double_seq_bn"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=5),
    "full": td.FullConfig(1),
}
LABELS = {"lora": 2, "bottleneck": 4, "prompt": 3, "full": 2}
TEXTS = ("w4 w5", "w9 w8 w7 w6", "w30", "w11 w12 w13 w14 w15 w16 w17", "w90 w4 w4")
_HOME = tempfile.TemporaryDirectory(prefix="tunedeck-served-")


def base_deck(form: str) -> td.Deck:
    """A fresh deck without adapters: "classifier", "causal", "tagger" for entities, "scorer" for scores or "unpooled"
    for vectors.
    """
    if form == "scorer":
        task = td.Score(pairs=True, max_length=32, target_means=(3.0,), target_stds=(2.0,))
        return td.Deck.load(tiny_models.folder_of("bert", "unpooled"), task, dtype="float32")
    if form == "tagger":
        return td.Deck.load(tiny_models.folder_of("bert", "unpooled"), td.Tag(max_length=32), dtype="float32")
    if form == "unpooled":
        return td.Deck.load(tiny_models.folder_of("bert", form), td.Embed(), dtype="float32")
    deck = tiny_models.deck_of("llama" if form == "causal" else "bert", form)
    deck.tokenizer.eos_token = "[SEP]"
    return deck


@cache
def saved_adapters(form: str) -> Path:
    """A folder with two adapters of each kind, such as `lora-1`; the same for every test of a run, so write nothing
    there.
    """
    root, deck = Path(_HOME.name) / form, base_deck(form)
    for seed, (kind, number) in enumerate((kind, number) for kind in KINDS for number in (1, 2)):
        labels = {
            "classifier": [f"{kind}-{index}" for index in range(LABELS[kind])],
            "scorer": ["relevance"],
            "tagger": ["O", "B-room", "I-room", f"B-{kind}"][: LABELS[kind]],
        }.get(form)
        tiny_models.add_stirred(deck, f"{kind}-{number}", KINDS[kind], labels=labels, seed=seed)
        deck.save(f"{kind}-{number}", root / f"{kind}-{number}")
    return root


def write_fake_adapter(root: Path, name: str, floats: int = 10) -> Path:
    """A folder that looks like an adapter of `4 * floats` bytes; no model could use it."""
    import torch

    folder = root / name
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    save_file({"t": torch.zeros(floats)}, folder / "adapter_model.safetensors")
    return folder


class FakeBackend:
    """Holds folders by key, refuses a folder with a file `bad`, and keeps count; `gate` holds loads back while it is
    cleared.
    """

    def __init__(self) -> None:
        self.held: dict[str, Path] = {}
        self.most_held = 0
        self.loads: list[str] = []
        self.waiting = False
        self.gate = threading.Event()
        self.gate.set()

    def load(self, folder: Path, key: str) -> str | None:
        self.waiting = True
        self.gate.wait(10)
        self.waiting = False
        self.loads.append(key)
        if (folder / "bad").exists():
            raise AdapterFileError(f"{folder}/bad says no")
        assert key not in self.held
        self.held[key] = folder
        self.most_held = max(self.most_held, len(self.held))
        return None

    def remove(self, key: str) -> None:
        del self.held[key]

    def encode(self, contents: Sequence[Any], key: str | None) -> list[list[int]]:
        return [list(content) for content in contents]

    def width(self, ids: Sequence[int], key: str | None) -> int:
        return len(ids)
