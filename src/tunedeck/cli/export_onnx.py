"""`tunedeck export onnx`: a graph that runs without torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunedeck.cli import options
from tunedeck.cli.console import format_bytes, print_json, print_table, tell
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say

if TYPE_CHECKING:
    from tunedeck.deck.deck import Deck
    from tunedeck.export.onnx.measure import Measured
    from tunedeck.export.onnx.multi import MultiExport
    from tunedeck.export.onnx.save import OnnxExport


def onnx(
    adapter: Annotated[list[Path], typer.Option(help=say("adapter folder; several with --multi-adapter"))],
    out: options.NewFolder,
    multi_adapter: Annotated[
        bool, typer.Option("--multi-adapter", help=say("one graph for several LoRA adapters, a small file for each"))
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help=say("a graph in int8 as well: smaller and faster"))] = False,
    no_merge: Annotated[
        bool,
        typer.Option("--no-merge", help=say("keep LoRA as layers of the graph instead of merging it into the weights")),
    ] = False,
    opset: Annotated[int | None, typer.Option(help=say("ONNX opset (default: the exporter's)"))] = None,
    data: Annotated[
        str | None, typer.Option(help=say("held-out data to compare quality and speed with torch on"))
    ] = None,
    max_examples: options.MaxExamples = None,
    text: options.TextColumn = None,
    label: options.LabelColumn = None,
    encoding: options.Encoding = "auto",
    model: options.Base = None,
    task: options.TaskOfFolder = "classify",
    allow_base_mismatch: options.AllowBaseMismatch = False,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.AsJson = False,
) -> None:
    """Write one adapter, or several on one base, as ONNX files with a small runner."""
    from tunedeck.data.settings import DataSettings
    from tunedeck.export.onnx.graph import needs_packages
    from tunedeck.export.transformers_folder import empty_place

    needs_packages()
    empty_place(out)
    _check(adapter, multi_adapter, no_merge, data)

    def opened(dtype: str) -> Deck:
        return options.opened(
            adapter, model, dtype, "none", trust_remote_code, allow_base_mismatch=allow_base_mismatch, task=task
        )

    deck = opened("float32")
    if multi_adapter:
        from tunedeck.export.onnx.multi import save_onnx_multi

        together = save_onnx_multi(deck, deck.adapters, out, int8=int8, opset=opset)
        print_json({"folder": str(out), **asdict(together)}) if as_json else _tell_multi(together, out)
        return
    from tunedeck.export.onnx.measure import measure, read_examples
    from tunedeck.export.onnx.save import save_onnx

    (name,) = deck.adapters
    examples = None
    if data is not None:
        settings = DataSettings(train=data, text=text, label=label, encoding=encoding, eval_size=max_examples)
        examples = read_examples(deck, name, settings)
    alone = save_onnx(deck, name, out, int8=int8, lora="inside" if no_merge else "merged", opset=opset)
    if not as_json:
        _tell_alone(alone, out)
    rows = []
    if examples is not None:
        rows = measure({"torch float32": deck, "torch bfloat16": opened("bfloat16")}, name, {"ONNX": out}, examples)
    if as_json:
        print_json({"folder": str(out), **asdict(alone), "measured": [asdict(row) for row in rows]})
    elif examples is not None:
        _print_measured(rows, len(examples))


def _check(adapter: list[Path], multi: bool, no_merge: bool, data: str | None) -> None:
    if len(adapter) > 1 and not multi:
        raise ConfigError(
            say("several adapters share a graph with --multi-adapter only; give one adapter, or pass --multi-adapter")
        )
    if multi and data is not None:
        raise ConfigError(say("--data measures one adapter's graph; leave out --multi-adapter or --data"))
    if multi and no_merge:
        raise ConfigError(say("with --multi-adapter every LoRA is an input of the graph; leave out --no-merge"))


def _tell_alone(found: OnnxExport, out: Path) -> None:
    tell(
        say(
            "wrote {path}: {file} ({size}) answers as the deck does within {difference:.2g}, on {answers} "
            "probe inputs of several "
            "sizes and lengths",
            path=out,
            file="model.onnx",
            size=format_bytes(found.float32_bytes),
            difference=found.difference.max_abs,
            answers=found.difference.answers,
        )
    )
    if found.int8 is not None and found.int8_bytes is not None:
        size, difference, same = format_bytes(found.int8_bytes), found.int8.max_abs, found.int8.same
        if found.int8_cosine is None:
            tell(
                say(
                    "{file} ({size}): logits within {difference:.2g} of float32, the same label for "
                    "{same:.1%}; measure it on your "
                    "texts with --data",
                    file="model.int8.onnx",
                    size=size,
                    difference=difference,
                    same=same,
                )
            )
        else:
            tell(
                say(
                    "{file} ({size}): cosine to the float32 vectors {cosine:.4f} or more",
                    file="model.int8.onnx",
                    size=size,
                    cosine=found.int8_cosine,
                )
            )
    _tell_runner(out)


def _tell_multi(found: MultiExport, out: Path) -> None:
    size = format_bytes(found.float32_bytes)
    tell(
        say(
            "wrote {path}: {file} ({size}) for {count} adapters",
            path=out,
            file="model.onnx",
            size=size,
            count=len(found.differences),
        )
    )
    for name, difference in found.differences.items():
        size = format_bytes(found.adapter_bytes[name])
        tell(
            say(
                "{name}: {size}, within {difference:.2g} of the deck",
                name=name,
                size=size,
                difference=difference.max_abs,
            )
        )
        if found.int8 is not None:
            own = found.int8[name]
            tell(
                say(
                    "{name} in int8: within {difference:.2g} of float32, the same choice for {same:.1%}",
                    name=name,
                    difference=own.max_abs,
                    same=own.same,
                )
            )
    _tell_runner(out, f" --adapter {next(iter(found.differences))}")


def _tell_runner(out: Path, flags: str = "") -> None:
    command = f'python {out / "run.py"}{flags} "a text"'
    tell(say("to run it without torch: pip install onnxruntime tokenizers, then: {command}", command=command))


def _print_measured(rows: list[Measured], count: int) -> None:
    first = rows[0]
    chosen = [name for name in first.metrics if name != "loss"][:2]

    def cells(row: Measured) -> list[Any]:
        return [
            row.name,
            *(f"{row.metrics[name]:.4f}" for name in chosen),
            f"{row.latency_ms:.2f}",
            f"{first.latency_ms / row.latency_ms:.2f}x",
            f"{row.texts_per_s:.0f}",
            f"{row.texts_per_s / first.texts_per_s:.2f}x",
        ]

    print_table(
        say("{count} examples; one text at a time, then batches of 32; the sides took turns", count=count),
        [say("side"), *chosen, say("ms a text"), say("speed"), say("texts/s"), say("speed")],
        [cells(row) for row in rows],
    )
