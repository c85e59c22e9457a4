"""Prompt tuning's hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.model_spec import ModelSpec
from tunedeck.core.settings import Help
from tunedeck.methods.base import SearchSpace, Trains


@dataclass(frozen=True, slots=True)
class PromptTuningConfig:
    """Prompt tuning hyper-parameters; field names are those of PEFT's adapter_config.json.

    `prompt_tuning_init` starts the virtual tokens from the separator of an encoder ("AUTO", on other models as the
    next), from common words of the vocabulary, drawn randomly, from the tokens of `prompt_tuning_init_text` (repeated
    or cut to length), or from random numbers. Raises ConfigError for values out of range.
    """

    kind: ClassVar[str] = "prompt_tuning"
    layer_module: ClassVar[str] = "tunedeck.methods.prompt_tuning.layer"
    stored_as: ClassVar[str] = "peft"
    mergeable: ClassVar[bool] = False
    short_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    quantized_name: ClassVar[str | None] = None
    search_space: ClassVar[SearchSpace | None] = SearchSpace("num_virtual_tokens", (4, 8, 16, 32))
    learning_rate: ClassVar[float] = 1e-2
    learning_rates: ClassVar[tuple[float, float]] = (3e-3, 5e-2)
    trains: ClassVar[Trains] = "adapter"

    num_virtual_tokens: Annotated[int, Help(say("prompt tuning length"))] = 8
    prompt_tuning_init: Annotated[
        Literal["AUTO", "SAMPLE_VOCAB", "TEXT", "RANDOM"],
        Help(
            say(
                "start from words of the vocabulary, from a text, or from random numbers; AUTO: from an encoder's "
                "separator token, on other models from words"
            )
        ),
    ] = "AUTO"
    prompt_tuning_init_text: Annotated[str | None, Help(say("the text to start from, with TEXT"))] = None

    def __post_init__(self) -> None:
        if self.num_virtual_tokens < 1:
            raise ConfigError(
                say("{name} must be 1 or more, got {value}", name="num_virtual_tokens", value=self.num_virtual_tokens)
            )
        if (self.prompt_tuning_init == "TEXT") != (self.prompt_tuning_init_text is not None):
            raise ConfigError(
                say("prompt_tuning_init: TEXT and prompt_tuning_init_text go together; give both or neither")
            )

    @property
    def virtual_tokens(self) -> int:
        """`num_virtual_tokens`."""
        return self.num_virtual_tokens

    def count_parameters(self, spec: ModelSpec) -> int:
        """Return one vector of the hidden size for every virtual token."""
        return self.num_virtual_tokens * spec.hidden_size

    def lowest_layer(self, spec: ModelSpec) -> int:
        """Return the first layer: the virtual tokens are inserted below it."""
        return 0

    def kept_bytes(self, spec: ModelSpec, number_bytes: int, *, float32_inputs: bool) -> int:
        """Return 0: a looked-up vector is the parameter itself."""
        return 0

    def forward_overhead(self, spec: ModelSpec) -> float:
        """Return no overhead besides the longer sequence, which `virtual_tokens` accounts for."""
        return 0.0
