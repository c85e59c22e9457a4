"""A short input stored with a model's output for it: what loads with another output is not what was saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
from pydantic import BaseModel, ConfigDict, Field

from tunedeck.core.errors import AdapterFileError
from tunedeck.core.i18n import say

PROBE_TEXT = "Tunedeck, 1 2 3"
"""The input of every stored probe, of an adapter's and of an ONNX graph's."""
_VALUES = 16
_TOLERANCE = {"float32": 2e-3, "float16": 0.02, "bfloat16": 0.1, "packed": 0.1, "int8": 0.25}
"""Tolerance of each precision relative to the largest value, for some thirty layers on another machine. An ONNX graph's
int8 products overflow on CPUs without VNNI.
"""


class Probe(BaseModel):
    """A short input and some values of the adapter's output for it, taken when it was saved."""

    model_config = ConfigDict(frozen=True)
    input_ids: list[int] = Field(min_length=1, max_length=256)
    output: list[float] = Field(min_length=1, max_length=256)
    precision: str


def probe_values(output: Any) -> list[float]:
    """Return what is stored of an output, an array: 16 evenly spaced values, to five significant digits."""
    output = output.reshape(-1)
    chosen = numpy.linspace(0, len(output) - 1, min(_VALUES, len(output))).astype(int)
    return [float(f"{value:.5g}") for value in output[chosen]]


def check_probe_values(seen: Sequence[float], stored: Sequence[float], what: str, *precisions: str) -> None:
    """Raise AdapterFileError when two outputs for one probe differ by more than the precisions explain."""
    allowed = max(_TOLERANCE.get(precision, 0.1) for precision in precisions) * max(map(abs, stored))
    if len(seen) != len(stored) or not all(abs(a - b) <= allowed for a, b in zip(seen, stored, strict=True)):
        raise AdapterFileError(
            say(
                "{what} does not answer its stored probe as it did when it was written (seen {seen}, stored "
                "{stored}); its files or its base have changed: write it again",
                what=what,
                seen=[round(value, 4) for value in seen[:3]],
                stored=list(stored[:3]),
            )
        )
