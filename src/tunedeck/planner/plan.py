"""The plan: every method on every offer, ranked, with a recommendation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tunedeck.core.errors import ArchitectureError
from tunedeck.core.run_length import DEFAULT_BATCH_SIZE, planned_evaluations, steps_per_epoch, total_steps
from tunedeck.methods.base import MethodConfig
from tunedeck.planner.catalogue import Gpu
from tunedeck.planner.cost import PROCESS_S, Hours, run_cost, run_hours, start_s
from tunedeck.planner.estimate import Estimate
from tunedeck.planner.fit import fits, largest_micro_batch, needed_bytes
from tunedeck.planner.machine import THIS_MACHINE, Profile, StepPrediction, predict
from tunedeck.planner.memory import Attention, Loss, MemoryParts, MethodFacts, Setup, memory_parts, method_facts
from tunedeck.planner.models import PlannedModel
from tunedeck.planner.prices import Offer
from tunedeck.planner.processor import Processor, bfloat16_instructions, processor_now, product_shape, slowed
from tunedeck.planner.throughput import step_s
from tunedeck.planner.workload import Workload

EFFECTIVE_BATCH = DEFAULT_BATCH_SIZE
MEMORY_BAND = (0.92, 1.10)  # contains the held-out rows of bench/planner_accuracy.py
TIME_BAND = {True: (0.8, 1.3), False: (0.6, 1.8)}  # on a GPU with measured rows; on another
LENGTH_BAND = (0.85, 1.2)  # lengths estimated from characters


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """Hold the settings of a plan; a field that is None is chosen for each GPU."""

    model: PlannedModel
    methods: Mapping[str, MethodConfig]
    """By the name shown: the method's kind, or its name on a 4-bit base, such as qlora."""
    workload: Workload
    task: str
    """Generate, or the kind of a task with a head."""
    micro_batch: int | None = None
    accumulation: int | None = None
    checkpointing: bool = False
    loss: Loss | None = None
    """None is what this engine does: chunked, but for full fine-tuning, which trains the output layer too."""
    attention: Attention | None = None
    dtype: str | None = None
    labels: int = 2
    budget: float | None = None
    deadline_h: float | None = None
    profile: Profile | None = None
    """Measurements of this machine."""

    @property
    def generate(self) -> bool:
        """Tell whether the loss is over the vocabulary at every position."""
        return self.task == "generate"


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One method on one offer."""

    model: str
    method: str
    offer: Offer
    setup: Setup
    """At the longest batch, which sets the peak."""
    parts: MemoryParts
    peak_allocated_bytes: Estimate
    peak_device_bytes: Estimate
    fits: bool
    margin_bytes: float
    """Memory that is left on the GPU; negative if the run does not fit."""
    largest_micro_batch: int
    step_s: Estimate
    tokens_per_s: Estimate
    steps: int
    hours: Hours
    cost: Estimate
    notes: tuple[str, ...] = ()
    within: bool = field(default=True)
    """Inside the budget and the deadline, as far as they were given."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; estimates have low, expected and high."""
        return {
            "model": self.model,
            "method": self.method,
            "gpu": self.offer.gpu.name,
            "fits": self.fits,
            "within_wishes": self.within,
            "margin_bytes": self.margin_bytes,
            "micro_batch": self.setup.micro_batch,
            "largest_micro_batch": self.largest_micro_batch,
            "accumulation": self.setup.accumulation,
            "checkpointing": self.setup.checkpointing,
            "dtype": self.setup.dtype,
            "attention": self.setup.attention,
            "loss": self.setup.loss,
            "steps": self.steps,
            "peak_allocated_bytes": self.peak_allocated_bytes.to_json(),
            "peak_device_bytes": self.peak_device_bytes.to_json(),
            "memory_parts_bytes": self.parts.to_json(),
            "tokens_per_s": self.tokens_per_s.to_json(),
            "step_s": self.step_s.to_json(),
            "hours": self.hours.total_h.to_json(),
            "hours_parts": self.hours.to_json(),
            "cost": self.cost.to_json(),
            "currency": self.offer.currency,
            "price_per_hour": self.offer.price_per_hour.to_json(),
            "price": self.offer.source_json(),
            "notes": list(self.notes),
        }


