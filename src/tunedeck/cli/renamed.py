"""Flags under the names they had in earlier versions: they work for one release, with a note that names the new one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from tunedeck.core.i18n import renamed

RENAMED = {
    "--accumulation": "--gradient-accumulation-steps",
    "--any-base": "--allow-base-mismatch",
    "--checkpointing": "--gradient-checkpointing",
    "--drain": "--drain-timeout",
    "--hour-price": "--endpoint-price",
    "--kv-memory": "--kv-cache-memory",
    "--limit": "--max-examples",
    "--max-memory": "--adapter-memory",
    "--measured": "--calibrate",
    "--multi": "--multi-adapter",
    "--no-checkpointing": "--no-gradient-checkpointing",
    "--patience": "--early-stopping-patience",
    "--token-price": "--api-price",
    "--with-base": "--include-base",
}
"""New names by old ones; no command has a flag under an old name."""


def with_new_names(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command with every old flag replaced; each gets a warning. What follows `--` stays as
    it is.
    """
    found: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return [*found, argument, *rest]
        flag, equals, value = argument.partition("=")
        if flag == "--lora" and arguments[:2] == ["export", "onnx"]:
            value = value if equals or not rest else rest.pop(0)
            warnings.warn(renamed("--lora inside", "--no-merge"), stacklevel=2)
            found += ["--no-merge"] if value == "inside" else []
        elif flag in RENAMED:
            warnings.warn(renamed(flag, RENAMED[flag]), stacklevel=2)
            found.append(RENAMED[flag] + equals + value)
        else:
            found.append(argument)
    return found
