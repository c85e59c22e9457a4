"""pip's internals, as of 23.2 to 26: saving a source archive without running anything in it.

`pip download` runs the setup.py of a source archive to learn its metadata. The program below finds the archive the way
`pip download` does, with all of pip's settings (index, mirrors, proxies, certificates), and only saves it.
"""

from __future__ import annotations

SAVE_SOURCE_ARCHIVE = """
import os, shutil, sys
from pip._internal.commands.download import DownloadCommand
from pip._internal.exceptions import CommandError

class SaveSourceArchive(DownloadCommand):
    def run(self, options, args):
        package, version = args
        session = self.get_default_session(options)
        for candidate in self._build_package_finder(options, session).find_all_candidates(package):
            if str(candidate.version) == version and not candidate.link.is_wheel:
                response = session.get(candidate.link.url_without_fragment, stream=True,
                                       headers={"Accept-Encoding": "identity"})
                response.raise_for_status()
                with open(os.path.join(options.download_dir, candidate.link.filename), "wb") as file:
                    shutil.copyfileobj(response.raw, file)
                return 0
        raise CommandError("No source archive found for %s==%s" % (package, version))

sys.exit(SaveSourceArchive("download", "").main(sys.argv[1:]))
"""
"""A program for `python -c`; its arguments are those of `pip download`, then a package and its version."""
