"""Convert a file of the format E5S1, a BERT encoder in 4 bits, to a folder of transformers.

Little-endian: a header, the pieces of a tokenizer, and tensors by name, each float32 or in Q4_0 blocks
(methods/packed_embedding.py). The folder has the unpacked weights in two files, which transformers reads
together, and the word embeddings once more in 4 bits, which Tunedeck reads instead of the unpacked ones.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from safetensors.numpy import save_file

from tunedeck.core.errors import ModelError
from tunedeck.core.i18n import say
from tunedeck.core.storage import write_json
from tunedeck.methods.packed_embedding import BLOCK
from tunedeck.models.packed_folder import INDEX, PACKED_WORDS, REST, WORDS

MAGIC, VERSION = b"E5S1", 1
WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"
_Q4_BYTES = 2 + BLOCK // 2
_NAMES = {
    "emb.word": WORD_EMBEDDINGS,
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln": "embeddings.LayerNorm",
}
_LAYER_NAMES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_LAST_WORDS = {"w": "weight", "b": "bias"}


@dataclass(frozen=True, slots=True)
class _Header:
    hidden: int
    layers: int
    heads: int
    ffn: int
    vocabulary: int
    positions: int
    types: int


@dataclass(frozen=True, slots=True)
class _Stored:
    """Location of a tensor: `packed` in blocks, else float32."""

    packed: bool
    numbers: int
    offset: int
    bytes: int


def convert_e5s1(folder: Path) -> None:
    """Replace the .bin file of a folder by weights, settings and the tokenizer's settings for transformers.

    Raises ModelError for a file that is not of this format.
    """
    (file,) = folder.glob("*.bin")
    try:
        content = numpy.memmap(file, dtype=numpy.uint8, mode="r")
        header, stored = _read_header(content)
        tensors = {_name(name): _tensor(content, entry) for name, entry in stored.items() if name != "emb.word"}
        shaped = {name: _shaped(name, tensor, header) for name, tensor in tensors.items()}
        words = stored["emb.word"]
        codes, scales = _blocks(content, words)
    except (struct.error, KeyError, ValueError, UnicodeDecodeError) as error:
        raise ModelError(say("{path} is damaged: {reason}", path=file.name, reason=error)) from error
    codes, scales = codes.reshape(header.vocabulary, -1), scales.reshape(header.vocabulary, -1)
    save_file({"codes": codes, "scales": scales.view(numpy.int16)}, folder / PACKED_WORDS)
    save_file(shaped, folder / REST, metadata={"format": "pt"})
    table = _unpacked(codes.reshape(-1, BLOCK // 2), scales.reshape(-1)).reshape(header.vocabulary, -1)
    save_file({WORD_EMBEDDINGS: table}, folder / WORDS, metadata={"format": "pt"})
    files = dict.fromkeys(shaped, REST) | {WORD_EMBEDDINGS: WORDS}
    write_json(folder / INDEX, {"metadata": {"total_size": 4 * _count(shaped, table)}, "weight_map": files})
    _write_settings(folder, header)
    del content
    file.unlink()


def _read_header(content: numpy.ndarray[Any, Any]) -> tuple[_Header, dict[str, _Stored]]:
    """Return the sizes and the table of tensors; the tokenizer's pieces between them are skipped."""
    if bytes(content[:4]) != MAGIC or _at("<I", content, 4) != (VERSION,):
        raise ValueError(f"not {MAGIC.decode()} version {VERSION}")
    hidden, layers, heads, ffn, vocabulary, positions, types = _at("<7i", content, 8)
    (block,) = _at("<i", content, 40)
    if block != BLOCK:
        raise ValueError(f"blocks of {block}")
    (pieces,) = _at("<i", content, 44)
    (piece_bytes,) = _at("<Q", content, 64)
    at = 72 + 4 * (pieces + 1) + 4 * pieces + piece_bytes
    at += 8 + _at("<iI", content, at)[1]
    (count,) = _at("<i", content, at)
    at += 4
    stored = {}
    for _ in range(count):
        (length,) = _at("<H", content, at)
        name = bytes(content[at + 2 : at + 2 + length]).decode("utf-8")
        kind, numbers, offset, size = _at("<BIQQ", content, at + 2 + length)
        stored[name] = _Stored(kind == 1, numbers, offset, size)
        at += 2 + length + 21
    return _Header(hidden, layers, heads, ffn, vocabulary, positions, types), stored


