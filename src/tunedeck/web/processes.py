"""Processes that the page starts: each belongs to a run folder and continues when the page is closed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final
from urllib.parse import quote

import psutil

from tunedeck.core.errors import ConfigError, StorageError
from tunedeck.core.i18n import language, say
from tunedeck.core.storage import write_json
from tunedeck.core.system_reason import system_reason
from tunedeck.web.folder import Folder

RECORDS = ".ui"
_LOG_CHARACTERS = 20_000


def command_text(arguments: Sequence[str]) -> str:
    """Return a command as a shell takes it."""
    return "tunedeck " + shlex.join(arguments)


@final
class Processes:
    """The processes of a folder, by the name of what they write; records and logs are in its hidden folder .ui."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, arguments: Sequence[str]) -> None:
        """Run `tunedeck` with the arguments in the folder.

        Raises ConfigError where a process for `name` runs already, StorageError when the disk refuses.
        """
        self._folder.path(name)
        if self.is_running(name):
            raise ConfigError(say("{name!r} is still running; wait until it ends, or stop it", name=name))
        record = self._record(name)
        try:
            record.parent.mkdir(parents=True, exist_ok=True)
            log = record.with_suffix(".log").open("wb")
        except OSError as error:
            raise StorageError(
                say("cannot write {path}: {reason}", path=record, reason=system_reason(error))
            ) from error
        with log:
            child = subprocess.Popen(
                [sys.executable, "-m", "tunedeck", *arguments],
                cwd=self._folder.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "TUNEDECK_LANG": language(), "PYTHONUNBUFFERED": "1"},
            )
        created = psutil.Process(child.pid).create_time()
        try:
            write_json(record, {"name": name, "pid": child.pid, "created": created, "arguments": list(arguments)})
        except StorageError:
            child.kill()  # without a record nobody could stop it
            child.wait()
            raise
        self._children[name] = child

    def is_running(self, name: str) -> bool:
        """Tell whether the process for `name` runs, also after the page was started again."""
        child = self._children.get(name)
        if child is not None:
            return child.poll() is None
        return self._process(name) is not None

    def was_started(self, name: str) -> bool:
        """Tell whether the page has started a process for `name`."""
        return self._record(name).exists()

    def names(self) -> list[str]:
        """Return what processes were started for."""
        found = (_read(file) for file in (self._folder.root / RECORDS).glob("*.json"))
        return sorted(str(one["name"]) for one in found if "name" in one)

    def arguments(self, name: str) -> list[str]:
        """Return the arguments of the command that was started for `name`, none where none was."""
        arguments = _read(self._record(name)).get("arguments")
        return [str(one) for one in arguments] if isinstance(arguments, list) else []

    def command(self, name: str) -> str:
        """Return the command that was started for `name`, "" where none was."""
        arguments = self.arguments(name)
        return command_text(arguments) if arguments else ""

    def stop(self, name: str) -> None:
        """Interrupt it as Ctrl-C does: a run keeps a checkpoint and can be resumed."""
        process = self._process(name)
        if process is not None:
            os.killpg(process.pid, signal.SIGINT)

    def log(self, name: str) -> str:
        """Return the end of what it has printed."""
        try:
            content = self._record(name).with_suffix(".log").read_bytes()[-_LOG_CHARACTERS:]
        except OSError:
            return ""
        lines = content.decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
        return "\n".join(line.rsplit("\r", 1)[-1] for line in lines).strip()

    def _process(self, name: str) -> psutil.Process | None:
        record = _read(self._record(name))
        try:
            process = psutil.Process(record["pid"])
            same = abs(process.create_time() - record["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, KeyError, TypeError, ValueError):
            return None
        return process if same else None

    def _record(self, name: str) -> Path:
        return self._folder.root / RECORDS / f"{quote(name, safe='')}.json"


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
