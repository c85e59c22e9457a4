"""The settings of text generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from typing_extensions import Self

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.settings import Help


@dataclass(frozen=True, slots=True)
class GenerateConfig:
    """Generate text. Training learns the assistant's turns only.

    `max_length` in tokens, virtual ones included: longer prompts are cut at their start, answers never. `packing` puts
    short conversations one behind the other in a row without letting them see each other. Raises ConfigError out of
    range.
    """

    kind: ClassVar[str] = "generate"
    view: ClassVar[str] = "tunedeck.tasks.generate.view:VIEW"

    max_length: Annotated[int, Help(say("longest conversation in tokens; prompts are cut at their start"))] = 512
    packing: Annotated[bool, Help(say("put several short conversations into one sequence, hidden from each other"))] = (
        False
    )
    system: Annotated[str, Help(say("a system turn for prompts that have none"))] = ""

    def __post_init__(self) -> None:
        if self.max_length < 8:
            raise ConfigError(
                say("{name} must be {least} or more, got {value}", name="max_length", least=8, value=self.max_length)
            )

    def as_described(self, described: Mapping[str, Any]) -> Self:
        """Return the same settings; an adapter's description changes nothing in how text is generated."""
        return self
