"""The log of a race, line by line on disk; an interrupted race is decided again from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from tunedeck.comparison.race.contest import Answer
from tunedeck.core.errors import ConfigError, StorageError
from tunedeck.core.i18n import say
from tunedeck.core.storage import write_text
from tunedeck.core.system_reason import system_reason

FILE = "race.jsonl"


@final
class RaceLog:
    """The answers in a folder, by candidate and share of its run; `setup` is all that they depend on.

    Raises ConfigError where the folder holds a race of another setup.
    """

    def __init__(self, folder: Path, setup: Mapping[str, Any]) -> None:
        self._file = folder / FILE
        self.answers: dict[tuple[str, float, int], Answer] = {}
        self.at_s = 0.0
        """Seconds of the race so far, of earlier calls as well."""
        lines = self._lines()
        plain = json.loads(json.dumps(setup))
        if lines and lines[0] != plain:
            differing = [key for key in plain if lines[0].get(key) != plain[key]]
            raise ConfigError(
                say(
                    "{path} holds a race with other settings ({differences}); go back to them, choose another --out, "
                    "or start over with --overwrite",
                    path=folder,
                    differences=", ".join(differing),
                )
            )
        for line in lines[1:]:
            scores = np.asarray(line["scores"], dtype=float)
            chances = np.asarray(line["chances"], dtype=float) if "chances" in line else None
            answer = Answer(scores, line["seconds"], line["train_s"], line["at_s"], line["failed"], chances)
            self.answers[line["name"], line["share"], line["rows"]] = answer
            self.at_s = max(self.at_s, answer.at_s)
        texts = [json.dumps(line, ensure_ascii=False) for line in (lines or [plain])]
        write_text(self._file, "\n".join(texts) + "\n")

    def add(self, name: str, share: float, rows: int, answer: Answer) -> None:
        """Keep an answer; StorageError when the disk refuses."""
        self.answers[name, share, rows] = answer
        values = {"seconds": answer.seconds, "train_s": answer.train_s, "at_s": answer.at_s, "failed": answer.failed}
        line = {"name": name, "share": share, "rows": rows, **values, "scores": answer.scores.tolist()}
        if answer.chances is not None:
            line["chances"] = answer.chances.tolist()
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            raise StorageError(
                say("cannot write {path}: {reason}", path=self._file, reason=system_reason(error))
            ) from error

    def _lines(self) -> list[dict[str, Any]]:
        """Return the lines that are whole; a process that was killed leaves the last one in part."""
        if not self._file.exists():
            return []
        found = []
        for text in self._file.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(text))
            except ValueError:
                break
        return found
