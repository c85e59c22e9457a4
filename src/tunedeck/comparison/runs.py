"""List the runs of a comparison, find the finished ones, and run one in a separate process."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, final

import yaml

from tunedeck.comparison.grammar import Candidate
from tunedeck.core.errors import ConfigError, DataError, TrainingError
from tunedeck.core.i18n import language, say
from tunedeck.core.process import INTERRUPTED, TERMINATED
from tunedeck.core.storage import write_text
from tunedeck.training.config import RunConfig, run_config, stored_values
from tunedeck.training.state import COMPLETE

CONFIG = "config.yaml"
STOPPED_BY = {
    INTERRUPTED: signal.SIGINT,
    -signal.SIGINT: signal.SIGINT,
    TERMINATED: signal.SIGTERM,
    -signal.SIGTERM: signal.SIGTERM,
}
"""Exit codes of a run that a signal stopped."""
_WAIT_S = 1.0

if TYPE_CHECKING:
    from tunedeck.comparison.spec import ComparisonSpec
    from tunedeck.deck.deck import Deck
    from tunedeck.formats.manifest import Manifest


@final
class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, the `signal`, stopped a comparison while it trained; the same call resumes it."""

    def __init__(self, by: signal.Signals) -> None:
        super().__init__(by.name)
        self.signal = by


@dataclass(frozen=True, slots=True)
class Run:
    """One entry with one seed, and its folder."""

    candidate: Candidate
    seed: int
    config: RunConfig
    folder: Path

    @property
    def adapter(self) -> Path:
        """Return the saved adapter."""
        return self.folder / "adapter"

    def read(self, name: str) -> dict[str, Any]:
        """Return a JSON file of the finished run."""
        values: dict[str, Any] = json.loads((self.folder / name).read_text(encoding="utf-8"))
        return values

    def manifest(self) -> Manifest:
        """Return the manifest of its adapter."""
        from tunedeck.formats.manifest import read_manifest

        manifest = read_manifest(self.adapter)
        assert manifest is not None
        return manifest


def deck_for(config: RunConfig, labels: Sequence[str] | None) -> Deck:
    """Return a run's base, without adapters."""
    from tunedeck.deck.deck import Deck
    from tunedeck.deck.task import with_labels
    from tunedeck.tasks.registry import task_of

    task = task_of(config.task)
    return Deck.load(
        config.model,
        task if labels is None else with_labels(task, labels),
        dtype=config.dtype,
        device=config.device,
        trust_remote_code=config.trust_remote_code,
        quantize=config.quantize,
    )


def planned_runs(spec: ComparisonSpec, candidates: Sequence[Candidate]) -> list[Run]:
    """Return every entry with every seed; ConfigError where an entry's settings do not fit."""
    from tunedeck.deck.reading import check_trains
    from tunedeck.tasks.registry import task_of

    found = []
    for candidate in candidates:
        for seed in spec.seeds:
            training = {**spec.values.get("training", {}), **candidate.training, "seed": seed}
            named = {"method": candidate.method, "training": training, "name": candidate.folder, "out": None}
            try:
                config = run_config({**spec.values, **named})
                check_trains(config.method, task_of(config.task))
            except ConfigError as error:
                raise ConfigError(say("{name}: {reason}", name=candidate.name, reason=error)) from error
            found.append(Run(candidate, seed, config, spec.folder / "runs" / candidate.folder / f"seed-{seed}"))
    return found


def is_finished(run: Run, data_sha256: str) -> bool:
    """Tell whether this run is there and complete.

    Raises ConfigError if the folder holds a run with other settings, and DataError if it had other data.
    """
    stored = run.folder / CONFIG
    if not stored.exists():
        return False
    kept = {
        **stored_values(yaml.safe_load(stored.read_text(encoding="utf-8"))),
        "out": None,
    }  # the folder may have moved
    differing = _differences(run_config(kept).model_dump(mode="json"), run.config.model_dump(mode="json"))
    if differing:
        raise ConfigError(
            say(
                "{path} was made with other settings: {differences}; go back to them, choose another --out, "
                "or start again with --overwrite",
                path=run.folder,
                differences="; ".join(differing),
            )
        )
    if not (run.folder / "metrics.json").exists() or run.read("metrics.json")["stopped"] not in COMPLETE:
        return False
    record = run.manifest().data
    if record is None or record.sha256 != data_sha256:
        raise DataError(
            say(
                "{path} was trained on other examples than the data holds now; restore the data, "
                "choose another --out, or start again with --overwrite",
                path=run.folder,
            )
        )
    return True


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], group: str = "") -> list[str]:
    """Return `training.epochs: 2 before, 3 now` for every key that differs."""
    found = []
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += _differences(old, new, f"{group}{key}.")
        elif old != new:
            found.append(say("{key}: {old} before, {new} now", key=f"{group}{key}", old=old, new=new))
    return found


def train_run(run: Run, spec: ComparisonSpec) -> None:
    """Train in a separate process, so that its memory is measured alone; an interrupted run is resumed.

    Raises TrainingError when the process fails, Interrupted when Ctrl-C or SIGTERM stopped it.
    """
    if (run.folder / CONFIG).exists():
        arguments = ["train", "--resume", str(run.folder)]
    else:
        run_file = run.folder.with_suffix(".yaml")
        write_text(run_file, yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
        arguments = ["train", str(run_file), "--out", str(run.folder)]
    spec.tell("$ tunedeck " + shlex.join(arguments))
    command = [sys.executable, "-m", "tunedeck", "--lang", language(), *arguments]
    code, errors, asked = _watched(command, quiet=not spec.progress)
    stopped = asked or STOPPED_BY.get(code)
    if stopped is not None:
        raise Interrupted(stopped)
    if code:
        reason = next(reversed(errors.strip().splitlines()), say("see above"))
        raise TrainingError(say("{path} ended with code {code}: {reason}", path=run.folder, code=code, reason=reason))


def _watched(command: Sequence[str], quiet: bool) -> tuple[int, str, signal.Signals | None]:
    """Return a command's exit code, its standard error if `quiet`, and the first signal that asked this process to
    stop.

    The command is asked to stop by SIGTERM and waited for: a second SIGINT in addition to the terminal's would break
    off its last step. Outside the main thread, where Python allows no handlers, signals do what they always do.
    """
    asked: list[signal.Signals] = []
    started: list[subprocess.Popen[str]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(signal.Signals(number))
        for process in started:
            process.terminate()

    heeded = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {one: signal.signal(one, pass_on) for one in heeded}
    try:
        errors = subprocess.PIPE if quiet else None
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, encoding="utf-8"))
        if asked:
            started[0].terminate()
        said = None
        while started[0].returncode is None:  # a signal raised by Ray does not end a wait
            with suppress(subprocess.TimeoutExpired):
                said = started[0].communicate(timeout=_WAIT_S)[1]
        return started[0].returncode, said or "", asked[0] if asked else None
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
