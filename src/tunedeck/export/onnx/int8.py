"""A graph in int8: weights and the inputs of their products in 8 bits, the inputs' scale taken as they come.

Weights are signed and have a scale for each output: on MiniLM half the error of one scale for all, at the same speed;
unsigned ones took half as long again (docs/export.md). Fusing the graph first changed nothing. bench/onnx_export.py
measures.
"""

from __future__ import annotations

from pathlib import Path

from tunedeck.export.onnx.graph import quiet


def write_int8(source: Path, target: Path) -> None:
    """Write `source` with its embeddings and matrix products in int8, by ONNX Runtime's dynamic quantization."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)
