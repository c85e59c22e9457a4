"""How the next token is chosen from logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tunedeck.core.errors import ConfigError
from tunedeck.core.messages import say


@final
@dataclass(frozen=True, slots=True)
class Sampling:
    """Decoding settings; a temperature below 1e-5 is greedy. `seed` repeats a sampled answer. Raises ConfigError out of range."""

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks = {
            "max_tokens": self.max_tokens >= 1,
            "temperature": self.temperature >= 0,
            "top_p": 0 < self.top_p <= 1,
            "top_k": self.top_k >= 0,
            "repetition_penalty": self.repetition_penalty > 0,
            "stop": all(self.stop),
        }
        for name, right in checks.items():
            if not right:
                raise ConfigError(
                    say(
                        "{name} cannot be {value!r}; see Sampling for what it may be",
                        name=name,
                        value=getattr(self, name),
                    )
                )

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken; logits divided by less than 1e-5 leave float32 (vLLM's bound too)."""
        return self.temperature < 1e-5

    def processors(self) -> LogitsProcessorList:
        """transformers' own processors, in its order."""
        chosen = LogitsProcessorList()
        if self.repetition_penalty != 1:
            chosen.append(RepetitionPenaltyLogitsProcessor(self.repetition_penalty))
        if not self.greedy and self.temperature != 1:
            chosen.append(TemperatureLogitsWarper(self.temperature))
        if not self.greedy and self.top_k:
            chosen.append(TopKLogitsWarper(self.top_k))
        if not self.greedy and self.top_p < 1:
            chosen.append(TopPLogitsWarper(self.top_p))
        return chosen


def choose_tokens(
    logits: torch.Tensor, seen: list[list[int]], samplings: list[Sampling], generators: list[torch.Generator]
) -> list[int]:
    """The next token of each row of logits (rows, vocab), each row by its own sampling; `seen` are each row's real tokens
    so far, `generators` its dice.

    From a GPU only the logits of rows that are not plainly greedy are copied to the CPU.
    """
    likeliest = logits.argmax(-1).tolist()
    rows = zip(logits, seen, samplings, generators, likeliest, strict=True)
    return [_choose(row, ids, sampling, dice, best) for row, ids, sampling, dice, best in rows]


def _choose(logits: torch.Tensor, seen: list[int], sampling: Sampling, dice: torch.Generator, best: int) -> int:
    processors = sampling.processors()
    if sampling.greedy and not processors:
        return best
    logits = logits.cpu()
    if processors:
        logits = processors(torch.tensor([seen]), logits[None])[0]
        best = int(logits.argmax())
    return best if sampling.greedy else int(torch.multinomial(logits.softmax(-1), 1, generator=dice))
