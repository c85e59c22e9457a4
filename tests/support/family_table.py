"""Which family passes which method: tiny random models of each go through attach, train, save, load and merge.

`docs/methods/families.md` is written from here by `make pages`.
"""

from __future__ import annotations

import copy
import re
import tempfile
import textwrap
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing

import tunedeck as td
from support import labelled_words
from support.tiny_models import CLS, LABELS, PAD, SEP, VOCAB, difference, logits_of, stir, tiny_model, tiny_tokenizer
from tunedeck.core.i18n import language, set_language
from tunedeck.data.chat import Conversation, Message
from tunedeck.data.labelled import Example
from tunedeck.methods.base import MethodConfig
from tunedeck.tasks.base import Dataset

PAGE = Path(__file__).parents[2] / "docs" / "methods" / "families.md"
WIDE = {"hidden_size": 64, "head_dim": 16}  # NF4 takes rows of 64
ENCODER, DECODER = ("classifier",), ("classifier", "causal")
_HOME = tempfile.TemporaryDirectory(prefix="tunedeck-tests-")


@dataclass(frozen=True)
class Family:
    """A model type of transformers, the tasks it is tried for and the sizes it needs besides the usual."""

    name: str
    model_type: str
    forms: tuple[str, ...]
    sizes: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Outcome:
    """What became of one family, task and method; `refusal` is the error's text where the method was refused."""

    refusal: str | None
    merges: bool


