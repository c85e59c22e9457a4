"""One adapter and its base as an ONNX graph that runs without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.storage import replacing_folder
from tunedeck.deck.deck import Deck
from tunedeck.export.onnx.folder import FLOAT32, INT8, distance, verify, write_beside, write_probes
from tunedeck.export.onnx.graph import check_exportable, example_inputs, graph_of, trace
from tunedeck.export.onnx.int8 import write_int8
from tunedeck.export.probe import Difference
from tunedeck.export.transformers_folder import empty_place

LoraPlace = Literal["merged", "inside"]


@dataclass(frozen=True, slots=True)
class OnnxExport:
    """Describe the written export: files, the bytes of each graph, and its largest difference from the deck."""

    difference: Difference
    float32_bytes: int
    int8: Difference | None
    """The int8 graph against the float32 one."""
    int8_cosine: float | None
    """The lowest cosine between an int8 vector and its float32 one; None for labels."""
    int8_bytes: int | None


def save_onnx(
    deck: Deck,
    name: str,
    folder: str | Path,
    *,
    int8: bool = False,
    lora: LoraPlace = "merged",
    opset: int | None = None,
) -> OnnxExport:
    """Write an adapter for labels, entities, scores or vectors as model.onnx with tokenizer.json, settings.json and
    run.py.

    Batch and length vary; virtual tokens, bottleneck layers, pooling and normalisation are in the graph. `int8` adds
    model.int8.onnx. The graph must answer probe inputs as the deck does. Raises UnsupportedKindError for generating
    adapters, AdapterError for a deck that is not in float32 or a graph that answers otherwise, ConfigError for packages
    missing or a setting out of range, StorageError when the folder is not empty.
    """
    from tunedeck.formats.onnx.runner import Runner

    target = empty_place(folder)
    check_exportable(deck, [name])
    if lora not in ("merged", "inside"):
        raise ConfigError(say("lora must be merged or inside, got {value!r}", value=lora))
    graph = graph_of(deck, name, merge=lora == "merged" and deck.adapter(name).config.mergeable)
    inputs, shapes = example_inputs(deck, [name])
    program = trace(graph, inputs, shapes, tuple(inputs), opset)
    with replacing_folder(target) as staging:
        program.save(staging / FLOAT32)
        files = {"float32": FLOAT32, "int8": INT8} if int8 else {"float32": FLOAT32}
        if int8:
            write_int8(staging / FLOAT32, staging / INT8)
        write_beside(staging, deck, [name], files)
        runner = Runner(staging)
        difference = verify(deck, name, runner)
        runners = {precision: runner if precision == "float32" else Runner(staging, precision) for precision in files}
        smaller = distance(deck, name, runner, runners["int8"]) if int8 else None
        write_probes(staging, [name], runners)
        return OnnxExport(
            difference=difference,
            float32_bytes=_bytes(staging, FLOAT32),
            int8=smaller[0] if smaller else None,
            int8_cosine=smaller[1] if smaller else None,
            int8_bytes=_bytes(staging, INT8) if smaller else None,
        )


def _bytes(folder: Path, name: str) -> int:
    """Return a graph's file, and its external data if it is above two gigabytes."""
    return sum(file.stat().st_size for file in folder.glob(f"{name}*"))
