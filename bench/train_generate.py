"""Training a chat model: this engine beside peft + transformers.Trainer, by its defaults and tuned, taking turns.

SmolLM2-135M, LoRA r 8 on all linears, questions and answers about medical terms (20 to 160 tokens), batches of 8, AdamW
with a linear schedule, loss on the answers alone, learning rate and seeds the same. `default` is what the documentation
shows. `best` is its best on a CPU with bfloat16, found by trying: weights in bfloat16, eager attention, batches of like
length padded to 8, fused AdamW.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model
from training import Opponent, Row, Side, Trained, clock, compete, one_step, options_of, settings_of, trained_by_trainer
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq

import tunedeck as td
from tunedeck.core.bundle import cache_folder
from tunedeck.core.storage import replacing_folder
from tunedeck.data.chat import Conversation
from tunedeck.data.settings import DataSettings
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.generate.chat_tokens import encode_conversation

MODEL = "bundled:smollm2-135m-instruct"
BATCH, RATE, MAX_LENGTH = 8, 5e-4, 256
METHOD: dict[str, Any] = {"r": 8, "lora_alpha": 32, "target_modules": "all-linear"}
OPPONENTS = {
    "default": Opponent(),
    "best": Opponent(
        {"dtype": torch.bfloat16, "attn_implementation": "eager"},
        {"train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"},
        8,
    ),
}


def main() -> None:
    options = options_of(__doc__, train_size=320, eval_size=200, rounds=2)
    data = td.Generate(max_length=MAX_LENGTH).read(
        DataSettings(
            train="bundled:medical-terms:train",
            eval="bundled:medical-terms:test",
            train_size=options.train_size,
            eval_size=options.eval_size,
        )
    )
    sides: dict[str, Side] = {"tunedeck": tunedeck(data)}
    sides |= {name: peft(data, opponent) for name, opponent in OPPONENTS.items()}
    tokens = sum(len(row["input_ids"]) for row in chat_rows(AutoTokenizer.from_pretrained(plain_folder()), data.train))
    compete(
        "train_generate",
        "tokens",
        tokens,
        sides,
        options,
        OPPONENTS,
        lambda: one_step(new_deck(0), data, BATCH, RATE),
        __file__,
    )


def tunedeck(data: Dataset[Conversation]) -> Side:
    """One epoch by td.train, its evaluation at the end taken from the time."""

    def side(seed: int) -> Trained:
        deck = new_deck(seed)
        runs: list[td.TrainingRun] = []
        settings = settings_of(BATCH, RATE, seed)
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
    deck.add("a", td.LoraConfig(**METHOD), seed=seed)
    return deck


def peft(data: Dataset[Conversation], opponent: Opponent) -> Side:
    """One epoch by peft and the Trainer; the held-out loss is the mean over learnt tokens, as the engine's."""
    folder = plain_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    evaluation = chat_rows(tokenizer, data.evaluation)

    def side(seed: int) -> Trained:
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(folder, **opponent.model)
        model = get_peft_model(base, LoraConfig(task_type=TaskType.CAUSAL_LM, **METHOD))
        collator = DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=opponent.pad_to)
        trainer, seconds = trained_by_trainer(
            model, lambda: chat_rows(tokenizer, data.train), collator, opponent, BATCH, RATE, seed
        )
        return Trained(seconds, held_out_loss(trainer.model, evaluation, collator))

    return side


def chat_rows(tokenizer: Any, conversations: list[Conversation]) -> list[Row]:
    """Tokenised conversations; what is not learnt has the label -100."""
    encoded = [encode_conversation(tokenizer, one) for one in conversations]
    return [
        {
            "input_ids": one.ids,
            "attention_mask": [1] * len(one.ids),
            "labels": [token if counted else -100 for token, counted in zip(one.ids, one.loss_mask, strict=True)],
        }
        for one in encoded
    ]


@torch.inference_mode()
def held_out_loss(model: Any, evaluation: list[Row], collator: Any) -> float:
    """Mean loss of a learnt token."""
    model.eval()
    total, count = 0.0, 0
    for start in range(0, len(evaluation), 16):
        batch = collator([dict(row) for row in evaluation[start : start + 16]])
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].float()
        targets = batch["labels"][:, 1:]
        total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
        count += int((targets >= 0).sum())
    return total / count


if __name__ == "__main__":
    main()
