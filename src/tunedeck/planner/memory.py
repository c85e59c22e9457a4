"""Memory of a fine-tuning run, one formula a function. Bytes everywhere; b is the bytes of one number of the base.

Constants were set on half of the measured rows of bench/planner_rows.csv; bench/planner_accuracy.py reports the other
half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tunedeck.core.model_spec import ModelSpec
from tunedeck.methods.base import MethodConfig

Loss = Literal["eager", "fused", "chunked"]
Attention = Literal["flash", "sdpa", "products", "eager"]
"""`products` is what this engine does in bfloat16 on a CPU, see deck/patches/training_attention.py."""

NF4_BYTES = (
    0.5 + 0.127 / 8
)  # 4 bits and, with double quantization, 0.127 bit of constants (QLoRA, arXiv 2305.14314, section 3)
LOGIT_BYTES = {"eager": 12, "fused": 8, "chunked": 0}
"""Bytes per logit at the loss's peak. Eager: 16-bit logits 2, float32 copy 4, its gradient 4, 16-bit gradient 2.
Fused: logits 2, float32 copy 4 in place of its gradient, 16-bit gradient 2. Chunked: only a chunk exists."""
LOSS_HIDDEN_BYTES = (
    20  # besides the logits, per hidden number: last hidden states, their float32 copy and gradients (fitted)
)
ALLOCATOR = (
    1.15  # stored activations against the sum of the tensors: rounding and temporaries (fitted on PEFT's L40S rows)
)
CONTEXT_BYTES = (
    0.5 * 2**30
)  # CUDA context and kernels, outside torch's counters (stas00/ml-engineering: 0.47 to 0.92 GiB)
FRAGMENTATION = 1.08  # device use over allocated; a run near the limit compresses to 1.04 to 1.12 (fms-acceleration)


@dataclass(frozen=True, slots=True)
class TrainingStack:
    """Describe how a training program uses memory."""

    name: str
    full_copies: bool
    """Full fine-tuning trains float32 copies in addition to the frozen base, not the base itself in its own
    precision.
    """
    lora_inputs_in_float32: bool
    """LoRA keeps a float32 copy of each input, as PEFT does where the base is in 16 bits."""
    speed: float = 1.0
    """Rate of its kernels against plain transformers."""
    float32_hidden: bool = False
    """PEFT's prepare_model_for_kbit_training: embeddings, norms and output layer float32, and with them the residual
    stream.
    """


TUNEDECK = TrainingStack("tunedeck", full_copies=True, lora_inputs_in_float32=False)


@dataclass(frozen=True, slots=True)
class MethodFacts:
    """Hold the numbers of a method on one model, computed once because a large model has hundreds of linear layers."""

    parameters: int
    """Trainable parameters, without a head."""
    lowest_layer: int
    kept_bytes: Mapping[tuple[int, bool], int]
    """Per token, by the bytes of a number and by whether inputs are copied to float32; all layers together."""
    forward_overhead: float


def method_facts(spec: ModelSpec, method: MethodConfig) -> MethodFacts:
    """Ask the method; TargetError where it does not fit the model."""
    cases = [(size, copies) for size in (2, 4) for copies in (False, True)]
    return MethodFacts(
        parameters=method.count_parameters(spec),
        lowest_layer=method.lowest_layer(spec),
        kept_bytes={(size, copies): method.kept_bytes(spec, size, float32_inputs=copies) for size, copies in cases},
        forward_overhead=method.forward_overhead(spec),
    )


@dataclass(frozen=True, slots=True)
class Setup:
    """One fine-tuning run as the formulae see it; `tokens` is a row's padded length without virtual tokens.

    `facts` are `method_facts(spec, method)`.
    """

    spec: ModelSpec
    method: MethodConfig
    facts: MethodFacts
    micro_batch: int
    tokens: int
    generate: bool
    """Trained on every token's logits (causal language model); else one vector per text goes through a small head."""
    dtype: str = "bfloat16"
    four_bit: bool = False
    checkpointing: bool = False
    loss: Loss = "eager"
    attention: Attention = "sdpa"
    accumulation: int = 1
    labels: int = 2
    """0 for embeddings, which have no head: each row is a text, and the batch's vectors are contrasted."""
    epochs: float = 1.0
    data_tokens: float = 0.0
    """Tokens of all training examples, which the process keeps in memory."""
    chunk: int | None = None
    """Texts of an embedding batch whose inner states are in memory at once; None means all."""
    stack: TrainingStack = TUNEDECK

    @property
    def number_bytes(self) -> int:
        """Return bytes of a number in the base's dtype, b in the formulas."""
        return 4 if self.dtype == "float32" else 2

    @property
    def width(self) -> int:
        """Return tokens of one row, virtual tokens included."""
        return self.tokens + self.method.virtual_tokens

    @property
    def batch_tokens(self) -> int:
        """Return tokens of one micro-batch."""
        return self.micro_batch * self.width

    @property
    def held_tokens(self) -> int:
        """Return the number of tokens whose inner states are in memory at once: those of a chunk."""
        return min(self.micro_batch, self.chunk or self.micro_batch) * self.width

    @property
    def head_parameters(self) -> int:
        """Return the parameters of a classifier's head."""
        return 0 if self.generate or not self.labels else self.spec.head_parameters(self.labels)


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """Hold the parts of peak memory in bytes; `allocated` sums those that torch counts, `device` all."""

    weights: float
    trainable: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    context: float
    fragmentation: float

    @property
    def allocated(self) -> float:
        """Return peak of torch's counter."""
        return self.device - self.context - self.fragmentation

    @property
    def device(self) -> float:
        """Return peak of the whole process on the GPU."""
        return sum(self.to_json().values())

    def to_json(self) -> dict[str, float]:
        """Return the parts by name."""
        return {name: getattr(self, name) for name in self.__slots__}


