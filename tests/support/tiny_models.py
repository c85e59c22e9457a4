"""Tiny random models with a tiny tokenizer, and what the tests ask of them. Deterministic, CPU, float32."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, PreTrainedTokenizerFast

import tunedeck as td
from tunedeck.core.compat.torch import forward_hook_count
from tunedeck.methods.base import MethodConfig
from tunedeck.models.precision import Dtype

torch.set_num_threads(1)  # tiny matrices gain nothing from more, and lose much on a busy machine
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

VOCAB, HIDDEN, LAYERS, POSITIONS = 120, 32, 2, 64
LABELS = ("red", "green", "blue")
PAD, CLS, SEP, UNKNOWN = 0, 1, 2, 3
WORDS = tuple(f"w{number}" for number in range(4, VOCAB))

_SIZES = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": VOCAB,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.15,
    "pad_token_id": PAD,
    "bos_token_id": CLS,
    "eos_token_id": SEP,
    "cls_token_id": CLS,
    "sep_token_id": SEP,
}
_OWN_SIZES = {
    "distilbert": {"hidden_dim": 64},
    "gpt2": {"n_inner": 64},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8},
    "glm": {"head_dim": 8},
    "glm4": {"head_dim": 8},
    "qwen3": {"head_dim": 8},
}
_HOME = tempfile.TemporaryDirectory(prefix="tunedeck-tests-")
_CLASSES = {
    "classifier": "AutoModelForSequenceClassification",
    "causal": "AutoModelForCausalLM",
    "plain": "AutoModel",
}


def tiny_config(model_type: str, **changes: Any) -> Any:
    """A tiny transformers config with three labels; `changes` replace sizes, under transformers' names."""
    return AutoConfig.for_model(
        model_type, **{**_SIZES, "num_labels": len(LABELS), **_OWN_SIZES.get(model_type, {}), **changes}
    )


def tiny_model(model_type: str, form: str, seed: int = 0, **changes: Any) -> Any:
    """A tiny model with no tensor of all zeros or all ones.

    `form` is "classifier", "causal", "plain" (the base alone) or "unpooled" (BERT's base without its pooler).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = tiny_config(model_type, **changes)
        if form == "unpooled":
            model = transformers.BertModel(config, add_pooling_layer=False)
        else:
            model = getattr(transformers, _CLASSES[form]).from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def tiny_tokenizer(model_type: str) -> PreTrainedTokenizerFast:
    """Words `w4` to `w119` have their number for an id; encoders get [CLS] and [SEP] around a text, decoders [CLS]
    before.
    """
    vocabulary = {"[PAD]": PAD, "[CLS]": CLS, "[SEP]": SEP, "[UNK]": UNKNOWN} | {word: int(word[1:]) for word in WORDS}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    encoder = "bert" in model_type
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]" if encoder else "[CLS] $A",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1" if encoder else "[CLS] $A $B",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    )


@cache
def folder_of(model_type: str, form: str, seed: int = 0) -> str:
    """A model folder with its tokenizer; the same for every test of a run."""
    folder = Path(_HOME.name) / f"{model_type}-{form}-{seed}"
    tiny_model(model_type, form, seed).save_pretrained(folder)
    tiny_tokenizer(model_type).save_pretrained(folder)
    return str(folder)


@cache
def _loaded(model_type: str, form: str, seed: int, dtype: Dtype) -> td.Deck:
    task = td.Generate() if form == "causal" else td.Classify(labels=LABELS)
    return td.Deck.load(folder_of(model_type, form, seed), task=task, dtype=dtype, device="cpu")


def deck_of(model_type: str, form: str = "classifier", *, seed: int = 0, dtype: Dtype = "float32") -> td.Deck:
    """A deck on a tiny model: a classifier of LABELS, or a causal language model.

    Each test gets a copy of a base that was loaded once, which is several times faster than loading it.
    """
    first = _loaded(model_type, form, seed, dtype)
    return td.Deck(replace(first.base, model=copy.deepcopy(first.model)), first.task)


def stir(deck: td.Deck, name: str, seed: int = 1, amount: float = 0.1) -> None:
    """Move every tensor of an adapter away from where it began, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in deck.adapter(name).parameters():
            parameter.add_((torch.randn(parameter.shape, generator=generator) * amount).to(parameter.device))


def add_stirred(
    deck: td.Deck, name: str, config: MethodConfig, *, labels: Sequence[str] | None = None, seed: int = 1
) -> None:
    """Add an adapter that does something."""
    deck.add(name, config, labels=labels, seed=seed)
    stir(deck, name, seed)


def token_batch(rows: int = 4, length: int = 9, seed: int = 7, pad: str | None = "right") -> dict[str, torch.Tensor]:
    """Random token ids and their mask, (rows, length); every row but the first is padded on the side named."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, VOCAB, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(1, rows if pad else 0):
        empty = slice(length - row % 4, length) if pad == "right" else slice(0, row % 4)
        ids[row, empty], mask[row, empty] = PAD, 0
    return {"input_ids": ids, "attention_mask": mask}


def logits_of(deck: td.Deck, batch: dict[str, torch.Tensor], adapter: Any = None) -> torch.Tensor:
    """Logits without gradients."""
    with torch.no_grad():
        logits: torch.Tensor = deck(**batch, adapter=adapter).logits
    return logits


def rows_of(batch: dict[str, torch.Tensor], rows: Any) -> dict[str, torch.Tensor]:
    """Some rows of a batch."""
    return {name: tensor[rows] for name, tensor in batch.items()}


def difference(left: torch.Tensor, right: torch.Tensor) -> float:
    """The largest absolute difference of two tensors of one shape."""
    assert left.shape == right.shape, (left.shape, right.shape)
    return (left - right).abs().max().item()


def hook_count(model: torch.nn.Module) -> int:
    """Forward hooks anywhere in a model."""
    return sum(map(forward_hook_count, model.modules()))


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file under a folder by its relative path."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