_MLA = {"q_lora_rank": 64, "kv_lora_rank": 64, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 16}
_T5 = {"d_model": 64, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": PAD}
FAMILIES = (
    Family("BERT", "bert", ENCODER, WIDE),
    Family("RoBERTa", "roberta", ENCODER, WIDE),
    Family("XLM-R", "xlm-roberta", ENCODER, WIDE),
    Family("DistilBERT", "distilbert", ENCODER, WIDE),
    Family("ModernBERT", "modernbert", ENCODER, WIDE),
    Family("Llama", "llama", DECODER, WIDE),
    Family("Mistral", "mistral", DECODER, WIDE),
    Family("Qwen2", "qwen2", DECODER, WIDE),
    Family("Qwen3", "qwen3", DECODER, WIDE),
    Family("Gemma", "gemma", DECODER, WIDE),
    Family("Gemma 2", "gemma2", DECODER, WIDE),
    Family("Gemma 3 (text)", "gemma3_text", DECODER, WIDE),
    Family("GLM", "glm", DECODER, WIDE),
    Family("GLM-4", "glm4", DECODER, WIDE),
    Family("MiniCPM3", "minicpm3", DECODER, {"hidden_size": 64, "num_key_value_heads": 4, **_MLA}),
    Family("GPT-2", "gpt2", DECODER, WIDE),
    Family("T5", "t5", ENCODER, _T5),
)
METHODS: Mapping[str, tuple[str | None, MethodConfig]] = {
    "LoRA": (None, td.LoraConfig(target_modules="all-linear")),
    "LoRA on nf4": ("nf4", td.LoraConfig(target_modules="all-linear")),
    "LoRA on int8": ("int8", td.LoraConfig(target_modules="all-linear")),
    "DoRA": (None, td.LoraConfig(target_modules="all-linear", use_dora=True)),
    "(IA)³": (None, td.Ia3Config()),
    "seq_bn": (None, td.BottleneckConfig("seq_bn")),
    "double_seq_bn": (None, td.BottleneckConfig("double_seq_bn")),
    "par_bn": (None, td.BottleneckConfig("par_bn")),
    "prompt tuning": (None, td.PromptTuningConfig(num_virtual_tokens=4)),
    "prefix tuning": (None, td.PrefixTuningConfig(num_virtual_tokens=4)),
    "biases, norms": (None, td.BiasConfig()),
    "full": (None, td.FullConfig()),
    "top layer": (None, td.FullConfig(1)),
}
CASES = [(family, form, method) for family in FAMILIES for form in family.forms for method in METHODS]
WITHOUT_PREFIXES = ("DistilBERT", "ModernBERT", "MiniCPM3", "T5")
REFUSED: Mapping[tuple[str, str], str] = {
    **{("MiniCPM3", method): "bottleneck adapters need a known architecture" for method in METHODS if "_bn" in method},
    **{("T5", method): "bottleneck adapters need a known architecture" for method in METHODS if "_bn" in method},
    **{(name, "(IA)³"): "no default target_modules are known for this architecture" for name in ("MiniCPM3", "T5")},
    **{(name, "prefix tuning"): "prefix tuning is not supported on" for name in WITHOUT_PREFIXES},
    ("T5", "prompt tuning"): "prompt tuning is not supported on encoder-decoder models",
}
"""What is refused, by family and method, and how the error begins; everything else must pass."""


@cache
def folder_of(family: Family, form: str) -> str:
    """A model folder with its tokenizer; T5's puts an end token behind each text, from which its head reads."""
    folder = Path(_HOME.name) / f"{family.model_type}-{form}"
    tiny_model(family.model_type, form, **family.sizes).save_pretrained(folder)
    tokenizer = tiny_tokenizer(family.model_type)
    if family.model_type == "t5":
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing("$A [SEP]", special_tokens=[("[SEP]", SEP)])
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(folder)
    return str(folder)


@cache
def _loaded(family: Family, form: str, scheme: str | None) -> td.Deck:
    task: Any = td.Generate(max_length=32) if form == "causal" else td.Classify(labels=LABELS, max_length=32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # T5 keeps some linears unpacked, and says so
        return td.Deck.load(folder_of(family, form), task, dtype="float32", quantize=scheme)  # type: ignore[arg-type]


def deck_of(family: Family, form: str, scheme: str | None) -> td.Deck:
    """A deck on a base of its own."""
    first = _loaded(family, form, scheme)
    return td.Deck(replace(first.base, model=copy.deepcopy(first.model)), first.task)


def batch_of(family: Family) -> dict[str, torch.Tensor]:
    """Three rows of 6, 9 and 7 tokens, the last of each its end."""
    generator = torch.Generator().manual_seed(3)
    ids, mask = torch.full((3, 9), PAD), torch.zeros((3, 9), dtype=torch.long)
    for row, length in enumerate((6, 9, 7)):
        ids[row, :length] = torch.randint(4, VOCAB, (length,), generator=generator)
        ids[row, 0] = ids[row, 0] if family.model_type == "t5" else CLS
        ids[row, length - 1], mask[row, :length] = SEP, 1
    return {"input_ids": ids, "attention_mask": mask}


def dataset_of(form: str) -> Dataset[Any]:
    """Twelve examples, four of them held out."""
    pairs = labelled_words.rows(12)
    if form == "causal":
        chats = [Conversation((Message("user", text), Message("assistant", text.split()[0]))) for text, _ in pairs]
        return Dataset("chats", chats[:8], chats[8:], "0" * 64, "chats")
    examples = [Example(text, (label,)) for text, label in pairs]
    return Dataset("words", examples[:8], examples[8:], "0" * 64, "words", LABELS)


@cache
def outcome(family: Family, form: str, method: str) -> Outcome:
    """Attach, train two steps, save, load into a fresh deck, compare, merge; AssertionError where one of these
    fails.
    """
    scheme, config = METHODS[method]
    deck, batch = deck_of(family, form, scheme), batch_of(family)
    before = {key: value.clone() for key, value in deck.model.state_dict().items()}
    try:
        deck.add("one", config)
    except td.TunedeckError as error:
        return Outcome(str(error), merges=False)
    stir(deck, "one", amount=0.05)
    started = {key: value.clone() for key, value in deck.adapter("one").named_parameters()}
    settings = td.TrainingSettings(
        max_steps=2,
        batch_size=4,
        schedule="constant",
        warmup_ratio=0,
        metric_for_best_model="loss",
        head_init="random",
    )
    run = td.train(deck, "one", dataset_of(form), settings=settings, progress=False)
    assert run.measurement.steps == 2
    moved = [key for key, value in deck.adapter("one").named_parameters() if not torch.equal(value, started[key])]
    assert len(moved) == len(started), sorted(started.keys() - moved)
    assert all(torch.equal(value, before[key]) for key, value in deck.model.state_dict().items())
    trained = logits_of(deck, batch, "one")
    assert difference(trained, logits_of(deck, batch)) > 1e-4
    fresh = deck_of(family, form, scheme)
    with tempfile.TemporaryDirectory() as folder:
        deck.save("one", Path(folder) / "one")
        fresh.load_adapter(Path(folder) / "one")
    assert torch.equal(logits_of(fresh, batch, "one"), trained)
    return Outcome(None, _merges(deck, batch, trained))


def _merges(deck: td.Deck, batch: dict[str, torch.Tensor], trained: torch.Tensor) -> bool:
    """Whether the adapter can be written into the weights; then the merged model must answer the same."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            merged: Any = deck.merge("one", dequantize=True)
    except td.TunedeckError:
        return False
    with torch.no_grad():
        assert difference(merged(**batch).logits, trained) < 5e-5 * max(1.0, trained.abs().max().item())
    return True


def page() -> str:
    """The text of docs/methods/families.md, or of its twin in the language of the messages."""
    lines = ["| family | task | " + " | ".join(METHODS) + " |", "|---" * (2 + len(METHODS)) + "|"]
    notes: dict[str, int] = {}
    for family in FAMILIES:
        for form in family.forms:
            cells = [_cell(family, form, method, notes) for method in METHODS]
            task = "generate" if form == "causal" else "classify"
            lines.append(f"| {family.name} | {task} | " + " | ".join(cells) + " |")
    zh = language() == "zh"
    table = "\n".join(lines) + "\n\n"
    for english, ours in _CHINESE.items() if zh else ():
        table = table.replace(english, ours)
    for text, number in notes.items():
        note = f"{number}. 拒绝：{text}。" if zh else f"{number}. refused: {text}."
        table += textwrap.fill(note, 120, subsequent_indent="   ", break_on_hyphens=False) + "\n"
    return _INTRODUCTION_ZH + table + _REMARKS_ZH if zh else _INTRODUCTION + table + _REMARKS


def cells(text: str) -> dict[tuple[str, str, str], str]:
    """What a page says, by family, form and method."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    (_, _, *methods), *rest = rows
    return {
        (family, "causal" if task == "generate" else "classifier", method): cell
        for family, task, *found in rest
        for method, cell in zip(methods, found, strict=True)
    }


def _cell(family: Family, form: str, method: str, notes: dict[str, int]) -> str:
    found = outcome(family, form, method)
    if found.refusal is None:
        return "merges" if found.merges else "yes"
    text = re.split(r" ?[(（](?:known:|已知)", _refusal(family, form, method))[0]
    return f"no ({notes.setdefault(text, len(notes) + 1)})"


def _refusal(family: Family, form: str, method: str) -> str:
    """Refuse once more, in the language of the messages."""
    scheme, config = METHODS[method]
    with pytest.raises(td.TunedeckError) as refused:
        deck_of(family, form, scheme).add("one", config)
    return str(refused.value)


_INTRODUCTION = """---
hide: [toc]
---

# Model families

This page is written by `make pages` from tests/support/family_table.py; do not edit it. Each cell is a tiny
random model that was given an adapter, trained for two steps on a CPU, saved, loaded into a new deck
and compared: the logits are the same to the last bit, every tensor of the adapter has changed, and the base has not.
"merges" means that the adapter was also written into the weights and the plain transformers model gave the same
logits. Random weights show that the mechanism works on an architecture, not how well a real checkpoint learns. Not
measured on a GPU.

"""
_REMARKS = """
LoRA and DoRA are on every linear layer here (`target_modules: all-linear`), the others have their default settings.
MiniCPM3 and T5 have no default targets: name some, or use all of them. T5 is tested as a classifier, which reads the
end token of its decoder; its tokenizer must put one after every text, as T5's does. T5 for generation is not supported.
On a quantized base, merging needs `dequantize=True`; full fine-tuning is refused there.

Models with their own code (ChatGLM2 and 3, Qwen v1, MiniCPM) are loaded from a folder or a hub with
`trust_remote_code: true` (`--trust-remote-code`), which is off by default. Their module names are in
`core/architectures.toml`. What is tested is a stand-in with those names and shapes written for the test, not their
code, which was written for older versions of transformers.
"""
_CHINESE = {
    "family": "家族",
    "task": "任务",
    "LoRA on": "LoRA，基座",
    "prompt tuning |": "提示微调 |",
    "prefix tuning |": "前缀微调 |",
    "biases, norms |": "偏置与归一化层 |",
    "| full |": "| 全量 |",
    "top layer": "最上一层",
    "merges": "能合并",
    "yes": "可以",
    "| no (": "| 不行 (",
}
_INTRODUCTION_ZH = """---
hide: [toc]
---

# 模型家族

本页由 `make pages` 从 tests/support/family_table.py 生成，请不要手改。每一格都是一个极小的随机模型：加上适配器，在 CPU 上训练两步，
保存，加载到新的 deck 里比较：logits 一位不差，适配器的每个张量都变了，基座没有变。“能合并”表示还把适配器写进了权重，
普通的 transformers 模型给出同样的 logits。随机权重只说明机制在这种架构上行得通，不说明真正的模型学得多好。没有在 GPU 上测过。

"""
_REMARKS_ZH = """
这里 LoRA 和 DoRA 加在所有线性层上（`target_modules: all-linear`），其他方法用默认设置。MiniCPM3 和 T5 没有默认的目标层：
请自己写，或者全用。T5 是作为分类器测的，读解码器的结束词元；分词器要像 T5 自己的那样在每条文本后面加上它。
不支持用 T5 做生成。在量化的基座上，合并要加 `dequantize=True`，全量微调会被拒绝。

自带代码的模型（ChatGLM2 和 3、Qwen v1、MiniCPM）要写 `trust_remote_code: true`（`--trust-remote-code`），
从文件夹或模型仓库加载，默认关闭。它们的模块名在 `core/architectures.toml` 里。
测的是为测试写的、名字和形状相同的替身，不是它们自己的代码，那些代码是为旧版 transformers 写的。
"""


if __name__ == "__main__":
    for chosen, place in (("en", PAGE), ("zh", PAGE.with_suffix(".zh.md"))):
        set_language(chosen)
        place.write_text(page(), encoding="utf-8")
