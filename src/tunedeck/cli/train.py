"""`tunedeck train`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunedeck.cli import after
from tunedeck.cli.console import megabytes, print_json, print_table, tell
from tunedeck.cli.main import INTERRUPTED, TERMINATED
from tunedeck.core.errors import ConfigError
from tunedeck.core.messages import listing, say
from tunedeck.core.process import process_rank

if TYPE_CHECKING:
    from tunedeck.training.config import RunConfig
    from tunedeck.training.record import TrainingRun

EXIT_CODES = {"interrupted": INTERRUPTED, "terminated": TERMINATED}
DATA, METHOD, LOOP = say("Data"), say("Method"), say("Training")


def train(
    run_file: Annotated[Path | None, typer.Argument(help=say("a YAML run file; flags override its keys"))] = None,
    model: Annotated[str | None, typer.Option(help=say("hub id, folder, .gguf file, ms: or bundled: name"))] = None,
    data: Annotated[str | None, typer.Option(help=say("training data: file, hub id or bundled: name"), rich_help_panel=DATA)] = None,
    eval_data: Annotated[str | None, typer.Option(help=say("evaluation data; else a part is held out"), rich_help_panel=DATA)] = None,
    eval_fraction: Annotated[float | None, typer.Option(help=say("share held out for evaluation"), rich_help_panel=DATA)] = None,
    text: Annotated[str | None, typer.Option(help=say("text column"), rich_help_panel=DATA)] = None,
    label: Annotated[str | None, typer.Option(help=say("label column"), rich_help_panel=DATA)] = None,
    anchor: Annotated[str | None, typer.Option(help=say("column of the anchors or queries of text pairs"), rich_help_panel=DATA)] = None,
    positive: Annotated[str | None, typer.Option(help=say("column of the texts that belong to them"), rich_help_panel=DATA)] = None,
    negative: Annotated[str | None, typer.Option(help=say("column of texts that do not"), rich_help_panel=DATA)] = None,
    score: Annotated[str | None, typer.Option(help=say("column of the scores of text pairs"), rich_help_panel=DATA)] = None,
    encoding: Annotated[str | None, typer.Option(help=say("encoding of the file, such as gb18030"), rich_help_panel=DATA)] = None,
    drop_empty: Annotated[bool | None, typer.Option("--drop-empty", help=say("leave out empty texts"), rich_help_panel=DATA)] = None,
    train_size: Annotated[int | None, typer.Option(help=say("train on so many examples only"), rich_help_panel=DATA)] = None,
    eval_size: Annotated[int | None, typer.Option(help=say("evaluate on so many examples only"), rich_help_panel=DATA)] = None,
    task: Annotated[str | None, typer.Option(help=say("classify (default), generate or embed"), rich_help_panel=DATA)] = None,
    multi_label: Annotated[bool | None, typer.Option("--multi-label", help=say("any number of labels per text"), rich_help_panel=DATA)] = None,
    max_length: Annotated[int | None, typer.Option(help=say("cut texts to so many tokens"), rich_help_panel=DATA)] = None,
    method: Annotated[str | None, typer.Option(help=say("lora, seq_bn, double_seq_bn, par_bn, prompt_tuning, full or head"), rich_help_panel=METHOD)] = None,
    r: Annotated[int | None, typer.Option("--r", help=say("LoRA rank"), rich_help_panel=METHOD)] = None,
    lora_alpha: Annotated[float | None, typer.Option(help=say("LoRA alpha; the scale is alpha / r"), rich_help_panel=METHOD)] = None,
    target_modules: Annotated[str | None, typer.Option(help=say("names with commas, a regular expression, or all-linear"), rich_help_panel=METHOD)] = None,
    reduction_factor: Annotated[float | None, typer.Option(help=say("bottleneck width: hidden size / this"), rich_help_panel=METHOD)] = None,
    num_virtual_tokens: Annotated[int | None, typer.Option(help=say("prompt tuning length"), rich_help_panel=METHOD)] = None,
    epochs: Annotated[float | None, typer.Option(help=say("passes over the data"), rich_help_panel=LOOP)] = None,
    max_steps: Annotated[int | None, typer.Option(help=say("stop after so many steps"), rich_help_panel=LOOP)] = None,
    batch_size: Annotated[int | None, typer.Option(help=say("examples per batch"), rich_help_panel=LOOP)] = None,
    learning_rate: Annotated[float | None, typer.Option(help=say("peak learning rate; each method has a default"), rich_help_panel=LOOP)] = None,
    seed: Annotated[int | None, typer.Option(help=say("seed of initialisation and order"), rich_help_panel=LOOP)] = None,
    patience: Annotated[int | None, typer.Option(help=say("stop after so many evaluations without a better one"), rich_help_panel=LOOP)] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16, float16", rich_help_panel=LOOP)] = None,
    quantize: Annotated[str | None, typer.Option(help=say("pack the base's linears: nf4 or int8"), rich_help_panel=LOOP)] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda", rich_help_panel=LOOP)] = None,
    trust_remote_code: Annotated[bool | None, typer.Option("--trust-remote-code", help=say("run code that comes with a model; off by default"))] = None,
    name: Annotated[str | None, typer.Option(help=say("the adapter's name"))] = None,
    out: Annotated[Path | None, typer.Option(help=say("run folder"))] = None,
    resume: Annotated[Path | None, typer.Option(help=say("go on with an interrupted run, by its folder"))] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=say("replace an earlier run in that folder"))] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", help=say("any other key, as training.warmup=0.1"))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=say("print JSON"))] = False,
) -> None:  # fmt: skip
    """Train an adapter and write a run folder."""
    from tunedeck.training.config import override, parsed_assignments, read_run_file
    from tunedeck.training.job_file import run_configs

    if resume is not None:
        run_file, out = run_file or resume / "config.yaml", resume
    values = read_run_file(run_file) if run_file else {}
    if method is not None:
        values = {**values, "method": method}  # another method's own keys would not fit
    if task is not None:
        values = {**values, "task": task}
    flags = {
        "model": model, "data.train": data, "data.eval": eval_data, "data.eval_fraction": eval_fraction, "data.text": text,
        "data.label": label, "data.anchor": anchor, "data.positive": positive, "data.negative": negative,
        "data.score": score, "data.encoding": encoding, "data.drop_empty": drop_empty, "data.train_size": train_size,
        "data.eval_size": eval_size, "task.multi_label": multi_label, "task.max_length": max_length, "method.r": r,
        "method.lora_alpha": lora_alpha, "method.target_modules": _targets(target_modules),
        "method.reduction_factor": reduction_factor, "method.num_virtual_tokens": num_virtual_tokens,
        "training.epochs": epochs, "training.max_steps": max_steps, "training.batch_size": batch_size,
        "training.learning_rate": learning_rate, "training.seed": seed, "training.patience": patience,
        "dtype": dtype, "quantize": quantize, "device": device, "trust_remote_code": trust_remote_code, "name": name,
        "out": None if out is None else str(out),
    }  # fmt: skip
    configs = run_configs(override(values, {**flags, **parsed_assignments(settings or [])}))
    config = configs[0]
    kind = str(config.method["kind"])
    folder = Path(config.out or Path("runs") / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}")
    from tunedeck.training.run import run_training

    first = process_rank() == 0
    run_folders = [folder / str(one.name) for one in configs] if len(configs) > 1 else [folder]
    earlier = any((one / "events.jsonl").exists() for one in run_folders)
    if first and earlier and not overwrite and resume is None:
        raise ConfigError(
            say("{path} holds an earlier run; choose another --out, --overwrite it, or --resume it", path=folder)
        )
    shown = first and not as_json
    runs = run_training(configs, folder, lambda text: tell(text) if shown else None, resume is not None, progress=first)
    stopped = next((run.stopped for run in runs.values() if run.stopped in EXIT_CODES), None)
    if first:
        _show(runs, config, as_json)
        if stopped is not None:
            _say_how_to_go_on(stopped, folder, list(runs.values()))
    if stopped is not None:
        raise typer.Exit(EXIT_CODES[stopped])


def _show(runs: dict[str, TrainingRun], config: RunConfig, as_json: bool) -> None:
    if len(runs) > 1:
        if as_json:
            print_json({"jobs": [run.to_json() for run in runs.values()]})
        else:
            _report_jobs(list(runs.values()))
        return
    (run,) = runs.values()
    planned = after.compared(run.measurement, config)
    if as_json:
        print_json({**run.to_json(), "planned": [comparison.to_json() for comparison in planned]})
    else:
        _report(run, str(config.task.get("kind", "classify")))
        after.show(planned)


def _say_how_to_go_on(stopped: str, folder: Path, runs: list[TrainingRun]) -> None:
    tell(
        say(
            "stopped by {signal}: the run ended early, and its adapter is saved whole in {path}; go on with: tunedeck train --resume {run}",
            signal="Ctrl-C" if stopped == "interrupted" else "SIGTERM",
            path=listing(run.adapter_folder for run in runs),
            run=folder,
        )
    )


def _report_jobs(runs: list[TrainingRun]) -> None:
    names = list(dict.fromkeys(name for run in runs for name in run.metrics))
    rows = [
        [run.adapter, str(run.best_step), *(f"{run.metrics[n]:.4f}" if n in run.metrics else "" for n in names)]
        for run in runs
    ]
    print_table(say("Result of each job at its best evaluation"), [say("adapter"), say("best step"), *names], rows)
    tell(say("the adapters are in {paths}", paths=listing(run.adapter_folder for run in runs)))


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


def _targets(text: str | None) -> str | list[str] | None:
    """`query,value` is a list of names; all-linear or anything with a character no name has is one string."""
    if text is None or text == "all-linear" or any(character in text for character in "*\\()[]|+^$?"):
        return text
    return [name.strip() for name in text.split(",")]
