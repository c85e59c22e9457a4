"""What bench/trust.py measures of heads, of trained LoRA adapters and by the commands: calibration, thresholds, none of
these; and what an adapter forgets when labels arrive in portions.

    python bench/trust_lora.py --out bench/results/trust_lora.json

Texts are divided at random into training, held-out and test texts, several times. The adapter is trained on the first,
its temperature, thresholds and distances come from the second, and everything is measured on the third.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from trust import MAX_LENGTH, MODEL, auroc, averaged, texts_of

import tunedeck as td
from tunedeck.data.labelled import Example
from tunedeck.tasks.classify.confidence import confidence_of, temperature_scaling
from tunedeck.tasks.classify.novelty import distances_to_training
from tunedeck.tasks.text_head import text_ids
from tunedeck.tasks.vectors import head_inputs

PORTIONS, PORTION_TEXTS, LABEL_TEST = 3, 20, 10


def write(path: Path, examples: Iterable[Example]) -> str:
    """Write labelled texts as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((one.text, one.labels[0]) for one in examples)
    return str(path)


def trained(folder: Path, data: dict[str, Any], seed: int, method: str, **more: Any) -> Path:
    """Train one adapter with the defaults and return its folder."""
    values: dict[str, Any] = {"data": data, "training": {"seed": seed}, **more}
    if "start_from" not in more:
        how = {"kind": "lora"} if method == "lora" else {"kind": "full", "layers": "head"}
        values |= {"model": MODEL, "task": {"kind": "classify", "max_length": MAX_LENGTH}, "method": how}
    td.train_run(values, out=folder, overwrite=True, progress=False)
    return folder / "adapter"


def divided(examples: Sequence[Example], sizes: Sequence[int], seed: int) -> list[list[Example]]:
    """Return random parts of these sizes, and the rest."""
    order, parts, start = random.Random(seed).sample(list(examples), len(examples)), [], 0
    for size in (*sizes, len(order) - sum(sizes)):
        parts.append(order[start : start + size])
        start += size
    return parts


