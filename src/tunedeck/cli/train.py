"""`tunedeck train`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunedeck.cli import options, run_options
from tunedeck.cli.console import format_bytes, print_json, print_table, tell
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, say
from tunedeck.core.process import INTERRUPTED, TERMINATED, process_rank

if TYPE_CHECKING:
    from tunedeck.core.task_settings import TaskConfig
    from tunedeck.planner.hindsight import PredictedAndActual
    from tunedeck.training.config import RunConfig
    from tunedeck.training.record import TrainingRun

EXIT_CODES = {"interrupted": INTERRUPTED, "terminated": TERMINATED}
WITHOUT = ()
"""Keys of a run file without a flag."""


def train(
    run_file: run_options.RunFile = None,
    out: Annotated[Path | None, typer.Option(help=say("run folder"))] = None,
    resume: Annotated[Path | None, typer.Option(help=say("resume an interrupted run, given its folder"))] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=say("replace an earlier run in that folder"))] = False,
    settings: run_options.Assignments = None,
    as_json: options.AsJson = False,
    *,
    flags: Mapping[str, Any],
) -> None:
    """Train an adapter and write a run folder."""
    from tunedeck.training.job_file import run_configs
    from tunedeck.training.start_from import with_adapter

    if resume is not None:
        if not resume.is_dir():
            raise ConfigError(say("there is no run folder {path} to resume", path=resume))
        run_file, out = run_file or resume / "config.yaml", resume
    values = run_options.run_values(run_file, flags, settings or [], stored=resume is not None)
    values = with_adapter(values)
    config = run_configs(values)[0]
    options.check_sources(model=config.model, data=config.data.train)
    from tunedeck.training.run import train_run  # loads torch

    runs = train_run(values, out=out, resume=resume is not None, overwrite=overwrite)
    if process_rank() == 0:
        _show(runs, config, as_json)
    stopped = next((run.stopped for run in runs.values() if run.stopped in EXIT_CODES), None)
    if stopped is not None:
        raise typer.Exit(EXIT_CODES[stopped])


def _show(runs: dict[str, TrainingRun], config: RunConfig, as_json: bool) -> None:
    if config.folds is not None:
        _report_folds(runs, config.folds, as_json)
        return
    if len(runs) > 1:
        if as_json:
            print_json({"jobs": [run.to_json() for run in runs.values()]})
        else:
            _report_jobs(list(runs.values()))
        return
    from tunedeck.comparison.hindsight import predicted_and_actual

    (run,) = runs.values()
    planned = predicted_and_actual(run.measurement, config)
    if as_json:
        print_json({**run.to_json(), "planned": [comparison.to_json() for comparison in planned]})
    else:
        _report(run, config.task, refit=config.refit_head)
        _show_predicted(planned)


def _report_jobs(runs: list[TrainingRun]) -> None:
    names = list(dict.fromkeys(name for run in runs for name in run.metrics))
    rows = [
        [run.adapter, str(run.best_step), *(f"{run.metrics[n]:.4f}" if n in run.metrics else "" for n in names)]
        for run in runs
    ]
    print_table(say("Result of each job at its best evaluation"), [say("adapter"), say("best step"), *names], rows)
    tell(say("the adapters are in {paths}", paths=listing(run.adapter_folder for run in runs)))


def _report_folds(runs: dict[str, TrainingRun], folds: int, as_json: bool) -> None:
    """Show the mean of each metric with its interval; nothing but where they are for a run that was stopped."""
    from tunedeck.training.folds import PREDICTIONS, SUMMARY

    first = next(iter(runs.values())).folder
    assert first is not None
    if not (first.parent / SUMMARY).exists():
        return
    found = json.loads((first.parent / SUMMARY).read_text(encoding="utf-8"))
    if as_json:
        print_json({**found, "predictions": str(first.parent / PREDICTIONS)})
        return
    rows = [
        [name, f"{one['mean']:.4f}", f"{one['low']:.4f} - {one['high']:.4f}"] for name, one in found["metrics"].items()
    ]
    title = say("Mean over {folds} folds", folds=folds)
    print_table(title, [say("metric"), say("mean"), say("95 % interval")], rows)
    tell(
        say(
            "what each text was predicted as by an adapter that had not seen it: {path}",
            path=first.parent / PREDICTIONS,
        )
    )


def _report(run: Any, task: TaskConfig, *, refit: bool) -> None:
    from tunedeck.tasks.registry import view_of

    metrics = [[name, f"{value:.4f}"] for name, value in run.metrics.items()]
    rows = [
        *metrics,
        *_start(run),
        *_steps(run),
        [say("peak memory"), format_bytes(run.measurement.peak_memory_bytes)],
        [say("adapter"), f"{run.adapter_folder} ({format_bytes(run.to_json()['adapter_bytes'])})"],
    ]
    print_table(
        say("Result (best evaluation, step {step})", step=run.best_step)
        if metrics
        else say("Stopped before the first evaluation"),
        [say("what"), say("value")],
        rows,
        numbers_from=9,
    )
    if refit:
        tell(say("the head was fitted again to all examples after these measurements, to the held-out ones as well"))
    if run.below_head_only:
        (metric, value), *_ = run.head_only.items()
        text = say(
            "a head only on the frozen base reaches {metric} {value:.4f}, more than this run",
            metric=metric,
            value=value,
        )
        tell(text + say("; try --method head or another method"))
    elif run.kept_start:
        tell(say("no step was better than the head on the frozen base, which is kept; try another learning rate"))
    elif run.still_improving:
        tell(say("the last evaluation was the best: more --epochs may do better"))
    capabilities = view_of(task).task.capabilities
    if "text" in capabilities:
        tell(say("use it: tunedeck chat --adapter {path}", path=run.adapter_folder))
        return
    command = "embed" if "vectors" in capabilities else "predict"
    tell(say('use it: tunedeck {command} --adapter {path} "a text"', command=command, path=run.adapter_folder))


def _start(run: Any) -> list[list[str]]:
    """Return rows on the head's start, where there was one."""
    if not run.start:
        return []
    first, *_ = run.start.items()
    return [[say("start"), f"{first[0]} {first[1]:.4f}, {run.measurement.start_s:.1f} s"]]