def _at(layout: str, content: numpy.ndarray[Any, Any], offset: int) -> tuple[Any, ...]:
    return struct.unpack(layout, bytes(content[offset : offset + struct.calcsize(layout)]))


def _name(name: str) -> str:
    """Return the name of a tensor in transformers' BertModel."""
    if name in _NAMES:
        return _NAMES[name]
    start, _, last = name.rpartition(".")
    if start in _NAMES:
        return f"{_NAMES[start]}.{_LAST_WORDS[last]}"
    layer, _, part = start.partition(".")
    return f"encoder.layer.{int(layer[1:])}.{_LAYER_NAMES[part]}.{_LAST_WORDS[last]}"


def _tensor(content: numpy.ndarray[Any, Any], stored: _Stored) -> numpy.ndarray[Any, Any]:
    if stored.packed:
        return _unpacked(*_blocks(content, stored))
    numbers: numpy.ndarray[Any, Any] = content[stored.offset : stored.offset + stored.bytes].copy().view("<f4")
    return numbers


def _blocks(
    content: numpy.ndarray[Any, Any], stored: _Stored
) -> tuple[numpy.ndarray[Any, Any], numpy.ndarray[Any, Any]]:
    """Return the codes (blocks, 16) and the scales (blocks,) of a packed tensor."""
    if not stored.packed or stored.bytes * BLOCK != stored.numbers * _Q4_BYTES:
        raise ValueError("a tensor is not in blocks of 4 bits")
    blocks = content[stored.offset : stored.offset + stored.bytes].reshape(-1, _Q4_BYTES)
    return numpy.ascontiguousarray(blocks[:, 2:]), numpy.ascontiguousarray(blocks[:, :2]).view("<f2").reshape(-1)


def _unpacked(codes: numpy.ndarray[Any, Any], scales: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
    """Return the values of blocks, float32 and flat."""
    values = numpy.empty((len(codes), BLOCK), dtype=numpy.float32)
    values[:, : BLOCK // 2] = codes & 15
    values[:, BLOCK // 2 :] = codes >> 4
    values -= 8
    values *= scales.astype(numpy.float32)[:, None]
    return values.reshape(-1)


def _shaped(name: str, tensor: numpy.ndarray[Any, Any], header: _Header) -> numpy.ndarray[Any, Any]:
    """Return a tensor as (out, in), or (out,) where it is a vector."""
    if name.endswith("bias") or "LayerNorm" in name:
        return tensor
    return tensor.reshape(
        -1, header.ffn if name.endswith(".output.dense.weight") and "attention" not in name else header.hidden
    )


def _count(tensors: Mapping[str, numpy.ndarray[Any, Any]], table: numpy.ndarray[Any, Any]) -> int:
    return int(table.size) + sum(tensor.size for tensor in tensors.values())


def _write_settings(folder: Path, header: _Header) -> None:
    """Write what intfloat/multilingual-e5-small publishes besides its weights: config, pooling, prompts, tokenizer."""
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": header.hidden,
        "num_hidden_layers": header.layers,
        "num_attention_heads": header.heads,
        "intermediate_size": header.ffn,
        "vocab_size": header.vocabulary,
        "max_position_embeddings": header.positions,
        "type_vocab_size": header.types,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        "dtype": "float32",
    }
    write_json(folder / "config.json", config)
    parts = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(parts)
    ]
    write_json(folder / "modules.json", modules)
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": header.hidden, "pooling_mode_mean_tokens": True}
    write_json(folder / "1_Pooling" / "config.json", pooling)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": header.positions, "do_lower_case": False})
    prompts = {"query": "query: ", "passage": "passage: "}
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": None})
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": header.positions,
        "model_input_names": ["input_ids", "attention_mask"],
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    write_json(folder / "tokenizer_config.json", tokenizer)
