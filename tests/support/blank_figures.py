"""Figures that are made and not rendered, which takes longer than a run on a tiny model."""

from __future__ import annotations

from typing import BinaryIO


def blank_savefig(figure: object, file: BinaryIO, *, format: str, **settings: object) -> None:
    """Stand in for `matplotlib.figure.Figure.savefig`: the first bytes of a PNG, or an empty SVG."""
    file.write({"png": b"\x89PNG", "svg": b"<svg/>"}[format])
