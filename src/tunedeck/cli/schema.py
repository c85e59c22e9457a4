"""`tunedeck schema`."""

from __future__ import annotations

from tunedeck.cli.console import print_json


def schema() -> None:
    """Print the JSON schema of run files: tunedeck schema > run.schema.json."""
    from tunedeck.training.schema import run_schema

    print_json(run_schema())
