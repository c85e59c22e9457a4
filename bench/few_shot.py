"""A few examples of each label: this package beside SetFit and PEFT's LoRA, on the same base and the same texts.

    python bench/few_shot.py split                      # writes the texts that all sides learn and are measured on
    python bench/few_shot.py run tunedeck --minutes 20  # resumes where the last call ended; results/few_shot.jsonl
    python bench/few_shot.py run peft
    python bench/few_shot.py run setfit                 # in an environment that has setfit
    python bench/few_shot.py table

`tunedeck` is a run of `tunedeck train` on these examples with its defaults, of which it holds a tenth out itself;
`probe` is its head only. `tunedeck-refit` and `probe-refit` are the same with `--refit-head`. SetFit has its documented
defaults, but at 64 examples of each label 20 pairs of each kind for a text. PEFT has rank 8 on query and value, a rate
of 1e-3 and 100 steps of 32 examples in transformers' Trainer. Each side takes a GPU where there is one. Seconds are of
the processor, by one thread, without loading and without the measurement afterwards; a run on a GPU counts for accuracy
alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

HERE = Path(__file__).parent / "results"
OUT, TEXTS = HERE / "few_shot.jsonl", Path(tempfile.gettempdir()) / "few_shot_texts.json"
BASES = Path(os.environ.get("FEW_SHOT_BASES", "~/.cache/tunedeck")).expanduser()
MINILM, E5 = "all-minilm-l6-v2", "multilingual-e5-small"
REVIEWS = {"train": "bundled:reviews-zh"}
SETS = {
    "tweets": (MINILM, {"train": "bundled:tweets"}),
    "reviews-zh": (MINILM, REVIEWS),
    "reviews-zh-e5": (E5, REVIEWS),
    "intents-en": (MINILM, {"train": "bundled:home-intents-en:train", "eval": "bundled:home-intents-en:test"}),
}
"""The base, and the data. MiniLM reads no Chinese."""
MOST_LABELS = 6
SIZES = (8, 16, 32, 64)
SEEDS = (0, 1, 2, 3, 4)
HELD_OUT = 300
CHARACTERS = 100
STUDENT_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}
"""Of a 95 % interval, by the number of seeds."""

Texts = list[tuple[str, str]]
Learn = Callable[[Path, Texts, Sequence[str], int], Callable[[Sequence[str]], list[str]]]
"""From a base, examples, labels and a seed to a function that labels texts."""


def split() -> None:
    """Write the training texts of each set, size and seed, and the texts to measure on."""
    import tunedeck as td

    found: dict[str, Any] = {}
    for name, (_, source) in SETS.items():
        data = td.Classify().read(td.DataSettings(**source, eval_size=3000))
        often = Counter(one.labels[0] for one in data.train)
        labels = [label for label in data.labels or () if often[label] >= SIZES[-1]]
        labels = labels[:: max(1, len(labels) // MOST_LABELS)][:MOST_LABELS]
        held_out = [(one.text[:CHARACTERS], one.labels[0]) for one in data.evaluation if one.labels[0] in labels]
        parts = {}
        for size, seed in product(SIZES, SEEDS):
            source_of_chance = random.Random(seed)
            parts[f"{size}-{seed}"] = [
                (one.text[:CHARACTERS], label)
                for label in labels
                for one in source_of_chance.sample([one for one in data.train if one.labels == (label,)], size)
            ]
        held_out = random.Random(0).sample(held_out, min(HELD_OUT, len(held_out)))
        found[name] = {"labels": labels, "held_out": held_out, "train": parts}
    TEXTS.write_text(json.dumps(found))


def tunedeck(method: str | None, refit: bool) -> Learn:
    """A run with the defaults of `tunedeck train`, or of its head only; with `--refit-head` or without."""

    def learn(base: Path, examples: Texts, labels: Sequence[str], seed: int) -> Callable[[Sequence[str]], list[str]]:
        import tunedeck as td
        from tunedeck.training.jobs import Job

        folder = Path(tempfile.mkdtemp())
        rows = [json.dumps({"text": text, "label": label}) for text, label in examples]
        (folder / "examples.jsonl").write_text("\n".join(rows))
        deck = td.Deck.load(str(base), td.Classify(labels=tuple(labels)), dtype="float32")
        deck.add("few", td.FullConfig("head") if method == "head" else td.LoraConfig(), seed=seed)
        began()
        job = Job(str(folder / "examples.jsonl"), td.TrainingSettings(seed=seed), refit)
        run = td.train(deck, {"few": job}, progress=False)["few"]
        shutil.rmtree(folder)
        if run.stopped not in ("finished", "early"):
            raise SystemExit(run.stopped)
        return lambda texts: [one.label for one in deck.predict(list(texts), adapter="few")]

    return learn


def peft(base: Path, examples: Texts, labels: Sequence[str], seed: int) -> Callable[[Sequence[str]], list[str]]:
    """PEFT's LoRA on the model with the classifier that transformers gives it, in transformers' Trainer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments, set_seed

    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(labels))
    config = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"])
    model = get_peft_model(model, config)
    rows = [{**tokenizer(text, truncation=True), "labels": list(labels).index(label)} for text, label in examples]
    arguments = TrainingArguments(
        tempfile.mkdtemp(),
        learning_rate=1e-3,
        per_device_train_batch_size=32,
        max_steps=100,
        save_strategy="no",
        report_to=[],
        seed=seed,
        disable_tqdm=True,
    )
    began()
    Trainer(model, arguments, train_dataset=rows, processing_class=tokenizer).train()

    def answer(texts: Sequence[str]) -> list[str]:
        model.eval()
        with torch.inference_mode():
            batch = tokenizer(list(texts), truncation=True, padding=True, return_tensors="pt").to(model.device)
            return [labels[place] for place in model(**batch).logits.argmax(-1)]

    return answer


