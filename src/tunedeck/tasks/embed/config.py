"""The settings of text embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BeforeValidator
from typing_extensions import Self

from tunedeck.core.checks import one_of
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.pooling import Pooling
from tunedeck.core.settings import Help
from tunedeck.core.values import from_values, to_values


def _present_name(pooling: Any) -> Any:
    """Return the name of a pooling; earlier versions called the first position cls."""
    return "first" if pooling == "cls" else pooling


@dataclass(frozen=True, slots=True)
class EmbedConfig:
    """Make vectors of texts, and learn from pairs, triplets or labelled texts which of them belong together.

    Left at None, `pooling`, `normalize`, the instructions and `max_length` are what a sentence-transformers base says
    of itself, else mean, True, none and 512 tokens. `query_instruction` is put before queries and training anchors,
    `document_instruction` before all other texts. `temperature` divides the cosines in training; `symmetric` also
    learns to find the anchor by its positive; `chunk_size` texts at a time are in memory while a larger batch is
    contrasted whole. Raises ConfigError for values out of range.
    """

    kind: ClassVar[str] = "embed"
    view: ClassVar[str] = "tunedeck.tasks.embed.view:VIEW"

    pooling: Annotated[
        Pooling | None,
        BeforeValidator(_present_name),
        Help(say("how a vector is made of the positions; the base's way by default")),
    ] = None
    normalize: Annotated[bool | None, Help(say("vectors of length 1; as the base says by default"))] = None
    query_instruction: Annotated[str | None, Help(say("text before queries and anchors"))] = None
    document_instruction: Annotated[str | None, Help(say("text before all other texts"))] = None
    max_length: Annotated[int | None, Help(say("cut texts to this number of tokens"))] = None
    temperature: Annotated[float, Help(say("divides the cosines in training"))] = 0.05
    symmetric: Annotated[bool, Help(say("also learn to find the anchor by its positive"))] = False
    chunk_size: Annotated[
        int | None, Help(say("texts in memory at a time while a larger batch is contrasted whole"))
    ] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "pooling", _present_name(self.pooling))
        if self.pooling is not None:
            one_of("pooling", self.pooling, get_args(Pooling))
        if self.temperature <= 0:
            raise ConfigError(say("{name} must be above 0, got {value}", name="temperature", value=self.temperature))
        for name, least in (("max_length", 3), ("chunk_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(
                    say("{name} must be {least} or more, got {value}", name=name, least=least, value=value)
                )

    def as_described(self, described: Mapping[str, Any]) -> Self:
        """Return the same settings with what an adapter was trained with."""
        known = {field.name: described[field.name] for field in fields(self) if described.get(field.name) is not None}
        return from_values(type(self), {**to_values(self), **known}, "task")
