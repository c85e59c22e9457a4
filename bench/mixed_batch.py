"""One batch, many adapters: the deck beside the bare base, beside peft's mixed batches, and beside one call per
adapter.

The sides take turns in one process; medians and ratios are printed and written to bench/results/mixed_batch.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from turns import take_turns

import tunedeck as td
from tunedeck.core.measurement import this_machine

RESULTS = Path(__file__).parent / "results" / "mixed_batch.json"
TARGETS = ("query", "value")
SIZES = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--adapters", type=int, default=32)
    arguments = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    results = [measure(length, arguments.adapters, arguments.rounds) for length in (1, 32, 128)]
    RESULTS.parent.mkdir(exist_ok=True)
    machine = this_machine()
    RESULTS.write_text(
        json.dumps({"cpu": machine.cpu, "cores": machine.cpu_cores, "rows": results}, indent=2) + "\n", encoding="utf-8"
    )


def measure(length: int, adapters: int, rounds: int) -> dict[str, float]:
    """Median milliseconds for a batch of one row per adapter, every row `length` tokens; float32."""
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        model = transformers.AutoModelForSequenceClassification.from_config(transformers.BertConfig(**SIZES))
        model.save_pretrained(folder)
        deck = td.Deck.load(folder, td.Classify(labels=("a", "b"), pooling="model"), dtype="float32")
    names = [f"a{index}" for index in range(adapters)]
    for name in names:
        deck.add(name, td.LoraConfig(target_modules=TARGETS))
    peft = get_peft_model(model.eval(), PeftLoraConfig(target_modules=list(TARGETS)), adapter_name=names[0])
    for name in names[1:]:
        peft.add_adapter(name, PeftLoraConfig(target_modules=list(TARGETS)))
    peft.eval()
    ids = torch.randint(100, 30000, (adapters, length))
    mask = torch.ones_like(ids)
    sides: dict[str, Callable[[], object]] = {
        "base": lambda: deck(ids, mask),
        "deck": lambda: deck(ids, mask, adapter=names),
        "deck, one call per adapter": lambda: [
            deck(ids[i : i + 1], mask[i : i + 1], adapter=n) for i, n in enumerate(names)
        ],
        "peft, adapter_names": lambda: peft(input_ids=ids, attention_mask=mask, adapter_names=names),
    }
    taken = take_turns(sides, rounds)
    row = {"length": length, "adapters": adapters, **{f"{name}, ms": round(1000 * s, 3) for name, s in taken.items()}}
    row |= {f"{name} / base": round(s / taken["base"], 3) for name, s in taken.items()}
    print(json.dumps(row, indent=2))
    return row


if __name__ == "__main__":
    main()
