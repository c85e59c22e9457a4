"""Write the table in docs/export.md from the suite: python tests/contract/write_exports.py"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from exports import PAGE, page_with_table  # noqa: E402

PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
