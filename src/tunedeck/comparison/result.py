"""The result of a comparison, with its table and its report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from tunedeck.comparison.report.page import write_report
from tunedeck.comparison.report.recommend import Recommendation, recommend
from tunedeck.comparison.report.table import text_table
from tunedeck.comparison.report.values import ComparisonValues


@final
@dataclass(frozen=True, slots=True)
class Comparison(ComparisonValues):
    """Everything that was found, and what is made of it."""

    @property
    def recommendation(self) -> Recommendation:
        """Return the entry to take, and why."""
        return recommend(self)

    def table(self) -> str:
        """Return the numbers as text, one column for each entry."""
        return text_table(self)

    def report(self, folder: str | Path) -> None:
        """Write report.html, report.md and figures/ into a folder, in the language of messages.

        Raises StorageError when the disk refuses.
        """
        write_report(Path(folder), self)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; the entries are `rows`."""
        values = asdict(self)
        values.pop("entries")
        rows = [entry.to_json() for entry in self.entries]
        return {"format": 1, "rows": rows, **values, "recommendation": asdict(self.recommendation)}
