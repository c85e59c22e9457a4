"""Prompt tuning's hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.model_spec import ModelSpec


@dataclass(frozen=True, slots=True)
class PromptTuningConfig:
    """Prompt tuning hyper-parameters; field names are those of PEFT's adapter_config.json.

    `prompt_tuning_init` starts the virtual tokens from randomly drawn words of the vocabulary, from the tokens of
    `prompt_tuning_init_text` (repeated or cut to length), or at random. Raises ConfigError for values out of range.
    """

    kind: ClassVar[str] = "prompt_tuning"
    learning_rate: ClassVar[float] = 5e-2

    num_virtual_tokens: int = 8
    prompt_tuning_init: Literal["SAMPLE_VOCAB", "TEXT", "RANDOM"] = "SAMPLE_VOCAB"
    prompt_tuning_init_text: str | None = None

    def __post_init__(self) -> None:
        if self.num_virtual_tokens < 1:
            raise ConfigError(
                say("{name} must be 1 or more, got {value}", name="num_virtual_tokens", value=self.num_virtual_tokens)
            )
        if (self.prompt_tuning_init == "TEXT") != (self.prompt_tuning_init_text is not None):
            raise ConfigError(
                say("prompt_tuning_init: TEXT and prompt_tuning_init_text go together; give both or neither")
            )

    def count_parameters(self, spec: ModelSpec) -> int:
        """One vector of the hidden size for every virtual token."""
        return self.num_virtual_tokens * spec.hidden_size
