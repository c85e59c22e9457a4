"""The runs of a comparison: what each is, which are finished, and carrying one out in a process of its own."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tunedeck.cli.comparing.methods import Candidate
from tunedeck.cli.console import tell
from tunedeck.cli.main import INTERRUPTED
from tunedeck.core.errors import ConfigError, DataError, TrainingError
from tunedeck.core.messages import language, say
from tunedeck.core.storage import write_text
from tunedeck.training.config import RunConfig, run_config
from tunedeck.training.outcome import ENDED

if TYPE_CHECKING:
    from tunedeck.formats.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Run:
    """One entry with one seed, and where it lies."""

    candidate: Candidate
    seed: int
    config: RunConfig
    folder: Path

    @property
    def adapter(self) -> Path:
        """The saved adapter."""
        return self.folder / "adapter"

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the finished run."""
        values: dict[str, Any] = json.loads((self.folder / name).read_text(encoding="utf-8"))
        return values

    def manifest(self) -> Manifest:
        """The manifest of its adapter."""
        from tunedeck.formats.manifest import read_manifest

        manifest = read_manifest(self.adapter)
        assert manifest is not None
        return manifest


def planned_runs(values: Mapping[str, Any], candidates: Sequence[Candidate], seeds: Sequence[int], home: Path) -> list[Run]:  # fmt: skip
    """Every entry with every seed; ConfigError where an entry's settings do not fit."""
    found = []
    for candidate in candidates:
        for seed in seeds:
            training = {**values.get("training", {}), **candidate.training, "seed": seed}
            one = {**values, "method": candidate.method, "training": training, "name": candidate.folder, "out": None}
            try:
                config = run_config(one)
            except ConfigError as error:
                raise ConfigError(say("{name}: {reason}", name=candidate.name, reason=error)) from error
            if config.method.get("layers") == "head" and config.task.get("kind", "classify") != "classify":
                raise ConfigError(say("{name}: only classification has a head to train alone; leave it out", name=candidate.name))  # fmt: skip
            found.append(Run(candidate, seed, config, home / "runs" / candidate.folder / f"seed-{seed}"))
    return found


def is_finished(run: Run, data_sha256: str) -> bool:
    """Whether this very run lies there complete.

    Raises ConfigError where a run of other settings lies there, and DataError where it had other data.
    """
    stored = run.folder / "config.yaml"
    if not stored.exists():
        return False
    before = {**yaml.safe_load(stored.read_text(encoding="utf-8")), "out": None}  # the folder may have moved
    differing = _differences(before, run.config.model_dump(mode="json"))
    if differing:
        raise ConfigError(
            say(
                "{path} was made with other settings: {differences}; go back to them, choose another --out, or start anew with --overwrite",
                path=run.folder, differences="; ".join(differing),
            )
        )  # fmt: skip
    if not (run.folder / "metrics.json").exists() or run.read("metrics.json")["stopped"] not in ENDED:
        return False
    record = run.manifest().data
    if record is None or record.sha256 != data_sha256:
        raise DataError(
            say(
                "{path} was trained on other examples than the data holds now; restore the data, choose another --out, or start anew with --overwrite",
                path=run.folder,
            )
        )  # fmt: skip
    return True


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], group: str = "") -> list[str]:
    """`training.epochs: 2 before, 3 now` for every key that differs."""
    found = []
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += _differences(old, new, f"{group}{key}.")
        elif old != new:
            found.append(say("{key}: {old} before, {new} now", key=f"{group}{key}", old=old, new=new))
    return found


def carry_out(run: Run) -> None:
    """Train in a process of its own, so that its memory is measured alone; what a broken attempt left is thrown away.

    Raises TrainingError when the process fails, KeyboardInterrupt when it was interrupted.
    """
    shutil.rmtree(run.folder, ignore_errors=True)
    run_file = run.folder.with_suffix(".yaml")
    write_text(run_file, yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
    arguments = ["train", str(run_file), "--out", str(run.folder)]
    tell("$ tunedeck " + shlex.join(arguments))
    command = [sys.executable, "-m", "tunedeck", "--lang", language(), *arguments]
    code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise TrainingError(say("the command above ended with code {code}", code=code))
