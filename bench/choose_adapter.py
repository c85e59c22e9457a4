"""How often the right adapter is chosen for a text among ten, by the centroids of their training texts.

    python bench/choose_adapter.py --out results/choose_adapter.json

Ten sets of texts from the bundled data, as ten adapters would have been trained on: centroids are made from some texts
of each and tried on others. "refused" are texts of the ten that are near to no adapter, "unknown refused" texts whose
own adapter is left out. The five kinds of commands for a home are alike on purpose. "certainty" puts the mean certainty
of the chosen beside the share that is right, and their mean difference in ten groups of equal size.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

import tunedeck as td
from tunedeck.data.table import read_table
from tunedeck.deck.choice import Choice, choose, fit_centroids, sample_size, text_vectors
from tunedeck.formats.centroids import Centroids

MODELS = ("bundled:all-minilm-l6-v2", "bundled:multilingual-e5-small")
TRAIN, TEST = 1000, 100
SETS = {
    "tweets": ("bundled:tweets", "text"),
    "licences": ("bundled:licences:train", "text"),
    "medical terms": ("bundled:medical-terms", "instruction"),
    "news (zh)": ("bundled:people-daily-ner", "text"),
    "reviews (zh)": ("bundled:reviews-zh", "text"),
}
COMMANDS = {
    "timers": ("Timer",),
    "media": ("Media", "Volume", "Track"),
    "lights": ("Light",),
    "climate and weather": ("Climate", "Weather", "Temperature"),
    "lists and the rest": ("",),
}


def texts_of(seed: int) -> dict[str, list[str]]:
    """Return the texts of the ten sets, each once, shuffled."""
    found: dict[str, list[str]] = {}
    for name, (source, column) in SETS.items():
        found[name] = [str(row[column]) for row in read_table(source, "auto").rows]
    for row in read_table("bundled:home-intents-en:train", "auto").rows:
        kind = next(kind for kind, parts in COMMANDS.items() if any(part in str(row["label"]) for part in parts))
        found.setdefault(kind, []).append(str(row["text"]))
    return {name: random.Random(seed).sample(sorted(set(texts)), len(set(texts))) for name, texts in found.items()}


def chosen(vectors: torch.Tensor, known: dict[str, Centroids]) -> list[Choice | None]:
    """Return the choice for each vector, None where it is refused."""
    return [one if one.near else None for one in choose(vectors, known)]


def measure(model: str, seeds: int) -> dict[str, Any]:
    deck = td.Deck.load(model, task=td.Embed())
    rows, confusions, answered = [], {}, []
    for seed in range(seeds):
        texts, known, tried = texts_of(seed), {}, {}
        for name, own in texts.items():
            train = own[TEST : TEST + TRAIN]
            known[name] = fit_centroids(text_vectors(deck.base, deck.router, train[: sample_size(len(train))]))
            tried[name] = text_vectors(deck.base, deck.router, own[:TEST])
        for name, vectors in tried.items():
            found = chosen(vectors, known)
            others = {other: one for other, one in known.items() if other != name}
            left_out = chosen(vectors, others)
            row = {
                "set": name,
                "seed": seed,
                "right": sum(one is not None and one.adapter == name for one in found) / len(found),
                "refused": found.count(None) / len(found),
                "unknown_refused": left_out.count(None) / len(left_out),
            }
            rows.append(row)
            answered += [(one.certainty, one.adapter == name) for one in found if one is not None]
            for one in found:
                if one is not None and one.adapter != name:
                    pair = f"{name} -> {one.adapter}"
                    confusions[pair] = confusions.get(pair, 0) + 1
    keys = ("right", "refused", "unknown_refused")
    means = {name: {key: fmean(one[key] for one in rows if one["set"] == name) for key in keys} for name in texts}
    all_of = {key: fmean(row[key] for row in rows) for key in keys}
    return {
        "sets": means,
        "all": all_of,
        "certainty": calibration(answered),
        "confusions": dict(sorted(confusions.items(), key=lambda one: -one[1])[:8]),
        "bytes": {name: len(one.values) for name, one in known.items()},
        "ms": {str(count): round(timed(deck, known, texts["tweets"][:count]), 2) for count in (1, 32)},
    }


def calibration(answered: list[tuple[float, bool]]) -> dict[str, float]:
    """Return the mean certainty, the share that is right, and how far the two are apart in ten groups."""
    ordered = sorted(answered)
    groups = [ordered[part * len(ordered) // 10 : (part + 1) * len(ordered) // 10] for part in range(10)]
    apart = [abs(fmean(sure for sure, _ in one) - fmean(right for _, right in one)) for one in groups]
    return {
        "mean": fmean(sure for sure, _ in answered),
        "right": fmean(right for _, right in answered),
        "error": fmean(apart),
    }


def timed(deck: td.Deck, known: dict[str, Centroids], texts: list[str]) -> float:
    """Return milliseconds of choosing for some texts together, the median of 20."""
    taken = []
    for _ in range(20):
        began = time.process_time()
        chosen(text_vectors(deck.base, deck.router, texts), known)
        taken.append(1000 * (time.process_time() - began))
    return median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = {model: measure(model, options.seeds) for model in options.models}
    print(json.dumps(result, indent=1, ensure_ascii=False))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
