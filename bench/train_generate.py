"""Training a chat model: this engine beside peft + transformers.Trainer, by its defaults and tuned, taking turns.

SmolLM2-135M, LoRA r 8 on all linears, questions and answers about medical terms (20 to 160 tokens), batches of 8, AdamW with a linear
schedule, loss on the answers alone, learning rate and seeds the same. `default` is what the documentation shows. `best` is its best on a
CPU with bfloat16, found by trying: weights in bfloat16, eager attention, batches of like length padded to 8, fused AdamW.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig as PeftLoraConfig
from peft import TaskType, get_peft_model
from torch.utils.data import Dataset as TorchDataset
from training import Side, Trained, clock, peak_of, print_peak, product_share, report, take_turns
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer
from transformers import TrainingArguments as Arguments

import tunedeck as td
from tunedeck.core.bundle import cache_folder
from tunedeck.core.storage import replacing_folder
from tunedeck.data.batches import length_batches
from tunedeck.data.chat import Conversation
from tunedeck.data.settings import DataSettings
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.chat_tokens import encode_conversation

MODEL = "bundled:smollm2-135m-instruct"
BATCH, RATE, MAX_LENGTH = 8, 5e-4, 256
OPPONENTS: dict[str, tuple[dict[str, Any], dict[str, Any], int | None]] = {
    "default": ({}, {}, None),
    "best": (
        {"dtype": torch.bfloat16, "attn_implementation": "eager"},
        {"train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"},
        8,
    ),
}
"""Settings of the model, of the Trainer, and what batches are padded to a multiple of."""


class Chats(TorchDataset[dict[str, Any]]):
    """Tokenised conversations as the Trainer wants them; what is not learnt has the label -100."""

    def __init__(self, tokenizer: Any, conversations: list[Conversation]) -> None:
        encoded = [encode_conversation(tokenizer, one) for one in conversations]
        self.rows = [
            {
                "input_ids": one.ids,
                "attention_mask": [1] * len(one.ids),
                "labels": [token if learnt else -100 for token, learnt in zip(one.ids, one.learnt, strict=True)],
            }
            for one in encoded
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train-size", type=int, default=320)
    parser.add_argument("--eval-size", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peak-of", help="train by this side once and print the peak memory of the process")
    options = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    data = td.Generate(max_length=MAX_LENGTH).read(
        DataSettings(train="bundled:medical-terms:train", eval="bundled:medical-terms:test", train_size=options.train_size, eval_size=options.eval_size)
    )  # fmt: skip
    sides: dict[str, Side] = {"tunedeck": tunedeck(data), **{name: peft(data, name) for name in OPPONENTS}}
    if options.peak_of:
        print_peak(sides[options.peak_of])
        return
    sizes = ["--train-size", str(options.train_size), "--eval-size", str(options.eval_size)]
    peaks = {side: peak_of(__file__, side, sizes) for side in sides}
    found = take_turns(sides, options.rounds)
    deck = new_deck(0)
    tokens = sum(data_course(deck, data).lengths)
    settings = {name: {"model": str(m), "trainer": t, "pad_to": p} for name, (m, t, p) in OPPONENTS.items()}
    facts = {"train_size": options.train_size, "eval_size": options.eval_size, "rounds": options.rounds, "tokens": tokens,
             "product_share": round(product_share(one_step(deck, data), 5), 3), "opponents": settings}  # fmt: skip
    report("train_generate", "tokens", tokens, found, peaks, facts)


def tunedeck(data: Dataset[Conversation]) -> Side:
    """One epoch by td.train, its evaluation at the end taken from the time."""

    def side(seed: int) -> Trained:
        deck = new_deck(seed)
        settings = td.TrainingSettings(epochs=1, batch_size=BATCH, learning_rate=RATE, seed=seed, schedule="linear", warmup=0.0, weight_decay=0.0)  # fmt: skip
        runs: list[td.TrainingRun] = []
        seconds = clock(lambda: runs.append(td.train(deck, "a", data, settings=settings, progress=False)))
        return Trained(seconds - runs[0].measurement.eval_s, runs[0].metrics["loss"])

    return side


def plain_folder() -> Path:
    """The model as float32 safetensors: the Trainer refuses one that was loaded from a GGUF file."""
    folder = cache_folder() / "bench-smollm2-135m-instruct"
    if not folder.exists():
        deck = td.Deck.load(MODEL, td.Generate(), dtype="float32")
        deck.add("nothing", td.LoraConfig())  # a fresh adapter changes nothing
        plain: Any = deck.merge("nothing")
        if hasattr(plain.config, "quantization_config"):
            del plain.config.quantization_config
        with replacing_folder(folder) as staging:
            plain.save_pretrained(staging)
            deck.tokenizer.save_pretrained(staging)
    return folder


def new_deck(seed: int) -> td.Deck:
    """The base with a fresh adapter "a"."""
    deck = td.Deck.load(str(plain_folder()), td.Generate(max_length=MAX_LENGTH))
    deck.add("a", td.LoraConfig(r=8, lora_alpha=32, target_modules="all-linear"), seed=seed)
    return deck


def data_course(deck: td.Deck, data: Dataset[Conversation]) -> Any:
    """The data as the engine works through it."""
    return td.Generate(max_length=MAX_LENGTH).course(deck, "a", data)


def peft(data: Dataset[Conversation], name: str) -> Side:
    """One epoch by peft and the Trainer; the held-out loss is computed by the same code for every side."""
    of_model, of_trainer, pad_to = OPPONENTS[name]
    folder = plain_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    evaluation = Chats(tokenizer, data.evaluation)

    def side(seed: int) -> Trained:
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(folder, **of_model)
        config = PeftLoraConfig(task_type=TaskType.CAUSAL_LM, r=8, lora_alpha=32, target_modules="all-linear")
        with tempfile.TemporaryDirectory() as out:
            arguments = Arguments(
                out, num_train_epochs=1, per_device_train_batch_size=BATCH, learning_rate=RATE, seed=seed, use_cpu=True,
                report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True, **of_trainer,
            )  # fmt: skip
            collator = DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=pad_to)
            held: list[Any] = []

            def train() -> None:
                model = get_peft_model(base, config)
                trainer = Trainer(model, arguments, train_dataset=Chats(tokenizer, data.train), data_collator=collator)
                trainer.train()
                held.append(trainer.model)

            seconds = clock(train)
        return Trained(seconds, held_out_loss(held[0], evaluation, collator))

    return side


@torch.inference_mode()
def held_out_loss(model: Any, evaluation: Chats, collator: Any) -> float:
    """Mean loss of a learnt token."""
    model.eval()
    total, count = 0.0, 0
    for start in range(0, len(evaluation), 16):
        batch = collator([dict(row) for row in evaluation.rows[start : start + 16]])
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].float()
        targets = batch["labels"][:, 1:]
        total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
        count += int((targets >= 0).sum())
    return total / count


def one_step(deck: td.Deck, data: Dataset[Conversation]) -> Callable[[], object]:
    """One step after another, forward, backward and update, as the engine takes them."""
    adapter = deck.adapter("a").train()
    course = data_course(deck, data)
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
