"""Notes to the person at the terminal, on standard error."""

from __future__ import annotations


def tell(text: str) -> None:
    """Print something that is not a result."""
    from rich.console import Console  # not for --help: it takes as long to load as Typer

    Console(stderr=True, highlight=False, markup=False, emoji=False).print(text, soft_wrap=True)
