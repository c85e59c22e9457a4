"""How well wrong labels are found: a share of the labels is flipped at random, and rankings look for them.

python bench/label_errors.py [--rows 4000] [--flipped 0.05] [--seeds 3] [--model bundled:all-minilm-l6-v2] [DATA ...]

Rankings: the out-of-fold probability of the given label (`tunedeck data check --suspicious`), its margin to the next
best, the same by a head that was trained on the row itself, cleanlab's rankings where it is installed
and chance. Precision is among the first 100 rows, recall among as many rows as 5 % of the data. Flipped labels count as
wrong; labels that were wrong before count as right, so that the true precision is higher.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import torch

import tunedeck as td
from tunedeck.data.labelled import labelled_examples
from tunedeck.data.prepare import deduplicated, subset
from tunedeck.data.table import read_table
from tunedeck.tasks.classify.doubts import base_vectors, doubts
from tunedeck.tasks.linear_probe import fit_linear_head

FIRST, RECALL_AT = 100, 0.05


def flipped(targets: torch.Tensor, labels: int, share: float, seed: int) -> tuple[torch.Tensor, set[int]]:
    """The targets with a share of them moved to another label, and which."""
    chooser = random.Random(seed)
    wrong = set(chooser.sample(range(len(targets)), round(share * len(targets))))
    found = targets.clone()
    for row in sorted(wrong):
        found[row] = (int(targets[row]) + chooser.randrange(1, labels)) % labels
    return found, wrong


def rankings(
    vectors: torch.Tensor, targets: torch.Tensor, labels: int, seed: int
) -> dict[str, tuple[list[int], float]]:
    """Rows by each ranking, the likeliest errors first, and its seconds."""
    began = time.perf_counter()
    found = doubts(vectors, targets, labels)
    fold_s = time.perf_counter() - began
    own = found.probabilities.gather(1, targets[:, None])[:, 0]
    others = found.probabilities.scatter(1, targets[:, None], -1.0)
    seen = fit_linear_head(vectors, targets, labels, multi_label=False)(vectors).softmax(-1)
    ways: dict[str, tuple[torch.Tensor, float]] = {
        "given label's probability": (own, fold_s),
        "margin to the likeliest other label": (own - others.max(1).values, fold_s),
        "given label's probability, trained on the row": (seen.gather(1, targets[:, None])[:, 0], 0.0),
        "random": (torch.rand(len(targets), generator=torch.Generator().manual_seed(seed)), 0.0),
    }
    ordered = {name: (scores.argsort(stable=True).tolist(), seconds) for name, (scores, seconds) in ways.items()}
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return ordered
    for method in ("self_confidence", "normalized_margin"):
        scores = get_label_quality_scores(
            targets.numpy(), found.probabilities.double().numpy(), method=method, adjust_pred_probs=True
        )
        ordered[f"cleanlab {method}, adjusted"] = (torch.tensor(scores).argsort(stable=True).tolist(), fold_s)
    return ordered


def measure(data: str, model: str, rows: int, share: float, seeds: int) -> dict[str, object]:
    """Precision and recall of each ranking, means over the seeds."""
    examples = subset(deduplicated(labelled_examples(read_table(data), None, None, drop_empty=True)), rows, 0)
    names = sorted({one.labels[0] for one in examples})
    deck = td.Deck.load(model, td.Classify(labels=tuple(names)))
    began = time.perf_counter()
    vectors = base_vectors(deck, [one.text for one in examples], names, 256)
    vectors_s = time.perf_counter() - began
    truth = torch.tensor([names.index(one.labels[0]) for one in examples])
    scores: dict[str, list[tuple[float, float, float]]] = {}
    for seed in range(seeds):
        targets, wrong = flipped(truth, len(names), share, seed)
        for name, (order, seconds) in rankings(vectors, targets, len(names), seed).items():
            precision = len(wrong & set(order[:FIRST])) / FIRST
            recall = len(wrong & set(order[: round(RECALL_AT * len(order))])) / len(wrong)
            scores.setdefault(name, []).append((precision, recall, seconds))
    means = {name: [sum(values) / len(found) for values in zip(*found, strict=True)] for name, found in scores.items()}
    for name, (precision, recall, seconds) in means.items():
        print(
            f"{data:20} {name:48} precision@{FIRST} {precision:.3f}  recall@5% {recall:.3f}  {seconds:.1f} s",
            flush=True,
        )
    return {"data": data, "model": model, "rows": len(examples), "vectors_s": vectors_s, "rankings": means}


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["bundled:tweets", "bundled:reviews-zh"])
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--flipped", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default="bundled:all-minilm-l6-v2")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "label_errors.json")
    asked = parser.parse_args()
    found = [measure(data, asked.model, asked.rows, asked.flipped, asked.seeds) for data in asked.data]
    asked.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
