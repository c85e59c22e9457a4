"""Spread work over the machines of a Ray cluster, as plain tasks of one processor or one GPU each."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from tunedeck.comparison.runs import Interrupted, Run, train_run
from tunedeck.comparison.spec import ComparisonSpec
from tunedeck.core.checks import require
from tunedeck.core.errors import ConfigError, TrainingError, TunedeckError
from tunedeck.core.i18n import language, say, set_language
from tunedeck.training.signals import StopSignals

POLL_S = 0.5
"""How often a wait for a task looks whether a signal has been received."""


@final
class RayTasks:
    """Tasks of a connected cluster. They run in this program's working directory, which all machines share."""

    def __init__(self, ray: Any, signals: StopSignals) -> None:
        self._ray, self._signals = ray, signals
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        self._task = ray.remote(_run_task).options(num_cpus=1, num_gpus=gpus)
        self._begun: list[Any] = []

    def put(self, value: Any) -> Any:
        """Return a reference to a value that many tasks need; each takes it in a list."""
        return self._ray.put(value)

    def begin(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return a task that calls a function on some machine."""
        task = self._task.remote(str(Path.cwd()), language(), function, *arguments)
        self._begun.append(task)
        return task

    def result(self, task: Any) -> Any:
        """Return what a task's function returned.

        Raises Interrupted after Ctrl-C or SIGTERM, when all tasks have ended, and TrainingError for a machine that
        failed repeatedly.
        """
        while not self._ray.wait([task], timeout=POLL_S)[0]:
            if self._signals.seen is not None:
                self.stop()
                raise Interrupted(self._signals.seen)
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            raise TrainingError(say("a task on Ray has failed: {reason}", reason=str(error).strip())) from error

    def stop(self) -> None:
        """Ask all tasks to stop, those in training after their step with a checkpoint, and wait until they have."""
        for task in self._begun:
            self._ray.cancel(task)
        if self._begun:
            self._ray.wait(self._begun, num_returns=len(self._begun))
        self._begun.clear()


@contextmanager
def ray_cluster(address: str, *, show: bool) -> Iterator[Any]:
    """Connect to a cluster and give the module ray.

    `address` is the cluster's, "auto" for the one that this machine belongs to, or "local" for a new one on it.
    `show` lets workers print here. Raises ConfigError where Ray is not installed and where there is no cluster.
    """
    require("--ray", ["ray"], "'tunedeck[ray]'")
    import ray

    if ray.is_initialized():
        yield ray
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=show, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            say("no Ray cluster at {address}: {reason}", address=address, reason=str(error).strip())
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
        if threading.current_thread() is threading.main_thread():  # where Ray has set another
            signal.signal(signal.SIGTERM, handler)


def train_on_ray(runs: Sequence[Run], spec: ComparisonSpec) -> None:
    """Train runs as `train_run` does, on the machines of a cluster, as many at a time as it has room for.

    Raises what `train_run` raises; the other runs are then stopped and kept as well.
    """
    assert spec.ray is not None
    with ray_cluster(spec.ray, show=spec.progress) as ray, StopSignals() as signals:
        tasks = RayTasks(ray, signals)
        try:
            for task in [tasks.begin(_train, run, spec) for run in runs]:
                failed = tasks.result(task)
                if failed:
                    raise TrainingError(failed)
        finally:
            tasks.stop()


def _train(run: Run, spec: ComparisonSpec) -> str:
    """Return why a run has failed; nothing where it has not."""
    try:
        train_run(run, spec)
    except Interrupted:
        pass
    except TunedeckError as error:
        return str(error)
    return ""


def _run_task(folder: str, spoken: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function as this program would."""
    os.chdir(folder)
    set_language(spoken)
    return function(*arguments)
