"""The candidates of a race: those asked for, or a portfolio of settings that have done well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from tunedeck.comparison.grammar import Candidate, Methods, parse_methods

Candidates: TypeAlias = Methods
"""Text such as `lora:r=4,16;bottleneck`, or a list of such texts and of configs."""

PORTFOLIO = (
    "bottleneck:reduction_factor=4:learning_rate=5e-3",
    "lora:target_modules=all-linear:learning_rate=1e-3",
    "lora:r=4:learning_rate=3e-3",
    "full:learning_rate=1e-4,3e-5",
    "full:layers=2:learning_rate=3e-4",
    "lora:learning_rate=1e-3,3e-3",
    "lora:r=32:learning_rate=3e-3",
    "bottleneck:learning_rate=2e-3,5e-4",
    "lora:target_modules=all-linear:learning_rate=3e-4",
    "lora:learning_rate=3e-4",
    "bias:learning_rate=1e-3,3e-3",
    "full:layers=2:learning_rate=1e-4",
    "ia3:learning_rate=2e-2,5e-3",
    "prompt_tuning:learning_rate=1e-2,5e-2",
)
"""In the order of the accuracies that bench/race.py measured on untouched texts with two small encoders; three adapters
come before full fine-tuning, so that a time limit on a large base admits them.
"""


def portfolio(task: str) -> list[Candidate]:
    """Return the portfolio, for generation LoRA first and full fine-tuning last: bases are larger, and nothing of the
    above was measured with them.
    """
    found = parse_methods(PORTFOLIO, {})
    if task != "generate":
        return found
    return sorted(found, key=lambda one: (one.method["kind"] == "full") - (one.method["kind"] == "lora"))


def parse_candidates(candidates: Candidates, run_values: Mapping[str, Any]) -> list[Candidate]:
    """Return the candidates in the order of preference.

    In a text a semicolon separates as a comma does, so that lists of values are easier to read. Raises ConfigError that
    names the piece.
    """
    texts: Methods = candidates
    if isinstance(candidates, str):
        texts = [text for text in candidates.split(";") if text.strip()] or candidates
    return parse_methods(texts, run_values)


def with_seeds(candidates: Sequence[Candidate], seeds: Sequence[int]) -> list[tuple[Candidate, int]]:
    """Return every candidate with every seed of its first weights, seeds last."""
    found = []
    for number, seed in enumerate(seeds):
        for one in candidates:
            found.append((replace(one, name=f"{one.name} seed={seed}") if number else one, seed))
    return found
