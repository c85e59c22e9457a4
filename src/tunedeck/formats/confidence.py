"""When an adapter's answers can be relied on: stored in tunedeck.json, all but the novelty also in an ONNX export."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any

import numpy
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from typing_extensions import Self

UNSURE, NONE_OF_THESE = "unsure", "none of these"
"""Answers in place of a label: its probability is below its threshold; the text is far from all training texts."""
_LARGEST = 1 << 24


class Novelty(BaseModel):
    """How far a vector is from those of the training texts: the relative Mahalanobis distance (Ren et al., arXiv
    2106.09022).

    `projection` takes a vector to the axes in which groups of texts differ, where the texts of a group vary by 1 in
    every direction; the two covariances agree on all other axes, so that these do not count. The distance is the
    squared one to the nearest group's mean, less that to the mean of all texts with 1 + `spread`, the variance on each
    axis.
    """

    model_config = ConfigDict(frozen=True)
    size: int = Field(ge=1, le=1 << 20)
    axes: int = Field(ge=1, le=1 << 12)
    groups: int = Field(ge=1, le=1 << 16)
    values: str
    """centre (size,), projection (size, axes), means (groups, axes) and spread (axes,) in float32, as base64."""
    farthest: float = Field(allow_inf_nan=False)
    """Texts at a greater distance are none of these."""

    @field_validator("values")
    @classmethod
    def _decodable(cls, values: str) -> str:
        try:
            raw = base64.b64decode(values, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("not base64") from error
        if len(raw) % 4 or len(raw) > 4 * _LARGEST or not numpy.isfinite(numpy.frombuffer(raw, "<f4")).all():
            raise ValueError("not finite float32 numbers")
        return values

    @model_validator(mode="after")
    def _complete(self) -> Self:
        self.arrays()
        return self

    def arrays(self) -> dict[str, Any]:
        """Return the named arrays; ValueError where there are too few or too many numbers."""
        flat = numpy.frombuffer(base64.b64decode(self.values), "<f4").astype(numpy.float32)
        shapes = {
            "centre": (self.size,),
            "projection": (self.size, self.axes),
            "means": (self.groups, self.axes),
            "spread": (self.axes,),
        }
        sizes = [int(numpy.prod(shape)) for shape in shapes.values()]
        if sum(sizes) != len(flat):
            raise ValueError(f"novelty has {len(flat)} numbers instead of {sum(sizes)}")
        parts = numpy.split(flat, numpy.cumsum(sizes)[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def encoded(arrays: Mapping[str, Any]) -> str:
    """Return arrays, in the order of `Novelty.arrays`, as `Novelty.values`."""
    names = ("centre", "projection", "means", "spread")
    flat = numpy.concatenate([numpy.asarray(arrays[name], "<f4").ravel() for name in names])
    return base64.b64encode(flat.tobytes()).decode("ascii")


Threshold = Annotated[float, Field(ge=0, le=1)] | None


class Confidence(BaseModel):
    """How an adapter's logits become probabilities, and which of them are answered."""

    model_config = ConfigDict(frozen=True)
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Logits are divided by it (Guo et al., arXiv 1706.04599)."""
    thresholds: dict[str, Threshold] | None = None
    """The least probability with which each label is answered; None for a label that never is."""
    precision: float | None = None
    """The precision that the thresholds were chosen for."""
    novelty: Novelty | None = None

    def answered(self, chances: Mapping[str, float], multi_label: bool) -> tuple[tuple[str, ...], str | None]:
        """Return the labels that are answered, and UNSURE where a text with one label has none."""
        limits = self.thresholds
        if multi_label:
            return tuple(label for label, chance in chances.items() if self._passes(label, chance)), None
        best = max(chances, key=chances.__getitem__)
        return ((best,), None) if limits is None or self._passes(best, chances[best]) else ((), UNSURE)

    def _passes(self, label: str, chance: float) -> bool:
        if self.thresholds is None:
            return chance > 0.5
        limit = self.thresholds.get(label)
        return limit is not None and chance >= limit
