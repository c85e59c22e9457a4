"""Methods trained on the same data with the same budget, measured, and put side by side."""

from __future__ import annotations

import inspect
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunedeck.comparison.grammar import Candidate, Methods
from tunedeck.comparison.result import Comparison
from tunedeck.comparison.runs import Run, deck_for, is_finished, planned_runs, train_run
from tunedeck.comparison.spec import ComparisonSpec, comparison_spec
from tunedeck.core.console import tell
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.storage import write_json
from tunedeck.training.config import override, read_run_file
from tunedeck.training.left_out import with_left_out

if TYPE_CHECKING:
    from tunedeck.deck.deck import Deck
    from tunedeck.tasks.base import Dataset

RESULT = "comparison.json"


def compare(
    run: str | Path | Mapping[str, Any] | None = None,
    *,
    model: str | None = None,
    data: str | Mapping[str, Any] | None = None,
    task: str | Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    methods: Methods | None = None,
    seeds: int | str | Sequence[int] | None = None,
    search: int = 0,
    examples: int | None = None,
    minutes: float | None = None,
    budget: float | None = None,
    price_per_hour: float | None = None,
    currency: str = "CNY",
    out: str | Path | None = None,
    overwrite: bool = False,
    ray: str | None = None,
    progress: bool = True,
    command: str | None = None,
) -> Comparison:
    """Train several methods on the same data with the same budget, measure them, and say which to take and why.

    `run` is a run file, a data file or a run's values; `model`, `data` (a reference, or the keys of `data`), `task` and
    `training` override its keys; without a model, a bundled one that reads the language of the data is taken.
    `methods` is text such as "lora:r=4,16,head", or a list of such texts and of configs such as LoraConfig(r=4); by
    default every method of the task. `seeds` is a number of seeds or the seeds themselves. The budget of each run is
    `examples`, `minutes` of training, or `budget`, an amount of money at `price_per_hour`; else the run's epochs or
    steps. `search` first tries that many settings for each entry.

    Each run is trained in a separate process. `out`, by default compare/NAME after the run file or the data, then
    holds the runs, comparison.json, report.html, report.md and figures/. If called again with the same arguments,
    finished runs are kept and an interrupted one is resumed; `overwrite` starts anew. `progress` prints notes and
    progress bars to standard error. `command` is how the report says to repeat it, by default this call.

    `ray` is the address of a Ray cluster, "auto", or "local" for this machine: its workers train the runs, as many at a
    time as it has processors or GPUs. The folder and the data are on storage that all machines share.

    Raises ConfigError for settings that do not fit and where `out` holds a comparison with other settings, DataError
    for data that is not usable or has changed, TrainingError when a run fails, and KeyboardInterrupt after Ctrl-C. If
    Ctrl-C or SIGTERM stopped a run, it is comparison.runs.Interrupted, a KeyboardInterrupt that names the signal.
    """
    call = command or as_call(compare, locals())
    values = with_left_out(values_of_run(run, model, data, task, training), tell if progress else lambda text: None)
    if any(values.get(key) for key in ("folds", "start_from", "replay", "refit_head")):
        raise ConfigError(
            say("a comparison has no folds, start_from, replay or refit_head; they are for tunedeck train")
        )
    spec = comparison_spec(
        values,
        folder=Path(out or values.get("out") or default_folder(name_source(run, values))),
        command=call,
        methods=methods,
        seeds=seeds,
        search=search,
        examples=examples,
        minutes=minutes,
        budget=budget,
        price_per_hour=price_per_hour,
        currency=currency,
        progress=progress,
        ray=ray,
    )
    if overwrite:
        clear(spec.folder)
    comparison, _ = run_comparison(spec)
    comparison.report(spec.folder)
    write_json(spec.folder / RESULT, comparison.to_json())
    return comparison


def default_folder(reference: str | Path, parent: str = "compare") -> Path:
    """Return PARENT/NAME after a run file or a data reference: compare/tweets for `bundled:tweets`."""
    name = Path(str(reference).rpartition(":")[2]).stem
    return Path(parent) / (re.sub(r"[^\w.-]+", "-", name) or "comparison")


def name_source(run: str | Path | Mapping[str, Any] | None, values: Mapping[str, Any]) -> str | Path:
    """Return what a folder is named after: the run file, else the data."""
    if isinstance(run, str | Path):
        return run
    data = values.get("data")
    return str(data.get("train", "")) if isinstance(data, Mapping) else ""


