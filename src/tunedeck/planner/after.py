"""Predicted beside actual: what the planner would have said of a run that is over, and why it was off where it was."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tunedeck.core.errors import ConfigError, ModelError, TargetError
from tunedeck.core.measurement import Machine, Measurement
from tunedeck.core.messages import say
from tunedeck.methods.base import MethodConfig
from tunedeck.planner.catalogue import find_gpu
from tunedeck.planner.estimate import Estimate
from tunedeck.planner.machine import machine_card, predict, read_profile
from tunedeck.planner.memory import Setup, memory_parts, method_facts
from tunedeck.planner.models import find_planned_model
from tunedeck.planner.plan import MEMORY_BAND, TIME_BAND, engine_loss
from tunedeck.planner.throughput import step_s

SETTLED_STEPS = 10  # shorter runs are mostly first steps, in which kernels are built


@dataclass(frozen=True, slots=True)
class Comparison:
    """One quantity; `unit` is "bytes", "s" or a currency."""

    quantity: str
    predicted: Estimate
    actual: float
    unit: str
    reason: str
    """Why the actual value lies outside the prediction; empty where it lies inside."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "quantity": self.quantity,
            "predicted": self.predicted.to_json(),
            "actual": self.actual,
            "unit": self.unit,
            "inside": self.predicted.holds(self.actual),
            "reason": self.reason,
        }


def compare_with_plan(
    measurement: Measurement,
    method: MethodConfig,
    *,
    generate: bool,
    accumulation: int,
    price_per_hour: float | None = None,
    currency: str = "",
) -> list[Comparison]:
    """Memory, time and, with a price, money of a run: predicted from the lengths of its own batches beside what happened.

    Empty for a model that the planner cannot know or a run without steps.
    """
    if not measurement.steps or not measurement.largest_batch_positions:
        return []
    try:
        spec = find_planned_model(measurement.model)
        facts = method_facts(spec.spec, method)
    except (ModelError, ConfigError, TargetError):
        return []
    rows = max(1, measurement.batch_size // accumulation)
    longest = Setup(
        spec.spec, method, facts, rows, max(1, measurement.largest_batch_positions // rows), generate,
        dtype=measurement.dtype, accumulation=accumulation, loss=engine_loss(method),
        attention="eager" if measurement.device == "cpu" and measurement.dtype == "bfloat16" else "sdpa",
    )  # fmt: skip
    mean = _at_mean(longest, measurement, accumulation)
    step, memory, exact = _predicted(measurement, spec.name, longest, mean)
    train_s = step.scaled(measurement.steps)
    found = [
        _compared("memory", memory, measurement.peak_memory_bytes, "bytes", measurement, exact),
        _compared("time", train_s, measurement.train_s, "s", measurement, exact),
    ]
    if price_per_hour:
        cost, paid = train_s.scaled(price_per_hour / 3600), measurement.train_s * price_per_hour / 3600
        found.append(_compared("cost", cost, paid, currency, measurement, exact))
    return found


def _at_mean(longest: Setup, measurement: Measurement, accumulation: int) -> Setup:
    """The run at the mean padded length of its batches."""
    tokens = measurement.tokens_per_s * measurement.train_s
    positions = tokens / (1 - measurement.padded_share) / (measurement.steps * accumulation)
    return replace(longest, tokens=max(1, round(positions / longest.micro_batch)))


def _predicted(measurement: Measurement, model: str, longest: Setup, mean: Setup) -> tuple[Estimate, Estimate, bool]:
    """Seconds of an update, bytes at the peak, and whether this very model and method were calibrated here."""
    if measurement.device.startswith("cuda"):
        try:
            gpu = find_gpu(measurement.machine.gpu or "")
        except ConfigError:
            return Estimate(0.0, 0.0, float("inf")), _allocated(longest), False
        return Estimate.around(step_s(mean, gpu), *TIME_BAND[gpu.measured]), _allocated(longest), gpu.measured
    machine = _cpu_of(measurement.machine)
    profile = read_profile(machine)
    found = predict(profile, model, longest, mean, machine_card(machine, profile))
    return found.step_s, found.memory_bytes, found.exact


def _allocated(longest: Setup) -> Estimate:
    return Estimate.around(memory_parts(longest).allocated, *MEMORY_BAND)


def _cpu_of(machine: Machine) -> Machine:
    """The machine as calibrations know it, without a GPU."""
    return Machine(machine.system, machine.cpu, machine.cpu_cores, machine.memory_bytes)


def _compared(
    quantity: str, predicted: Estimate, actual: float, unit: str, measurement: Measurement, exact: bool
) -> Comparison:
    reason = "" if predicted.holds(actual) else _reason(quantity, predicted, actual, measurement, exact)
    return Comparison(quantity, predicted, actual, unit, reason)


def _reason(quantity: str, predicted: Estimate, actual: float, measurement: Measurement, exact: bool) -> str:
    """The likeliest reason, from what the run itself says; said to be unknown where it says nothing."""
    if not exact and measurement.device == "cpu":
        return say("this model and method were not measured here; run: tunedeck plan --measured")
    if not exact:
        return say("no measured rows of this card stand behind the prediction")
    if quantity == "memory":
        pieces = say("batches of many different lengths leave memory in pieces")
        return (
            pieces if actual > predicted.high else say("the run kept less between batches than the measured steps did")
        )
    if measurement.steps < SETTLED_STEPS:
        return say("a run of {steps} steps is mostly first steps, in which kernels are built", steps=measurement.steps)
    mean_s = measurement.train_s / measurement.steps
    if actual > predicted.high and mean_s > 1.3 * measurement.step_s:
        return say(
            "some steps took far longer than most: new lengths build new kernels, or other programs were running"
        )
    return say("other programs were running now, or when the machine was measured")
