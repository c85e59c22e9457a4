"""What every test starts from: English messages, and Ctrl-C as a terminal has it."""

from __future__ import annotations

import os
import signal

import pytest

from tunedeck.core.messages import set_language


def pytest_configure(config: pytest.Config) -> None:
    """Tests run on the CPU, also where there is a GPU; `pytest -m gpu` runs those that need one."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True)
def _english() -> None:
    set_language("en")


@pytest.fixture(autouse=True, scope="session")
def _heeding_ctrl_c() -> None:
    """A shell's background jobs inherit that it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
