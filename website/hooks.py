"""What MkDocs does to a page of docs/ while it builds the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

WRAPPED = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef])\n(?=[\u3000-\u9fff\uff00-\uffef])")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^<!-- code: (\S+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:
    """Take the code of a Chinese page from its twin, and join its lines: a browser would show a break as a space."""
    source = Path(page.file.abs_src_path)
    if not source.name.endswith(".zh.md"):
        return markdown
    twin = source.with_name(source.name.removesuffix(".zh.md") + ".md")
    whole = CODE.sub(lambda found: block(twin, found[1]), markdown)
    parts = FENCED.split(whole)  # every second one is a block of code
    return "".join(part if number % 2 else WRAPPED.sub("", part) for number, part in enumerate(parts))


def block(page: Path, name: str) -> str:
    """Return the block of code on a page whose first line is the comment `# name`."""
    found = re.search(rf"^```\w+\n# {re.escape(name)}\n.*?^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"{page} has no block {name}")
    return found[0]


def on_post_page(output: str, *, page: Any, **_: object) -> str:
    """Take the script of the offline search from the site itself."""
    up = "../" * page.url.count("/")
    return output.replace("https://unpkg.com/iframe-worker/shim", f"{up}javascripts/iframe-worker.js")
