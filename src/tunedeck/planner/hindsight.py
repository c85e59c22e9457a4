"""Compare the planner's prediction for a finished run with the actual values, and explain differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tunedeck.core.errors import ConfigError, ModelError, TargetError
from tunedeck.core.i18n import say
from tunedeck.core.measurement import Machine, Measurement
from tunedeck.core.model_spec import ModelSpec
from tunedeck.core.plan_shape import PlanShape
from tunedeck.methods.base import MethodConfig
from tunedeck.planner.catalogue import Gpu, find_gpu
from tunedeck.planner.cost import start_s
from tunedeck.planner.estimate import Estimate
from tunedeck.planner.machine import machine_card, predict, read_profile
from tunedeck.planner.memory import MethodFacts, Setup, memory_parts, method_facts
from tunedeck.planner.models import find_planned_model
from tunedeck.planner.plan import MEMORY_BAND, TIME_BAND, engine_loss
from tunedeck.planner.processor import Processor
from tunedeck.planner.throughput import step_s
from tunedeck.planner.uncalibrated import band

SETTLED_STEPS = 10  # shorter runs are mostly first steps, in which kernels are built


@dataclass(frozen=True, slots=True)
class PredictedAndActual:
    """One quantity; `unit` is "bytes", "s" or a currency."""

    quantity: str
    predicted: Estimate
    actual: float
    unit: str
    reason: str
    """Reason why the actual value is outside the prediction; empty if it is inside."""
    basis: str = ""
    """Basis of the prediction if this machine was not measured before."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "quantity": self.quantity,
            "predicted": self.predicted.to_json(),
            "actual": self.actual,
            "unit": self.unit,
            "inside": self.predicted.holds(self.actual),
            "reason": self.reason,
            "basis": self.basis,
        }


def compare_with_plan(
    measurement: Measurement,
    method: MethodConfig,
    *,
    shape: PlanShape,
    accumulation: int,
    price_per_hour: float | None = None,
    currency: str = "",
    epochs: float = 1.0,
    processor: Callable[[Setup], Processor] | None = None,
) -> list[PredictedAndActual]:
    """Compare memory, time and, with a price, money of a run: predicted from the lengths of its batches, and
    happened.

    `shape` is how the run's task uses the base. `processor` looks at this machine's processor, for a CPU without
    calibrations. Empty for a model that the planner cannot know or a run without steps.
    """
    if not measurement.steps or not measurement.largest_batch_positions:
        return []
    try:
        spec = find_planned_model(measurement.model)
        facts = method_facts(spec.spec, method)
    except (ModelError, ConfigError, TargetError):
        return []
    longest = _at_longest(measurement, spec.spec, method, facts, shape, accumulation, epochs)
    mean = _at_mean(longest, measurement, accumulation)
    train_s, memory, exact, basis = _predicted(measurement, spec.name, longest, mean, processor)
    took_s = measurement.start_s + measurement.train_s
    found = [
        _compared("memory", memory, measurement.peak_memory_bytes, "bytes", measurement, exact),
        replace(_compared("time", train_s, took_s, "s", measurement, exact), basis=basis),
    ]
    if price_per_hour:
        cost, paid = train_s.scaled(price_per_hour / 3600), took_s * price_per_hour / 3600
        found.append(_compared("cost", cost, paid, currency, measurement, exact))
    return found