def setfit(base: Path, examples: Texts, labels: Sequence[str], seed: int) -> Callable[[Sequence[str]], list[str]]:
    """SetFit with its defaults."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    model = SetFitModel.from_pretrained(str(base), labels=list(labels))
    texts, names = zip(*examples, strict=True)
    data = Dataset.from_dict({"text": list(texts), "label": [list(labels).index(name) for name in names]})
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        seed=seed,
        report_to="none",
        save_strategy="no",
        show_progress_bar=False,
        num_iterations=20 if len(examples) >= SIZES[-1] * len(labels) else None,
    )
    began()
    Trainer(model=model, args=arguments, train_dataset=data).train()
    return lambda texts: [str(one) for one in model.predict(list(texts))]


SIDES: dict[str, Learn] = {
    "probe": tunedeck("head", refit=False),
    "probe-refit": tunedeck("head", refit=True),
    "tunedeck": tunedeck(None, refit=False),
    "tunedeck-refit": tunedeck(None, refit=True),
    "peft": peft,
    "setfit": setfit,
}
_began = [0.0]


def began() -> None:
    """Count the processor's time from here."""
    _began[0] = time.process_time()


def on_gpu() -> bool:
    """Whether the sides run on a GPU."""
    import torch

    return torch.cuda.is_available()


def cases(sets: dict[str, Any]) -> Iterator[tuple[str, int, int]]:
    """All sets with few examples first, and each seed with all sets."""
    yield from ((name, size, seed) for size, seed, name in product(SIZES, SEEDS, sets))


def known() -> list[dict[str, Any]]:
    """The results so far."""
    return [json.loads(line) for line in OUT.read_text().splitlines()] if OUT.exists() else []


def run(side: str, minutes: float, wanted: Sequence[str], sizes: Sequence[int], seeds: Sequence[int]) -> None:
    """Run what is not known yet, until the time is over."""
    end, sets = time.monotonic() + 60 * minutes, json.loads(TEXTS.read_text())
    done = {(row["side"], row["data"], row["size"], row["seed"]) for row in known()}
    for name, size, seed in cases(sets):
        if (side, name, size, seed) in done or name not in wanted or size not in sizes or seed not in seeds:
            continue
        if time.monotonic() > end:
            return
        one = sets[name]
        answer = SIDES[side](BASES / SETS[name][0], [*map(tuple, one["train"][f"{size}-{seed}"])], one["labels"], seed)
        seconds = time.process_time() - _began[0]
        given = answer([text for text, _ in one["held_out"]])
        right = [own == label for own, (_, label) in zip(given, one["held_out"], strict=True)]
        row = {"side": side, "data": name, "size": size, "seed": seed}
        row |= {"accuracy": round(fmean(right), 4), "seconds": None if on_gpu() else round(seconds, 2)}
        with OUT.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def table() -> None:
    """Print mean accuracy over the seeds with a 95 % interval, and the mean seconds, as Markdown."""
    rows = known()
    print("| set | examples of each label | " + " | ".join(SIDES) + " |")
    print("|---|---|" + "---|" * len(SIDES))
    for name, size in product(SETS, SIZES):
        cells = []
        for side in SIDES:
            own = [row for row in rows if (row["side"], row["data"], row["size"]) == (side, name, size)]
            found = [row["accuracy"] for row in own]
            width = STUDENT_T[len(found)] * stdev(found) / len(found) ** 0.5 if len(found) > 1 else None
            spread = "" if width is None else f" ± {width:.3f}"
            times = [row["seconds"] for row in own if row["seconds"] is not None]
            seconds = f", {fmean(times):.1f} s" if times else ""
            cells.append(f"{fmean(found):.3f}{spread}{seconds}" if own else "-")
        if any(cell != "-" for cell in cells):
            print(f"| {name} | {size} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["split", "run", "table"])
    parser.add_argument("side", nargs="?", choices=list(SIDES))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--sets", nargs="*", default=[*SETS])
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    options = parser.parse_args()
    if options.what == "split":
        split()
    elif options.what == "run":
        run(options.side, options.minutes, options.sets, options.sizes, options.seeds)
    else:
        table()


if __name__ == "__main__":
    main()
