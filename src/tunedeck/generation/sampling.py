"""Decoding settings, and what they do to logits before a token is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say


@final
@dataclass(frozen=True, slots=True)
class Sampling:
    """Decoding settings; a temperature below 1e-5 is greedy. Raises ConfigError out of range.

    `seed` repeats a sampled answer, and is 0 unless given: ask with seeds of your own for answers that differ. The
    presence and the frequency penalty are OpenAI's and count the answer's tokens; `logprobs` is how many of the
    likeliest tokens to tell with each token's logprob.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logprobs: int | None = None

    def __post_init__(self) -> None:
        checks = {
            "max_tokens": (self.max_tokens >= 1, "≥ 1"),
            "temperature": (self.temperature >= 0, "≥ 0"),
            "top_p": (0 < self.top_p <= 1, "> 0, ≤ 1"),
            "top_k": (self.top_k >= 0, "≥ 0"),
            "repetition_penalty": (self.repetition_penalty > 0, "> 0"),
            "stop": (all(self.stop), say("texts that are not empty")),
            "presence_penalty": (-2 <= self.presence_penalty <= 2, "≥ -2, ≤ 2"),
            "frequency_penalty": (-2 <= self.frequency_penalty <= 2, "≥ -2, ≤ 2"),
            "logprobs": (self.logprobs is None or 0 <= self.logprobs <= 20, "≥ 0, ≤ 20"),
        }
        for name, (right, allowed) in checks.items():
            if not right:
                value = getattr(self, name)
                raise ConfigError(
                    say("{name} must be {allowed}, got {value!r}", name=name, allowed=allowed, value=value)
                )

    @property
    def greedy(self) -> bool:
        """Tell whether the likeliest token is taken; logits divided by less than 1e-5 leave float32 (vLLM's bound
        too).
        """
        return self.temperature < 1e-5

    def processors(self, prompt_tokens: int) -> LogitsProcessorList:
        """Return transformers' processors in its order, and vLLM's penalties where vLLM has them."""
        chosen = LogitsProcessorList()
        if self.repetition_penalty != 1:
            chosen.append(RepetitionPenaltyLogitsProcessor(self.repetition_penalty))
        if self.presence_penalty or self.frequency_penalty:
            chosen.append(AnswerPenalties(prompt_tokens, self.presence_penalty, self.frequency_penalty))
        if not self.greedy and self.temperature != 1:
            chosen.append(TemperatureLogitsWarper(self.temperature))
        if not self.greedy and self.top_k:
            chosen.append(TopKLogitsWarper(self.top_k))
        if not self.greedy and self.top_p < 1:
            chosen.append(TopPLogitsWarper(self.top_p))
        return chosen


@final
class AnswerPenalties(LogitsProcessor):  # type: ignore[misc]
    """Subtract `presence` from the logit of every token that the answer has, and `frequency` each time that it has it.

    The prompt, the first `prompt_tokens`, does not count: platform.openai.com/docs/api-reference, `frequency_penalty`.
    """

    def __init__(self, prompt_tokens: int, presence: float, frequency: float) -> None:
        self._prompt_tokens, self._presence, self._frequency = prompt_tokens, presence, frequency

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return logits (1, vocab) for the one row of `input_ids` (1, seq)."""
        tokens, counts = torch.unique(input_ids[0, self._prompt_tokens :], return_counts=True)
        penalized = scores.clone()
        penalized[0, tokens] -= self._presence + self._frequency * counts
        return penalized  # type: ignore[return-value]
