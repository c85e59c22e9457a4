"""A CPU on which nothing was calibrated: what a process takes, how long an update lasts, and how little that says.

Constants are from AMD EPYCs with AVX2 and, for 16 bits, with AVX512-BF16 (bench/planner_truth.py). AMX was not
measured.
"""

from __future__ import annotations

import math

from tunedeck.planner.catalogue import Gpu
from tunedeck.planner.estimate import Estimate
from tunedeck.planner.memory import Setup, layer_bytes_per_token, layers_with_backward
from tunedeck.planner.processor import Processor, bfloat16_gain, slowed
from tunedeck.planner.throughput import floor_s, forward_share, optimizer_s, training_flops_per_token

FLOPS_PER_CORE = 30e9  # float32 matrix products of one core with AVX2, where none was timed: 28 to 35 here
BAND = {True: (0.5, 2.0), False: (0.1, 3.0)}
"""An update's time over the expected: by a matrix product timed on the machine, and by the guess above."""
BESIDE_PRODUCTS = 100.0
"""Operations of float32 products in the time of norms, activations, attention and copies, for each byte that a step
keeps for its backward pass. Quiet 0.8 ns of one core with AVX512-BF16 (50 to 160), 3.4 on a slow one with AVX2.
"""
WAITS_S = Estimate(0.0, 0.2, 0.8)
"""For each layer, forward and backward, where another program takes a core of two or more: each operation waits for its
last thread. 0.15 to 0.3 under loads of 5 to 25 and 0.58 to 1.24 beside one thread.
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
FIRST_USE_S = Estimate(0.0, 0.1, 0.4)  # of a run's first batches: threads start, pages are touched (0.02 to 0.2)
KERNELS_S = Estimate(0.0, 0.01, 0.05)  # of each new length in 16 bits, whose kernels are built (MiniLM 0.002 to 0.02)
PAD_TO = 8  # tokens that lengths are rounded up to (tasks/text.py)


def process_bytes(setup: Setup) -> float:
    """Return memory of a process of this package, its data included, besides the model and the trained part."""
    kernels = KERNEL_BYTES[layers_with_backward(setup) > 0] if setup.number_bytes == 2 else 0.0
    return PROCESS_BYTES + kernels + TOKEN_BYTES * setup.data_tokens


def update_s(setup: Setup, gpu: Gpu, processor: Processor | None) -> float:
    """Return the time of an optimizer step: matrix products, other operations, launching them, and AdamW.

    A thread takes 1 + load times as long, of which the timed product has seen a part; the root stands for the rest.
    """
    rate = processor.flops_per_s if processor else gpu.fp32_flops_per_s
    float32_rate = rate / bfloat16_gain(setup.dtype) if processor else rate
    products = setup.batch_tokens * training_flops_per_token(setup) / rate
    kept = setup.batch_tokens * layer_bytes_per_token(setup) * passed_layers(setup)
    beside = BESIDE_PRODUCTS * kept / float32_rate
    alone = setup.accumulation * (products + beside + floor_s(setup)) + optimizer_s(setup, gpu)
    return alone * _busy(processor)


def passed_layers(setup: Setup) -> float:
    """Return how many layers a step goes through, forward and backward."""
    return (setup.spec.num_layers * forward_share(setup) + layers_with_backward(setup)) / 2


def waits_s(setup: Setup, gpu: Gpu, processor: Processor | None) -> Estimate:
    """Return what an optimizer step waits for threads whose core another program has at that moment."""
    others = gpu.cpu_cores * processor.load if processor and gpu.cpu_cores > 1 else 0.0
    contended = min(1.0, max(0.0, 2 * others - 1))  # less than half a thread is noise
    return WAITS_S.scaled(contended * setup.accumulation * passed_layers(setup))


def band(processor: Processor | None) -> tuple[float, float]:
    """Return how far from its expected time an update may end: the busier the machine, the further."""
    low, high = BAND[processor is not None]
    return low / _busy(processor), high * _busy(processor)


def _busy(processor: Processor | None) -> float:
    return math.sqrt(1 + (processor.load if processor else 0.0))


def first_use_s(longest: Setup, processor: Processor | None) -> Estimate:
    """Return the extra time of a run's first steps; in 16 bits kernels are built for each new length."""
    lengths = longest.tokens / PAD_TO if longest.number_bytes == 2 else 0.0
    return slowed(FIRST_USE_S.plus(KERNELS_S.scaled(lengths)), processor)
