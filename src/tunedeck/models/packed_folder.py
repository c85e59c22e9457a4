"""A model folder that has its word embeddings twice: in float32 for transformers and in 4 bits for Tunedeck.

The index names two files of float32 weights, the word embeddings and the rest. transformers' `variant` reads the rest
alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from tunedeck.methods.packed_embedding import PackedEmbedding

INDEX, VARIANT = "model.safetensors.index.json", "packed"
REST, WORDS = f"model.{VARIANT}.safetensors", "word_embeddings.safetensors"
PACKED_WORDS = "word_embeddings.q4.safetensors"


def leave_out_words(folder: Path, auto: Any, config: Any) -> dict[str, str]:
    """Make `config` one of a tiny vocabulary and return the options that load it from such a folder.

    Returns nothing, and leaves `config` as it is, for another folder and for a model whose output layer is tied to the
    word embeddings and needs them whole.
    """
    if not (folder / PACKED_WORDS).is_file():
        return {}
    with torch.device("meta"):
        skeleton = auto.from_config(config)
    if skeleton.get_output_embeddings() is not None:
        return {}
    config.vocab_size = (config.pad_token_id or 0) + 1
    return {"variant": VARIANT}


def put_packed_words(model: Any, folder: Path, dtype: torch.dtype, missing: set[str]) -> None:
    """Replace the embeddings of the tiny vocabulary by the packed ones, which then are no longer `missing`."""
    stored = load_file(folder / PACKED_WORDS)
    codes, scales = stored["codes"].data, stored["scales"].data  # no views, which would keep the file mapped
    embedding: nn.Module = PackedEmbedding(codes, scales, dtype).eval()
    path = next(path for path, module in model.named_modules() if module is model.get_input_embeddings())
    model.set_submodule(path, embedding)
    model.config.vocab_size = len(stored["codes"])
    missing.discard(f"{path}.weight")