def _at_longest(
    measurement: Measurement,
    spec: ModelSpec,
    method: MethodConfig,
    facts: MethodFacts,
    shape: PlanShape,
    accumulation: int,
    epochs: float,
) -> Setup:
    """Return the run at the padded length of its largest batch."""
    rows = max(1, round(measurement.batch_size / accumulation * measurement.texts_per_example))
    return Setup(
        spec,
        method,
        facts,
        rows,
        max(1, measurement.largest_batch_positions // rows),
        shape.generate,
        dtype=measurement.dtype,
        accumulation=accumulation,
        loss=engine_loss(method),
        attention="products" if measurement.device == "cpu" and measurement.dtype == "bfloat16" else "sdpa",
        labels=shape.labels,
        chunk=shape.chunk,
        epochs=epochs,
        data_tokens=measurement.tokens_per_s * measurement.train_s / epochs,
    )


def _at_mean(longest: Setup, measurement: Measurement, accumulation: int) -> Setup:
    """Return the run at the mean padded length of its batches."""
    tokens = measurement.tokens_per_s * measurement.train_s
    positions = tokens / (1 - measurement.padded_share) / (measurement.steps * accumulation)
    return replace(longest, tokens=max(1, round(positions / longest.micro_batch)))


def _predicted(
    measurement: Measurement,
    model: str,
    longest: Setup,
    mean: Setup,
    look: Callable[[Setup], Processor] | None,
) -> tuple[Estimate, Estimate, bool, str]:
    """Return seconds of the head's start and all steps, bytes at the peak, whether this very model and method were
    calibrated here, and the basis of the predicted time.
    """
    if measurement.device.startswith("cuda"):
        try:
            gpu = find_gpu(measurement.machine.gpu or "")
        except ConfigError:
            return Estimate(0.0, 0.0, float("inf")), _allocated(longest), False, ""
        step = Estimate.around(step_s(mean, gpu), *TIME_BAND[gpu.measured])
        return _training_s(step, mean, measurement, None), _allocated(longest), gpu.measured, ""
    machine = cpu_of(measurement.machine)
    profile = read_profile(machine)
    processor = look(mean) if look and profile is None else None
    card = machine_card(machine, profile)
    found = predict(profile, model, longest, mean, card, processor)
    train_s = _training_s(found.step_s, mean, measurement, processor).plus(found.first_use_s)
    return train_s, found.memory_bytes, found.exact, "" if profile else _basis(card, processor, measurement.dtype)


def _training_s(step: Estimate, mean: Setup, measurement: Measurement, processor: Processor | None) -> Estimate:
    """Return the time of all steps, and of the head's start where it was solved for."""
    train_s = step.scaled(measurement.steps)
    if not measurement.start_s:
        return train_s
    share, kept = measurement.evaluation_share, measurement.start_kept
    return train_s.plus(start_s(mean, step, measurement.steps, processor, evaluation_share=share, kept=kept))


def _basis(card: Gpu, processor: Processor | None, dtype: str) -> str:
    """Return one line on the basis of the predicted time of an uncalibrated CPU."""
    low, high = band(processor)
    rate = (
        say(
            "a matrix product timed just now: {rate:.0f} GFLOP/s in {dtype}, with {load:.1f} threads of other programs "
            "for each core",
            rate=processor.flops_per_s / 1e9,
            dtype=dtype,
            load=processor.load,
        )
        if processor
        else say("a guess of {rate:.0f} GFLOP/s for this processor", rate=card.fp32_flops_per_s / 1e9)
    )
    return say(
        "nothing was calibrated here, so this assumes {rate}; it may take {low:.2g} to {high:.2g} "
        "times as long; for a narrower range run: tunedeck plan --calibrate",
        rate=rate,
        low=low,
        high=high,
    )


def _allocated(longest: Setup) -> Estimate:
    return Estimate.around(memory_parts(longest).allocated, *MEMORY_BAND)


def cpu_of(machine: Machine) -> Machine:
    """Return the machine as calibrations know it, without a GPU."""
    return Machine(machine.system, machine.cpu, machine.cpu_cores, machine.memory_bytes)


def _compared(
    quantity: str, predicted: Estimate, actual: float, unit: str, measurement: Measurement, exact: bool
) -> PredictedAndActual:
    reason = "" if predicted.holds(actual) else _reason(quantity, predicted, actual, measurement, exact)
    return PredictedAndActual(quantity, predicted, actual, unit, reason)


def _reason(quantity: str, predicted: Estimate, actual: float, measurement: Measurement, exact: bool) -> str:
    """Return the likeliest reason from the run's record, or that it is unknown."""
    if not exact and measurement.device == "cpu":
        return say("this model and method were not measured here; run: tunedeck plan --calibrate")
    if not exact:
        return say("the prediction is not based on measurements of this GPU")
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