def memory_parts(setup: Setup) -> MemoryParts:
    """Return the parts at the moment of the highest peak: in the loss, in a layer's backward, or in the optimizer's
    step.
    """
    weights = weights_bytes(setup)
    trainable, gradients, moments, in_step = trainable_bytes(setup)
    stored, working, logits = stored_bytes(setup), working_bytes(setup), logits_bytes(setup)
    held = gradients if setup.accumulation > 1 else 0.0  # gradients of earlier micro-batches
    in_loss = (held, stored, logits)
    in_layer = (gradients, stored + working, 0.0)
    stepping = (gradients + in_step, 0.0, 0.0)
    at_peak = max(in_loss, in_layer, stepping, key=sum)
    allocated = weights + trainable + moments + sum(at_peak)
    return MemoryParts(
        weights, trainable, at_peak[0], moments, at_peak[1], at_peak[2], CONTEXT_BYTES, (FRAGMENTATION - 1) * allocated
    )


def weights_bytes(setup: Setup) -> float:
    """Return b per parameter; in 4 bits the linear layers take NF4_BYTES, embeddings, norms and output layer b.

    The stack that makes the residual stream float32 makes these float32 too.
    """
    spec = setup.spec
    total = spec.base_parameters + (spec.lm_head_parameters if setup.generate else setup.head_parameters)
    quantized = linear_parameters(spec) if setup.four_bit else 0
    return NF4_BYTES * quantized + _hidden_bytes(setup) * (total - quantized)


def linear_parameters(spec: ModelSpec) -> int:
    """Return weights of all linear layers, biases left out."""
    return sum(linear.in_features * linear.out_features for linear in spec.linears)


def trainable_parameters(setup: Setup) -> int:
    """Return the number of the method's parameters and, for a classifier, its head's."""
    extra = setup.spec.lm_head_parameters if setup.generate and setup.method.trains == "all" else 0
    return setup.facts.parameters + setup.head_parameters + extra


