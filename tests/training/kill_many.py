"""Kill a training run again and again with SIGKILL, resume it until it ends, and compare it with one that was left
alone.

    python tests/training/kill_many.py --times 100

Every life is a real process, forked from one that has loaded torch and the model but has computed nothing. Half of them
are killed after a random time; the other half in the middle of writing a checkpoint, at the n-th file that reaches the
disk.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from matplotlib.figure import Figure
from support import tiny_models
from support.blank_figures import blank_savefig
from support.stopped_runs import dataset, left_behind

import tunedeck as td
from tunedeck.methods.base import MethodConfig

COMMON: dict[str, Any] = {
    "batch_size": 8,
    "max_steps": 12,
    "eval_steps": 3,
    "checkpoint_every": 2,
    "early_stopping_patience": 2,
}
CASES: dict[str, tuple[MethodConfig, td.TrainingSettings]] = {
    "lora with dropout": (
        td.LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.1),
        td.TrainingSettings(**COMMON, learning_rate=1e-2, gradient_accumulation_steps=2),
    ),
    "8-bit states": (
        td.LoraConfig(r=128, target_modules="all-linear", lora_dropout=0.1),
        td.TrainingSettings(**COMMON, learning_rate=1e-3, optimizer="adamw_8bit"),
    ),
    "bottleneck": (
        td.BottleneckConfig("double_seq_bn", reduction_factor=2, dropout=0.1),
        td.TrainingSettings(**COMMON, learning_rate=1e-2, schedule="linear", seed=1),
    ),
    "kept lower layers": (
        td.LoraConfig(r=4, layers_to_transform=(1,)),
        td.TrainingSettings(**COMMON, learning_rate=1e-2, gradient_accumulation_steps=2),
    ),
    "stops early": (
        td.FullConfig(layers="head"),
        td.TrainingSettings(**COMMON, learning_rate=1e-9, gradient_accumulation_steps=2),
    ),
}


def life(work: Callable[[], object]) -> int:
    """Fork a process that does the work and nothing else; returns its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(code)


def train(case: str, folder: Path) -> None:
    """The run, from its newest checkpoint on."""
    config, settings = CASES[case]
    deck = tiny_models.deck_of("bert")
    deck.add("a", config, labels=("blue", "green", "red"))
    td.train(deck, "a", dataset(), settings=settings, out=folder, resume=folder.exists(), progress=False)


def killed_at_write(number: int, work: Callable[[], object]) -> None:
    """Do the work in a process that kills itself when the n-th file is flushed to the disk."""
    flush, count = os.fsync, [0]

    def counting(descriptor: int) -> None:
        count[0] += 1
        if count[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(descriptor)

    os.fsync = counting  # type: ignore[assignment]
    work()


def kill_until_it_ends(case: str, folder: Path, chooser: random.Random) -> tuple[int, int]:
    """Lives until one comes to the end; returns how many were killed, and how many of those while writing a
    checkpoint.
    """
    kills = in_save = 0
    while not (folder / "metrics.json").exists():  # a life may be killed when all is done but its own end
        if chooser.random() < 0.5:
            number = chooser.randint(1, 30)
            child = life(partial(killed_at_write, number, lambda: train(case, folder)))
        else:
            child = life(lambda: train(case, folder))
            time.sleep(chooser.uniform(0.05, 0.8))
            os.kill(child, signal.SIGKILL)  # a process that has ended waits to be asked for, so the id is still its own
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, f"{case}: a life ended by itself with {os.WEXITSTATUS(status)}"
        else:
            kills += 1
            in_save += any((folder / "checkpoints").glob(".*.part"))
    return kills, in_save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=100, help="runs, each killed until it comes to its end")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chooser, began = random.Random(options.seed), time.monotonic()
    warnings.simplefilter("ignore")  # many a life is killed before its first checkpoint
    Figure.savefig = blank_savefig  # type: ignore[method-assign, assignment]  # rendering takes longer than a run
    tiny_models.deck_of("bert")
    gc.freeze()  # a life that looks through all that is loaded copies every page of it
    kills = in_save = most = 0
    with tempfile.TemporaryDirectory() as place:
        expected = {}
        for case in list(CASES)[: options.times]:
            alone = Path(place) / f"{case} alone"
            assert os.waitpid(life(partial(train, case, alone)), 0)[1] == 0
            expected[case] = left_behind(alone)
        for number in range(options.times):
            case, folder = list(CASES)[number % len(CASES)], Path(place) / str(number)
            killed, saving = kill_until_it_ends(case, folder, chooser)
            kills, in_save, most = kills + killed, in_save + saving, max(most, killed)
            if left_behind(folder) != expected[case]:
                sys.exit(f"run {number} ({case}), killed {killed} times, differs from the run left alone: {folder}")
    print(
        f"{options.times} runs in {time.monotonic() - began:.0f} s, killed {kills} times ({in_save} while "
        f"writing a checkpoint, "
        f"up to {most} in one run): every loss, metric and adapter equal to the last bit"
    )


if __name__ == "__main__":
    main()
