"""`tunedeck ui`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunedeck.cli.console import tell
from tunedeck.cli.serve import size
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say


def ui(
    folder: Annotated[Path, typer.Option(help=say("the folder with adapters, runs and data"))] = Path(),
    host: Annotated[str, typer.Option(help=say("address to listen on"))] = "127.0.0.1",
    port: Annotated[int, typer.Option(help=say("port to listen on"), min=1, max=65535, metavar="PORT")] = 8080,
    password_file: Annotated[
        Path | None, typer.Option(help=say("file with the password of the page; required with another --host"))
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help=say("open the page in the browser"))] = True,
    max_upload: Annotated[str, typer.Option(help=say("largest file that may be uploaded, such as 500MB"))] = "1GiB",
) -> None:
    """Open a page on this machine to check data, train, compare and try adapters."""
    try:
        from tunedeck.web.app import PageSettings, serve_page
    except ModuleNotFoundError as error:
        raise ConfigError(
            say("the page needs {package}; install it with: pip install 'tunedeck[web]'", package=error.name)
        ) from error
    text = say("the page is on http://{host}:{port}; stop it with Ctrl-C", host=host, port=port)
    settings = PageSettings(folder, host, port, password_file, open_browser, size(max_upload))
    serve_page(settings, before=lambda: tell(text))
