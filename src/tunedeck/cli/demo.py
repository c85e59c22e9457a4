"""`tunedeck demo`: the whole job on real input: four methods trained, compared, and mixed in one batch."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunedeck.cli import compare
from tunedeck.cli.console import print_json, print_table, tell
from tunedeck.cli.fetch import all_bundles
from tunedeck.core.bundle import fetch
from tunedeck.core.messages import say

if TYPE_CHECKING:
    from tunedeck.comparison.compare import Order

MODEL, DATA = "bundled:all-minilm-l6-v2", "bundled:tweets"
METHODS = "lora:r=8:lora_alpha=32:target_modules=query+value,bottleneck,prompt-tuning:num_virtual_tokens=8,head"
TEXTS = (
    "best flight ever, the crew was wonderful",
    "my bag is lost and nobody answers the phone",
    "boarding at gate 12 in ten minutes",
    "I really don't know what to think about this",
)


def demo(
    train_size: Annotated[int, typer.Option(help=say("tweets to train on"))] = 4000,
    eval_size: Annotated[int, typer.Option(help=say("tweets held out"))] = 1500,
    epochs: Annotated[float, typer.Option(help=say("passes over the data"))] = 2,
    out: Annotated[Path, typer.Option(help=say("where the runs go; earlier demo runs there are replaced"))] = Path("runs/demo"),
    as_json: Annotated[bool, typer.Option("--json", help=say("print JSON"))] = False,
) -> None:  # fmt: skip
    """Train LoRA, a bottleneck adapter, prompt tuning and the head alone; compare them; mix them in one batch."""
    from tunedeck.comparison.compare import clear

    for part in (MODEL, DATA):
        if part.startswith("bundled:"):
            fetch(all_bundles()[part.removeprefix("bundled:")])
    clear(out)
    comparison, deck = compare.carry_out(_order(train_size, eval_size, epochs, out))
    names = [entry.name for entry in comparison.entries]
    mixed = [
        {"text": text, "adapter": name, "label": answer.label, "score": answer.score}
        for text, name, answer in zip(TEXTS, names, deck.predict(TEXTS, adapter=names), strict=True)
    ]
    sizes = {"train_size": train_size, "eval_size": eval_size, "epochs": epochs}
    result = compare.written(comparison, out, {"mixed_batch": mixed, **sizes})
    if as_json:
        print_json(result)
        return
    compare.show(comparison, out)
    _show_mixed(mixed)
    adapter = out / comparison.entries[0].runs[0].folder / "adapter"
    tell(say("{seconds:.0f} s in all; the numbers are in {path}", seconds=comparison.total_s, path=out / "comparison.json"))  # fmt: skip
    tell(say('next: tunedeck predict --adapter {path} "a text", or your own file: tunedeck compare --help', path=adapter))  # fmt: skip


def _order(train_size: int, eval_size: int, epochs: float, out: Path) -> Order:
    from tunedeck.comparison.budget import price_of, with_budget
    from tunedeck.comparison.compare import Order
    from tunedeck.comparison.grammar import parse_methods

    sizes = {"train_size": train_size, "eval_size": eval_size}
    values: dict[str, Any] = {"model": MODEL, "data": {"train": DATA, **sizes}, "training": {"epochs": epochs}}
    price = price_of(None, "CNY")
    values, budget = with_budget(values, None, None, None, price)
    command = "tunedeck " + shlex.join(sys.argv[1:])
    return Order(values, tuple(parse_methods(METHODS, values)), (0,), out, budget, price, command)


def _show_mixed(mixed: list[dict[str, Any]]) -> None:
    print_table(
        say("One base, one mixed batch, each row by its own adapter"),
        [say("text"), say("adapter"), say("label"), say("probability")],
        [[one["text"], one["adapter"], one["label"], f"{one['score']:.3f}"] for one in mixed],
        numbers_from=3,
    )
