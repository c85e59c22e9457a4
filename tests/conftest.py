"""What every test starts from: English messages, Ctrl-C as a terminal has it, one thread, no figures but where they are
tested.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from matplotlib.figure import Figure
from support import labelled_words
from support.blank_figures import blank_savefig

from tunedeck.core.i18n import set_language

if TYPE_CHECKING:
    from tunedeck.comparison.runs import Run


def pytest_configure(config: pytest.Config) -> None:
    """Tests run on the CPU, also where there is a GPU; `pytest -m gpu` runs those that need one.

    One thread for each process: the models are tiny, and `make test` starts a worker for each core.
    """
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _english() -> None:
    set_language("en")


@pytest.fixture(autouse=True, scope="session")
def _rendering() -> Iterator[Callable[..., None]]:
    """Figures are made and not rendered, which takes longer than a run here; gives the method that renders."""
    rendering = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", blank_savefig)
        yield rendering


@pytest.fixture(autouse=True)
def _figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _rendering: Callable[..., None]) -> None:
    """Tests with the mark `figures` render theirs."""
    if request.node.get_closest_marker("figures") is not None:
        monkeypatch.setattr(Figure, "savefig", _rendering)


@pytest.fixture(autouse=True, scope="session")
def _heeding_ctrl_c() -> None:
    """A shell's background jobs inherit that it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled CSV file."""
    return labelled_words.write_csv(tmp_path_factory.mktemp("data") / "words.csv", labelled_words.rows(120))


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A comparison's runs are trained in this process, which is faster; gives the names of those that were."""
    from tunedeck.training.run import run_together

    trained: list[str] = []

    def train_run(run: Run, spec: object) -> None:
        trained.append(f"{run.candidate.name}/{run.seed}")
        run_together([run.config], run.folder, tell=lambda text: None, progress=False)

    monkeypatch.setattr("tunedeck.comparison.compare.train_run", train_run)
    return trained
