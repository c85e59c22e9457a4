"""What Tunedeck reads of the environment that accelerate's launcher sets."""

from __future__ import annotations

import pytest
from accelerate.commands.launch import launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from tunedeck.core.compat.accelerate import fsdp_is_requested


@pytest.mark.parametrize("flags", [[], ["--use_fsdp"]])
def test_accelerate_launch_says_in_the_environment_that_fsdp_is_requested(
    flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    arguments = launch_command_parser().parse_args(
        ["--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", *flags, "train.py"]
    )
    for name, value in prepare_multi_gpu_env(arguments).items():
        if name.startswith("ACCELERATE_"):
            monkeypatch.setenv(name, value)
    assert fsdp_is_requested() == bool(flags)
