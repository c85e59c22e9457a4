"""How many labelled examples reach 95 % of full accuracy, by how they are chosen: `tunedeck label next` beside chance.

python bench/label_next.py [--seeds 5] [--batch 20] [--most 400] [--pool 1000] [DATA ...]

A head on the frozen base's vectors is fitted after every batch, with one penalty for all, cross-validated on the first
texts. Full accuracy is that of a head on the whole pool, on the same test texts; a way has reached 95 % of it from the
batch on after which it stays there. Every way begins with nothing labelled. Intervals are 95 %, of Student's t over the
seeds; a seed draws pool and test texts, and the ways' own chances. What is never reached counts as the most examples
that were tried.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import tunedeck as td
from tunedeck.core.student_t import t_95
from tunedeck.data.labelled import labelled_examples
from tunedeck.data.prepare import deduplicated
from tunedeck.data.table import read_table
from tunedeck.tasks.classify.doubts import base_vectors
from tunedeck.tasks.classify.selection import choose_rows, margins
from tunedeck.tasks.linear_probe import LinearHead, fit_linear_head

SHARE, TEST, TUNED, MAX_LENGTH = 0.95, 500, 300, 64
MODEL = "bundled:all-minilm-l6-v2"
Way = Callable[[torch.Tensor, int, torch.Tensor | None, int], list[int]]


def by_chance(vectors: torch.Tensor, count: int, sure: torch.Tensor | None, seed: int) -> list[int]:
    """Rows at random."""
    return torch.randperm(len(vectors), generator=torch.Generator().manual_seed(seed))[:count].tolist()


def by_margin(vectors: torch.Tensor, count: int, sure: torch.Tensor | None, seed: int) -> list[int]:
    """The least sure rows alone."""
    return by_chance(vectors, count, sure, seed) if sure is None else sure.argsort(stable=True)[:count].tolist()


def by_diversity(vectors: torch.Tensor, count: int, sure: torch.Tensor | None, seed: int) -> list[int]:
    """Rows apart from each other alone."""
    return choose_rows(vectors, count, None, seed)


WAYS: dict[str, Way] = {
    "label next": choose_rows,
    "margin alone": by_margin,
    "diversity alone": by_diversity,
    "random": by_chance,
}


def curve(
    way: Way,
    vectors: torch.Tensor,
    targets: torch.Tensor,
    pool: torch.Tensor,
    test: torch.Tensor,
    asked: argparse.Namespace,
    seed: int,
) -> list[float]:
    """Accuracy after each batch."""
    left, known, accuracies = pool, pool[:0], []
    head: LinearHead | None = None
    while len(known) < min(asked.most, len(pool)):
        sure = None if head is None else margins(head(vectors[left]).softmax(-1), multi_label=False)
        chosen = way(vectors[left], min(asked.batch, len(left)), sure, seed)
        known = torch.cat([known, left[chosen]])
        keep = torch.ones(len(left), dtype=torch.bool)
        keep[chosen] = False
        left = left[keep]
        labels, own = targets[known].unique(return_inverse=True)
        if len(labels) > 1:
            found = fit_linear_head(vectors[known], own, len(labels), multi_label=False, strength=asked.strength)
            head = found
            right = labels[found(vectors[test]).argmax(-1)] == targets[test]
            accuracies.append(right.double().mean().item())
        else:
            accuracies.append(0.0)
    return accuracies


def reached(accuracies: list[float], wanted: float, batch: int) -> int | None:
    """Examples from which on the accuracy stays at `wanted` or above."""
    below = [place for place, accuracy in enumerate(accuracies) if accuracy < wanted]
    place = below[-1] + 1 if below else 0
    return None if place == len(accuracies) else (place + 1) * batch


def mean_and_half(values: list[float]) -> tuple[float, float]:
    """Mean and half the 95 % interval."""
    half = t_95(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return statistics.fmean(values), half


def measure(data: str, asked: argparse.Namespace) -> dict[str, object]:
    """Examples needed by each way, in every seed."""
    examples = list(deduplicated(labelled_examples(read_table(data), None, None, drop_empty=True)))
    random.Random(0).shuffle(examples)
    examples = examples[: asked.pool + TEST]
    names = sorted({one.labels[0] for one in examples})
    deck = td.Deck.load(MODEL, td.Classify(labels=tuple(names)))
    vectors = base_vectors(deck, [one.text for one in examples], names, MAX_LENGTH)
    targets = torch.tensor([names.index(one.labels[0]) for one in examples])
    asked.strength = fit_linear_head(vectors[:TUNED], targets[:TUNED], len(names), multi_label=False).strength
    began, needed, accuracies, full = time.perf_counter(), {name: [] for name in WAYS}, {name: [] for name in WAYS}, []
    for seed in range(asked.seeds):
        order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))
        test, pool = order[:TEST], order[TEST:]
        whole = fit_linear_head(vectors[pool], targets[pool], len(names), multi_label=False, strength=asked.strength)
        full.append((whole(vectors[test]).argmax(-1) == targets[test]).double().mean().item())
        for name, way in WAYS.items():
            found = curve(way, vectors, targets, pool, test, asked, seed)
            accuracies[name].append(found)
            needed[name].append(reached(found, SHARE * full[-1], asked.batch))
    rows = {}
    for name in WAYS:
        mean, half = mean_and_half([float(asked.most if one is None else one) for one in needed[name]])
        fewer = [
            float((r or asked.most) - (o or asked.most)) for o, r in zip(needed[name], needed["random"], strict=True)
        ]
        gain, gain_half = mean_and_half(fewer)
        rows[name] = {
            "needed": needed[name],
            "mean": mean,
            "half": half,
            "fewer_than_random": gain,
            "fewer_half": gain_half,
            "accuracy": [statistics.fmean(step) for step in zip(*accuracies[name], strict=True)],
        }
        print(
            f"{data:26} {name:16} {mean:6.0f} ± {half:3.0f}, fewer than random {gain:4.0f} ± {gain_half:3.0f}",
            flush=True,
        )
    print(f"  full accuracy {statistics.fmean(full):.3f}, {time.perf_counter() - began:.0f} s", flush=True)
    return {
        "data": data,
        "model": MODEL,
        "labels": len(names),
        "pool": asked.pool,
        "test": TEST,
        "full_accuracy": full,
        "batch": asked.batch,
        "most": asked.most,
        "ways": rows,
    }


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["bundled:tweets", "bundled:home-intents-en"])
    parser.add_argument("--pool", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--most", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "label_next.json")
    asked = parser.parse_args()
    found = []
    for data in asked.data:
        found.append(measure(data, asked))
        asked.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
