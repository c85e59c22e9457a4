"""Training a classifier: this engine beside peft + transformers.Trainer, by its defaults and tuned, taking turns.

MiniLM-L6, LoRA r 8 on query and value, bundled tweets, batches of 32, AdamW with a linear schedule, learning rate and seeds the same.
`default` is what the documentation shows. `best` is its best on a CPU with bfloat16, found by trying: weights in bfloat16, eager
attention, batches of like length padded to 8, the base's dropout off, fused AdamW; `best, autocast` leaves the weights in float32.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers
from peft import LoraConfig as PeftLoraConfig
from peft import TaskType, get_peft_model
from torch.utils.data import Dataset as TorchDataset
from training import Side, Trained, clock, peak_of, print_peak, product_share, report, take_turns
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer
from transformers import TrainingArguments as Arguments

import tunedeck as td
from tunedeck.core.bundle import fetch, read_bundles
from tunedeck.data.batches import length_batches
from tunedeck.data.labelled import Example
from tunedeck.data.settings import DataSettings
from tunedeck.tasks.base import Dataset

MODEL = "bundled:all-minilm-l6-v2"
BATCH, RATE, MAX_LENGTH = 32, 1e-3, 256
METHOD: dict[str, Any] = {"r": 8, "lora_alpha": 32, "target_modules": ["query", "value"]}
DROPOUTS = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
OPPONENTS: dict[str, tuple[dict[str, Any], dict[str, Any], int | None]] = {
    "default": ({}, {}, None),
    "best": (
        {"dtype": torch.bfloat16, "attn_implementation": "eager", **DROPOUTS},
        {"train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"},
        8,
    ),
    "best, autocast": (
        {"attn_implementation": "eager", **DROPOUTS},
        {"train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused", "bf16": True},
        8,
    ),
}
"""Settings of the model, of the Trainer, and what batches are padded to a multiple of."""


class Texts(TorchDataset[dict[str, Any]]):
    """Tokenised examples as the Trainer wants them."""

    def __init__(self, tokenizer: Any, examples: list[Example], labels: tuple[str, ...]) -> None:
        found = tokenizer([one.text for one in examples], truncation=True, max_length=MAX_LENGTH)
        self.rows = [
            {**{key: found[key][i] for key in found}, "labels": labels.index(one.labels[0])}
            for i, one in enumerate(examples)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train-size", type=int, default=1600)
    parser.add_argument("--eval-size", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak-of", help="train by this side once and print the peak memory of the process")
    options = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    data = td.Classify().read(
        DataSettings(train="bundled:tweets", train_size=options.train_size, eval_size=options.eval_size)
    )
    sides: dict[str, Side] = {"tunedeck": tunedeck(data), **{name: peft(data, name) for name in OPPONENTS}}
    if options.peak_of:
        print_peak(sides[options.peak_of])
        return
    sizes = ["--train-size", str(options.train_size), "--eval-size", str(options.eval_size)]
    peaks = {side: peak_of(__file__, side, sizes) for side in sides}
    found = take_turns(sides, options.rounds)
    settings = {name: {"model": str(m), "trainer": t, "pad_to": p} for name, (m, t, p) in OPPONENTS.items()}
    facts = {"train_size": options.train_size, "eval_size": options.eval_size, "rounds": options.rounds,
             "product_share": round(product_share(one_step(data)), 3), "opponents": settings}  # fmt: skip
    report("train_classify", "examples", options.train_size, found, peaks, facts)


def tunedeck(data: Dataset[Example]) -> Side:
    """One epoch by td.train, evaluated afterwards."""

    def side(seed: int) -> Trained:
        deck = new_deck(data, seed)
        settings = td.TrainingSettings(epochs=1, batch_size=BATCH, learning_rate=RATE, seed=seed, schedule="linear", warmup=0.0, weight_decay=0.0)  # fmt: skip
        without_evaluation = Dataset("", data.train, data.evaluation[:BATCH], "", "", data.labels)
        seconds = clock(lambda: td.train(deck, "a", without_evaluation, settings=settings, progress=False))
        wanted = [one.labels[0] for one in data.evaluation]
        answers = deck.predict([one.text for one in data.evaluation], adapter="a")
        return Trained(seconds, float(np.mean([a.label == w for a, w in zip(answers, wanted, strict=True)])))

    return side


def new_deck(data: Dataset[Example], seed: int) -> td.Deck:
    """The base with a fresh adapter "a"."""
    deck = td.Deck.load(MODEL, td.Classify(labels=data.labels, max_length=MAX_LENGTH))
    deck.add("a", td.LoraConfig(**METHOD), seed=seed)
    return deck


def peft(data: Dataset[Example], name: str) -> Side:
    """One epoch by peft and the Trainer, evaluated afterwards by the Trainer."""
    of_model, of_trainer, pad_to = OPPONENTS[name]
    folder = fetch(read_bundles("tunedeck.models")[MODEL.removeprefix("bundled:")])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    labels = data.labels or ()
    evaluation = Texts(tokenizer, data.evaluation, labels)
    wanted = np.array([row["labels"] for row in evaluation.rows])

    def side(seed: int) -> Trained:
        torch.manual_seed(seed)
        base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(labels), **of_model)
        config = PeftLoraConfig(task_type=TaskType.SEQ_CLS, **METHOD)
        with tempfile.TemporaryDirectory() as out:
            arguments = Arguments(
                out, num_train_epochs=1, per_device_train_batch_size=BATCH, per_device_eval_batch_size=BATCH, learning_rate=RATE,
                seed=seed, use_cpu=True, report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True, **of_trainer,
            )  # fmt: skip
            collator = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=pad_to)

            def train() -> Trainer:
                train_set = Texts(tokenizer, data.train, labels)
                trainer = Trainer(
                    get_peft_model(base, config), arguments, train_dataset=train_set, data_collator=collator
                )
                trainer.train()
                return trainer

            held: list[Trainer] = []
            seconds = clock(lambda: held.append(train()))
            answers = held[0].predict(evaluation).predictions.argmax(-1)
        return Trained(seconds, float((answers == wanted).mean()))

    return side


def one_step(data: Dataset[Example]) -> Callable[[], object]:
    """One step after another, forward, backward and update, as the engine takes them."""
    deck = new_deck(data, 0)
    adapter = deck.adapter("a").train()
    course = td.Classify(labels=data.labels, max_length=MAX_LENGTH).course(deck, "a", data)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=RATE, fused=True)
    batches = iter(length_batches(course.lengths, BATCH, 0))

    def step() -> None:
        loss, _ = course.loss(next(batches))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
