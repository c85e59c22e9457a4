"""A CPU on which nothing was calibrated: what a process takes, how long an update lasts, and how little that says.

Constants are from AMD EPYCs with AVX2 and, for 16 bits, with AVX512-BF16 (bench/planner_truth.py). AMX was not
measured.
"""

from __future__ import annotations

import math

from tunedeck.planner.catalogue import Gpu
from tunedeck.planner.estimate import Estimate
from tunedeck.planner.memory import Setup, layer_bytes_per_token, layers_with_backward
from tunedeck.planner.processor import Processor, slowed
from tunedeck.planner.throughput import floor_s, forward_share, optimizer_s, training_flops_per_token

FLOPS_PER_CORE = 30e9  # float32 matrix products of one core with AVX2, where none was timed: 28 to 35 here
BAND = {True: (0.4, 2.5), False: (0.1, 3.0)}
"""An update's time over the expected: by a matrix product timed on the machine, and by the guess above."""
BESIDE_PRODUCTS_S_PER_BYTE = 2.5e-9
"""Norms, activations, attention and copies: seconds of one core for each byte that a step keeps for its backward pass.
3.4 for two layers of width 64 with AVX2, 1.7 with AVX512-BF16 (22 % of a step of MiniLM's).
"""
PROCESS_BYTES = 485e6
"""Python, torch, transformers and this package 410 MB, a tokenizer and small data 35, what the first step starts
(accelerate, autograd, threads) 40; together 478 to 498.
"""
KERNEL_BYTES = {False: 30e6, True: 110e6}
"""oneDNN's kernels, reordered weights and workspaces, where a CPU computes in 16 bits, by whether there is a backward
pass: MiniLM -24 and 2 to 143 in short runs, up to 190 in the demo's with more lengths; SmolLM2 160.
"""
TOKEN_BYTES = 48  # of training data: a list's entry 8, Python's integer 32, the text about 8
FIRST_USE_S = Estimate(0.0, 0.1, 1.0)  # of a run's first step: threads start, pages are touched (0.02 to 0.2)
KERNELS_S = Estimate(0.0, 0.05, 0.5)  # of each new length in 16 bits, whose kernels are built (MiniLM 0.002 to 0.05)
PAD_TO = 8  # tokens that lengths are rounded up to (tasks/text.py)


def process_bytes(setup: Setup) -> float:
    """Return memory of a process of this package, its data included, besides the model and the trained part."""
    kernels = KERNEL_BYTES[layers_with_backward(setup) > 0] if setup.number_bytes == 2 else 0.0
    return PROCESS_BYTES + kernels + TOKEN_BYTES * setup.data_tokens


def update_s(setup: Setup, gpu: Gpu, processor: Processor | None) -> float:
    """Return the time of an optimizer step: matrix products, other operations, launching them, and AdamW."""
    rate = processor.flops_per_s if processor else gpu.fp32_flops_per_s
    products = setup.batch_tokens * training_flops_per_token(setup) / rate
    layers = setup.spec.num_layers * forward_share(setup) + layers_with_backward(setup)
    kept = setup.batch_tokens * layer_bytes_per_token(setup) * layers / 2
    beside = BESIDE_PRODUCTS_S_PER_BYTE * kept / gpu.cpu_cores
    return setup.accumulation * (products + beside + floor_s(setup)) + optimizer_s(setup, gpu)


def band(processor: Processor | None) -> tuple[float, float]:
    """Return how far from its expected time an update may end: the busier the machine, the further.

    A thread takes 1 + load times as long, which the timed product has seen; the root allows for a load that changes.
    """
    low, high = BAND[processor is not None]
    busy = math.sqrt(1 + (processor.load if processor else 0.0))
    return low / busy, high * busy


def first_use_s(longest: Setup, processor: Processor | None) -> Estimate:
    """Return the extra time of a run's first steps; in 16 bits kernels are built for each new length."""
    lengths = longest.tokens / PAD_TO if longest.number_bytes == 2 else 0.0
    return slowed(FIRST_USE_S.plus(KERNELS_S.scaled(lengths)), processor)
