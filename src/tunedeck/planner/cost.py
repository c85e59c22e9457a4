"""Hours and money of a whole run: what the training steps leave out, and what a GPU costs."""

from __future__ import annotations

from dataclasses import dataclass

from tunedeck.planner.catalogue import Gpu
from tunedeck.planner.estimate import Estimate
from tunedeck.planner.memory import Setup, trainable_parameters, weights_bytes
from tunedeck.planner.prices import Offer
from tunedeck.planner.processor import Processor, slowed
from tunedeck.planner.throughput import forward_flops_per_token, training_flops_per_token

# Assumptions, low to high; after a run they are compared with its measurements.
SETUP_S = Estimate(120, 300, 900)  # the rented machine starts, installs, receives the data
PROCESS_S = Estimate(3, 10, 30)  # your machine: imports of torch and transformers, 8 s of one slow core
SOLUTION_S = Estimate(0.3, 1.5, 8.0)
"""Seconds that fitting a classifier's head takes before the first step (tasks/linear_probe.py): 0.6 to 2.6 on a slow
core for 29 to 1000 examples.
"""
NETWORK_BYTES_PER_S = Estimate(100e6, 30e6, 10e6)  # low time first
DISK_BYTES_PER_S = Estimate(2e9, 1e9, 0.3e9)
EVALUATION_SPEED = 0.8  # share of the training's utilisation that forward passes reach


def start_s(setup: Setup, step_s: Estimate, steps: int, processor: Processor | None) -> Estimate:
    """Return the time before the first of `steps` for the head's start: a forward pass over all examples, a
    solution.
    """
    forward = forward_flops_per_token(setup) / training_flops_per_token(setup)
    return step_s.scaled(steps / setup.epochs * forward).plus(slowed(SOLUTION_S, processor))


@dataclass(frozen=True, slots=True)
class Hours:
    """Seconds of each part of a run."""

    setup: Estimate
    download: Estimate
    load: Estimate
    train: Estimate
    evaluate: Estimate
    save_and_upload: Estimate
    export: Estimate

    @property
    def total_h(self) -> Estimate:
        """Return the whole run in hours."""
        total = Estimate.exactly(0)
        for name in self.__slots__:
            total = total.plus(getattr(self, name))
        return total.scaled(1 / 3600)

    def to_json(self) -> dict[str, dict[str, float]]:
        """Return seconds by part."""
        return {f"{name}_s": getattr(self, name).to_json() for name in self.__slots__}


def run_hours(
    setup: Setup, gpu: Gpu, train_s: Estimate, evaluated_tokens: float, process_s: Estimate | None = None
) -> Hours:
    """Return all hours that are billed: setup, download, load, training, evaluation, saving, upload and export.

    On your machine a process only has to start, in `process_s`, and the model is assumed to be there.
    """
    stored = weights_bytes(setup) if not setup.four_bit else setup.number_bytes * setup.spec.base_parameters
    adapter = 4.0 * trainable_parameters(setup)
    forward_s = evaluated_tokens * forward_flops_per_token(setup)
    forward_s /= gpu.flops_per_s(setup.dtype) * gpu.utilisation * EVALUATION_SPEED
    spread = Estimate(train_s.low, train_s.expected, train_s.high).scaled(
        1 / train_s.expected if train_s.expected else 0
    )
    nothing, rented = Estimate.exactly(0), process_s is None
    return Hours(
        setup=process_s or SETUP_S,
        download=_at(stored, NETWORK_BYTES_PER_S) if rented else nothing,
        load=_at(stored, DISK_BYTES_PER_S),
        train=train_s,
        evaluate=spread.scaled(forward_s),
        save_and_upload=_at(adapter, DISK_BYTES_PER_S).plus(_at(adapter, NETWORK_BYTES_PER_S) if rented else nothing),
        export=_at(2 * stored, DISK_BYTES_PER_S),
    )


def run_cost(offer: Offer, hours: Estimate) -> Estimate:
    """Return price times hours."""
    return offer.price_per_hour.times(hours)


def _at(size: float, bytes_per_s: Estimate) -> Estimate:
    return Estimate(size / bytes_per_s.low, size / bytes_per_s.expected, size / bytes_per_s.high)
