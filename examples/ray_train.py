"""A run file carried out by Ray Train: one process for each worker, and the loss curve of one process.

    pip install tunedeck 'ray[train]'
    python examples/ray_train.py run.yaml --out runs/ray --workers 2        # --gpu: a card for each worker

The same command goes on after an interruption, and Ray does so by itself after a failure. On several machines `--out`,
the run file, the data and the base must be found on each; `--out` must be the same folder wherever the first worker
starts again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def work(settings: dict[str, Any]) -> None:
    """What each worker does; Ray has told it by then which one it is and where the others are, as torchrun does."""
    import tunedeck as td

    td.train_run(settings["run_file"], out=settings["out"], resume=True, progress=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_file", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpu", action="store_true")
    chosen = parser.parse_args()
    run_file, out = chosen.run_file.resolve(), chosen.out.resolve()  # workers have folders of their own
    TorchTrainer(
        work,
        train_loop_config={"run_file": str(run_file), "out": str(out)},
        scaling_config=ScalingConfig(num_workers=chosen.workers, use_gpu=chosen.gpu),
        run_config=RunConfig(storage_path=str(out.parent / "ray"), failure_config=FailureConfig(max_failures=3)),
    ).fit()
    for metrics in sorted(out.rglob("metrics.json")):
        print(metrics.parent.name, json.loads(metrics.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
