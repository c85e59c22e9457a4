"""What is attacked: a base, adapters of every kind in a folder, and what each of them answers when it is alone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from attack_clients import WORDS
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

import tunedeck as td
from tunedeck.tasks.text_head import text_ids

KINDS = {
    "lora": td.LoraConfig(r=8),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=8),
    "bottleneck": td.BottleneckConfig("seq_bn"),
    "lora-all": td.LoraConfig(r=4, target_modules="all-linear"),
    "prompt-long": td.PromptTuningConfig(num_virtual_tokens=100),
    "bottleneck-double": td.BottleneckConfig("double_seq_bn"),
    "lora-churned": td.LoraConfig(r=8),
    "prompt-churned": td.PromptTuningConfig(num_virtual_tokens=16),
}
"""The first two have different lengths to cut a text to; those that are `churned` are unloaded and loaded again."""
LABELS = ("a", "b", "c")
SHORT, LONG = {"classify": 8, "generate": 3}, {"classify": 3, "generate": 0}
"""How many texts of up to 20 words, and of 300 to 900 words, which are cut; one request of twelve has a long one."""
TOKENS = 8
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
    "vocab_size": len(SPECIAL) + len(WORDS),
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@dataclass(frozen=True, slots=True)
class Target:
    """A base by its reference, a folder of adapters, and questions as JSON: path, body, expected answer, weight."""

    base: str
    adapters: Path
    questions: list[dict[str, Any]]


def target_of(base: str, task: str, folder: Path) -> Target:
    """Save the adapters and let each one answer; `base` may be "tiny"."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)  # one text after the other, beside whatever else runs
    reference = str(tiny_base(folder / "tiny", task)) if base == "tiny" else base
    chosen = td.Generate() if task == "generate" else td.Classify(labels=LABELS)
    deck = td.Deck.load(reference, chosen, dtype="float32")
    chance, questions = random.Random(0), []
    short = [text(chance, chance.randint(3, 20)) for _ in range(SHORT[task])]
    long = [text(chance, chance.randint(300, 900)) for _ in range(LONG[task])]
    for seed, (name, config) in enumerate(KINDS.items()):
        deck.add(name, config, seed=seed)
        stir(deck, name, seed)
        deck.save(name, folder / "adapters" / name)
        ask = chatted if task == "generate" else classified
        questions += [ask(deck, name, one) | {"weight": 11 / len(short)} for one in short]
        questions += [ask(deck, name, one) | {"weight": 1 / len(long)} for one in long]
        deck.remove(name)
    return Target(reference, folder / "adapters", questions)


def text(chance: random.Random, words: int) -> str:
    """Words by chance."""
    return " ".join(chance.choices(WORDS, k=words))


def stir(deck: td.Deck, name: str, seed: int) -> None:
    """Move every tensor of an adapter away from where it began, so that no two answer the same."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in deck.adapter(name).parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)


def classified(deck: td.Deck, name: str, content: str) -> dict[str, Any]:
    """A question to /classify and the adapter's answer."""
    said = deck.predict([content], name)[0]
    tokens = len(text_ids(deck, [content], [name], deck.task.max_length)[0])
    expected = {"label": said.label, "probs": list(said.probabilities.values()), "tokens": tokens}
    return {"path": "/classify", "body": {"model": name, "input": content}, "expected": expected}


def chatted(deck: td.Deck, name: str, content: str) -> dict[str, Any]:
    """A question to /v1/chat/completions and the adapter's answer."""
    turns = [{"role": "user", "content": content}]
    said = deck.generate([turns], name, td.Sampling(max_tokens=TOKENS))[0]
    tokens = len(deck.task.prompt_ids(deck, turns)) + deck.virtual_tokens(name)
    body = {"model": name, "messages": turns, "max_tokens": TOKENS}
    return {"path": "/v1/chat/completions", "body": body, "expected": {"text": said, "tokens": tokens}}


def tiny_base(folder: Path, task: str) -> Path:
    """A random model of 32 wide with a tokenizer of words: a minute's attack is not a minute's arithmetic."""
    torch.manual_seed(0)
    if task == "generate":
        config, template = transformers.LlamaConfig(**TINY), "[CLS] $A"
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    else:
        config, template = transformers.BertConfig(**TINY), "[CLS] $A [SEP]"
        transformers.BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(SPECIAL + WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        eos_token="[SEP]",
        unk_token="[UNK]",
    ).save_pretrained(folder)
    return folder
