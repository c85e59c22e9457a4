"""Real steps measured in a child process, and kept as the profile of this machine for later plans."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import psutil

from tunedeck.core.console import tell
from tunedeck.core.errors import ConfigError, TrainingError
from tunedeck.core.i18n import say
from tunedeck.core.measurement import Machine
from tunedeck.planner.machine import (
    Calibration,
    Profile,
    fit_cost_model,
    plain_settings,
    profile_path,
    read_profile,
    write_profile,
)
from tunedeck.planner.memory import Setup
from tunedeck.planner.models import PlannedModel
from tunedeck.planner.throughput import training_flops_per_token

BUSY_PERCENT = 25


def calibrate(machine: Machine, model: PlannedModel, setup: Setup) -> Profile:
    """Measure one model with one method, and write it into the machine's profile.

    Raises ConfigError for what is not measured yet, TrainingError when the measuring run fails.
    """
    if setup.four_bit:
        raise ConfigError(say("plan --calibrate does not measure 4-bit bases; leave out qlora"))
    tell(say("measuring {method} on {model}: a few real steps ...", method=setup.method.kind, model=model.name))
    began = time.perf_counter()
    found = _measured(
        json.dumps(
            {
                "model": model.reference,
                "method": {"kind": setup.method.kind, **plain_settings(setup)},
                "generate": setup.generate,
            }
        )
    )
    calibration = _calibration(model, setup, found)
    old = read_profile(machine)
    profile = Profile(
        machine=machine,
        measured_at=datetime.datetime.now().isoformat(timespec="seconds"),
        products_flops_per_s=found["products_flops_per_s"],
        copy_bytes_per_s=found["copy_bytes_per_s"],
        calibrations=old.calibrations if old else (),
    ).add(calibration)
    write_profile(profile)
    tell(
        say(
            "measured in {seconds:.0f} s: matrix products {gflops:.0f} GFLOP/s in {dtype}, memory {gbs:.0f} "
            "GB/s; kept in {path}",
            seconds=time.perf_counter() - began,
            gflops=profile.products_flops_per_s / 1e9,
            dtype=calibration.dtype,
            gbs=profile.copy_bytes_per_s / 1e9,
            path=profile_path(machine),
        )
    )
    return profile


def _measured(request: str) -> dict[str, Any]:
    """Return the rates and points that a measuring process prints."""
    busy = psutil.cpu_percent(interval=0.5)
    if busy > BUSY_PERCENT:
        text = say("other programs take {busy:.0f} % of this machine; measured steps will be too slow", busy=busy)
        tell(say("note: {text}", text=text))
    child = subprocess.run(
        [sys.executable, "-m", "tunedeck.training.calibrate", request], capture_output=True, text=True, check=False
    )
    if child.returncode != 0:
        reason = next(reversed(child.stderr.strip().splitlines()), str(child.returncode))
        raise TrainingError(say("the measuring run failed: {reason}", reason=reason))
    found: dict[str, Any] = json.loads(child.stdout.strip().splitlines()[-1])
    if "error" in found:
        raise TrainingError(say("the measuring run failed: {reason}", reason=found["error"]))
    return found


def _calibration(model: PlannedModel, setup: Setup, found: dict[str, Any]) -> Calibration:
    """Return the cost models through the measured points."""
    measured = [(int(r), int(t), float(s), float(b)) for r, t, s, b in found["points"]]
    rows, tokens, seconds, _ = measured[-1]
    flops = rows * tokens * training_flops_per_token(_at(setup, rows, tokens))
    extra = setup.width - setup.tokens  # virtual tokens, which the engine's count leaves out
    points = [(r, t + extra, s, b) for r, t, s, b in measured]
    return Calibration(
        model=model.name,
        method=setup.method.kind,
        settings=plain_settings(setup),
        dtype=str(found["dtype"]),
        generate=setup.generate,
        time_s=fit_cost_model([(r, t, s) for r, t, s, _ in points]),
        memory_bytes=fit_cost_model([(r, t, b) for r, t, _, b in points]),
        flops_per_s=flops / seconds,
        points=tuple(points),
    )


def _at(setup: Setup, rows: int, tokens: int) -> Setup:
    return replace(setup, micro_batch=rows, tokens=tokens)
