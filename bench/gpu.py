"""Training 7B-class models on a GPU: this engine beside peft + transformers.Trainer, LoRA and QLoRA, taking turns.

    python bench/gpu.py                     # Mistral-7B and Qwen2.5-7B shapes, random weights, on the GPU at hand
    python bench/gpu.py --shapes tiny       # a minute on a CPU, to see that it runs

Conversations of random words have a realistic mix of lengths (log-normal, median 300 tokens, at most 2048). Both sides:
bfloat16, LoRA r 16 on all linears, AdamW, with and without activation checkpointing. peft has SDPA, batches of 4 of
like length, accumulated to 16; this engine packs conversations into rows of up to 2048 tokens, 4 in a batch and a step.
The first 16 conversations warm up each side. Tokens/s count real tokens; MFU counts the products of the base alone (4
per parameter and token).
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import peft
import torch
import transformers
from peft import LoraConfig as PeftLoraConfig
from peft import TaskType, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from train_generate import chat_rows
from training import RESULTS, clock
from transformers import AutoConfig, DataCollatorForSeq2Seq, PreTrainedTokenizerFast, Trainer
from transformers import TrainingArguments as Arguments

import tunedeck as td
from tunedeck.core.errors import ConfigError
from tunedeck.core.model_spec import ModelSpec
from tunedeck.data.chat import Conversation, Message
from tunedeck.models.load import LoadedBase
from tunedeck.models.quantize import quantize_linears
from tunedeck.planner.catalogue import find_gpu
from tunedeck.tasks.base import Dataset

SHAPES: dict[str, dict[str, Any]] = {
    "mistral-7b": {
        "model_type": "mistral",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
    "qwen2.5-7b": {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
    "tiny": {
        "model_type": "llama",
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 256,
        "vocab_size": 512,
        "max_position_embeddings": 4096,
    },
}
BATCH, ACCUMULATION, RANK, LONGEST = 4, 4, 16, 2048
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=["mistral-7b", "qwen2.5-7b"], choices=list(SHAPES))
    parser.add_argument("--conversations", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quantize", nargs="*", default=["no", "nf4"], choices=["no", "nf4"])
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    options = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result = {
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "conversations": options.conversations,
        "rounds": options.rounds,
        "rows": [],
    }
    for shape in options.shapes:
        for quantize in options.quantize:
            for row in measure(shape, quantize == "nf4", device, options.conversations, options.rounds):
                text = json.dumps({**result, "rows": [*result["rows"], row]}, indent=1)
                if device.type == "cuda":
                    options.out.write_text(text + "\n", encoding="utf-8")
            result["rows"].append(row)
            print(json.dumps(row, indent=1), flush=True)


def measure(shape: str, four_bit: bool, device: torch.device, count: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Median tokens/s and peak memory of both sides for one model, after each round."""
    base = random_base(SHAPES[shape], four_bit, device)
    data = conversations(count, SHAPES[shape]["vocab_size"])
    tokens = sum(len(row["input_ids"]) for row in chat_rows(base.tokenizer, data))
    sides = {
        f"{name}, {'checkpointing' if checkpointing else 'whole'}": partial(side, base, checkpointing=checkpointing)
        for checkpointing in (False, True)
        for name, side in (("tunedeck", by_tunedeck), ("peft", by_peft))
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    peaks: dict[str, int] = {}
    failed: dict[str, str] = {}
    parameters = sum(part.parameters for part in td.Deck(base, td.Generate()).base_parts())
    for number in range(rounds + 1):
        for name, side in sides.items():
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            if name in failed:
                continue
            try:
                taken = clock(partial(side, data if number else data[:16]))
            except torch.OutOfMemoryError as error:
                failed[name] = str(error).split(". ")[0]
                restore(base)
                continue
            print(f"round {number} {name}: {taken:.1f} s", file=sys.stderr, flush=True)
            peaks[name] = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
            if number:
                seconds[name].append(taken)
        if not number:
            continue
        found = {name: median(values) for name, values in seconds.items() if name not in failed}
        best = {side: min(s for name, s in found.items() if name.startswith(side)) for side in ("tunedeck", "peft")}
        yield {
            "shape": shape,
            "quantize": "nf4" if four_bit else None,
            "parameters": parameters,
            "tokens": tokens,
            "faster": round(best["peft"] / best["tunedeck"], 2),
            "out_of_memory": failed,
            "seconds": seconds,
            "tokens_per_s": {name: round(tokens / s, 1) for name, s in found.items()},
            "mfu": {name: round(4 * parameters * tokens / s / peak_rate(device), 3) for name, s in found.items()},
            "peak_memory_bytes": peaks,
        }


def peak_rate(device: torch.device) -> float:
    """16-bit products a second of the GPU; 1e12 for one that is not in the catalogue."""
    try:
        return find_gpu(torch.cuda.get_device_name()).tensor_flops_per_s if device.type == "cuda" else 1e12
    except ConfigError:
        return 1e12


def random_base(shape: dict[str, Any], four_bit: bool, device: torch.device) -> LoadedBase:
    """A model of that shape with random weights, frozen, made where it is used."""
    config = AutoConfig.for_model(**shape, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(0)
    with device:
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa" if device.type == "cuda" else "eager"
        )
    model.requires_grad_(False).eval()
    if four_bit:
        quantize_linears(model, "model", "nf4", torch.bfloat16, device)
    words = {f"w{number}": number for number in range(config.vocab_size)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w3"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="w0", bos_token="w1", eos_token="w2")
    spec = ModelSpec.from_config(config.to_dict())
    return LoadedBase(model, fast, "random", "model", spec, (), "", "nf4" if four_bit else None)


def conversations(count: int, vocabulary: int) -> list[Conversation]:
    """Questions and answers of random words; two thirds of each is the answer."""
    chooser = random.Random(0)
    found = []
    for _ in range(count):
        length = min(LONGEST - 2, max(16, round(chooser.lognormvariate(5.7, 0.8))))
        words = [f"w{chooser.randrange(4, vocabulary)}" for _ in range(length)]
        cut = length // 3
        found.append(
            Conversation((Message("user", " ".join(words[:cut])), Message("assistant", " ".join(words[cut:]))))
        )
    return found


def by_tunedeck(base: LoadedBase, data: list[Conversation], *, checkpointing: bool) -> None:
    """One epoch."""
    deck = td.Deck(base, td.Generate(max_length=LONGEST, packing=True))
    deck.add("a", td.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear"))
    settings = td.TrainingSettings(
        epochs=1, batch_size=BATCH, learning_rate=1e-4, gradient_checkpointing=checkpointing
    )  # rows of about four conversations
    td.train(deck, "a", Dataset("", data, data[:1], "", ""), settings=settings, progress=False)
    deck.remove("a")


def by_peft(base: LoadedBase, data: list[Conversation], *, checkpointing: bool) -> None:
    """One epoch."""
    config = PeftLoraConfig(
        task_type=TaskType.CAUSAL_LM, r=RANK, lora_alpha=2 * RANK, target_modules=[*TARGETS], lora_dropout=0.0
    )
    model = get_peft_model(base.model, config)
    with tempfile.TemporaryDirectory() as out:
        arguments = Arguments(
            out,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=ACCUMULATION,
            learning_rate=1e-4,
            bf16=True,
            gradient_checkpointing=checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            optim="adamw_torch_fused",
            train_sampling_strategy="group_by_length",
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=base.model.device.type == "cpu",
        )
        collator = DataCollatorForSeq2Seq(base.tokenizer, pad_to_multiple_of=8)
        Trainer(model, arguments, train_dataset=chat_rows(base.tokenizer, data), data_collator=collator).train()
    model.unload()
    restore(base)


def restore(base: LoadedBase) -> None:
    """Take away what a side has put into the model and may have left there on its way out of memory."""
    for path, module in list(base.model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            base.model.set_submodule(path, module.get_base_layer())
    if hasattr(base.model, "peft_config"):
        del base.model.peft_config
    base.model.gradient_checkpointing_disable()
    base.model.requires_grad_(False).eval()
    gc.collect()


if __name__ == "__main__":
    main()
