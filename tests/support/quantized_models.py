"""Tiny bases in NF4 and int8 for the tests: rows of 64, which NF4 takes."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers

import tunedeck as td
from support.tiny_models import LABELS, tiny_model, tiny_tokenizer
from tunedeck.core.compat.bitsandbytes import keep_backward_pass
from tunedeck.methods.base import MethodConfig
from tunedeck.models.precision import Dtype
from tunedeck.models.quantize import Quantize

_HOME = tempfile.TemporaryDirectory(prefix="tunedeck-tests-")
WIDE = {"hidden_size": 64, "head_dim": 16}
SCHEMES: tuple[Quantize, ...] = ("nf4", "int8")
FAMILIES = (("bert", "classifier"), ("llama", "causal"), ("gpt2", "causal"), ("modernbert", "classifier"))
KINDS: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(r=4, target_modules="all-linear"),
    "dora": td.LoraConfig(r=2, target_modules="all-linear", use_dora=True),
    "ia3": td.Ia3Config(),
    "bias": td.BiasConfig(),
    "seq_bn": td.BottleneckConfig("seq_bn"),
    "par_bn": td.BottleneckConfig("par_bn"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=5),
}


def task_of(form: str) -> Any:
    return td.Generate() if form == "causal" else td.Classify(labels=LABELS)


@cache
def wide_folder(model_type: str, form: str) -> str:
    """A tiny model with rows of 64, which nf4 takes."""
    folder = Path(_HOME.name) / f"{model_type}-{form}"
    tiny_model(model_type, form, **WIDE).save_pretrained(folder)
    tiny_tokenizer(model_type).save_pretrained(folder)
    return str(folder)


@cache
def _loaded(model_type: str, form: str, scheme: Quantize | None, dtype: Dtype) -> td.Deck:
    return td.Deck.load(wide_folder(model_type, form), task_of(form), dtype=dtype, quantize=scheme)


def deck_in(
    scheme: Quantize | None, model_type: str = "bert", form: str = "classifier", dtype: Dtype = "float32"
) -> td.Deck:
    """A deck on a base of its own."""
    first = _loaded(model_type, form, scheme, dtype)
    return td.Deck(replace(first.base, model=copy.deepcopy(first.model)), first.task)


def transformers_in_nf4(folder: str) -> Any:
    """The same base as transformers and bitsandbytes make it."""
    settings = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, quantization_config=settings, dtype=torch.float32)
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            keep_backward_pass(module)  # the other kernel computes in bfloat16
    return model.eval()