def make_plan(request: PlanRequest, offers: Sequence[Offer]) -> list[PlanRow]:
    """Return a row for every method on every offer: first those that fit, sorted by cost.

    A method that is not known on the architecture is left out, unless it is the only one asked for.
    Raises TargetError for target modules that do not fit the model.
    """
    rows: list[PlanRow] = []
    known: dict[tuple[tuple[int, int, int], str], Processor] = {}

    def look(setup: Setup) -> Processor:
        """Look at this machine once for all methods whose products are alike."""
        key = (product_shape(setup), setup.dtype)
        if key not in known:
            known[key] = processor_now(setup)
        return known[key]

    for name, method in request.methods.items():
        try:
            facts = method_facts(request.model.spec, method)
        except ArchitectureError:
            if len(request.methods) == 1:
                raise
            continue
        rows += [_row(request, name, method, facts, offer, look) for offer in offers]
    return sorted(
        rows, key=lambda row: (not row.fits, not row.within, row.cost.expected if row.fits else -row.margin_bytes)
    )


def setup_for(request: PlanRequest, name: str, method: MethodConfig, facts: MethodFacts, gpu: Gpu) -> Setup:
    """Return the run on a GPU before its batch is chosen: precision and attention as the GPU has them."""
    dtype = request.dtype or ("bfloat16" if gpu.has_bfloat16 else "float16")
    if not gpu.has_bfloat16 and dtype == "bfloat16":
        dtype = "float16"
    if gpu.capability == 0 and request.dtype is None:
        calibrations = request.profile.calibrations if request.profile and gpu.name == THIS_MACHINE else ()
        native = "bfloat16" if gpu.name == THIS_MACHINE and bfloat16_instructions() else "float32"
        dtype = calibrations[0].dtype if calibrations else native
    slow_sdpa = gpu.capability == 0 and dtype == "bfloat16"  # models/precision.py avoids torch's kernel there
    attention = request.attention or ("products" if slow_sdpa else "sdpa")
    if attention == "flash" and not gpu.has_flash_attention:
        attention = "sdpa"
    return Setup(
        spec=request.model.spec,
        method=method,
        facts=facts,
        micro_batch=1,
        tokens=request.workload.longest_tokens,
        generate=request.generate,
        dtype=dtype,
        four_bit=name == method.quantized_name,
        checkpointing=request.checkpointing,
        attention=attention,
        loss=request.loss or engine_loss(method),
        labels=request.labels,
        epochs=request.workload.epochs,
        data_tokens=request.workload.samples * request.workload.mean_tokens,
    )


def engine_loss(method: MethodConfig) -> Loss:
    """Return how tasks/generate/loss.py computes a language model's loss: without whole logits where the output layer
    is frozen.
    """
    return "chunked" if method.trains == "adapter" else "eager"


