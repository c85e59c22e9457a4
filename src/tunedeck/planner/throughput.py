"""Estimate the time of a training step on a GPU in three terms, one function for each formula.

Constants were set on half of the measured rows of bench/planner_rows.csv; bench/planner_accuracy.py reports the other
half.
"""

from __future__ import annotations

from tunedeck.planner.catalogue import Gpu
from tunedeck.planner.memory import (
    Setup,
    layers_with_backward,
    linear_parameters,
    trainable_parameters,
)

LAUNCH_S_PER_LAYER = 3.3e-3  # a layer forward and backward however few tokens there are: kernel launches from Python
RECOMPUTED_LAUNCH = 1.25  # the same with checkpointing, which launches the forward twice
FOUR_BIT_LAUNCH = 2.6  # and where each linear is dequantized first (Qwen README: QLoRA's floor is 2 to 3 times LoRA's)
JOIN = 3  # exponent that joins floor and arithmetic: the larger wins, both count where they meet
FOUR_BIT_COST = 1.04  # dequantizing before each product, large micro-batches
OPTIMIZER_BYTES = (
    60  # traffic of an AdamW step per trainable parameter (50 on PEFT's L40S rows, 72 to 77 on fms's A100 rows)
)
UPCAST_COST = 1.25  # residual stream in float32 under a 16-bit base
EAGER_ATTENTION_BYTES = (
    30  # traffic of one score: written, masked, softmaxed, cast and read again, and all that backwards
)


def forward_flops_per_token(setup: Setup) -> float:
    """Return 2 per weight of every matrix product, and 4·s·q per layer for attention, half of it where it is causal.

    The input embedding is a lookup and does not count; the output layer does where every token has logits
    (EleutherAI transformer-math; Kaplan et al. 2020, section 2.1).
    """
    spec = setup.spec
    products = linear_parameters(spec) + (spec.vocab_size * spec.hidden_size if setup.generate else 0)
    attention = 4 * setup.width * spec.query_size * spec.num_layers * (0.5 if spec.causal else 1.0)
    return 2.0 * products + attention


def training_flops_per_token(setup: Setup) -> float:
    """Count the forward pass once, below the lowest trained layer in the first epoch only; the gradient of the
    activations once more above it; the gradient of the weights once more where they train; checkpointing of layers or
    chunks repeats the forward: 6 N full, 4 N with a frozen base, plus 2 N.
    """
    forward = forward_flops_per_token(setup)
    depth = layers_with_backward(setup) / setup.spec.num_layers
    beside = setup.method.trains == "adapter"  # else the trained weights are those of the forward pass
    passes = forward_share(setup) + depth * (1 + (not beside) + setup.checkpointing)
    passes += setup.held_tokens < setup.batch_tokens
    return forward * passes + 6.0 * trainable_parameters(setup) * beside


def forward_share(setup: Setup) -> float:
    """Return the share of layers that an average step runs forward: outputs of those below the lowest trained one are
    kept after the first epoch (deck/patches/lower_layers.py).
    """
    depth = layers_with_backward(setup) / setup.spec.num_layers
    return depth + (1 - depth) / max(1.0, setup.epochs)


def compute_s(setup: Setup, gpu: Gpu) -> float:
    """Return the time of one micro-batch's arithmetic at the GPU's utilisation, with that of scores outside kernels."""
    rate = gpu.flops_per_s(setup.dtype) * gpu.utilisation * setup.stack.speed
    seconds = setup.batch_tokens * training_flops_per_token(setup) / rate * _method_cost(setup)
    if setup.attention in ("products", "eager"):
        spec = setup.spec
        scores = setup.batch_tokens * setup.width * spec.num_heads * layers_with_backward(setup)
        seconds += EAGER_ATTENTION_BYTES * scores / gpu.bytes_per_s
    return seconds


def floor_s(setup: Setup) -> float:
    """Return the least time of a micro-batch, however short: kernels are launched layer by layer."""
    spec = setup.spec
    share = (forward_share(setup) + layers_with_backward(setup) / spec.num_layers) / 2
    factor = (RECOMPUTED_LAUNCH if setup.checkpointing else 1.0) * (FOUR_BIT_LAUNCH if setup.four_bit else 1.0)
    return LAUNCH_S_PER_LAYER * spec.num_layers * share * factor / setup.stack.speed


def micro_batch_s(setup: Setup, gpu: Gpu) -> float:
    """Return the time of one micro-batch: floor and arithmetic joined, so that small batches cost the floor and large
    ones the arithmetic.
    """
    return float((floor_s(setup) ** JOIN + compute_s(setup, gpu) ** JOIN) ** (1 / JOIN))


def optimizer_s(setup: Setup, gpu: Gpu) -> float:
    """Return the time of AdamW, which reads and writes its numbers once: traffic over bandwidth."""
    return OPTIMIZER_BYTES * trainable_parameters(setup) / gpu.bytes_per_s


def step_s(setup: Setup, gpu: Gpu) -> float:
    """Return the time of one optimizer step: `accumulation` micro-batches and the update."""
    return setup.accumulation * micro_batch_s(setup, gpu) + optimizer_s(setup, gpu)


def _method_cost(setup: Setup) -> float:
    """Return the overhead on the base's products: of the method, of 4 bits, of a float32 residual stream."""
    cost = FOUR_BIT_COST if setup.four_bit else 1.0
    cost *= UPCAST_COST if setup.stack.float32_hidden else 1.0
    return cost * (1 + setup.facts.forward_overhead)
