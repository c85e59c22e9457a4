"""What Tunedeck uses of pip's internals."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from tunedeck.core.compat.pip import SAVE_SOURCE_ARCHIVE


def test_pip_saves_a_source_archive_byte_by_byte_and_runs_nothing_in_it(tmp_path: Path) -> None:
    registry, target, ran = tmp_path / "registry", tmp_path / "target", tmp_path / "ran"
    registry.mkdir()
    target.mkdir()
    archive = registry / "tiny-part-1.0.tar.gz"
    setup = f"open({str(ran)!r}, 'w')\n".encode()
    with tarfile.open(archive, "w:gz") as sdist:
        entry = tarfile.TarInfo("tiny-part-1.0/setup.py")
        entry.size = len(setup)
        sdist.addfile(entry, io.BytesIO(setup))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    wanted = ["--no-index", f"--find-links={registry}", f"--dest={target}", "--no-binary=:all:", "tiny-part", "1.0"]
    subprocess.run(
        [sys.executable, "-c", SAVE_SOURCE_ARCHIVE, "--disable-pip-version-check", *wanted],
        env=environment | {"PIP_CONFIG_FILE": os.devnull},
        check=True,
        capture_output=True,
    )
    assert [file.name for file in target.iterdir()] == [archive.name]
    assert (target / archive.name).read_bytes() == archive.read_bytes()
    assert not ran.exists()
