"""`tunedeck train`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from tunedeck.cli import after, run_flags
from tunedeck.cli.console import megabytes, print_json, print_table, tell
from tunedeck.cli.main import INTERRUPTED
from tunedeck.core.errors import ConfigError
from tunedeck.core.messages import say


def train(
    context: typer.Context,
    run_file: run_flags.RunFile = None,
    model: run_flags.Model = None,
    data: run_flags.DataFile = None,
    eval_data: run_flags.EvalData = None,
    eval_fraction: run_flags.EvalFraction = None,
    text: run_flags.Text = None,
    label: run_flags.Label = None,
    anchor: run_flags.Anchor = None,
    positive: run_flags.Positive = None,
    negative: run_flags.Negative = None,
    score: run_flags.Score = None,
    encoding: run_flags.Encoding = None,
    drop_empty: run_flags.DropEmpty = None,
    train_size: Annotated[int | None, typer.Option(help=say("train on so many examples only"), rich_help_panel=run_flags.DATA)] = None,
    eval_size: run_flags.EvalSize = None,
    task: run_flags.Task = None,
    multi_label: run_flags.MultiLabel = None,
    max_length: run_flags.MaxLength = None,
    method: Annotated[str | None, typer.Option(help=say("lora, seq_bn, double_seq_bn, par_bn, prompt_tuning, full or head"), rich_help_panel=run_flags.METHOD)] = None,
    r: Annotated[int | None, typer.Option("--r", help=say("LoRA rank"), rich_help_panel=run_flags.METHOD)] = None,
    lora_alpha: Annotated[float | None, typer.Option(help=say("LoRA alpha; the scale is alpha / r"), rich_help_panel=run_flags.METHOD)] = None,
    target_modules: Annotated[str | None, typer.Option(help=say("names with commas, a regular expression, or all-linear"), rich_help_panel=run_flags.METHOD)] = None,
    reduction_factor: Annotated[float | None, typer.Option(help=say("bottleneck width: hidden size / this"), rich_help_panel=run_flags.METHOD)] = None,
    num_virtual_tokens: Annotated[int | None, typer.Option(help=say("prompt tuning length"), rich_help_panel=run_flags.METHOD)] = None,
    epochs: run_flags.Epochs = None,
    max_steps: run_flags.MaxSteps = None,
    batch_size: run_flags.BatchSize = None,
    learning_rate: Annotated[float | None, typer.Option(help=say("peak learning rate; each method has a default"), rich_help_panel=run_flags.LOOP)] = None,
    seed: Annotated[int | None, typer.Option(help=say("seed of initialisation and order"), rich_help_panel=run_flags.LOOP)] = None,
    patience: run_flags.Patience = None,
    dtype: run_flags.DtypeName = None,
    quantize: run_flags.Quantize = None,
    device: run_flags.Device = None,
    trust_remote_code: run_flags.TrustRemoteCode = None,
    name: Annotated[str | None, typer.Option(help=say("the adapter's name"))] = None,
    out: Annotated[Path | None, typer.Option(help=say("run folder"))] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=say("replace an earlier run in that folder"))] = False,
    settings: run_flags.Assignments = None,
    as_json: run_flags.AsJson = False,
) -> None:  # fmt: skip
    """Train an adapter and write a run folder."""
    from tunedeck.training.config import run_config

    values = run_flags.run_values(run_file, context.params, settings or [])
    config = run_config({**values, "out": str(out)} if out else values)
    kind = str(config.method["kind"])
    folder = Path(config.out or Path("runs") / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}")
    if (folder / "events.jsonl").exists() and not overwrite:
        raise ConfigError(say("{path} holds an earlier run; choose another --out, or --overwrite it", path=folder))
    from tunedeck.training.run import run_training

    run = run_training(config, folder, tell=lambda text: None if as_json else tell(text))
    planned = after.compared(run.measurement, config)
    if as_json:
        print_json({**run.to_json(), "planned": [comparison.to_json() for comparison in planned]})
    else:
        _report(run, str(config.task.get("kind", "classify")))
        after.show(planned)
    if run.stopped == "interrupted":
        tell(
            say(
                "stopped by Ctrl-C: the run ended early, and its adapter is saved whole in {path}",
                path=run.adapter_folder,
            )
        )
        raise typer.Exit(INTERRUPTED)


def _report(run: Any, kind: str) -> None:
    rows = [[name, f"{value:.4f}"] for name, value in run.metrics.items()]
    rows += [
        [
            say("training"),
            f"{run.measurement.train_s:.1f} s, " + say("{rate:.0f} examples/s", rate=run.measurement.examples_per_s),
        ],
        [say("peak memory"), megabytes(run.measurement.peak_memory_bytes)],
        [say("adapter"), f"{run.adapter_folder} ({megabytes(run.to_json()['adapter_bytes'])})"],
    ]
    print_table(
        say("Result (best evaluation, step {step})", step=run.best_step),
        [say("what"), say("value")],
        rows,
        numbers_from=9,
    )
    command = "embed" if kind == "embed" else "predict"
    tell(say('use it: tunedeck {command} --adapter {path} "a text"', command=command, path=run.adapter_folder))
