"""Every key of a run file has an option, made from the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.command_line import Command

from tunedeck.cli.run_options import with_run_options
from tunedeck.core.settings import settings_of
from tunedeck.core.task_settings import CONFIGS
from tunedeck.data.settings import DataSettings
from tunedeck.methods.registry import METHODS
from tunedeck.training.config import RunConfig, TrainingSettings

DATA = ("--data", "missing.csv")


def keys_of(**flags: Any) -> dict[str, Any]:
    """The keys that flags set."""
    found: list[dict[str, Any]] = []

    def command(*, flags: dict[str, Any]) -> None:
        found.append(flags)

    with_run_options(command)(**flags)
    return found[0]


def test_every_setting_of_a_run_is_described_and_has_a_flag() -> None:
    parameters = set(with_run_options(lambda *, flags: None).__signature__.parameters)  # type: ignore[attr-defined]
    for group, cls in (("data", DataSettings), ("training", TrainingSettings), ("", RunConfig)):
        for setting in settings_of(cls):
            assert setting.help is not None or setting.name in ("data", "training"), f"{group}.{setting.name}"
            named = {"train": "data", "eval": "eval_data"} if group == "data" else {"start_from": "from_"}
            if setting.name != "out":
                assert named.get(setting.name, setting.name) in parameters | {"training"}
    for kind, config in {**METHODS, **CONFIGS}.items():
        for setting in settings_of(config):
            assert setting.name in parameters, f"{kind}.{setting.name}"


def test_a_flag_sets_its_key_and_what_is_not_given_sets_none() -> None:
    assert keys_of(data="a.csv", eval_data="b.csv", method="full", layers=2, name=None) == {
        "data.train": "a.csv",
        "data.eval": "b.csv",
        "method.kind": "full",
        "method.layers": 2,
    }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--epochs", "-1"), "training.epochs: must be > 0, got -1"),
        (("--schedule", "cosin"), "training.schedule: must be one of 'cosine', 'linear', 'constant', got 'cosin'"),
        (("--method", "lora", "--layers", "2"), "unknown key 'method.layers'"),
        (("--task", "generate", "--pooling", "mean"), "unknown key 'task.pooling'"),
        (("--gradient-checkpointing", "[1"), "--gradient-checkpointing: the value '[1' is not YAML"),
        (("--trackers", "tensorboard,wanb"), "training.trackers.1: must be one of 'tensorboard', 'mlflow', "),
    ],
)
def test_a_value_that_does_not_fit_is_one_line(tunedeck: Command, flags: tuple[str, ...], message: str) -> None:
    said = tunedeck("train", "--model", "m", *DATA, *flags)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert message in said.err


def test_a_comparison_has_no_flags_for_what_its_entries_differ_in(tunedeck: Command) -> None:
    assert (
        "there is no option --learning-rate" in tunedeck("compare", "--model", "m", *DATA, "--learning-rate", "1").err
    )


def test_the_help_of_a_command_shows_the_flags_whole(tunedeck: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    shown = tunedeck("train", "--help-all").out
    for flag in ("--gradient-accumulation-steps", "--no-deduplicate", "--prompt-tuning-init-text", "--target-modules"):
        assert flag in shown


@pytest.mark.filterwarnings("default::UserWarning")
def test_an_earlier_flag_reaches_its_key(tunedeck: Command, tmp_path: Path) -> None:
    said = tunedeck("train", "--model", "m", "--data", tmp_path / "none.csv", "--patience", "-1")
    assert "note: --patience is called --early-stopping-patience now" in said.err
    assert "training.early_stopping_patience: must be ≥ 0, got -1" in said.err
