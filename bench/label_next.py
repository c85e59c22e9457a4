"""How many labelled examples reach 95 % of full accuracy, by how they are chosen: `tunedeck label next` beside chance.

python bench/label_next.py [--seeds 5] [--batch 20] [--most 1000] [--rows 4000] [DATA ...]

A head on the frozen base's vectors is fitted after every batch; its penalty is cross-validated again whenever the
labelled examples are half as many more. Full accuracy is that of a head on the whole pool, on
the same test rows; a way has reached 95 % of it from the batch on after which it stays there. Every way begins with
nothing labelled. Intervals are 95 %, of Student's t over the seeds; a seed draws pool and test rows, and the ways' own
chances. "never" counts as the most examples that were tried.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import tunedeck as td
from tunedeck.core.student_t import t_95
from tunedeck.data.labelled import labelled_examples
from tunedeck.data.prepare import deduplicated, subset
from tunedeck.data.table import read_table
from tunedeck.tasks.classify.doubts import base_vectors
from tunedeck.tasks.classify.selection import choose_rows, margins
from tunedeck.tasks.linear_probe import LinearHead, fit_linear_head

SHARE, TEST, MAX_LENGTH = 0.95, 1000, 256
MODELS = {"bundled:home-intents-zh": "bundled:multilingual-e5-small"}
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
    tuned = 0
    while len(known) < min(asked.most, len(pool)):
        sure = None if head is None else margins(head(vectors[left]).softmax(-1), multi_label=False)
        chosen = way(vectors[left], min(asked.batch, len(left)), sure, seed)
        known = torch.cat([known, left[chosen]])
        keep = torch.ones(len(left), dtype=torch.bool)
        keep[chosen] = False
        left = left[keep]
        labels, own = targets[known].unique(return_inverse=True)
        if len(labels) > 1:
            strength = head.strength if head is not None and len(known) < 1.5 * tuned else None
            tuned = tuned if strength is not None else len(known)
            found = fit_linear_head(vectors[known], own, len(labels), multi_label=False, strength=strength)
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
    examples = subset(
        deduplicated(labelled_examples(read_table(data), None, None, drop_empty=True)), asked.rows + TEST, 0
    )
    names = sorted({one.labels[0] for one in examples})
    model = MODELS.get(data, "bundled:all-minilm-l6-v2")
    deck = td.Deck.load(model, td.Classify(labels=tuple(names)))
    vectors = base_vectors(deck, [one.text for one in examples], names, MAX_LENGTH)
    targets = torch.tensor([names.index(one.labels[0]) for one in examples])
    began, needed, accuracies, full = time.perf_counter(), {name: [] for name in WAYS}, {name: [] for name in WAYS}, []
    for seed in range(asked.seeds):
        order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))
        test, pool = order[:TEST], order[TEST:]
        whole = fit_linear_head(vectors[pool], targets[pool], len(names), multi_label=False)
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
        "model": model,
        "labels": len(names),
        "pool": len(examples) - TEST,
        "test": TEST,
        "full_accuracy": full,
        "batch": asked.batch,
        "most": asked.most,
        "ways": rows,
    }


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "data", nargs="*", default=["bundled:tweets", "bundled:home-intents-en", "bundled:home-intents-zh"]
    )
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--most", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "label_next.json")
    asked = parser.parse_args()
    found = [measure(data, asked) for data in asked.data]
    asked.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
