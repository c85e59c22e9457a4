"""What every test starts from: English messages."""

from __future__ import annotations

import pytest

from tunedeck.core.messages import set_language


@pytest.fixture(autouse=True)
def _english() -> None:
    set_language("en")
