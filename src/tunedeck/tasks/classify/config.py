"""The settings of text classification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

from typing_extensions import Self

from tunedeck.core.checks import one_of
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.pooling import HeadPooling, Pooling
from tunedeck.core.settings import Help

ClassWeights: TypeAlias = Literal["balanced"] | Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class ClassifyConfig:
    """Classify texts into `labels` (taken from the training data when None); `multi_label` allows any number per text.

    `max_length` in tokens, special and virtual ones included; longer texts are cut. Raises ConfigError for fewer than
    two labels or a label named twice.
    """

    kind: ClassVar[str] = "classify"
    view: ClassVar[str] = "tunedeck.tasks.classify.view:VIEW"

    labels: Annotated[tuple[str, ...] | None, Help(say("the labels; those of the training data by default"))] = None
    multi_label: Annotated[bool, Help(say("any number of labels per text"))] = False
    max_length: Annotated[int, Help(say("cut texts to this number of tokens"))] = 256
    pooling: Annotated[
        Literal["auto"] | HeadPooling,
        Help(
            say(
                "what the head reads of a text: the mean of its positions, the first or the last, or what the model's "
                "head reads; auto is the base's way"
            )
        ),
    ] = "auto"

    class_weights: Annotated[
        ClassWeights,
        Help(
            say(
                "weights of the labels in the loss: balanced gives rare labels the weight of frequent ones; or a "
                "weight for each label"
            )
        ),
    ] = None

    pairs: Annotated[
        bool | None,
        Help(say("examples are pairs of texts, such as premise and hypothesis; by default as the columns say")),
    ] = None

    def __post_init__(self) -> None:
        if isinstance(self.class_weights, Mapping) and not all(weight > 0 for weight in self.class_weights.values()):
            raise ConfigError(say("class_weights must be above 0, got {weights}", weights=dict(self.class_weights)))
        one_of("pooling", self.pooling, ("auto", *get_args(Pooling), "model"))
        if self.labels is None:
            return
        object.__setattr__(self, "labels", tuple(str(label) for label in self.labels))
        if len(set(self.labels)) != len(self.labels):
            raise ConfigError(say("a label is named twice: {labels}", labels=", ".join(self.labels)))
        if len(self.labels) < 2 and not self.multi_label:
            raise ConfigError(say("classification needs two labels or more, got {labels}", labels=list(self.labels)))

    def as_described(self, described: Mapping[str, Any]) -> Self:
        """Return the same settings, multi-label, pooled and for pairs as the adapter was trained.

        Other programs' heads are pooled as the model's own, and so were those of version 0.1.0.
        """
        multi_label = bool(described.get("multi_label", self.multi_label))
        pooling, pairs = described.get("pooling", "model"), described.get("pairs")
        return replace(self, multi_label=multi_label, pooling=pooling, pairs=pairs)
