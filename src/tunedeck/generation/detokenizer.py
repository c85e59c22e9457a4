"""Tokens to text, one by one: each token decodes only the end of the answer; text that may change is held back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

WINDOW = 16
"""Tokens that are decoded together before the window moves on."""
UNFINISHED = "\ufffd"


@final
class Detokenizer:
    """The text of one answer. A character that is cut in its bytes and the beginning of a stop string are held back.

    The window begins where a text was complete, so its text continues what was decoded before it: the scheme of
    vLLM's `detokenize_incrementally` (vllm/transformers_utils/detokenizer_utils.py).
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._ids: list[int] = []  # the window
        self._complete = 0  # tokens of the window up to its last complete text
        self._decoded = ""  # text of the window that has been taken out
        self._held = ""  # taken out, but perhaps the beginning of a stop string
        self.length = 0
        """Characters so far, those held back by a stop string included."""

    def take(self, token: int) -> tuple[str, bool]:
        """Return the text that a token makes certain, and whether a stop string has ended the answer before it."""
        self._ids.append(token)
        whole = self._decode(self._ids)
        if whole.endswith(UNFINISHED):
            return "", False
        new = whole[len(self._decoded) :]
        if not new:
            return "", False
        self._decoded = whole
        if len(self._ids) >= WINDOW:
            self._ids = self._ids[self._complete :]
            self._decoded = self._decode(self._ids)
        self._complete = len(self._ids)
        return self._certain(new)

    def rest(self) -> tuple[str, bool]:
        """Return the text that was held back when no token follows, in the form of `take`."""
        new = self._decode(self._ids)[len(self._decoded) :] if self._ids else ""
        certain, stopped = self._certain(new)
        held, self._held = self._held, ""
        return certain + held, stopped

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _certain(self, new: str) -> tuple[str, bool]:
        self.length += len(new)
        if not self._stops:
            return new, False
        text, self._held = self._held + new, ""
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            return text[: min(found)], True
        begun = len(text) - self._begun(text)
        self._held = text[begun:]
        return text[:begun], False

    def _begun(self, text: str) -> int:
        """Return characters at the end of a text that may be the beginning of a stop string."""
        for at in range(max(0, len(text) - self._longest + 1), len(text)):
            end = text[at:]
            if any(stop.startswith(end) for stop in self._stops):
                return len(end)
        return 0
