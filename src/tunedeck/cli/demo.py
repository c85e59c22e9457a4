"""`tunedeck demo`: the whole job on real input: four methods trained, compared, and mixed in one batch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunedeck.cli import compare
from tunedeck.cli.console import print_json, print_table, tell
from tunedeck.cli.fetch import all_bundles, fetch_part
from tunedeck.core.i18n import language, say

if TYPE_CHECKING:
    from tunedeck.comparison.spec import ComparisonSpec


@dataclass(frozen=True, slots=True)
class Parts:
    """The model, data and texts of the demo in one language, and sizes that take minutes on two cores."""

    model: str
    data: str
    texts: tuple[str, ...]
    train_size: int
    eval_size: int


METHODS = "lora:r=8:lora_alpha=32:target_modules=query+value,bottleneck,prompt-tuning:num_virtual_tokens=8,head"
ENGLISH = Parts(
    "bundled:all-minilm-l6-v2",
    "bundled:tweets",
    (
        "best flight ever, the crew was wonderful",
        "my bag is lost and nobody answers the phone",
        "boarding at gate 12 in ten minutes",
        "I really don't know what to think about this",
    ),
    train_size=4000,
    eval_size=1500,
)
CHINESE = Parts(
    "bundled:multilingual-e5-small",
    "bundled:reviews-zh",
    (
        "物流很快，包装也好，非常满意",
        "用了两天就坏了，客服也没有人理",
        "书还没看完，内容写得很有意思",
        "价格便宜，不过质量一般",
    ),
    train_size=2000,
    eval_size=1000,
)
BY_LANGUAGE = {"en": ENGLISH, "zh": CHINESE}


def demo(
    train_size: Annotated[
        int | None,
        typer.Option(help=say("examples to train on; 4000 tweets, or 2000 Chinese reviews, by default"), min=1),
    ] = None,
    eval_size: Annotated[
        int | None, typer.Option(help=say("examples held out; 1500 or 1000 by default"), min=1)
    ] = None,
    epochs: Annotated[float, typer.Option(help=say("passes over the data"))] = 2,
    out: Annotated[Path, typer.Option(help=say("where the runs go; earlier demo runs there are replaced"))] = Path(
        "runs/demo"
    ),
    as_json: Annotated[bool, typer.Option("--json", help=say("print JSON"))] = False,
) -> None:
    """Train LoRA, a bottleneck adapter, prompt tuning and the head only; compare them; mix them in one batch."""
    from tunedeck.comparison.compare import RESULT, clear, run_comparison
    from tunedeck.core.storage import write_json

    parts = BY_LANGUAGE[language()]
    train_size, eval_size = train_size or parts.train_size, eval_size or parts.eval_size
    for part in (parts.model, parts.data):
        if part.startswith("bundled:"):
            fetch_part(all_bundles()[part.removeprefix("bundled:")])
    clear(out)
    with compare.exit_code_of_a_signal():
        comparison, deck = run_comparison(_spec(parts, train_size, eval_size, epochs, out))
    names = [entry.name for entry in comparison.entries]
    mixed = [
        {"text": text, "adapter": name, "label": answer.label, "score": answer.score}
        for text, name, answer in zip(parts.texts, names, deck.predict(parts.texts, adapter=names), strict=True)
    ]
    sizes = {"train_size": train_size, "eval_size": eval_size, "epochs": epochs}
    result = {**comparison.to_json(), "mixed_batch": mixed, **sizes}
    comparison.report(out)
    write_json(out / RESULT, result)
    if as_json:
        print_json(result)
        return
    compare.show(comparison)
    _show_mixed(mixed)
    adapter = out / comparison.entries[0].runs[0].folder / "adapter"
    tell(say("{seconds:.0f} s in all; the numbers are in {path}", seconds=comparison.total_s, path=out / RESULT))
    tell(say('next: tunedeck predict --adapter {path} "a text"; with your data: tunedeck compare --help', path=adapter))


def _spec(parts: Parts, train_size: int, eval_size: int, epochs: float, out: Path) -> ComparisonSpec:
    from tunedeck.comparison.spec import comparison_spec

    data = {"train": parts.data, "train_size": train_size, "eval_size": eval_size}
    values: dict[str, Any] = {"model": parts.model, "data": data, "training": {"epochs": epochs}}
    return comparison_spec(values, folder=out, command=compare.command_line(), methods=METHODS)


def _show_mixed(mixed: list[dict[str, Any]]) -> None:
    print_table(
        say("One base, one mixed batch, each row by its adapter"),
        [say("text"), say("adapter"), say("label"), say("probability")],
        [[one["text"], one["adapter"], one["label"], f"{one['score']:.3f}"] for one in mixed],
        numbers_from=3,
    )
