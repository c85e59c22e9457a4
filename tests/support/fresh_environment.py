"""A virtual environment of its own, in which Tunedeck and the packages of the plug-ins page are installed with pip."""

from __future__ import annotations

import json
import os
import re
import shutil
import site
import subprocess
import venv
from functools import cached_property
from pathlib import Path
from typing import final

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guides" / "plug-ins.md"
BLOCK = re.compile(r"^```(?:toml|python)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


LOOP = """
import io, json, os, sys
from contextlib import redirect_stderr, redirect_stdout
from tunedeck.cli.main import main
from tunedeck.comparison import compare
from tunedeck.training.run import run_together

def train_run(run, spec):
    run_together([run.config], run.folder, tell=lambda text: None, progress=False)

def run(program, arguments):
    sys.argv = ["tunedeck", *arguments]
    try:
        exec(program, {"__name__": "__main__"}) if program else main()
    except SystemExit as left:
        return left.code or 0
    return 0

compare.train_run = train_run  # in this process, which is faster
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = run(*json.loads(line))
    print(json.dumps([code, out.getvalue(), err.getvalue()]), file=answers, flush=True)
"""


@final
class Environment:
    """The folder of a virtual environment, and a process that runs one command after the other there: each of its own
    would load torch again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _loop(self) -> subprocess.Popen[str]:
        return self._start("python", "-c", LOOP, stderr=None)

    def _start(self, program: str, *arguments: object, stderr: int | None) -> subprocess.Popen[str]:
        """Start a program of its `bin` that sees none of this process's paths."""
        return subprocess.Popen(
            [str(self.folder / "bin" / program), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "TUNEDECK_LANG": "en"},
        )

    def run(self, program: str, *arguments: object) -> str:
        """Run a program of its `bin`, which must end well, in a process of its own; returns its standard output."""
        process = self._start(program, *arguments, stderr=subprocess.PIPE)
        out, err = process.communicate()
        assert process.returncode == 0, err
        return out

    def tunedeck(self, *arguments: object, code: int = 0) -> tuple[str, str]:
        """Run a command, which must end with the exit code `code`; returns its standard output and error."""
        return self._asked("", arguments, code)

    def python(self, source: str, *arguments: object) -> str:
        """Run Python code with arguments; returns its standard output."""
        return self._asked(source, arguments, 0)[0]

    def _asked(self, source: str, arguments: tuple[object, ...], code: int) -> tuple[str, str]:
        assert self._loop.stdin is not None
        assert self._loop.stdout is not None
        print(json.dumps([source, [*map(str, arguments)]]), file=self._loop.stdin, flush=True)
        found, out, err = json.loads(self._loop.stdout.readline())
        assert found == code, err
        return out, err

    def close(self) -> None:
        """End the process, if there is one."""
        if "_loop" in vars(self):
            self._loop.communicate()


def environment_with_plug_ins(folder: Path) -> Environment:
    """Install Tunedeck and the page's two packages from source without network.

    What they depend on is seen where this process has it: copies would take gigabytes.
    """
    venv.create(folder / "environment", symlinks=True)
    environment = Environment(folder / "environment")
    packages = environment.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    Path(packages, "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--no-compile")
    environment.run("python", "-m", "pip", "install", *offline, *_projects(folder / "projects"))
    return environment


def _projects(folder: Path) -> list[Path]:
    """Write the source of the three packages; building leaves files beside it, so Tunedeck's is copied."""
    shutil.copytree(ROOT / "src", folder / "tunedeck" / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "tunedeck")
    for path, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return [folder / "tunedeck", folder / "scale", folder / "number"]
