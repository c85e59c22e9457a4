"""The folder and state that all screens work on."""

from __future__ import annotations

from dataclasses import dataclass

from tunedeck.web.folder import Folder
from tunedeck.web.processes import Processes


@dataclass(frozen=True, slots=True)
class Workspace:
    """One folder and the processes that write into it."""

    folder: Folder
    processes: Processes
