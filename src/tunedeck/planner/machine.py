"""Keep measurements of this machine in the cache folder, one file per machine, for all later plans."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy

from tunedeck.core.bundle import cache_folder
from tunedeck.core.measurement import Machine
from tunedeck.core.run_length import CPU_POSITIONS
from tunedeck.core.storage import write_json
from tunedeck.core.values import to_values
from tunedeck.planner.catalogue import Gpu
from tunedeck.planner.estimate import Estimate
from tunedeck.planner.memory import MemoryParts, Setup, memory_parts
from tunedeck.planner.processor import Processor, usable_cores
from tunedeck.planner.throughput import training_flops_per_token
from tunedeck.planner.uncalibrated import FLOPS_PER_CORE, band, first_use_s, process_bytes, update_s, waits_s

THIS_MACHINE = "this-machine"
MEASURED_BAND = {"time": (0.85, 1.15), "memory": (0.9, 1.1)}
NEAR_BAND = {"time": (0.6, 1.7), "memory": (0.75, 1.3)}
"""For a model or settings that were not themselves measured here, from the nearest that was."""
COPY_BYTES_PER_S = 20e9  # where nothing was measured: AdamW reached 22e9 to 27e9 on two cores of an AMD EPYC
FREE_SHARE = 0.9  # of a CPU machine's memory; the rest is the system's


@dataclass(frozen=True, slots=True)
class CostModel:
    """A quantity of a step with P tokens in rows of length s: constant + per_token·P + per_score·P·s."""

    constant: float
    per_token: float
    per_score: float

    def at(self, setup: Setup) -> float:
        """Return the value for a run's micro-batch."""
        tokens = setup.batch_tokens
        return self.constant + self.per_token * tokens + self.per_score * tokens * setup.width


@dataclass(frozen=True, slots=True)
class Calibration:
    """Real steps of one model with one method: seconds of a micro-batch with its update, bytes of the process."""

    model: str
    method: str
    settings: Mapping[str, Any]
    dtype: str
    generate: bool
    time_s: CostModel
    memory_bytes: CostModel
    flops_per_s: float
    """Arithmetic of its longest point over the time that took."""
    points: tuple[tuple[int, int, float, float], ...]
    """(rows, length, seconds, bytes) as measured."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One machine: its raw rates and the calibrations taken on it."""

    machine: Machine
    measured_at: str
    products_flops_per_s: float
    copy_bytes_per_s: float
    calibrations: tuple[Calibration, ...]

    def find(self, model: str, setup: Setup) -> tuple[Calibration | None, bool]:
        """Return the calibration of this model and method, and whether it is of these very settings; else the nearest
        or None.
        """
        same = [c for c in self.calibrations if c.model == model and c.method == setup.method.kind]
        same = [c for c in same if c.generate == setup.generate] or same
        exact = next((c for c in same if dict(c.settings) == plain_settings(setup)), None)
        if exact is not None:
            return exact, exact.generate == setup.generate
        return (same[0] if same else None), False

    def add(self, calibration: Calibration) -> Profile:
        """Return the profile with a calibration in the place of an older one for the same model, method and
        settings.
        """
        key = (calibration.model, calibration.method, dict(calibration.settings), calibration.generate)
        kept = [c for c in self.calibrations if (c.model, c.method, dict(c.settings), c.generate) != key]
        return replace(self, calibrations=(*kept, calibration))


NOTHING = Estimate.exactly(0)


@dataclass(frozen=True, slots=True)
class StepPrediction:
    """The predicted memory and time of a step on this machine; `exact` if this model and method were measured."""

    step_s: Estimate
    memory_bytes: Estimate
    parts: MemoryParts
    exact: bool
    first_use_s: Estimate = NOTHING
    """Seconds that the first steps of a run take beyond what later ones take, in all."""


def plain_settings(setup: Setup) -> dict[str, Any]:
    """Return a method's settings as they come back from JSON."""
    values: dict[str, Any] = json.loads(json.dumps(to_values(setup.method)))
    return values


def predict(
    profile: Profile | None, model: str, longest: Setup, mean: Setup, gpu: Gpu, processor: Processor | None = None
) -> StepPrediction:
    """Return memory at the longest batch and the time of an update at the mean one, from the nearest calibration there
    is.

    Without any it is from the formulae and the `processor` as it is now, where that is known.
    """
    longest = _cut(longest)
    calibration, exact = profile.find(model, longest) if profile else (None, False)
    if calibration is not None:
        return _measured(calibration, longest, mean, exact)
    least = [c.memory_bytes.constant for c in profile.calibrations] if profile else []
    context = min([process_bytes(longest), *least])
    parts = replace(memory_parts(longest), context=context, fragmentation=0.0)
    memory = Estimate.around(parts.device, *NEAR_BAND["memory"])
    if profile and profile.calibrations:
        flops_per_s = median(c.flops_per_s for c in profile.calibrations)
        seconds = mean.batch_tokens * training_flops_per_token(mean) / flops_per_s * mean.accumulation
        return StepPrediction(Estimate.around(seconds, *NEAR_BAND["time"]), memory, parts, exact=False)
    step = Estimate.around(update_s(mean, gpu, processor), *band(processor)).plus(waits_s(mean, gpu, processor))
    return StepPrediction(step, memory, parts, exact=False, first_use_s=first_use_s(longest, processor))