def trainable_bytes(setup: Setup) -> tuple[float, float, float, float]:
    """Return bytes of trained weights, gradients, AdamW's moments, and temporary tensors of the step.

    Adapters: float32, 4 + 4 + 8. Full fine-tuning in the base's precision (transformers): the weights are the
    base's, gradients b, moments 2 b, and b more during the step (fms-acceleration: 6 bytes resident, 10 at the peak, b
    = 2).
    """
    count, b = trainable_parameters(setup), setup.number_bytes
    if setup.method.trains != "adapter" and not setup.stack.full_copies:
        return 0.0, float(b * count), 2.0 * b * count, float(b * count)
    return 4.0 * count, 4.0 * count, 8.0 * count, 0.0


def stored_bytes(setup: Setup) -> float:
    """Return activations kept from forward to backward. With checkpointing each layer keeps its input alone: b·h per
    token.
    """
    spec = setup.spec
    layers = layers_with_backward(setup)
    if setup.checkpointing:
        return float(setup.held_tokens * layers * _hidden_bytes(setup) * spec.hidden_size)
    in_place = setup.method.trains == "adapter" or not setup.stack.full_copies
    # 16-bit images of full fine-tuning's float32 copies
    cast_copies = 0.0 if in_place or setup.number_bytes == 4 else 2.0 * setup.facts.parameters
    return ALLOCATOR * setup.held_tokens * layers * layer_bytes_per_token(setup) + cast_copies


def working_bytes(setup: Setup) -> float:
    """Return the memory of one layer's backward pass besides stored activations.

    It holds two gradients of feed-forward width and the layer's activations once more.
    """
    spec = setup.spec
    gradients = 2 * setup.number_bytes * spec.ffn_size
    again = layer_bytes_per_token(setup) if setup.checkpointing else 0
    return float(setup.held_tokens * (gradients + again)) if layers_with_backward(setup) else 0.0


def logits_bytes(setup: Setup) -> float:
    """Return peak of the loss: T·(k·V + 20·h) for a language model; n vectors, their gradients and n² scores in float32
    for embeddings.
    """
    spec, rows = setup.spec, setup.micro_batch
    if setup.generate:
        return float(
            setup.batch_tokens * (LOGIT_BYTES[setup.loss] * spec.vocab_size + LOSS_HIDDEN_BYTES * spec.hidden_size)
        )
    return float(16 * rows * setup.labels if setup.labels else 8 * rows * (spec.hidden_size + rows))


def layer_bytes_per_token(setup: Setup) -> float:
    """Return activations of one layer per token, from what each operation keeps for its backward.

    Norms: RMSNorm a float32 copy of its input (4 h each), LayerNorm its input (b h). Attention: queries, keys, values
    and the output; attention by products its probabilities too, a·s of them, and eager attention twice where softmax
    runs in float32.
    Feed-forward: both branches and the activation (gated), or the pre-activation. Then the inputs of every linear layer
    that is trained.
    """
    spec, b = setup.spec, setup.number_bytes
    h, q, kv, ffn = spec.hidden_size, spec.query_size, spec.key_value_size, spec.ffn_size
    rms = spec.gated and spec.causal
    norms = 2 * (4 if rms else b) * h
    attention = b * (2 * q + 2 * kv)
    if setup.attention in ("products", "eager"):
        twice = setup.attention == "eager" and rms and b < 4
        attention += spec.num_heads * setup.width * (b + 4 if twice else b)
    feed_forward = (3 if spec.gated else 1) * b * ffn
    return norms + attention + feed_forward + _kept_by_method(setup)


def _kept_by_method(setup: Setup) -> float:
    """Return the bytes that the method keeps for its weight gradients, per token and layer."""
    return setup.facts.kept_bytes[setup.number_bytes, setup.stack.lora_inputs_in_float32] / setup.spec.num_layers


def layers_with_backward(setup: Setup) -> int:
    """Return the number of layers that gradients pass through: those from the lowest trained one up (peft#1469: below
    it nothing is kept).
    """
    return setup.spec.num_layers - setup.facts.lowest_layer


def _hidden_bytes(setup: Setup) -> int:
    """Return the bytes of one number between the layers."""
    return 4 if setup.stack.float32_hidden else setup.number_bytes
