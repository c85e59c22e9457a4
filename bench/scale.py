"""How time and memory grow with the number of things: examples, adapters, runs, entries of a comparison.

    python bench/scale.py [--parts train store shelf report] [--out bench/results/scale.json]

Every size is measured in a process of its own, on one thread. Seconds are of the processor, memory is what the process
has at its highest above what it had before.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODEL = "bundled:all-minilm-l6-v2"
SIZES = {
    "train": (10_000, 100_000, 1_000_000),
    "store": (1_000, 10_000, 100_000),
    "shelf": (100, 1_000, 10_000),
    "report": (10, 50, 200),
}
LINKS = 30_000
"""Names of one file; ext4 allows 65,000."""


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of the processor that a call takes, and its result."""
    began = time.process_time()
    found = call()
    return round(time.process_time() - began, 3), found


def megabytes() -> int:
    """Return the highest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def train(size: int, folder: Path) -> dict[str, Any]:
    """Train on a file of this number of rows for two steps."""
    from large_files import write

    import tunedeck as td

    td.Deck.load(MODEL, td.Classify(labels=("negative", "positive")))  # libraries and weights are counted as there
    write(folder / "rows.csv", size)
    values = {
        "model": MODEL,
        "data": {"train": str(folder / "rows.csv"), "eval_size": 200},
        "training": {"max_steps": 2, "head_init": "random"},
    }
    before = megabytes()
    seconds, _ = timed(lambda: td.train_run(values, out=folder / "run", progress=False))
    return {"cpu_s": seconds, "mb": megabytes() - before}


def copies(source: Path, root: Path, count: int) -> None:
    """Make a folder of the same files under other names, without copying their bytes more often than needed."""
    for number in range(count):
        if number % LINKS == 0:
            first = root / f"a{number}"
            shutil.copytree(source, first)
            files = [path.relative_to(first) for path in sorted(first.rglob("*"))]
            continue
        target = root / f"a{number}"
        target.mkdir()
        for file in files:
            if (first / file).is_dir():
                (target / file).mkdir()
            else:
                os.link(first / file, target / file)


def saved_adapter(folder: Path) -> Path:
    """Save a small adapter."""
    import tunedeck as td

    deck = td.Deck.load(MODEL, td.Classify(labels=("a", "b", "c")), dtype="float32")
    deck.add("one", td.LoraConfig(r=1))
    deck.save("one", folder / "one")
    return folder / "one"


def store(size: int, folder: Path) -> dict[str, Any]:
    """Open a store of this number of adapters, list it, load one of them and answer from memory."""
    import tunedeck as td
    from tunedeck.serving.backends.deck import batch_backend
    from tunedeck.serving.store import AdapterStore

    one = saved_adapter(folder)
    root = folder / "adapters"
    root.mkdir()
    copies(one, root, size)
    deck = td.Deck.load(MODEL, td.Classify(labels=("a", "b", "c")), dtype="float32")
    before = megabytes()
    opened = AdapterStore(root, batch_backend(deck), 1 << 30)
    listing_s, names = timed(opened.names)
    assert len(names) == size
    again_s, _ = timed(opened.names)
    load_s, _ = timed(lambda: opened.acquire(f"a{size - 1}").result().close())
    select_s, _ = timed(lambda: [opened.acquire(f"a{size - 1}").result().close() for _ in range(1000)])
    opened.close()
    return {
        "list_s": listing_s,
        "list_again_s": again_s,
        "load_s": load_s,
        "select_us": select_s * 1e3,
        "mb": megabytes() - before,
    }


def shelf(size: int, folder: Path) -> dict[str, Any]:
    """List a folder of this number of finished runs, twice."""
    from tunedeck.web.folder import Folder
    from tunedeck.web.shelf import items

    run = folder / "run"
    run.mkdir()
    shutil.move(saved_adapter(folder), run / "adapter")
    for name in ("events.jsonl", "metrics.json", "config.yaml"):
        (run / name).write_text("{}\n")
    root = folder / "runs"
    root.mkdir()
    copies(run, root, size)
    before = megabytes()
    first_s, found = timed(lambda: items(Folder(root)))
    assert len(found) == size
    again_s, _ = timed(lambda: items(Folder(root)))
    return {"first_s": first_s, "again_s": again_s, "mb": megabytes() - before}


def report(size: int, folder: Path) -> dict[str, Any]:
    """Write the report of a comparison with this number of entries."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from support.comparison_results import comparison, entry

    entries = [entry(f"lora r={number}", 0.7 + number / 1000, (0.0, 0.1)) for number in range(size)]
    found = comparison(*entries)
    before = megabytes()
    seconds, _ = timed(lambda: found.report(folder / "report"))
    table_s, _ = timed(found.table)
    page = (folder / "report" / "report.html").stat().st_size
    return {"cpu_s": seconds, "table_s": table_s, "page_kb": page >> 10, "mb": megabytes() - before}


PARTS = {"train": train, "store": store, "shelf": shelf, "report": report}


def main() -> None:
    """Measure every size in a process of its own and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scale.json")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        part, size = asked.measure
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(PARTS[part](int(size), Path(folder))))
        return
    found = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    for part in asked.parts:
        rows = found.setdefault(part, {})
        for size in asked.sizes or SIZES[part]:
            command = [sys.executable, __file__, "--measure", part, str(size)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                sys.exit(done.stderr)
            rows[str(size)] = json.loads(done.stdout.splitlines()[-1])
            print(part, size, rows[str(size)], flush=True)
            asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
