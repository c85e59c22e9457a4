"""The settings of scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, get_args

from typing_extensions import Self

from tunedeck.core.checks import one_of
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.pooling import HeadPooling, Pooling
from tunedeck.core.settings import Help

LOSSES = ("auto", "squared", "logistic")


@dataclass(frozen=True, slots=True)
class ScoreConfig:
    """Predict one number or several for each text or pair of texts: ratings, grades, similarity, relevance.

    `labels` are the targets: the columns of the scores (the score column when None). With `loss` "squared" scores are
    standardised inside, by `target_means` and `target_stds` of the training data, and answered in their unit; with
    "logistic" they are between 0 and 1, as relevance does; "auto" is "logistic" where every score is 0 or 1. `ordinal`
    scores are whole numbers from the first to the second of `levels`, and answers are kept between. `max_length` in
    tokens, special and virtual ones included; longer texts are cut, of a pair the longer one first. Raises ConfigError
    for a target named twice and for a scale that does not fit.
    """

    kind: ClassVar[str] = "score"
    view: ClassVar[str] = "tunedeck.tasks.score.view:VIEW"

    labels: Annotated[
        tuple[str, ...] | None, Help(say("columns of the scores to predict; the score column by default"))
    ] = None
    ordinal: Annotated[bool, Help(say("scores are whole numbers on a scale, such as stars"))] = False
    loss: Annotated[
        Literal["auto", "squared", "logistic"],
        Help(
            say(
                "squared error of standardised scores, or logistic for scores between 0 and 1, such as relevance; auto "
                "is logistic where every score is 0 or 1"
            )
        ),
    ] = "auto"
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
    pairs: Annotated[
        bool | None,
        Help(say("examples are pairs of texts, such as premise and hypothesis; by default as the columns say")),
    ] = None
    levels: Annotated[
        tuple[int, ...] | None, Help(say("lowest and highest ordinal score; those of the training data by default"))
    ] = None
    target_means: Annotated[
        tuple[float, ...] | None, Help(say("mean of each target; that of the training data by default"))
    ] = None
    target_stds: Annotated[
        tuple[float, ...] | None, Help(say("standard deviation of each target; that of the training data by default"))
    ] = None

    def __post_init__(self) -> None:
        one_of("loss", self.loss, LOSSES)
        one_of("pooling", self.pooling, ("auto", *get_args(Pooling), "model"))
        for name in ("labels", "levels", "target_means", "target_stds"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(value))
        if self.labels is not None and len(set(self.labels)) != len(self.labels):
            raise ConfigError(say("a label is named twice: {labels}", labels=", ".join(self.labels)))
        if self.levels is not None and (len(self.levels) != 2 or self.levels[0] >= self.levels[1]):
            raise ConfigError(
                say("levels must be the lowest and the highest score, such as [1, 5], got {value}", value=self.levels)
            )
        if self.target_stds is not None and not all(value > 0 for value in self.target_stds):
            raise ConfigError(say("target_stds must be above 0, got {value}", value=self.target_stds))

    def as_described(self, described: Mapping[str, Any]) -> Self:
        """Return the same settings with the scale, the pooling and the pairs that an adapter was trained with."""
        means, stds, levels = (described.get(name) for name in ("target_means", "target_stds", "levels"))
        return replace(
            self,
            ordinal=bool(described.get("ordinal", False)),
            loss=described.get("loss", "squared"),
            pooling=described.get("pooling", "model"),
            pairs=described.get("pairs"),
            levels=levels,
            target_means=means,
            target_stds=stds,
        )