def calibration(examples: Sequence[Example], sizes: Sequence[int], precision: float, seed: int) -> dict[str, float]:
    """Train, choose thresholds, and measure probabilities and answers on the texts that are left."""
    train, held_out, test = divided(examples, sizes, seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data = {"train": write(folder / "train.csv", train), "eval": write(folder / "eval.csv", held_out)}
        adapter = trained(folder / "run", data, seed, "lora")
        td.threshold(adapter, data["eval"], precision=precision)
        deck = td.Deck.open(adapter)
    (name,) = deck.adapters
    labels = list(deck.label_names(name))
    temperature = confidence_of(deck, name).temperature
    answers = deck.predict([one.text for one in test], adapter=name)
    chances = torch.tensor([[one.probabilities[label] for label in labels] for one in answers], dtype=torch.float64)
    targets = torch.tensor([labels.index(one.labels[0]) for one in test])
    logits = chances.clamp(min=1e-300).log() * temperature  # what it divides by comes off again
    scaling = temperature_scaling(logits, targets, False, temperature)
    given = [(one, answer) for one, answer in zip(test, answers, strict=True) if answer.abstain is None]
    limits = confidence_of(deck, name).thresholds or {}
    return {
        "accuracy": float((chances.argmax(-1) == targets).double().mean()),
        "temperature": temperature,
        "ece_before": scaling.before.ece,
        "ece_after": scaling.after.ece,
        "brier_before": scaling.before.brier,
        "brier_after": scaling.after.brier,
        "answered": len(given) / len(test),
        "precision": sum(answer.label == one.labels[0] for one, answer in given) / max(1, len(given)),
        "labels_never": sum(limit is None for limit in limits.values()),
    }


def novelty(examples: Sequence[Example], others: Sequence[str], seed: int) -> dict[str, float]:
    """Leave a fifth of the labels out of training, and tell test texts of the known and the unknown apart."""
    chooser = random.Random(seed)
    labels = sorted({one.labels[0] for one in examples})
    out = set(chooser.sample(labels, len(labels) // 5))
    known = [one for one in examples if one.labels[0] not in out]
    train, held_out, test = divided(known, (len(known) * 6 // 10, len(known) * 2 // 10), seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data = {"train": write(folder / "train.csv", train), "eval": write(folder / "eval.csv", held_out)}
        adapter = trained(folder / "run", data, seed, "lora")
        td.threshold(adapter, data["eval"], precision=0.5, training_data=data["train"])
        deck = td.Deck.open(adapter)
    (name,) = deck.adapters
    fitted = confidence_of(deck, name).novelty
    assert fitted is not None

    def distances(texts: Sequence[str]) -> torch.Tensor:
        return distances_to_training(
            fitted, head_inputs(deck, name, text_ids(deck, texts, [name] * len(texts), MAX_LENGTH))
        )

    def doubts(texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([-one.score for one in deck.predict(texts, adapter=name)])

    near = [one.text for one in test]
    unseen = {"other data": list(others)}
    if out:
        unseen["left out"] = [one.text for one in examples if one.labels[0] in out]
    found = {"known_refused": float((distances(near) > fitted.farthest).double().mean())}
    for called, far in unseen.items():
        found[f"{called}: auroc"] = auroc(distances(far), distances(near))
        found[f"{called}: refused"] = float((distances(far) > fitted.farthest).double().mean())
        found[f"{called}: auroc of the probability"] = auroc(doubts(far), doubts(near))
    return found


def portions(examples: Sequence[Example], method: str, seed: int) -> dict[str, float]:
    """Let labels arrive in portions, each after the first with and without replay; accuracy on each portion's tests."""
    counts = Counter(one.labels[0] for one in examples)
    labels = sorted(label for label, count in counts.items() if count >= PORTION_TEXTS + LABEL_TEST)
    random.Random(seed).shuffle(labels)
    size = len(labels) // PORTIONS
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tests: list[list[Example]] = []
        earlier: list[Example] = []
        adapter = folder
        for number in range(PORTIONS):
            own = [one for one in examples if one.labels[0] in labels[number * size : (number + 1) * size]]
            train, test = split_by_label(own, seed)
            tests.append(test)
            data = {"train": write(folder / f"new-{number}.csv", train)}
            if number == 0:
                adapter = trained(folder / "first", data, seed, method)
                found |= accuracies("first", adapter, tests)
            else:
                if number == 1:
                    alone = trained(folder / "alone", data, seed, method, start_from=str(adapter))
                    found |= accuracies("second without replay", alone, tests)
                replay = write(folder / f"old-{number}.csv", earlier)
                adapter = trained(folder / f"run-{number}", data, seed, method, start_from=str(adapter), replay=replay)
                found |= accuracies(f"portion {number + 1} with replay", adapter, tests)
            earlier += train
    return found


def split_by_label(examples: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """Return some texts of each label to train on, and test texts of all of them together."""
    train: list[Example] = []
    rest: list[Example] = []
    for label in sorted({one.labels[0] for one in examples}):
        own = [one for one in examples if one.labels[0] == label]
        own = random.Random(seed).sample(own, k=PORTION_TEXTS + LABEL_TEST)
        train += own[:PORTION_TEXTS]
        rest += own[PORTION_TEXTS:]
    return train, rest


def accuracies(stage: str, adapter: Path, tests: Sequence[Sequence[Example]]) -> dict[str, float]:
    """Accuracy of an adapter on the test texts of each portion so far."""
    deck = td.Deck.open(adapter)
    (name,) = deck.adapters
    found = {}
    for number, test in enumerate(tests, 1):
        answers = deck.predict([one.text for one in test], adapter=name)
        right = sum(answer.label == one.labels[0] for one, answer in zip(test, answers, strict=True))
        found[f"{stage}: portion {number}"] = right / len(test)
    return found


def main() -> None:
    """Measure and write the numbers after each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "trust_lora.json")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--portions-only", action="store_true")
    asked = parser.parse_args()
    seeds = range(asked.seeds)
    found: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.exists() else {}

    def keep(name: str, rows: list[dict[str, float]]) -> None:
        found[name] = averaged(rows)
        print(name, json.dumps(found[name], indent=1), flush=True)
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    sets = {"home commands": texts_of("bundled:home-intents-en", None), "tweets": texts_of("bundled:tweets", 1500)}
    others = dict(zip(sets, reversed([[one.text for one in texts[:500]] for texts in sets.values()]), strict=True))
    for (name, texts), sizes, precision in zip(sets.items(), ((700, 1500), (600, 450)), (0.95, 0.8), strict=True):
        if asked.portions_only:
            break
        keep(f"{name}: calibration", [calibration(texts, sizes, precision, seed) for seed in seeds])
        keep(f"{name}: none of these", [novelty(texts, others[name], seed) for seed in seeds])
    for method in ("head", "lora"):
        keep(f"portions: {method}", [portions(sets["home commands"], method, seed) for seed in seeds])


if __name__ == "__main__":
    main()