def with_batch(setup: Setup, request: PlanRequest, largest: int) -> Setup:
    """Return the batch the user named, else the largest that fits up to EFFECTIVE_BATCH rows an update, accumulated to
    it.
    """
    micro = request.micro_batch or max(1, min(largest, EFFECTIVE_BATCH))
    accumulation = request.accumulation or max(1, EFFECTIVE_BATCH // micro)
    return replace(setup, micro_batch=micro, accumulation=accumulation)


def _row(
    request: PlanRequest,
    name: str,
    method: MethodConfig,
    facts: MethodFacts,
    offer: Offer,
    look: Callable[[Setup], Processor],
) -> PlanRow:
    gpu, work = offer.gpu, request.workload
    own = gpu.name == THIS_MACHINE
    bare = setup_for(request, name, method, facts, gpu)
    timed = replace(bare, micro_batch=request.micro_batch or EFFECTIVE_BATCH)
    processor = look(at_mean(timed, work)) if own and request.profile is None else None

    largest = largest_micro_batch(bare, gpu, lambda setup: _prediction(request, setup, gpu, processor).parts)
    setup = with_batch(bare, request, largest)
    found = _prediction(request, setup, gpu, processor)
    step, parts = found.step_s, found.parts
    steps = total_steps(work.epochs, steps_per_epoch(work.samples, setup.micro_batch, setup.accumulation))
    train_s = found.first_use_s
    if not request.generate:
        train_s = train_s.plus(
            start_s(at_mean(setup, work), step, steps, processor, evaluation_share=work.evaluation_share)
        )
        steps = 0 if method.trains == "head" else steps  # its start is the solution
    evaluations = planned_evaluations(work.epochs, steps, work.evaluation_share)
    evaluated = work.samples * work.evaluation_share * evaluations * work.mean_tokens
    process_s = slowed(PROCESS_S, processor) if own else None
    hours = run_hours(setup, gpu, train_s.plus(step.scaled(steps)), evaluated, process_s)
    cost = run_cost(offer, hours.total_h)
    tokens = setup.micro_batch * setup.accumulation * work.mean_tokens
    device = found.memory_bytes if own else Estimate.around(parts.device, *MEMORY_BAND)
    return PlanRow(
        model=request.model.name,
        method=name,
        offer=offer,
        setup=setup,
        parts=parts,
        peak_allocated_bytes=found.memory_bytes,
        peak_device_bytes=device,
        fits=fits(parts, gpu),
        margin_bytes=gpu.visible_bytes - needed_bytes(parts),
        largest_micro_batch=largest,
        step_s=step,
        tokens_per_s=Estimate(tokens / step.high, tokens / step.expected, tokens / step.low),
        steps=steps,
        hours=hours,
        cost=cost,
        notes=card_notes(gpu, setup.four_bit, request, exact=found.exact),
        within=_within(request, hours, cost),
    )


def _within(request: PlanRequest, hours: Hours, cost: Estimate) -> bool:
    """Tell whether budget and deadline are expected to hold."""
    return (request.budget is None or cost.expected <= request.budget) and (
        request.deadline_h is None or hours.total_h.expected <= request.deadline_h
    )


def _prediction(request: PlanRequest, setup: Setup, gpu: Gpu, processor: Processor | None) -> StepPrediction:
    """Return memory and the time of a step on this machine or a listed GPU."""
    mean = at_mean(setup, request.workload)
    if gpu.name == THIS_MACHINE:
        return predict(request.profile, request.model.name, setup, mean, gpu, processor)
    parts = memory_parts(setup)
    step = Estimate.around(step_s(mean, gpu), *time_band(gpu, request.workload))
    return StepPrediction(step, Estimate.around(parts.allocated, *MEMORY_BAND), parts, exact=gpu.measured)


def at_mean(setup: Setup, work: Workload) -> Setup:
    """Return the run at the mean length, padded to a multiple of 8 where lengths differ."""
    mean = math.ceil(work.mean_tokens)
    padded = mean if mean == work.longest_tokens else min(work.longest_tokens, -(-mean // 8) * 8)
    return replace(setup, tokens=padded)


def time_band(gpu: Gpu, work: Workload) -> tuple[float, float]:
    """Return how far below and above the expected time the run may end."""
    low, high = TIME_BAND[gpu.measured]
    return (low, high) if work.counted else (low * LENGTH_BAND[0], high * LENGTH_BAND[1])


def card_notes(gpu: Gpu, four_bit: bool, request: PlanRequest, exact: bool) -> tuple[str, ...]:
    """Return the short names of the notes on a GPU: what it lacks and what was assumed instead (see
    cli/plan.py).
    """
    notes = []
    if not gpu.has_bfloat16 and request.dtype in (None, "bfloat16") and gpu.capability:
        notes.append("float16-instead-of-bfloat16")
    if not gpu.has_flash_attention and request.attention == "flash":
        notes.append("no-flash-attention")
    if not gpu.tensor_cores and gpu.capability:
        notes.append("no-tensor-cores")
    if four_bit and 0 < gpu.capability < 7.0:
        notes.append("four-bit-unsupported")
    if gpu.name == THIS_MACHINE and not exact:
        notes.append("not-calibrated")
    if gpu.doubtful:
        notes.append("doubtful-figures")
    return tuple(notes)