def values_of_run(
    run: str | Path | Mapping[str, Any] | None,
    model: str | None,
    data: str | Mapping[str, Any] | None,
    task: str | Mapping[str, Any] | None,
    training: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return a run's values: those of the file or mapping, with the keys of the other arguments set."""
    values = dict(run) if isinstance(run, Mapping) else read_run_file(Path(run)) if run is not None else {}
    if task is not None:  # another task's keys would not fit
        values = {**values, "task": task}
    keys = {"train": data} if isinstance(data, str) else data or {}
    return override(
        values,
        {
            "model": model,
            **{f"data.{key}": value for key, value in keys.items()},
            **{f"training.{key}": value for key, value in (training or {}).items()},
        },
    )


def as_call(function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """Return the call of a public function that `arguments` make, without those at their default."""
    given = []
    for name, parameter in inspect.signature(function).parameters.items():
        value = arguments[name]
        if value != parameter.default:
            shown = repr(str(value) if isinstance(value, Path) else value)
            given.append(shown if name == "run" else f"{name}={shown}")
    return f"tunedeck.{function.__name__}({', '.join(given)})"


def clear(folder: Path) -> None:
    """Delete what an earlier comparison left in the folder."""
    from tunedeck.comparison.search import FILE

    for name in ("runs", "figures"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (FILE, RESULT, "report.html", "report.md"):
        (folder / name).unlink(missing_ok=True)


def run_comparison(spec: ComparisonSpec) -> tuple[Comparison, Deck]:
    """Return the comparison, and the deck with every entry's first run loaded under the entry's name.

    Runs that are finished are not trained again. Raises what `compare` raises; after an interruption it
    says how to resume.
    """
    try:
        return _run_comparison(spec)
    except KeyboardInterrupt:
        spec.tell(
            say(
                "the runs are kept in {path}, the interrupted one with its last checkpoint; run the same "
                "command again to resume",
                path=spec.folder,
            )
        )
        raise


def _run_comparison(spec: ComparisonSpec) -> tuple[Comparison, Deck]:
    from tunedeck.comparison.ray_tasks import train_on_ray
    from tunedeck.comparison.results import build_comparison
    from tunedeck.tasks.registry import task_of

    began = time.perf_counter()
    runs = planned_runs(spec, spec.candidates)
    config = runs[0].config
    task = task_of(config.task)
    dataset: Dataset[Any] = task.read(config.data)
    metric = config.training.metric_for_best_model or dataset.metric_for_best_model or task.metric_for_best_model
    for text in (*dataset.notes, dataset.description):
        spec.tell(text)
    tried: list[dict[str, Any]] = []
    if spec.trials:
        candidates, tried = _searched(spec, runs, dataset, metric)
        runs = planned_runs(spec, candidates)
    unfinished = [run for run in runs if not is_finished(run, dataset.sha256)]
    if len(unfinished) < len(runs):
        spec.tell(say("{done} of {count} runs are there already", done=len(runs) - len(unfinished), count=len(runs)))
    if spec.ray is not None and unfinished:
        train_on_ray(unfinished, spec)
    else:
        for run in unfinished:
            train_run(run, spec)
    deck, load_ms = load_entries(_first_runs(spec, runs))
    return build_comparison(spec, runs, dataset, metric, deck, load_ms, tried, began), deck


def _searched(
    spec: ComparisonSpec, runs: Sequence[Run], dataset: Dataset[Any], metric: str
) -> tuple[list[Candidate], list[dict[str, Any]]]:
    from tunedeck.comparison.search import search

    spec.folder.mkdir(parents=True, exist_ok=True)
    first = _first_runs(spec, runs)
    return search(spec, first, deck_for(first[0].config, dataset.labels), dataset, metric)


def _first_runs(spec: ComparisonSpec, runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.seed == spec.seeds[0]]


def load_entries(runs: Sequence[Run]) -> tuple[Deck, dict[str, float]]:
    """Return a deck with each run's adapter under its entry's name, and the milliseconds each took to load."""
    deck = deck_for(runs[0].config, runs[0].manifest().task.get("labels"))
    load_ms = {}
    for run in runs:
        began = time.perf_counter()
        deck.load_adapter(run.adapter, run.candidate.name)
        load_ms[run.candidate.name] = 1000 * (time.perf_counter() - began)
    return deck, load_ms
