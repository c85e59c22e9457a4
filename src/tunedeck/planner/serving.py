"""Estimate the capacity of a deployment: memory of weights, adapters and caches, tokens and requests per second."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.model_spec import ModelSpec
from tunedeck.planner.catalogue import GIB, Gpu
from tunedeck.planner.memory import NF4_BYTES, linear_parameters

Precision = Literal["16-bit", "4-bit", "int8"]

USABLE = 0.9  # of a GPU's memory that an engine fills (vLLM's gpu_memory_utilization)
ENGINE_BYTES = 1.0 * GIB  # context, kernels, workspace
BANDWIDTH_SHARE = 0.8  # of the bandwidth that decoding reaches (60 to 90 % on slower-memory GPUs)
STEP_S = (
    3.5e-3  # of every decoding step besides its memory traffic: launches and scheduling (Qwen2.5-7B on A100: 11.9 ms)
)
SLOW_UNPACKING = (
    0.65  # of the bandwidth in 4 bits on such a GPU: dequantizing takes the time (same source, 33 to 35 tokens/s)
)
FOUR_BIT_BEFORE_AMPERE = (
    0.35  # of its 16-bit rate that a GPU of compute capability 7 reaches in 4 bits (T4: AutoAWQ PR#92)
)
ENCODER_S = 5e-3  # of every batch through an encoder on a GPU
INT8_FLOPS_PER_CORE = (
    1.68e11  # ONNX int8, RoBERTa-base, 128 tokens, 64.9 ms on two physical cores (optimum-inference blog)
)
CORES_SHARED = 0.8  # what each core still gives when all of them work
PHYSICAL = 0.5  # physical cores per core that a cloud rents out
CPU_BANDWIDTH_SHARE = 0.6
MULTI_ADAPTER_COST = (
    1.10  # unmerged adapters chosen per row: 6 to 10 % more time (peers.md; vLLM and S-LoRA say the same)
)
MAX_AT_ONCE = 256
LOAD = 0.7  # of its capacity at which a GPU is planned to run; above it, queues grow
BAND = (0.65, 1.4)  # measured rates over expected ones, most rows of bench/planner_accuracy.py


@dataclass(frozen=True, slots=True)
class PlannedService:
    """Describe a deployment: a base with adapters, and its requests."""

    spec: ModelSpec
    adapters: int
    adapter_parameters: int
    input_tokens: int
    output_tokens: int
    """0 for an encoder: one forward pass answers."""
    latency_s: float | None

    def __post_init__(self) -> None:
        for name, value, least in (
            ("--adapters", self.adapters, 0),
            ("--input-tokens", self.input_tokens, 1),
            ("--output-tokens", self.output_tokens, 0),
        ):
            if not least <= value <= 10**7:
                raise ConfigError(
                    say("{name} must be {least} or more, got {value}", name=name, least=least, value=value)
                )

    @property
    def tokens(self) -> int:
        """Return the tokens of one request, in and out."""
        return self.input_tokens + self.output_tokens


def served_bytes(service: PlannedService, precision: Precision) -> float:
    """Return the bytes of weights and adapters. Weights: 2 bytes each, 1 in int8; in 4 bits the linear layers, the rest
    at 2. Adapters: 2 bytes a parameter.
    """
    spec = service.spec
    total = spec.base_parameters + spec.lm_head_parameters
    linears = linear_parameters(spec)
    weights = {"16-bit": 2.0 * total, "int8": 1.0 * total, "4-bit": NF4_BYTES * linears + 2.0 * (total - linears)}[
        precision
    ]
    return weights + 2.0 * service.adapters * service.adapter_parameters


def cache_bytes_per_token(spec: ModelSpec) -> int:
    """Return the bytes of keys and values of every layer in 16 bits: 2 · 2 · layers · width; 18-fold apart among "7B"
    models.
    """
    return 2 * 2 * spec.num_layers * spec.key_value_size if spec.causal else 0


def slots(service: PlannedService, gpu: Gpu, precision: Precision) -> int:
    """Return the number of requests whose caches fit next to the weights, at most MAX_AT_ONCE; 0 if none does."""
    free = USABLE * gpu.visible_bytes - ENGINE_BYTES - served_bytes(service, precision)
    if free <= 0:
        return 0
    per_request = cache_bytes_per_token(service.spec) * service.tokens
    return min(MAX_AT_ONCE, int(free // per_request)) if per_request else MAX_AT_ONCE


def step_s(service: PlannedService, gpu: Gpu, precision: Precision, at_once: int) -> float:
    """Return the time of one decoding step of `at_once` requests: weights and caches are read once, or the arithmetic
    takes longer.
    """
    spec = service.spec
    read = served_bytes(service, precision) + at_once * cache_bytes_per_token(spec) * (
        service.input_tokens + service.output_tokens / 2
    )
    share = BANDWIDTH_SHARE if gpu.capability else CPU_BANDWIDTH_SHARE
    share *= SLOW_UNPACKING if precision == "4-bit" and gpu.capability < 8.0 else 1.0
    arithmetic = at_once * _flops_per_token(spec) / flops_per_s(gpu, precision)
    return STEP_S + max(read / (gpu.bytes_per_s * share), arithmetic)


def input_s(service: PlannedService, gpu: Gpu, precision: Precision) -> float:
    """Return the time of one request's input, or of an encoder's whole work."""
    return service.input_tokens * _flops_per_token(service.spec) / flops_per_s(gpu, precision)


def flops_per_s(gpu: Gpu, precision: Precision) -> float:
    """Return the rate that inference reaches.

    A GPU reaches a share of its 16-bit peak, as in training; a CPU computes in int8 on its physical cores.
    """
    if gpu.capability:
        slow = precision == "4-bit" and gpu.capability < 8.0
        return gpu.utilisation * gpu.tensor_flops_per_s * (FOUR_BIT_BEFORE_AMPERE if slow else 1.0)
    return INT8_FLOPS_PER_CORE * max(1.0, gpu.cpu_cores * PHYSICAL) * CORES_SHARED


def request_s(service: PlannedService, gpu: Gpu, precision: Precision, at_once: int) -> float:
    """Return time of one request among `at_once`: its output's steps, and everyone's inputs computed in between."""
    decoding = service.output_tokens * step_s(service, gpu, precision, at_once) if service.output_tokens else 0.0
    fixed = 0.0 if service.output_tokens else (ENCODER_S if gpu.capability else 0.0)
    cost = MULTI_ADAPTER_COST if service.adapters > 1 else 1.0
    return cost * (decoding + fixed + at_once * input_s(service, gpu, precision))


def best_at_once(service: PlannedService, gpu: Gpu, precision: Precision) -> int:
    """Return the most requests at once that memory and the latency target allow; 0 where even one is too slow or does
    not fit.

    Doubles, then halves the step: request_s grows with the number.
    """
    most = slots(service, gpu, precision)
    limit = math.inf if service.latency_s is None else service.latency_s
    if most == 0 or request_s(service, gpu, precision, 1) > limit:
        return 0
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        if request_s(service, gpu, precision, middle) <= limit:
            low = middle
        else:
            high = middle - 1
    return low


def requests_per_s(service: PlannedService, gpu: Gpu, precision: Precision) -> float:
    """Return the most a GPU answers within the latency target: requests at once over the time of one (Little's law)."""
    at_once = best_at_once(service, gpu, precision)
    return at_once / request_s(service, gpu, precision, at_once) if at_once else 0.0


def _flops_per_token(spec: ModelSpec) -> float:
    output = spec.vocab_size * spec.hidden_size if spec.causal else 0
    return 2.0 * (linear_parameters(spec) + output)
