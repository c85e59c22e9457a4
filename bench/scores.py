"""Measure scores and pairs of texts: ratings of tweets, pairs of commands with the same intent, and ranking by them.

    python bench/scores.py --out bench/results/scores.json

Each task beside a constant answer, the frozen base (cosine of the two texts for pairs) and a head only. The pairs are
made of bundled:home-intents-en, whose test side has templates of its own.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

import tunedeck as td
from tunedeck.core.text_pair import TextPair
from tunedeck.data.table import read_table

CANDIDATES = 10
"""Commands of which one has the intent of the query."""


def main() -> None:
    """Run all three and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="bundled:all-minilm-l6-v2")
    parser.add_argument("--intents", default="bundled:home-intents-en")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--part", choices=("ratings", "pairs"), action="append", help="both by default")
    parser.add_argument("--tweets", type=int, default=None, help="train on this number of tweets, all by default")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    found: dict[str, Any] = {"model": asked.model, "intents": asked.intents}
    if "ratings" in (asked.part or ("ratings",)):
        found["ratings"] = ratings(asked.model, asked.tweets)
    if "pairs" in (asked.part or ("pairs",)):
        found |= intents(asked.model, asked.intents, asked.pairs, folder)
    asked.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def trained(model: str, task: str, data: dict[str, Any], method: dict[str, Any]) -> tuple[dict[str, Any], td.Deck, str]:
    """Train one adapter with the defaults; return its metrics and seconds of CPU time, and its deck."""
    began = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        values = {"model": model, "task": task, "data": data, "method": method}
        (run,) = td.train_run(values, out=out, overwrite=True, progress=False).values()
        deck = td.Deck.open(Path(out) / "adapter", dtype="auto")
    kept = {"metrics": run.metrics, "start": run.start, "head_only": run.head_only}
    print(task, method, kept["metrics"], kept["start"], flush=True)
    return {**kept, "best_step": run.best_step, "cpu_seconds": time.process_time() - began}, deck, deck.adapters[0]


HEAD, LORA = {"kind": "full", "layers": "head"}, {"kind": "lora"}


def ratings(model: str, size: int | None) -> dict[str, Any]:
    """Tweets with ratings from -4 to 4."""
    data = {"train": "bundled:tweet-ratings", "train_size": size, "eval_size": 300}
    read = td.Score().read(td.DataSettings.model_validate(data))
    train = torch.tensor([one.scores[0] for one in read.train])
    held_out = torch.tensor([one.scores[0] for one in read.evaluation])
    constant = {
        name: {"mae": (held_out - value).abs().mean().item(), "rmse": (held_out - value).square().mean().sqrt().item()}
        for name, value in (("mean", train.mean()), ("median", train.median()))
    }
    runs = {name: trained(model, "score", data, method)[0] for name, method in (("head", HEAD), ("lora", LORA))}
    return {"description": read.description, "constant": constant, **runs}


