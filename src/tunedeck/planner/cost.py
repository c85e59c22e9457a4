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
PROCESS_S = Estimate(2.5, 4, 12)  # your machine: imports of torch and transformers, 3.5 to 4 s quiet, 8 of a slow core
SOLUTION_S = Estimate(0.1, 0.2, 0.6)
"""Seconds that fitting a classifier's head takes before the first step (tasks/linear_probe.py), for few examples: 0.16
to 0.25 for two or three labels, and as much again for each SOLUTION_NUMBERS. Quiet, from 29 to 4000 examples, 2 to 64
labels and 384 to 576 numbers a vector, 0.6 to 1.5 times that.
"""
SOLUTION_NUMBERS = 1e6  # examples times labels times a vector's numbers
MOST_FITTED = 5_000  # examples of the cross-validation, which takes nearly all of the time
KEPT_S = Estimate(0.0, 0.05, 0.3)  # a start whose vectors and head an earlier run has left on disk
NETWORK_BYTES_PER_S = Estimate(100e6, 30e6, 10e6)  # low time first
DISK_BYTES_PER_S = Estimate(2e9, 1e9, 0.3e9)
EVALUATION_SPEED = 0.8  # share of the training's utilisation that forward passes reach


def start_s(
    setup: Setup,
    step_s: Estimate,
    steps: int,
    processor: Processor | None,
    *,
    evaluation_share: float = 0.0,
    kept: bool = False,
) -> Estimate:
    """Return the time before the first of `steps` for the head's start: a forward pass over all examples and over
    `evaluation_share` times as many held out, a solution.

    Neither where an earlier run has left its vectors, which are `kept`.
    """
    if kept:
        return slowed(KEPT_S, processor)
    forward = forward_flops_per_token(setup) / training_flops_per_token(setup)
    per_epoch = steps / setup.epochs
    examples = min(MOST_FITTED, per_epoch * setup.accumulation * setup.micro_batch)
    numbers = examples * setup.labels * setup.spec.hidden_size
    solution = slowed(SOLUTION_S.scaled(1 + numbers / SOLUTION_NUMBERS), processor)
    return step_s.scaled(per_epoch * forward * (1 + evaluation_share)).plus(solution)


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
