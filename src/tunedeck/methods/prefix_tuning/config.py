"""Prefix tuning's hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from tunedeck.core.errors import ArchitectureError, ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.model_spec import ModelSpec
from tunedeck.core.settings import Help
from tunedeck.methods.base import SearchSpace, Trains


@dataclass(frozen=True, slots=True)
class PrefixTuningConfig:
    """Prefix tuning hyper-parameters; `num_virtual_tokens` is named as in PEFT's adapter_config.json.

    `prefix_init` starts the keys and values as those that the base computes for common words of the vocabulary, drawn
    randomly, or for the tokens of `prefix_init_text` (repeated or cut to length), or from random numbers.
    `shift_positions` counts the prefix in the positions of the text, as PEFT does; AdapterHub's text begins at
    position 0, as an encoder has learned it. The default is true for decoders and false for encoders. Raises
    ConfigError for values out of range.
    """

    kind: ClassVar[str] = "prefix_tuning"
    layer_module: ClassVar[str] = "tunedeck.methods.prefix_tuning.layer"
    mergeable: ClassVar[bool] = False
    short_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    quantized_name: ClassVar[str | None] = None
    search_space: ClassVar[SearchSpace | None] = SearchSpace("num_virtual_tokens", (4, 8, 16, 32))
    learning_rate: ClassVar[float] = 2e-2
    learning_rates: ClassVar[tuple[float, float]] = (5e-3, 5e-2)
    trains: ClassVar[Trains] = "adapter"
    virtual_tokens: ClassVar[int] = 0

    num_virtual_tokens: Annotated[int, Help(say("keys and values in front of each layer"))] = 4
    prefix_init: Annotated[
        Literal["SAMPLE_VOCAB", "TEXT", "RANDOM"],
        Help(say("start from words of the vocabulary, from a text, or from random numbers")),
    ] = "SAMPLE_VOCAB"
    prefix_init_text: Annotated[str | None, Help(say("the text to start from, with TEXT"))] = None
    shift_positions: Annotated[
        bool | None,
        Help(
            say("count the prefix in the text's positions, as PEFT does; AdapterHub does not; by default decoders do")
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.num_virtual_tokens < 1:
            raise ConfigError(
                say("{name} must be 1 or more, got {value}", name="num_virtual_tokens", value=self.num_virtual_tokens)
            )
        if (self.prefix_init == "TEXT") != (self.prefix_init_text is not None):
            raise ConfigError(say("prefix_init: TEXT and prefix_init_text go together; give both or neither"))

    @property
    def stored_as(self) -> str:
        """Return "peft", or "adapterhub" where the text's positions do not count the prefix."""
        return "adapterhub" if self.shift_positions is False else "peft"

    def for_model(self, spec: ModelSpec | None) -> PrefixTuningConfig:
        """Return these settings with `shift_positions` as it is by default on this model."""
        if self.shift_positions is not None:
            return self
        return replace(self, shift_positions=spec is None or spec.causal)

    def attentions(self, spec: ModelSpec | None, model_type: str) -> list[str]:
        """Return the paths of the modules that attend to the prefix, one for each layer.

        Raises ArchitectureError where the architecture is not known or its attention takes no keys and values.
        """
        if spec is None or not spec.takes_cache:
            raise ArchitectureError(
                say(
                    "prefix tuning is not supported on {model_type} models, whose attention takes no keys and values "
                    "from outside; use lora",
                    model_type=model_type,
                )
            )
        if spec.causal and self.shift_positions is False:
            raise ArchitectureError(
                say("shift_positions: false is AdapterHub's form, which has no decoders; leave it out")
            )
        inside = spec.keys_values[0].rpartition(".")[0]
        return [f"{spec.prefix}.{spec.layers}.{layer}.{inside}" for layer in range(spec.num_layers)]

    def count_parameters(self, spec: ModelSpec) -> int:
        """Return the keys and the values of each virtual token in every layer."""
        layers = len(self.attentions(spec, spec.model_type))
        return self.num_virtual_tokens * layers * 2 * spec.key_value_size

    def lowest_layer(self, spec: ModelSpec) -> int:
        """Return the first layer, which has a prefix, too."""
        return 0

    def kept_bytes(self, spec: ModelSpec, number_bytes: int, *, float32_inputs: bool) -> int:
        """Return the bytes of one token's attention weights on the prefix, which plain attention keeps."""
        return number_bytes * spec.num_layers * spec.num_heads * self.num_virtual_tokens

    def forward_overhead(self, spec: ModelSpec) -> float:
        """Return the products with the prefix's keys and values over those of the linear layers."""
        own = 2 * self.num_virtual_tokens * spec.query_size * spec.num_layers
        return own / sum(linear.in_features * linear.out_features for linear in spec.linears)
