"""The page of `tunedeck ui` with NiceGUI's simulated user, who runs this file; the folder is in the environment."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

FOLDER = "TUNEDECK_TEST_FOLDER"


def simulated(folder: Path, visit: Callable[[Any], Awaitable[None]]) -> None:
    """Let a simulated user visit the page over a folder."""
    from nicegui.testing.user_simulation import user_simulation

    async def visited() -> None:
        async with user_simulation(main_file=__file__) as user:
            await visit(user)

    os.environ[FOLDER] = str(folder)
    ctrl_c, modules = signal.getsignal(signal.SIGINT), dict(sys.modules)
    try:
        asyncio.run(visited())
    finally:  # the user's websocket client takes over Ctrl-C, and NiceGUI forgets the modules of pages
        signal.signal(signal.SIGINT, ctrl_c)
        sys.modules.update(modules)


def _main() -> None:
    from nicegui import ui

    from tunedeck.web.app import register
    from tunedeck.web.folder import Folder
    from tunedeck.web.processes import Processes
    from tunedeck.web.workspace import Workspace

    folder = Folder(Path(os.environ[FOLDER]))
    register(Workspace(folder, Processes(folder)))
    ui.run(storage_secret="a test")


if __name__ == "__main__" and FOLDER in os.environ and "nicegui" in sys.modules:
    _main()
