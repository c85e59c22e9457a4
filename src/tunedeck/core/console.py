"""Notes to the person at the terminal, on standard error."""

from __future__ import annotations

from rich.console import Console


def tell(text: str) -> None:
    """Print something that is not a result."""
    Console(stderr=True, highlight=False, markup=False, emoji=False).print(text, soft_wrap=True)
