"""What merging two sentiment adapters keeps, each way of `tunedeck adapters merge`, beside parts and joint training.

    python bench/merge_adapters.py --out results/merge_adapters.json

Two default LoRA adapters of all-minilm-l6-v2, each from its own tweets, negative or positive; "both" is trained on the
tweets of the two. All, and the merged ones, answer the same held-out tweets. The two start from the same first weights,
or, with "other", from different ones, which matters where A is added to A and B to B. A draw is of tweets.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from statistics import fmean

import torch

import tunedeck as td
from tunedeck.formats.combine import COMBINATIONS
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.classify.task import Example

MODEL, SOURCE = "bundled:all-minilm-l6-v2", "bundled:tweets"
LABELS = ("negative", "positive")


def read(rows: int, held_out: int, draw: int) -> dict[str, Dataset[Example]]:
    """Return the tweets of the two adapters and of both together, as many of each label."""
    data = td.Classify().read(td.DataSettings(train=SOURCE, eval_size=8))
    parts: list[list[Example]] = [[], [], []]
    for label in LABELS:
        own = [one for one in data.train if one.labels == (label,)]
        drawn = random.Random(draw).sample(own, rows + held_out // 2)
        for number, part in enumerate((drawn[: rows // 2], drawn[rows // 2 : rows], drawn[rows:])):
            parts[number] += part
    first, second, held = (random.Random(draw).sample(part, len(part)) for part in parts)
    sets = {"first": first, "second": second, "both": [*first, *second]}
    return {name: Dataset(name, train, held, f"{name}-{draw}", "", LABELS) for name, train in sets.items()}


def measure(rows: int, held_out: int, draw: int, folder: Path) -> dict[str, float]:
    deck = td.Deck.load(MODEL, td.Classify(labels=LABELS, max_length=32), dtype="float32")
    sets = read(rows, held_out, draw)
    settings = td.TrainingSettings(eval_steps=10**6, early_stopping_patience=0, seed=draw)
    for name, data, start in (*((name, data, 0) for name, data in sets.items()), ("other", sets["second"], 1)):
        deck.add(name, td.LoraConfig(), labels=LABELS, seed=start)
        td.train(deck, name, data, settings=settings, progress=False)
        deck.save(name, folder / name)
    for second in ("second", "other"):
        for how in COMBINATIONS:
            name = how if second == "second" else f"{how} other"
            td.combine_adapters([folder / "first", folder / second], folder / name, how=how)
            deck.load_adapter(folder / name, name)
    found, held = {}, sets["both"].evaluation
    for name in deck.adapters:
        answers = deck.predict([one.text for one in held], adapter=name)
        found[name] = fmean(answer.label == one.labels[0] for answer, one in zip(answers, held, strict=True))
        print(draw, name, round(found[name], 4), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300, help="tweets of each adapter")
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    draws: list[dict[str, float]] = []
    for draw in range(options.draws):
        with tempfile.TemporaryDirectory() as folder:
            draws.append(measure(options.rows, options.held_out, draw, Path(folder)))
        if options.out:
            options.out.write_text(json.dumps(draws, indent=1) + "\n", encoding="utf-8")
    for name in draws[0]:
        print(f"| {name} | {fmean(draw[name] for draw in draws):.3f} |")


if __name__ == "__main__":
    main()