def intents(model: str, name: str, count: int, folder: Path) -> dict[str, Any]:
    """Pairs of commands, of the same intent or not; and queries with candidates to rank."""
    sides = {side: by_intent(f"{name}:{side}") for side in ("train", "test")}
    pairs = {side: made_pairs(sides[side], count if side == "train" else count // 5) for side in sides}
    files = {side: write(folder / f"{side}.csv", pairs[side], ("different", "same")) for side in sides}
    scored = {side: write(folder / f"{side}-scores.csv", pairs[side], (0, 1)) for side in sides}
    queries = made_queries(sides["test"], count // 10)
    embed = td.Deck.load(model, td.Embed())
    found: dict[str, Any] = {"pairs": {}, "ranking": {}}
    found["pairs"]["cosine"] = {"accuracy": by_threshold(embed, pairs["train"], pairs["test"])}
    found["ranking"]["cosine"] = rank_metrics([cosines(embed, [(q, c) for c in own]) for q, own in queries])
    print(found, flush=True)
    del embed
    for key, method in (("head", HEAD), ("lora", LORA)):
        data = {"train": str(files["train"]), "eval": str(files["test"])}
        found["pairs"][key], _, _ = trained(model, "classify", data, method)
        data = {"train": str(scored["train"]), "eval": str(scored["test"])}
        run, deck, adapter = trained(model, "score", data, method)
        asked = [TextPair(query, one) for query, own in queries for one in own]
        scores = [one.score for one in deck.predict(asked, adapter)]
        found["ranking"][key] = {
            **run,
            **rank_metrics([scores[at : at + CANDIDATES] for at in range(0, len(scores), CANDIDATES)]),
        }
        print(found["pairs"][key]["metrics"], found["ranking"][key], flush=True)
    return found


def by_intent(reference: str) -> dict[str, list[tuple[str, str]]]:
    """Commands and their templates by intent."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in read_table(reference).rows:
        found[str(row["label"])].append((str(row["text"]), str(row["template"])))
    return {intent: own for intent, own in found.items() if len({template for _, template in own}) > 1}


def made_pairs(commands: dict[str, list[tuple[str, str]]], count: int) -> list[tuple[str, str, int]]:
    """Half of the pairs have the same intent, from different templates."""
    chooser, found = random.Random(0), []
    intents_there = sorted(commands)
    for number in range(count):
        intent = chooser.choice(intents_there)
        text, template = chooser.choice(commands[intent])
        if number % 2:
            other = chooser.choice([one for one, own in commands[intent] if own != template])
        else:
            other, _ = chooser.choice(commands[chooser.choice([one for one in intents_there if one != intent])])
        found.append((text, other, number % 2))
    return found


def made_queries(commands: dict[str, list[tuple[str, str]]], count: int) -> list[tuple[str, list[str]]]:
    """Queries with CANDIDATES commands, the first of the same intent and another template."""
    chooser, found = random.Random(1), []
    intents_there = sorted(commands)
    for _ in range(count):
        intent = chooser.choice(intents_there)
        text, template = chooser.choice(commands[intent])
        right = chooser.choice([one for one, own in commands[intent] if own != template])
        others = chooser.choices([one for one in intents_there if one != intent], k=CANDIDATES - 1)
        found.append((text, [right, *(chooser.choice(commands[one])[0] for one in others)]))
    return found


def write(file: Path, pairs: list[tuple[str, str, int]], names: tuple[object, object]) -> Path:
    """Write pairs with the names of 0 and 1."""
    column = "score" if names == (0, 1) else "label"
    with file.open("w", newline="", encoding="utf-8") as target:
        csv.writer(target).writerows([("text", "text_pair", column), *((a, b, names[same]) for a, b, same in pairs)])
    return file


def cosines(deck: td.Deck, pairs: list[tuple[str, str]]) -> list[float]:
    """Return the cosine of each pair's vectors, by the frozen base."""
    left, right = deck.embed([a for a, _ in pairs]), deck.embed([b for _, b in pairs])
    return torch.cosine_similarity(left, right).tolist()


def by_threshold(deck: td.Deck, train: list[tuple[str, str, int]], test: list[tuple[str, str, int]]) -> float:
    """Return the accuracy on test pairs of the threshold of the cosine that is best on the training pairs."""
    known = cosines(deck, [(a, b) for a, b, _ in train])
    wanted = torch.tensor([same for *_, same in train])
    best = max(known, key=lambda limit: ((torch.tensor(known) >= limit) == wanted).float().mean().item())
    asked = torch.tensor(cosines(deck, [(a, b) for a, b, _ in test]))
    return ((asked >= best) == torch.tensor([same for *_, same in test])).float().mean().item()


def rank_metrics(groups: list[list[float]]) -> dict[str, float]:
    """Return how often the first candidate has the highest score, and the mean reciprocal rank of it."""
    ranks = [1 + sum(score >= own[0] for score in own[1:]) for own in groups]
    return {"first": sum(rank == 1 for rank in ranks) / len(ranks), "mrr": sum(1 / rank for rank in ranks) / len(ranks)}


if __name__ == "__main__":
    main()
