"""What MkDocs does to a page of docs/ while it builds the site."""

from __future__ import annotations

import re

WRAPPED = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef])\n(?=[\u3000-\u9fff\uff00-\uffef])")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Join the lines of a Chinese paragraph: a browser would show each break as a space."""
    return WRAPPED.sub("", markdown)
