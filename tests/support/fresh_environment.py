"""A virtual environment of its own, in which Tunedeck and the packages of the plug-ins page are installed with pip."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guides" / "plug-ins.md"
BLOCK = re.compile(r"^```(?:toml|python)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Environment:
    """The folder of a virtual environment."""

    folder: Path

    def start(self, program: str, *arguments: object) -> subprocess.Popen[str]:
        """Start a program of its `bin` that sees none of this process's paths."""
        return subprocess.Popen(
            [str(self.folder / "bin" / program), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "TUNEDECK_LANG": "en"},
        )

    def run(self, program: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a program of its `bin` to its end, which must be with the exit code `code`."""
        process = self.start(program, *arguments)
        out, err = process.communicate()
        assert process.returncode == code, err
        return subprocess.CompletedProcess(process.args, code, out, err)

    def tunedeck(self, *arguments: object) -> str:
        """Run its `tunedeck`; returns what it wrote to standard output."""
        return self.run("tunedeck", *arguments).stdout


def environment_with_plug_ins(folder: Path) -> Environment:
    """Install Tunedeck and the page's two packages from source without network.

    What they depend on is seen where this process has it: copies would take gigabytes.
    """
    venv.create(folder / "environment", symlinks=True)
    environment = Environment(folder / "environment")
    packages = environment.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
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
