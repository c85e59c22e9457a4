"""The candidates of a race: those asked for, or a portfolio of settings that have done well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from tunedeck.comparison.grammar import Candidate, Methods, parse_methods

Candidates: TypeAlias = Methods
"""Text such as `lora:r=4,16;bottleneck`, or a list of such texts and of configs."""

PORTFOLIO = (
    "lora:learning_rate=1e-3",
    "lora:learning_rate=3e-3",
    "lora:learning_rate=3e-4",
    "bottleneck:learning_rate=2e-3",
    "lora:r=4:lora_alpha=8:learning_rate=3e-3",
    "lora:r=32:lora_alpha=64:learning_rate=1e-3",
    "lora:target_modules=all-linear:learning_rate=1e-3",
    "lora:target_modules=all-linear:learning_rate=3e-4",
    "bottleneck:learning_rate=5e-4,5e-3",
    "full:layers=2:learning_rate=1e-4,3e-4",
    "full:learning_rate=3e-5,1e-4",
    "ia3:learning_rate=5e-3,2e-2",
    "bias:learning_rate=3e-3,1e-2",
    "prompt_tuning:learning_rate=1e-2,5e-2",
)
"""In the order of what moves the quality most: learning rate, size and place, method (bench/defaults.py)."""


def parse_candidates(candidates: Candidates | None, run_values: Mapping[str, Any]) -> list[Candidate]:
    """Return the candidates in the order of admission; the portfolio where there are none.

    In a text a semicolon separates as a comma does, so that lists of values are easier to read. Raises ConfigError that
    names the piece.
    """
    if candidates is None:
        return parse_methods(PORTFOLIO, {})
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
