"""Write docs/families.md from the suite: python tests/contract/write_families.py"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from families import PAGE, page  # noqa: E402

PAGE.write_text(page(), encoding="utf-8")
