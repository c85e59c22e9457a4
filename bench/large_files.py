"""Peak memory and CPU time of reading, deduplicating and splitting files with millions of rows.

python bench/large_files.py [--rows 1000000 2000000 5000000] [--kinds csv jsonl csv.gz] [--tasks classify ...]

Every file is read in a process of its own on one thread. A tenth of the rows repeats an earlier one. The peak holds
the pages of the mapped Arrow file that are in memory at the end, which the system takes back when it needs them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import tunedeck as td
from tunedeck.data.settings import DataSettings

_WORDS = (
    "the a good bad film great slow plot actor scene music ending very not really quite boring lovely story time "
    "house street order parcel late broken kind helpful refund never again waiter soup cold"
)
WORDS = _WORDS.split()


def texts(rows: int) -> Iterator[tuple[str, str]]:
    """Yield texts of eight words with their labels; every tenth repeats an earlier one."""
    for row in range(rows):
        number = row * 7919 % row if row % 10 == 9 else row
        mixed = number * 0x9E3779B97F4A7C15 % 2**64
        words = [WORDS[mixed >> shift & 31] for shift in range(0, 40, 5)]
        yield f"{' '.join(words)} {number}", "positive" if mixed >> 41 & 1 else "negative"


def row_of(task: str, text: str, label: str) -> dict[str, object]:
    """Return a row as the task reads it."""
    if task == "score":
        return {"text": text, "score": len(text) % 5}
    if task == "tag":
        return {"text": text, "entities": [[0, 3, label]]}
    if task == "embed":
        return {"anchor": text, "positive": f"{label} {text}"}
    if task == "generate":
        return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": label}]}
    return {"text": text, "label": label}


def write(path: Path, rows: int, task: str) -> None:
    """Write a CSV or JSON lines file, compressed by gzip where its name ends so."""
    packed = path.suffix == ".gz"
    found = (row_of(task, text, label) for text, label in texts(rows))
    with gzip.open(path, "wt", 1, "utf-8") if packed else path.open("w", encoding="utf-8") as stream:
        if ".csv" in path.suffixes:
            stream.write(",".join(row_of(task, "", "")) + "\n")
            stream.writelines(",".join(map(str, row.values())) + "\n" for row in found)
        else:
            stream.writelines(json.dumps(row) + "\n" for row in found)


def measure(file: str, task: str) -> dict[str, object]:
    """Read a file and return what it took."""
    tasks = {"classify": td.Classify, "score": td.Score, "tag": td.Tag, "embed": td.Embed, "generate": td.Generate}
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    found = tasks[task]().read(DataSettings(train=file))
    after = resource.getrusage(resource.RUSAGE_SELF)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "wall_s": round(time.perf_counter() - began, 1),
        "start_mb": before.ru_maxrss >> 10,
        "peak_mb": after.ru_maxrss >> 10,
        "mapped_mb": int(status["RssFile"].split()[0]) >> 10,
        "train": len(found.train),
        "evaluation": len(found.evaluation),
    }


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000, 2_000_000, 5_000_000])
    parser.add_argument("--kinds", nargs="*", default=["csv", "jsonl", "csv.gz"])
    parser.add_argument("--tasks", nargs="*", default=["classify"])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "large_files.json")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.measure, asked.tasks[0])))
        return
    found = []
    for task, kind, rows in product(asked.tasks, asked.kinds, asked.rows):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"rows.{kind}"
            write(path, rows, task)
            one = subprocess.run(
                [sys.executable, __file__, "--measure", path, "--tasks", task],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                check=True,
                stdout=subprocess.PIPE,
            )
            size = path.stat().st_size
            found.append({"task": task, "kind": kind, "rows": rows, "bytes": size, **json.loads(one.stdout)})
        print(json.dumps(found[-1]), flush=True)
        asked.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