def _steps(run: Any) -> list[list[str]]:
    """Return a row on the training steps; none where the start was all."""
    seconds, rate = run.measurement.train_s, run.measurement.examples_per_s
    took = f"{seconds:.1f} s, " + say("{rate:.0f} examples/s", rate=rate)
    return [[say("training"), took]] if run.measurement.steps else []


def _show_predicted(comparisons: list[PredictedAndActual]) -> None:
    """The table, and a line for each value outside its prediction or on an uncertain basis."""
    if not comparisons:
        return
    names = {"memory": say("peak memory"), "time": say("training"), "cost": say("cost of the training time")}
    rows = [
        [
            names[c.quantity],
            f"{_value(c.predicted.expected, c.unit)} ({_value(c.predicted.low, c.unit)} - "
            f"{_value(c.predicted.high, c.unit)})",
            _value(c.actual, c.unit),
            f"{c.actual / c.predicted.expected - 1:+.0%}" if c.predicted.expected else "-",
        ]
        for c in comparisons
    ]
    print_table(say("Predicted and actual"), [say("what"), say("predicted"), say("actual"), say("off by")], rows)
    for comparison in comparisons:
        text = comparison.basis or comparison.reason
        if text:
            tell(say("{name}: {value}", name=names[comparison.quantity], value=text))


def _value(value: float, unit: str) -> str:
    if unit == "bytes":
        return format_bytes(value)
    return f"{value:.1f} s" if unit == "s" else f"{value:.2f} {unit}"
