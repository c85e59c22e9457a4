"""The settings of token classification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from typing_extensions import Self

from tunedeck.core.checks import one_of
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.settings import Help

SUBWORDS = ("first", "all")


@dataclass(frozen=True, slots=True)
class TagConfig:
    """Find the entities in texts, such as names, places or the slots of a command.

    `labels` are the tags that a head tells apart: O, and B- and I- with each kind of entity (taken from the training
    data when None). With `subwords` "first" the first token of a word decides for the whole word, with "all" each token
    decides for itself. `max_length` in tokens, special and virtual ones included; longer texts are read in windows that
    overlap. Raises ConfigError for a label named twice.
    """

    kind: ClassVar[str] = "tag"
    view: ClassVar[str] = "tunedeck.tasks.tag.view:VIEW"

    labels: Annotated[tuple[str, ...] | None, Help(say("the tags; those of the training data by default"))] = None
    subwords: Annotated[
        Literal["first", "all"],
        Help(say("which tokens have a tag: the first of each word, for the whole word, or all of them")),
    ] = "first"
    max_length: Annotated[
        int, Help(say("read texts in windows of at most this number of tokens, which overlap by a quarter"))
    ] = 256

    def __post_init__(self) -> None:
        one_of("subwords", self.subwords, SUBWORDS)
        if self.max_length < 3:
            raise ConfigError(
                say("{name} must be {least} or more, got {value}", name="max_length", least=3, value=self.max_length)
            )
        if self.labels is None:
            return
        object.__setattr__(self, "labels", tuple(str(label) for label in self.labels))
        if len(set(self.labels)) != len(self.labels):
            raise ConfigError(say("a label is named twice: {labels}", labels=", ".join(self.labels)))

    def as_described(self, described: Mapping[str, Any]) -> Self:
        """Return the same settings with the tokens that the adapter was trained to decide by."""
        return replace(self, subwords=described.get("subwords", self.subwords))