def _cut(setup: Setup) -> Setup:
    """Return the micro-batches that training cuts a large batch into on a CPU; one of embeddings stays whole."""
    pieces = math.ceil(setup.batch_tokens / CPU_POSITIONS) if setup.labels or setup.generate else 1
    return replace(setup, micro_batch=math.ceil(setup.micro_batch / pieces))


def _measured(calibration: Calibration, longest: Setup, mean: Setup, exact: bool) -> StepPrediction:
    """Predict from the cost models of this machine's steps."""
    around = MEASURED_BAND if exact else NEAR_BAND
    again = training_flops_per_token(mean) / training_flops_per_token(replace(mean, chunk=None, epochs=1.0))
    step = Estimate.around(calibration.time_s.at(mean) * again * mean.accumulation, *around["time"])
    total = calibration.memory_bytes.at(replace(longest, micro_batch=longest.held_tokens // longest.width))
    parts = _parts(memory_parts(longest), calibration.memory_bytes, total)
    return StepPrediction(step, Estimate.around(total, *around["memory"]), parts, exact)


def machine_card(machine: Machine, profile: Profile | None) -> Gpu:
    """Return this machine's processor as a GPU of the catalogue."""
    cores = min(machine.cpu_cores, usable_cores())
    rate = profile.products_flops_per_s if profile else FLOPS_PER_CORE * cores
    return Gpu(
        name=THIS_MACHINE,
        names=(),
        memory_gb=machine.memory_bytes / 1e9,
        visible_bytes=FREE_SHARE * machine.memory_bytes,
        tensor_flops_per_s=rate,
        fp32_flops_per_s=rate,
        bytes_per_s=profile.copy_bytes_per_s if profile else COPY_BYTES_PER_S,
        capability=0.0,
        utilisation=1.0,
        measured=profile is not None,
        tensor_cores=False,
        cpu_cores=cores,
        source=machine.cpu,
        note="",
        doubtful="",
    )


def profile_path(machine: Machine) -> Path:
    """Return the path of a machine's profile; another processor, core count or memory is another machine."""
    key = json.dumps(asdict(machine), sort_keys=True).encode()
    return cache_folder() / "machines" / f"{hashlib.sha256(key).hexdigest()[:16]}.json"


def read_profile(machine: Machine) -> Profile | None:
    """Return the profile of a machine; None when it was never measured or the file is of another version."""
    try:
        values = json.loads(profile_path(machine).read_text(encoding="utf-8"))
        return Profile(
            machine=Machine(**values["machine"]),
            measured_at=values["measured_at"],
            products_flops_per_s=values["products_flops_per_s"],
            copy_bytes_per_s=values["copy_bytes_per_s"],
            calibrations=tuple(_calibration(row) for row in values["calibrations"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_profile(profile: Profile) -> Path:
    """Keep a profile for later plans; returns its file."""
    path = profile_path(profile.machine)
    write_json(path, asdict(profile))
    return path


def fit_cost_model(points: Sequence[tuple[int, int, float]]) -> CostModel:
    """Fit by least squares of relative errors, without negative coefficients, over (rows, length, value).

    With three unknowns every subset of the terms is tried, the best without a negative coefficient is taken.
    """
    terms = [(1.0, float(rows * length), float(rows * length * length)) for rows, length, _ in points]
    values = [value for *_, value in points]
    best: tuple[float, tuple[float, float, float]] | None = None
    for chosen in ((0, 1, 2), (0, 1), (0, 2), (1, 2), (0,), (1,), (2,)):
        solved = _solve([[row[i] / value for i in chosen] for row, value in zip(terms, values, strict=True)])
        if solved is None or min(solved) < 0:
            continue
        found = [0.0, 0.0, 0.0]
        for index, coefficient in zip(chosen, solved, strict=True):
            found[index] = coefficient
        error = sum(
            (sum(c * t for c, t in zip(found, row, strict=True)) / value - 1) ** 2
            for row, value in zip(terms, values, strict=True)
        )
        if best is None or error < best[0]:
            best = (error, (found[0], found[1], found[2]))
    assert best is not None
    return CostModel(*best[1])


def _solve(rows: list[list[float]]) -> list[float] | None:
    """Solve rows · x = 1 by least squares; None where the columns depend on each other."""
    matrix = numpy.array(rows)
    if len(matrix) < matrix.shape[1]:
        return None
    scale = numpy.linalg.norm(matrix, axis=0)
    scale[scale == 0] = 1.0
    solution, _, _, singular = numpy.linalg.lstsq(matrix / scale, numpy.ones(len(matrix)))
    return None if singular[-1] ** 2 < 1e-9 else [float(value) for value in solution / scale]


def _calibration(row: Mapping[str, Any]) -> Calibration:
    points = tuple((int(rows), int(length), float(s), float(b)) for rows, length, s, b in row["points"])
    models = {name: CostModel(**row[name]) for name in ("time_s", "memory_bytes")}
    return Calibration(**{**row, **models, "points": points})


def _parts(formula: MemoryParts, law: CostModel, total: float) -> MemoryParts:
    """Return the measured total, split by the formulae: what does not grow with the batch, and what does."""
    growing = total - law.constant
    libraries = max(0.0, law.constant - formula.weights - formula.trainable - formula.optimizer)
    fixed = law.constant - libraries
    share = fixed / (formula.weights + formula.trainable + formula.optimizer)
    return MemoryParts(
        share * formula.weights, share * formula.trainable, 0.0, share * formula.optimizer, growing, 0.0, libraries, 0.0
    )
