"""The flags of a run, for every command that carries one out, and the run's values that they and a run file make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from tunedeck.core.i18n import say

DATA, METHOD, LOOP = say("Data"), say("Method"), say("Training")

# fmt: off
RunFile: TypeAlias = Annotated[Path | None, typer.Argument(help=say("a YAML run file; flags override its keys"))]
Model: TypeAlias = Annotated[str | None, typer.Option(help=say("hub id, folder, .gguf file, ms: or bundled: name"))]
DataFile: TypeAlias = Annotated[str | None, typer.Option(help=say("training data: file, hub id or bundled: name"), rich_help_panel=DATA)]
EvalData: TypeAlias = Annotated[str | None, typer.Option(help=say("evaluation data; else a part is held out"), rich_help_panel=DATA)]
EvalFraction: TypeAlias = Annotated[float | None, typer.Option(help=say("share held out for evaluation"), rich_help_panel=DATA)]
Text: TypeAlias = Annotated[str | None, typer.Option(help=say("text column"), rich_help_panel=DATA)]
Label: TypeAlias = Annotated[str | None, typer.Option(help=say("label column"), rich_help_panel=DATA)]
Anchor: TypeAlias = Annotated[str | None, typer.Option(help=say("column of the anchors or queries of text pairs"), rich_help_panel=DATA)]
Positive: TypeAlias = Annotated[str | None, typer.Option(help=say("column of the texts that belong to them"), rich_help_panel=DATA)]
Negative: TypeAlias = Annotated[str | None, typer.Option(help=say("column of texts that do not"), rich_help_panel=DATA)]
Score: TypeAlias = Annotated[str | None, typer.Option(help=say("column of the scores of text pairs"), rich_help_panel=DATA)]
Encoding: TypeAlias = Annotated[str | None, typer.Option(help=say("encoding of the file, such as gb18030"), rich_help_panel=DATA)]
DropEmpty: TypeAlias = Annotated[bool | None, typer.Option("--drop-empty", help=say("leave out empty texts"), rich_help_panel=DATA)]
EvalSize: TypeAlias = Annotated[int | None, typer.Option(help=say("evaluate on so many examples only"), rich_help_panel=DATA)]
Task: TypeAlias = Annotated[str | None, typer.Option(help=say("classify (default), generate or embed"), rich_help_panel=DATA)]
MultiLabel: TypeAlias = Annotated[bool | None, typer.Option("--multi-label", help=say("any number of labels per text"), rich_help_panel=DATA)]
MaxLength: TypeAlias = Annotated[int | None, typer.Option(help=say("cut texts to so many tokens"), rich_help_panel=DATA)]
Epochs: TypeAlias = Annotated[float | None, typer.Option(help=say("passes over the data"), rich_help_panel=LOOP)]
MaxSteps: TypeAlias = Annotated[int | None, typer.Option(help=say("stop after so many steps"), rich_help_panel=LOOP)]
BatchSize: TypeAlias = Annotated[int | None, typer.Option(help=say("examples per batch"), rich_help_panel=LOOP)]
Patience: TypeAlias = Annotated[int | None, typer.Option(help=say("stop after so many evaluations without a better one"), rich_help_panel=LOOP)]
DtypeName: TypeAlias = Annotated[str | None, typer.Option(help="auto, float32, bfloat16, float16", rich_help_panel=LOOP)]
Quantize: TypeAlias = Annotated[str | None, typer.Option(help=say("pack the base's linears: nf4 or int8"), rich_help_panel=LOOP)]
Device: TypeAlias = Annotated[str | None, typer.Option(help="auto, cpu, cuda", rich_help_panel=LOOP)]
TrustRemoteCode: TypeAlias = Annotated[bool | None, typer.Option("--trust-remote-code", help=say("run code that comes with a model; off by default"))]
Assignments: TypeAlias = Annotated[list[str] | None, typer.Option("--set", help=say("any other key, as training.warmup_ratio=0.1"))]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help=say("print JSON"))]
# fmt: on

KEYS = {
    "model": "model", "data": "data.train", "eval_data": "data.eval", "eval_fraction": "data.eval_fraction", "text": "data.text",
    "label": "data.label", "anchor": "data.anchor", "positive": "data.positive", "negative": "data.negative",
    "score": "data.score", "encoding": "data.encoding", "drop_empty": "data.drop_empty", "train_size": "data.train_size",
    "eval_size": "data.eval_size", "multi_label": "task.multi_label", "max_length": "task.max_length", "r": "method.r",
    "lora_alpha": "method.lora_alpha", "target_modules": "method.target_modules",
    "reduction_factor": "method.reduction_factor", "num_virtual_tokens": "method.num_virtual_tokens",
    "epochs": "training.epochs", "max_steps": "training.max_steps", "batch_size": "training.batch_size",
    "learning_rate": "training.learning_rate", "seed": "training.seed", "early_stopping_patience": "training.early_stopping_patience",
    "dtype": "dtype", "quantize": "quantize", "device": "device", "trust_remote_code": "trust_remote_code", "name": "name",
}  # fmt: skip
"""The key of a run file that a flag sets, by the flag's parameter."""


def run_values(run_file: Path | None, flags: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """The plain values of a run: the run file's, over them the flags of a command (`context.params`), over them --set.

    Flags that are None, and parameters that are no key of a run file, change nothing. Raises ConfigError.
    """
    from tunedeck.training.config import override, parsed_assignments, read_run_file, stored_values

    values = read_run_file(run_file) if run_file else {}
    if flags.get("resume") is not None:  # the run folder's own file, perhaps by an earlier version
        values = stored_values(values)
    for group in ("method", "task"):  # another method's own keys would not fit
        if flags.get(group) is not None:
            values = {**values, group: flags[group]}
    named = {key: flags.get(flag) for flag, key in KEYS.items()}
    targets = named["method.target_modules"]
    named["method.target_modules"] = None if targets is None else names_or_pattern(targets)
    return override(values, {**named, **parsed_assignments(assignments)})


def names_or_pattern(text: str) -> str | list[str]:
    """`query,value` is a list of names; all-linear or anything with a character no name has is one string."""
    if text == "all-linear" or any(character in text for character in "*\\()[]|+^$?"):
        return text
    return [name.strip() for name in text.split(",")]
