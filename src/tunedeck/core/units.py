"""Quantities as people read them."""

from __future__ import annotations

_BYTE_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B"))


def format_bytes(count: float) -> str:
    """Return bytes for people, decimal units: `6 B`, `19.1 kB`, `885 MB`."""
    size, unit = next((size, unit) for size, unit in _BYTE_UNITS if count >= size or size == 1)
    return f"{_short(count / size) if size > 1 else f'{count:.0f}'} {unit}"


def format_byte_range(low: float, expected: float, high: float) -> str:
    """Return an estimate in the unit of its middle: `740 (700–840) MB`."""
    size, unit = next((size, unit) for size, unit in _BYTE_UNITS if expected >= size or size == 1)
    return f"{_short(expected / size)} ({_short(low / size)}–{_short(high / size)}) {unit}"


def duration(seconds: float) -> str:
    """Return seconds for people: `0.8 s`, `56 s`, `12 min`, `3.4 h`."""
    size, unit = _time_unit(seconds)
    return f"{_short(seconds / size, 10)} {unit}"


def duration_range(low: float, expected: float, high: float) -> str:
    """Return an estimate in the unit of its middle: `53 (45–67) s`."""
    size, unit = _time_unit(expected)
    return f"{_short(expected / size, 10)} ({_short(low / size, 10)}–{_short(high / size, 10)}) {unit}"


def _time_unit(seconds: float) -> tuple[float, str]:
    return (1, "s") if seconds < 600 else (60, "min") if seconds < 7200 else (3600, "h")


def _short(value: float, whole_from: float = 100) -> str:
    return f"{value:.0f}" if value >= whole_from else f"{value:.1f}"
