"""Training a classifier: this engine beside peft + transformers.Trainer, by its defaults and tuned, taking turns.

LoRA r 8 on query and value, MiniLM-L6 on bundled tweets or multilingual-e5-small on bundled Chinese reviews, batches of
32, AdamW with a linear schedule, learning rate and seeds the same. `default` is what the documentation shows. `best` is
its best on a CPU with bfloat16, found by trying: weights in bfloat16, eager attention, batches of like length padded to
8, the base's dropout off, fused AdamW; `best, autocast` leaves the weights in float32. transformers' head reads the
first position through a pooler, which multilingual-e5-small does not have (a random one is put in), Tunedeck's there
the mean of the positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, TaskType, get_peft_model
from training import Opponent, Row, Side, Trained, clock, compete, one_step, options_of, settings_of, trained_by_trainer
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

import tunedeck as td
from tunedeck.core.bundle import fetch, read_bundles
from tunedeck.data.labelled import Example
from tunedeck.data.settings import DataSettings
from tunedeck.tasks.base import Dataset


@dataclass(frozen=True)
class Work:
    """A bundled model and what it is trained on."""

    model: str
    data: str
    max_length: int
    result: str
    """The name of the result file."""


WORK = {
    "minilm": Work("all-minilm-l6-v2", "tweets", 256, "train_classify"),
    "e5": Work("multilingual-e5-small", "reviews-zh", 128, "train_classify_e5"),
}
BATCH, RATE = 32, 1e-3
METHOD: dict[str, Any] = {"r": 8, "lora_alpha": 32, "target_modules": ["query", "value"]}
TUNED = {"attn_implementation": "eager", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
GROUPED = {"train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"}
OPPONENTS = {
    "default": Opponent(),
    "best": Opponent({"dtype": torch.bfloat16, **TUNED}, GROUPED, 8),
    "best, autocast": Opponent(TUNED, {**GROUPED, "bf16": True}, 8),
}


def main() -> None:
    options = options_of(__doc__, train_size=1600, eval_size=1500, rounds=3, models=tuple(WORK))
    work = WORK[options.model]
    data = td.Classify().read(
        DataSettings(train=f"bundled:{work.data}", train_size=options.train_size, eval_size=options.eval_size)
    )
    sides: dict[str, Side] = {"tunedeck": partial(train_by_tunedeck, work, data)}
    sides |= {name: peft(work, data, opponent) for name, opponent in OPPONENTS.items()}
    compete(
        work.result,
        "examples",
        options.train_size,
        sides,
        options,
        OPPONENTS,
        lambda: one_step(new_deck(work, data, 0), data, BATCH, RATE),
        __file__,
    )


def train_by_tunedeck(work: Work, data: Dataset[Example], seed: int) -> Trained:
    """One epoch by td.train, evaluated afterwards."""
    deck = new_deck(work, data, seed)
    hardly_evaluated = Dataset("", data.train, data.evaluation[:BATCH], "", "", data.labels)
    settings = settings_of(BATCH, RATE, seed)
    seconds = clock(lambda: td.train(deck, "a", hardly_evaluated, settings=settings, progress=False))
    wanted = [one.labels[0] for one in data.evaluation]
    answers = deck.predict([one.text for one in data.evaluation], adapter="a")
    return Trained(seconds, float(np.mean([a.label == w for a, w in zip(answers, wanted, strict=True)])))


def new_deck(work: Work, data: Dataset[Example], seed: int) -> td.Deck:
    """The base with a fresh adapter "a"."""
    pooling: Any = "model" if work.model == "all-minilm-l6-v2" else "auto"
    task = td.Classify(labels=data.labels, max_length=work.max_length, pooling=pooling)
    deck = td.Deck.load(f"bundled:{work.model}", task)
    deck.add("a", td.LoraConfig(**METHOD), seed=seed)
    return deck


def peft(work: Work, data: Dataset[Example], opponent: Opponent) -> Side:
    """One epoch by peft and the Trainer, evaluated afterwards by the Trainer."""
    folder = fetch(read_bundles("tunedeck.models")[work.model])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    labels = data.labels or ()
    evaluation = text_rows(tokenizer, data.evaluation, labels, work.max_length)
    wanted = np.array([row["labels"] for row in evaluation])

    def side(seed: int) -> Trained:
        torch.manual_seed(seed)
        base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(labels), **opponent.model)
        model = get_peft_model(base, LoraConfig(task_type=TaskType.SEQ_CLS, **METHOD))
        collator = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=opponent.pad_to)
        trainer, seconds = trained_by_trainer(
            model,
            lambda: text_rows(tokenizer, data.train, labels, work.max_length),
            collator,
            opponent,
            BATCH,
            RATE,
            seed,
        )
        answers = trainer.predict(evaluation).predictions.argmax(-1)
        return Trained(seconds, float((answers == wanted).mean()))

    return side


def text_rows(tokenizer: Any, examples: list[Example], labels: tuple[str, ...], max_length: int) -> list[Row]:
    """Tokenised examples."""
    found = tokenizer([one.text for one in examples], truncation=True, max_length=max_length)
    return [
        {**{key: found[key][i] for key in found}, "labels": labels.index(one.labels[0])}
        for i, one in enumerate(examples)
    ]


if __name__ == "__main__":
    main()
