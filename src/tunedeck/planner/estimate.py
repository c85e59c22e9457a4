"""A number that is not known exactly: low, expected and high."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """Three values of one quantity; `low` and `high` enclose what will happen nine times in ten."""

    low: float
    expected: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Estimate:
        """Return a value that is known."""
        return cls(value, value, value)

    @classmethod
    def around(cls, expected: float, below: float, above: float) -> Estimate:
        """Return `expected`, from `below` to `above` times it."""
        return cls(expected * below, expected, expected * above)

    def plus(self, other: Estimate) -> Estimate:
        """Return the sum; lows add up with lows, highs with highs."""
        return Estimate(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def times(self, other: Estimate) -> Estimate:
        """Return the product of two positive estimates."""
        return Estimate(self.low * other.low, self.expected * other.expected, self.high * other.high)

    def scaled(self, factor: float) -> Estimate:
        """Return the estimate in another unit."""
        return Estimate(self.low * factor, self.expected * factor, self.high * factor)

    def holds(self, value: float) -> bool:
        """Tell whether a measured value is between low and high."""
        return self.low <= value <= self.high

    def to_json(self) -> dict[str, float]:
        """Return plain JSON values."""
        return asdict(self)
