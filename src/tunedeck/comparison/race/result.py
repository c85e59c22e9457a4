"""The result of a race, with its table and its report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from tunedeck.comparison.race.page import write_report
from tunedeck.comparison.race.values import RaceValues
from tunedeck.comparison.race.words import text_table, verdict_text


@final
@dataclass(frozen=True, slots=True)
class Race(RaceValues):
    """Everything that was found, and what is made of it."""

    @property
    def text(self) -> str:
        """Return what came out, in sentences."""
        return verdict_text(self)

    def table(self) -> str:
        """Return the candidates as text, the best first."""
        return text_table(self)

    def report(self, folder: str | Path) -> None:
        """Write report.html and figures/ into a folder, in the language of messages; StorageError when the disk
        refuses.
        """
        write_report(Path(folder), self)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"format": 1, **asdict(self), "adapter_folder": str(self.adapter_folder), "text": self.text}
