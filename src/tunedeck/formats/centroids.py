"""Centroids of an adapter's training texts: means of groups of their vectors; stored in tunedeck.json."""

from __future__ import annotations

import base64
import binascii
from functools import cached_property
from typing import Any

import numpy
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self


class Centroids(BaseModel):
    """Centroids of the frozen base's vectors of training texts, each vector of length 1."""

    model_config = ConfigDict(frozen=True)
    size: int = Field(ge=1, le=1 << 20)
    count: int = Field(ge=1, le=1 << 10)
    values: str
    """Centroids (count, size) in float16, as base64."""
    least: float = Field(ge=-1, le=1, allow_inf_nan=False)
    """The cosine to the nearest centroid from which on a text is near."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        try:
            raw = base64.b64decode(self.values, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("not base64") from error
        if len(raw) != 2 * self.size * self.count or not numpy.isfinite(numpy.frombuffer(raw, "<f2")).all():
            raise ValueError(f"centroids are not {self.size * self.count} finite float16 numbers")
        return self

    @classmethod
    def of(cls, array: Any, least: float) -> Centroids:
        """Return an array (count, size) with its limit."""
        raw = numpy.asarray(array, "<f2").tobytes()
        count, size = array.shape
        return cls(size=size, count=count, values=base64.b64encode(raw).decode("ascii"), least=least)

    @cached_property
    def array(self) -> Any:
        """Return the centroids, float32 (count, size)."""
        flat = numpy.frombuffer(base64.b64decode(self.values), "<f2").astype(numpy.float32)
        return flat.reshape(self.count, self.size)
