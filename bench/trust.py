"""Calibration, thresholds and "none of these" of heads on a frozen base's vectors: whether they hold on other texts.

    python bench/trust.py --out trust.json

Texts are divided at random into training, held-out and test texts, several times; everything is fitted on the first two
and measured on the third. For "none of these" a fifth of the labels is left out of training and held-out texts.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

import tunedeck as td
from tunedeck.data.labelled import Example, labelled_examples
from tunedeck.data.prepare import deduplicated
from tunedeck.data.table import read_table
from tunedeck.deck.deck import Deck
from tunedeck.tasks.classify.confidence import fit_temperature, probabilities, temperature_scaling
from tunedeck.tasks.classify.doubts import base_vectors
from tunedeck.tasks.classify.novelty import distances_to_training, fit_novelty
from tunedeck.tasks.classify.thresholds import choose_thresholds
from tunedeck.tasks.linear_probe import fit_linear_head

MODEL = "bundled:all-minilm-l6-v2"
MAX_LENGTH = 64


def texts_of(source: str, most: int | None) -> list[Example]:
    """Return the deduplicated texts of a bundled data set, shuffled, at most `most` of them."""
    found = list(deduplicated(labelled_examples(read_table(source, "auto"), None, None, False, False)))
    if most is not None:
        random.Random(0).shuffle(found)
    return found[:most]


def calibration(
    vectors: torch.Tensor,
    targets: torch.Tensor,
    labels: Sequence[str],
    sizes: tuple[int, int],
    precision: float,
    strength: float,
    seed: int,
) -> dict[str, float]:
    """Fit a head, a temperature and thresholds, and measure them on the texts that are left."""
    order = torch.tensor(random.Random(seed).sample(range(len(targets)), len(targets)))
    train, held_out, test = order.split([*sizes, len(order) - sum(sizes)])
    head = fit_linear_head(vectors[train], targets[train], len(labels), multi_label=False, strength=strength)
    logits = {name: head(vectors[rows]) for name, rows in (("held_out", held_out), ("test", test))}
    temperature = fit_temperature(logits["held_out"], targets[held_out], False)
    scaling = temperature_scaling(logits["test"], targets[test], False, temperature)
    found = {
        "accuracy": float((logits["test"].argmax(-1) == targets[test]).double().mean()),
        "temperature": temperature,
        "ece_before": scaling.before.ece,
        "ece_after": scaling.after.ece,
        "brier_before": scaling.before.brier,
        "brier_after": scaling.after.brier,
    }

    def chances(name: str) -> list[dict[str, float]]:
        rows = probabilities(logits[name], False, temperature).tolist()
        return [dict(zip(labels, row, strict=True)) for row in rows]

    wanted = [(labels[int(targets[row])],) for row in held_out]
    chosen = choose_thresholds(chances("held_out"), wanted, multi_label=False, precision=precision, confidence=0.95)
    limits = {row.label: row.threshold for row in chosen.labels}
    given, right = 0, 0
    for one, row in zip(chances("test"), test, strict=True):
        label = max(one, key=one.__getitem__)
        limit = limits[label]
        if limit is not None and one[label] >= limit:
            given, right = given + 1, right + (label == labels[int(targets[row])])
    never = sum(limit is None for limit in limits.values())
    return {**found, "answered": given / len(test), "precision": right / max(1, given), "labels_never": never}


def novelty(
    vectors: torch.Tensor, targets: torch.Tensor, others: torch.Tensor, count: int, strength: float, seed: int
) -> dict[str, float]:
    """Leave a fifth of the labels out, fit distance and head on the others, and tell test texts of both apart.

    `others` are the vectors of another data set, as far as texts can be.
    """
    chooser = random.Random(seed)
    out = set(chooser.sample(range(count), count // 5))
    known = [row for row in range(len(targets)) if int(targets[row]) not in out]
    chooser.shuffle(known)
    train, held_out, test = torch.tensor(known).tensor_split([len(known) * 6 // 10, len(known) * 8 // 10])
    unseen = {"other data": others}
    if out:
        unseen["left out"] = vectors[torch.tensor([row for row in range(len(targets)) if int(targets[row]) in out])]
    head = fit_linear_head(vectors[train], targets[train], count, multi_label=False, strength=strength)
    fitted = fit_novelty(vectors[train], targets[train], vectors[held_out], 0.95)
    found = {"known_refused": float((distances_to_training(fitted, vectors[test]) > fitted.farthest).double().mean())}
    for name, far in unseen.items():
        distances = distances_to_training(fitted, far)
        found[f"{name}: auroc"] = auroc(distances, distances_to_training(fitted, vectors[test]))
        found[f"{name}: refused"] = float((distances > fitted.farthest).double().mean())
        doubts = (-probabilities(head(rows), False).amax(-1) for rows in (far, vectors[test]))
        found[f"{name}: auroc of the probability"] = auroc(*doubts)
    return found


def auroc(far: torch.Tensor, near: torch.Tensor) -> float:
    """Return the chance that a far text has the greater value (Mann-Whitney; no ties are expected)."""
    ranks = torch.cat([far, near]).argsort().argsort().double() + 1
    return float((ranks[: len(far)].sum() - len(far) * (len(far) + 1) / 2) / (len(far) * len(near)))


def averaged(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of every value."""
    return {name: round(fmean(row[name] for row in rows), 4) for name in rows[0]}


def main() -> None:
    """Measure and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    found: dict[str, Any] = {}
    held: dict[str, tuple[torch.Tensor, torch.Tensor, list[str]]] = {}
    for source, most in (("bundled:home-intents-en", None), ("bundled:tweets", 1500)):
        examples = texts_of(source, most)
        labels = sorted({example.labels[0] for example in examples})
        deck = Deck.load(MODEL, td.Classify(labels=tuple(labels)))
        vectors = base_vectors(deck, [example.text for example in examples], labels, MAX_LENGTH)
        held[source] = vectors, torch.tensor([labels.index(example.labels[0]) for example in examples]), labels
    for (source, (vectors, targets, labels)), sizes, precision in zip(
        held.items(), ((700, 1500), (600, 450)), (0.95, 0.8), strict=True
    ):
        other = next(rows for name, (rows, _, _) in held.items() if name != source)[:500]
        seeds = range(asked.seeds)
        some = slice(None, None, len(targets) // sizes[0])  # the strength of the penalty is that of as many texts
        strength = fit_linear_head(vectors[some], targets[some], len(labels), multi_label=False).strength
        calibrations = [calibration(vectors, targets, labels, sizes, precision, strength, one) for one in seeds]
        novelties = [novelty(vectors, targets, other, len(labels), strength, one) for one in seeds]
        found[source] = {"calibration": averaged(calibrations), "novelty": averaged(novelties)}
        print(source, json.dumps(found[source], indent=1), flush=True)
    Path(asked.out).write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
