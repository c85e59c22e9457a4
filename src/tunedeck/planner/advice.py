"""One recommendation with its reason, and what to change where nothing fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tunedeck.core.i18n import say
from tunedeck.methods.registry import DEFAULT_METHOD, METHODS
from tunedeck.planner.catalogue import Gpu
from tunedeck.planner.fit import fits
from tunedeck.planner.memory import Setup, memory_parts
from tunedeck.planner.plan import PlanRow

WORTH_QUANTISING = 0.5  # QLoRA is recommended over a LoRA that costs more than twice as much

Reason = Literal["default", "cheaper-in-four-bits", "only-this-fits", "only-this-is-within"]


@dataclass(frozen=True, slots=True)
class PlanAdvice:
    """The row to take and why."""

    row: PlanRow
    reason: Reason


@dataclass(frozen=True, slots=True)
class Change:
    """A change after which a run fits a GPU, as flags of `tunedeck plan`."""

    flags: str
    gpu: Gpu


def recommend(rows: Sequence[PlanRow]) -> PlanAdvice | None:
    """Return the cheapest row of the most dependable method that fits and is within budget and deadline; None where
    none is.
    """
    wanted = [row for row in rows if row.fits and row.within and "four-bit-unsupported" not in row.notes]
    best = {row.method: row for row in reversed(wanted)}
    ranked = sorted(best.values(), key=_rank)
    if not ranked:
        return None
    chosen = ranked[0]
    if not _is_default(chosen):
        default_fits = any(row.fits for row in rows if _is_default(row))
        return PlanAdvice(chosen, "only-this-is-within" if default_fits else "only-this-fits")
    quantized = next((row for row in ranked if row.setup.method.kind == DEFAULT_METHOD and row.setup.four_bit), None)
    if quantized is not None and quantized.cost.expected < WORTH_QUANTISING * chosen.cost.expected:
        return PlanAdvice(quantized, "cheaper-in-four-bits")
    return PlanAdvice(chosen, "default")


def _rank(row: PlanRow) -> tuple[bool, int, bool]:
    """Return the sort key: methods that keep the model first, in the order of METHODS, then the same on a 4-bit
    base.
    """
    method = row.setup.method
    return method.trains != "adapter", list(METHODS).index(method.kind), row.setup.four_bit


def _is_default(row: PlanRow) -> bool:
    return row.setup.method.kind == DEFAULT_METHOD and not row.setup.four_bit


def reason_text(chosen: PlanAdvice) -> str:
    """Return why this row is recommended, in a sentence."""
    row = chosen.row
    method, gpu = row.method, row.offer.gpu.name
    if chosen.reason == "cheaper-in-four-bits":
        return say(
            "LoRA on a 4-bit base fits the cheaper {gpu}, at less than half the cost of LoRA in 16 bits", gpu=gpu
        )
    if chosen.reason == "only-this-fits":
        return say(
            "LoRA fits none of these GPUs; {method} does, and {gpu} is the cheapest for it", method=method, gpu=gpu
        )
    if chosen.reason == "only-this-is-within":
        return say(
            "LoRA exceeds your limits; {method} does not, and {gpu} is the cheapest for it",
            method=method,
            gpu=gpu,
        )
    return say("LoRA is the sound default, and {gpu} is the cheapest GPU it fits within your limits", gpu=gpu)


def changes(row: PlanRow, others: Sequence[Gpu]) -> list[Change]:
    """Return changes that make a row fit: the least intrusive first, and the smallest GPU on which it fits as it
    is.
    """
    found = [
        Change(flags, row.offer.gpu) for flags, setup in _variants(row) if fits(memory_parts(setup), row.offer.gpu)
    ]
    larger = sorted((gpu for gpu in others if fits(memory_parts(row.setup), gpu)), key=lambda gpu: gpu.visible_bytes)
    return found + [Change(f"--gpu {gpu.name}", gpu) for gpu in larger[:1]]


def _variants(row: PlanRow) -> Iterator[tuple[str, Setup]]:
    """Yield flags and the setup they make, one change at a time before several at once."""
    setup, gpu = row.setup, row.offer.gpu
    frugal = replace(setup, micro_batch=1, checkpointing=True)
    quantized = setup.method.quantized_name if not setup.four_bit and gpu.capability >= 7.0 else None
    if not setup.checkpointing:
        yield "--gradient-checkpointing", replace(setup, checkpointing=True)
    if setup.micro_batch > 1:
        yield "--micro-batch 1", replace(setup, micro_batch=1)
    if setup.generate and setup.loss != "chunked":
        yield "--loss chunked", replace(setup, loss="chunked")
        yield "--micro-batch 1 --gradient-checkpointing --loss chunked", replace(frugal, loss="chunked")
    else:
        yield "--micro-batch 1 --gradient-checkpointing", frugal
    if quantized is not None:
        yield f"--method {quantized}", replace(setup, four_bit=True)
        yield f"--method {quantized} --micro-batch 1 --gradient-checkpointing", replace(frugal, four_bit=True)
    for share in (2, 4):
        if setup.tokens // share >= 16:
            shorter = replace(setup, micro_batch=1, tokens=setup.tokens // share)
            yield f"--micro-batch 1 --tokens {shorter.tokens}", shorter
