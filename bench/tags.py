"""Measure entities and slots: each character's most frequent tag, a head only, LoRA, and LoRA on an 8-bit base.

    python bench/tags.py --out bench/results/tags.json                             # home commands and the newspaper
    python bench/tags.py --sets home-intents-en --train 2400 --test 600

`f1` counts entities whose borders and label are right, `character_f1` the characters inside entities with the right
label. The majority gives each character the label it has most often in the training texts. Seconds are of the
processor.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import tunedeck as td
from tunedeck.tasks.tag.metrics import score_of
from tunedeck.tasks.tag.reading import Span, TaggedText

MODELS = {"home-intents-en": "bundled:all-minilm-l6-v2"}
CHINESE = "bundled:multilingual-e5-small"
METHODS: dict[str, dict[str, Any]] = {
    "head only": {"method": {"kind": "full", "layers": "head"}},
    "LoRA": {"method": {"kind": "lora"}},
    "LoRA, int8 base": {"method": {"kind": "lora"}, "quantize": "int8"},
}


def characters(texts: Sequence[Sequence[Span]]) -> list[list[Span]]:
    """Each character of an entity as a span of its own."""
    return [[Span(at, at + 1, one.label) for one in spans for at in range(one.start, one.end)] for spans in texts]


def f1_of(wanted: Sequence[TaggedText], found: Sequence[Sequence[Span]]) -> dict[str, float]:
    """F1 by entity and by character."""
    spans = [one.spans for one in wanted]
    return {
        "f1": score_of(spans, found).total.f1,
        "character_f1": score_of(characters(spans), characters(found)).total.f1,
    }


def majority(train: Sequence[TaggedText], test: Sequence[TaggedText]) -> dict[str, float]:
    """What each character's most frequent label in the training texts finds; neighbours of one label are an entity."""
    seen: dict[str, Counter[str | None]] = defaultdict(Counter)
    for one in train:
        labels = {at: span.label for span in one.spans for at in range(span.start, span.end)}
        for at, character in enumerate(one.text):
            seen[character][labels.get(at)] += 1
    usual = {character: counts.most_common(1)[0][0] for character, counts in seen.items()}
    found = []
    for one in test:
        spans, at = [], 0
        for label, run in groupby(one.text, lambda character: usual.get(character)):
            length = len(list(run))
            if label is not None:
                spans.append(Span(at, at + length, label))
            at += length
        found.append(spans)
    return f1_of(test, found)


def measure(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Train every method on one set."""
    data = {
        "train": f"bundled:{name}:train",
        "eval": f"bundled:{name}:test",
        "train_size": asked.train,
        "eval_size": asked.test,
    }
    model = MODELS.get(name, CHINESE)
    read = td.Tag().read(td.DataSettings.model_validate(data))
    rows: dict[str, Any] = {"majority": majority(read.train, read.evaluation)}
    print(name, "majority", rows["majority"], flush=True)
    for called, values in METHODS.items():
        if called not in asked.methods:
            continue
        began = time.process_time()
        with tempfile.TemporaryDirectory() as out:
            td.train_run(
                {"model": model, "task": "tag", "data": data, **values}, out=out, overwrite=True, progress=False
            )
            seconds = time.process_time() - began
            deck = td.Deck.open(Path(out) / "adapter")
        answers = deck.predict([one.text for one in read.evaluation], adapter=deck.adapters[0])
        found = [[Span(one.start, one.end, one.label) for one in answer.entities] for answer in answers]
        rows[called] = {**f1_of(read.evaluation, found), "cpu_seconds": seconds}
        print(name, called, rows[called], flush=True)
    return {"data": data, "model": model, "train": len(read.train), "test": len(read.evaluation), "rows": rows}


def main() -> None:
    """Measure and write JSON after every set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "tags.json")
    parser.add_argument("--sets", nargs="+", default=["home-intents-zh", "people-daily-ner"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--train", type=int, default=2400)
    parser.add_argument("--test", type=int, default=600)
    asked = parser.parse_args()
    found = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    for name in asked.sets:
        found[name] = measure(name, asked)
        asked.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
