"""A plain transformers folder with an adapter in its weights, read back before it is called done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tunedeck.core.i18n import say
from tunedeck.core.storage import replacing_folder
from tunedeck.deck.deck import Deck
from tunedeck.deck.forward import answer_name
from tunedeck.export.probe import Difference, compare, probe_batches
from tunedeck.export.transformers_folder import empty_place, merged, no_bar, output_scale, tokenizer_of
from tunedeck.models.load import load_base
from tunedeck.models.precision import DTYPES

BOUNDS = {torch.float32: 1e-4, torch.float16: 0.03, torch.bfloat16: 0.2}
"""Largest change, relative to the largest logit, that rounding W + B·A to the weights' precision may cause; random
adapters reached half of it.
"""


def save_merged(
    deck: Deck, name: str, folder: str | Path, *, dequantize: bool = False, trust_remote_code: bool = False
) -> Difference:
    """Write the base with an adapter in its weights, in the deck's precision, and its tokenizer; any task.

    The folder is read back by transformers and must answer probe inputs as the deck does; returns how far they differ.
    Raises UnsupportedKindError for kinds that cannot merge, AdapterError for a quantized base unless `dequantize` or
    when the answers differ by more than the precision explains, StorageError when the folder is not empty.
    """
    target = empty_place(folder)
    instead = say("to run it elsewhere, train lora or full; for labels and vectors there is tunedeck export onnx")
    model = merged(deck, name, instead, dequantize=dequantize)
    tokenizer = tokenizer_of(deck)
    if model.can_generate():
        model.generation_config = deck.model.generation_config
    with replacing_folder(target) as staging, no_bar():
        model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        del model
        difference = _read_back(deck, name, staging, trust_remote_code)
        difference.check(BOUNDS[deck.base.dtype], say("the merged model"))
    return difference


def _read_back(deck: Deck, name: str, folder: Path, trust_remote_code: bool) -> Difference:
    dtype = next(word for word, known in DTYPES.items() if known == deck.base.dtype)
    again = load_base(
        str(folder),
        deck.task.auto_class,
        dtype=dtype,  # type: ignore[arg-type]
        device=str(next(deck.model.parameters()).device),
        trust_remote_code=trust_remote_code,
    )
    batches = probe_batches(deck, name)
    with torch.inference_mode():
        theirs = [_answer(deck(ids, mask, adapter=name)) for ids, mask in batches]
        if (scale := output_scale(deck, name)) is not None:
            theirs = [answer * scale[1] + scale[0] for answer in theirs]
        ours = [_answer(again.model(input_ids=ids, attention_mask=mask)) for ids, mask in batches]
    return compare(theirs, ours, [mask for _, mask in batches])


def _answer(output: Any) -> torch.Tensor:
    answer: torch.Tensor = output[answer_name(output)]
    return answer
