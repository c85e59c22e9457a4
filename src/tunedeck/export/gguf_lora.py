"""A LoRA as a GGUF file for llama.cpp's `--lora`, by the names of the gguf library's tensor map.

Facts from llama.cpp (convert_lora_to_gguf.py, conversion/llama.py, src/llama-adapter.cpp): A (r, in) and B (out, r) are
`<tensor>.weight.lora_a` and `.lora_b`; the patch is alpha / r · B A with r from each tensor and one alpha for the file,
where an alpha of 0 means a scale of 1; on Llama and Mistral the rows of q and k are reordered, halves of a head
interleaved.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from tunedeck.core.errors import ConfigError, StorageError, UnsupportedKindError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.core.storage import replacing_file
from tunedeck.export.standalone import OpenedAdapter
from tunedeck.formats.low_rank import kind_name, low_rank
from tunedeck.methods.linears import linears_in_layers

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma": gguf.MODEL_ARCH.GEMMA,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
}
"""llama.cpp's architecture for a transformers model type; each was compared with what llama.cpp's converter
writes.
"""
_REORDERED = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
"""On Llama: the linear layers whose rows are reordered, and the config key with their number of heads."""
_TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32, 1e-6),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16, 2e-3),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16, 2e-2),
}
"""The type of the tensors, of the file, and how far its rounding may move a product, relative to the largest value."""
_PROBES = 4


@dataclass(frozen=True, slots=True)
class Patch:
    """One linear's A (r, in) and B (out, r), float32, its rows in llama.cpp's order, and the tensor they belong to."""

    tensor: str
    a: torch.Tensor
    b: torch.Tensor


def save_gguf_lora(opened: OpenedAdapter, file: Path, dtype: str = "f32") -> float:
    """Write a LoRA for llama.cpp and read it back; returns the largest difference of its products, relative to the
    largest value.

    Raises UnsupportedKindError for what llama.cpp cannot apply, ConfigError for another `dtype` or a name without
    .gguf, StorageError when the file exists or reads back as something else.
    """
    if dtype not in _TYPES:
        raise ConfigError(
            say("unknown dtype {dtype!r}, choose one of: {known}", dtype=dtype, known=listing(_TYPES))
            + nearest(dtype, _TYPES)
        )
    if file.suffix != ".gguf":
        raise ConfigError(say("the name of the new file must end in .gguf, got {path}", path=file))
    if file.exists():
        raise StorageError(say("{path} already exists; choose another path", path=file))
    alpha, patches = _patches(opened)
    with replacing_file(file) as staging:
        _write(staging, opened, alpha, patches, dtype)
        return _read_back(staging, alpha, patches, _TYPES[dtype][2])


def _patches(opened: OpenedAdapter) -> tuple[float, list[Patch]]:
    """Return the file's alpha and every patch; where ranks or scales differ, B carries the difference."""
    config, stored, base = low_rank(opened.stored.config), opened.stored, opened.base
    architecture = check_gguf(opened)
    assert config is not None
    assert base.spec is not None
    names = gguf.get_tensor_name_map(architecture, base.spec.num_layers)
    paths = sorted({name.rpartition(".")[0] for name in stored.tensors})
    alpha = config.scaling(paths[0]) * config.rank(paths[0]) or 1.0
    start = f"{base.prefix}." if base.prefix else ""
    inside = set(linears_in_layers(base.model, base.prefix))
    patches = []
    for path in paths:
        tensor = names.get_name(f"{base.spec.prefix}.{path.removeprefix(start)}")
        if tensor is None or path not in inside:
            raise UnsupportedKindError(
                say("llama.cpp has no tensor for {path}; train without it, or tunedeck export merge", path=path)
            )
        a, b = (stored.tensors[f"{path}.lora_{half}"].float() for half in "AB")
        factor = config.scaling(path) * config.rank(path) / alpha
        heads = _REORDERED.get(path.rpartition(".")[2]) if architecture == gguf.MODEL_ARCH.LLAMA else None
        b = b if heads is None else _reordered(b, int(getattr(_config(opened), heads)))
        patches.append(Patch(f"{tensor}.weight", a, b if factor == 1 else b * factor))
    return alpha, patches


def check_gguf(opened: OpenedAdapter) -> gguf.MODEL_ARCH:
    """Return the architecture in llama.cpp; UnsupportedKindError for architectures it cannot run."""
    stored, base = opened.stored, opened.base
    model_type = _config(opened).model_type
    if low_rank(stored.config) is None:
        raise UnsupportedKindError(
            say(
                "llama.cpp applies LoRA only, and this adapter is of the kind {kind}: serve it with tunedeck or train "
                "lora; if it can be merged, use tunedeck export merge",
                kind=kind_name(stored.config),
            )
        )
    if stored.head:
        raise UnsupportedKindError(
            say(
                "llama.cpp cannot load an adapter's classification head ({modules}); use tunedeck serve or "
                "tunedeck export onnx",
                modules=listing(sorted({name.split(".")[0] for name in stored.head})),
            )
        )
    if model_type not in ARCHITECTURES or base.spec is None:
        raise UnsupportedKindError(
            say(
                "LoRA on {model_type} models is not written for llama.cpp (written for: {known}); tunedeck "
                "export merge and "
                "llama.cpp's convert_hf_to_gguf.py may do",
                model_type=model_type,
                known=listing(ARCHITECTURES),
            )
        )
    return ARCHITECTURES[model_type]


def _config(opened: OpenedAdapter) -> Any:
    return opened.base.model.config


def _reordered(b: torch.Tensor, heads: int) -> torch.Tensor:
    """B (out, r) with its rows as llama.cpp keeps them: of each head, row i of the first half before row i of the
    second.
    """
    return b.reshape(heads, 2, -1, b.shape[1]).transpose(1, 2).flatten(0, 2)


def _write(file: Path, opened: OpenedAdapter, alpha: float, patches: list[Patch], dtype: str) -> None:
    kind, file_type, _ = _TYPES[dtype]
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[ARCHITECTURES[_config(opened).model_type]])
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    writer.add_file_type(file_type)
    for patch in patches:
        for ending, half in (("lora_a", patch.a), ("lora_b", patch.b)):
            packed = gguf.quantize(half.contiguous().numpy(), kind)
            writer.add_tensor(f"{patch.tensor}.{ending}", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _read_back(file: Path, alpha: float, patches: list[Patch], tolerance: float) -> float:
    """Return the largest difference of alpha / r · B A x between file and adapter, relative to the largest value."""
    reader = gguf.GGUFReader(file)
    found = {tensor.name: tensor for tensor in reader.tensors}
    wanted = {f"{patch.tensor}.{ending}" for patch in patches for ending in ("lora_a", "lora_b")}
    kept = float(reader.fields[gguf.Keys.Adapter.LORA_ALPHA].contents())
    generator, worst = np.random.default_rng(0), 0.0
    for patch in patches if found.keys() == wanted else ():
        x = generator.standard_normal((patch.a.shape[1], _PROBES), dtype=np.float32)
        a, b = (_numbers(found[f"{patch.tensor}.{ending}"]) for ending in ("lora_a", "lora_b"))
        theirs = kept / len(a) * (b @ (a @ x))
        ours = alpha / len(patch.a) * (patch.b.numpy() @ (patch.a.numpy() @ x))
        worst = max(worst, float(np.abs(theirs - ours).max() / (np.abs(ours).max() or 1.0)))
    if found.keys() != wanted or not worst <= tolerance:
        raise StorageError(say("{path} read back has another {what} than was written", path=file, what=say("adapter")))
    return worst


def _numbers(tensor: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
