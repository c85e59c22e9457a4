"""`tunedeck eval`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from tunedeck.cli.console import print_json, print_table
from tunedeck.cli.opening import open_deck
from tunedeck.core.messages import say


def evaluate(
    adapter: Annotated[list[Path], typer.Option(help=say("adapter folder; may be given several times"))],
    data: Annotated[str, typer.Option(help=say("labelled data: file, hub id or bundled: name"))],
    model: Annotated[str | None, typer.Option(help=say("the base; the one the adapter names by default"))] = None,
    text: Annotated[str | None, typer.Option(help=say("text column"))] = None,
    label: Annotated[str | None, typer.Option(help=say("label column"))] = None,
    encoding: Annotated[str, typer.Option(help=say("encoding of the file, such as gb18030"))] = "utf-8",
    drop_empty: Annotated[bool, typer.Option("--drop-empty", help=say("leave out empty texts"))] = False,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16")] = "auto",
    any_base: Annotated[
        bool, typer.Option("--any-base", help=say("insist on another base than it was trained on"))
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help=say("print JSON"))] = False,
) -> None:
    """Evaluate saved adapters on labelled data."""
    from tunedeck.data.labelled import labelled_examples
    from tunedeck.data.table import read_table
    from tunedeck.tasks.classify import Classify, evaluate_labelled
    from tunedeck.tasks.classify_data import check_labels

    table = read_table(data, encoding)
    deck, names = open_deck(adapter, model, dtype, any_base)
    results = {}
    for name in names:
        task = deck.adapter(name).task
        assert isinstance(task, Classify)
        examples = labelled_examples(table, text, label, task.multi_label, drop_empty)
        check_labels(examples, deck.label_names(name))
        results[name] = evaluate_labelled(deck, name, task, examples)
    counts = Counter(examples[index].labels for index in range(len(examples)))
    majority = counts.most_common(1)[0][1] / len(examples)
    if as_json:
        print_json({"examples": len(examples), "majority_accuracy": majority, "adapters": results})
        return
    print_table(
        say(
            "{count} examples; always answering the most frequent label is right in {share:.1%}",
            count=len(examples),
            share=majority,
        ),
        [say("adapter"), say("accuracy"), say("macro-F1"), say("micro-F1"), say("loss")],
        [
            [name, *(f"{found[key]:.4f}" for key in ("accuracy", "macro_f1", "micro_f1", "loss"))]
            for name, found in results.items()
        ],
    )
