"""TOML reading on every supported Python (tomllib came with 3.11)."""

from __future__ import annotations

import sys
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def parse_toml(text: str) -> dict[str, Any]:
    """Parse a TOML document."""
    values: dict[str, Any] = tomllib.loads(text)
    return values
