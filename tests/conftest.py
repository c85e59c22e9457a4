"""What every test starts from: English messages, Ctrl-C as a terminal has it, one thread, no figures but where they are
tested.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from matplotlib.figure import Figure
from support import labelled_words
from support.blank_figures import blank_savefig
from support.command_line import Command, Said

from tunedeck.cli.main import main
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


def pytest_collection_finish() -> None:
    """The modules that are loaded by now stay: looking through them takes a third of a second for each run of training,
    which collects garbage before it starts.
    """
    gc.collect()
    gc.freeze()


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


@pytest.fixture
def tunedeck(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`tunedeck("train", "--data", path)` runs a command in this process and gives what it said."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["tunedeck", *(str(argument) for argument in arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return Said(int(left.value.code or 0), out, err)

    return run


@pytest.fixture(scope="module")
def _trained_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained-runs")


@pytest.fixture
def trained(tunedeck: Command, _trained_runs: Path, tmp_path: Path) -> Callable[..., Path]:
    """`trained("reds", "--model", ..., says=[...])` gives a copy of the folder of a run, which a module trains once."""

    def run(name: str, *arguments: object, says: Collection[str] = ()) -> Path:
        if not (_trained_runs / name).exists():
            said = tunedeck("train", *arguments, "--out", _trained_runs / name)
            assert said.code == 0, said.err
            for text in says:
                assert text in said.err + said.out
        return Path(shutil.copytree(_trained_runs / name, tmp_path / name))

    return run
