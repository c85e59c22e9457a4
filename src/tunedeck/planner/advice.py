"""One recommendation with its reason, and what to change where nothing fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tunedeck.core.i18n import say
from tunedeck.methods.lora.config import LoraConfig
from tunedeck.planner.catalogue import Gpu
from tunedeck.planner.fit import fits
from tunedeck.planner.memory import Setup, memory_parts
from tunedeck.planner.plan import PlanRow

PREFERRED = ("lora", "qlora", "bottleneck", "prompt_tuning", "full")
"""LoRA is the sound default (source article, its comparison); the others follow by how little they risk."""
WORTH_QUANTISING = 0.5  # QLoRA is recommended over a LoRA that costs more than twice as much

Reason = Literal["default", "cheaper-in-four-bits", "only-this-fits", "only-this-is-within"]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The row to take and why."""

    row: PlanRow
    reason: Reason


@dataclass(frozen=True, slots=True)
class Change:
    """A change after which a run fits a card, as flags of `tunedeck plan`."""

    flags: str
    gpu: Gpu


def recommend(rows: Sequence[PlanRow]) -> Recommendation | None:
    """The cheapest row of the most dependable method that fits and is within budget and deadline; None where none is."""
    wanted = [row for row in rows if row.fits and row.within and "four-bit-unsupported" not in row.notes]
    best = {name: next((row for row in wanted if row.method == name), None) for name in PREFERRED}
    lora, qlora = best["lora"], best["qlora"]
    if lora and qlora and qlora.cost.expected < WORTH_QUANTISING * lora.cost.expected:
        return Recommendation(qlora, "cheaper-in-four-bits")
    chosen = next((row for row in best.values() if row is not None), None)
    if chosen is None:
        return None
    if chosen is lora:
        return Recommendation(chosen, "default")
    lora_fits = any(row.fits for row in rows if row.method == "lora")
    return Recommendation(chosen, "only-this-is-within" if lora_fits else "only-this-fits")


def reason_text(chosen: Recommendation) -> str:
    """Why this row is recommended, in a sentence."""
    row = chosen.row
    method, gpu = row.method, row.offer.gpu.name
    if chosen.reason == "cheaper-in-four-bits":
        return say(
            "LoRA on a 4-bit base fits the cheaper {gpu}, at less than half the cost of LoRA in 16 bits", gpu=gpu
        )
    if chosen.reason == "only-this-fits":
        return say(
            "LoRA fits none of these cards; {method} does, and {gpu} is the cheapest for it", method=method, gpu=gpu
        )
    if chosen.reason == "only-this-is-within":
        return say(
            "LoRA does not stay within what you set; {method} does, and {gpu} is the cheapest for it",
            method=method,
            gpu=gpu,
        )
    return say("LoRA is the sound default, and {gpu} is the cheapest card it fits within what you set", gpu=gpu)


def changes(row: PlanRow, others: Sequence[Gpu]) -> list[Change]:
    """What would make a row that does not fit fit: the gentlest first, and the smallest card on which it fits as it is."""
    found = [
        Change(flags, row.offer.gpu) for flags, setup in _variants(row) if fits(memory_parts(setup), row.offer.gpu)
    ]
    larger = sorted((gpu for gpu in others if fits(memory_parts(row.setup), gpu)), key=lambda gpu: gpu.visible_bytes)
    return found + [Change(f"--gpu {gpu.name}", gpu) for gpu in larger[:1]]


def _variants(row: PlanRow) -> Iterator[tuple[str, Setup]]:
    """Flags and the setup they make, one change at a time before several at once."""
    setup, gpu = row.setup, row.offer.gpu
    frugal = replace(setup, micro_batch=1, checkpointing=True)
    can_quantise = isinstance(setup.method, LoraConfig) and not setup.four_bit and gpu.capability >= 7.0
    if not setup.checkpointing:
        yield "--gradient-checkpointing", replace(setup, checkpointing=True)
    if setup.micro_batch > 1:
        yield "--micro-batch 1", replace(setup, micro_batch=1)
    if setup.generate and setup.loss != "chunked":
        yield "--loss chunked", replace(setup, loss="chunked")
        yield "--micro-batch 1 --gradient-checkpointing --loss chunked", replace(frugal, loss="chunked")
    else:
        yield "--micro-batch 1 --gradient-checkpointing", frugal
    if can_quantise:
        yield "--method qlora", replace(setup, four_bit=True)
        yield "--method qlora --micro-batch 1 --gradient-checkpointing", replace(frugal, four_bit=True)
    for share in (2, 4):
        if setup.tokens // share >= 16:
            shorter = replace(setup, micro_batch=1, tokens=setup.tokens // share)
            yield f"--micro-batch 1 --tokens {shorter.tokens}", shorter
