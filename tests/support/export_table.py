"""Which kind of adapter goes where: tiny random models, each kind tried with each target of `tunedeck export`.

The table in `docs/export.md` is written from here by `make pages`.
"""

from __future__ import annotations

import re
import tempfile
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import tunedeck as td
from support import embedding_decks, tiny_models
from tunedeck.core.i18n import language, set_language
from tunedeck.export.card import save_card
from tunedeck.export.folders import convert_adapter
from tunedeck.export.gguf_lora import save_gguf_lora
from tunedeck.export.sentence_transformers import save_sentence_transformers
from tunedeck.export.standalone import open_adapter
from tunedeck.export.vllm import save_vllm
from tunedeck.methods.base import MethodConfig

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
PAGES = {"en": PAGE, "zh": PAGE.with_suffix(".zh.md")}
WORDS = {"en": ("yes", "no ({})", "refused: {}."), "zh": ("可以", "不行（{}）", "拒绝：{}。")}
BEGIN, END = "<!-- written by make pages -->", "<!-- end -->"

KINDS: Mapping[str, MethodConfig] = {
    "LoRA": td.LoraConfig(r=4),
    "DoRA": td.LoraConfig(r=4, use_dora=True),
    "(IA)³": td.Ia3Config(),
    "seq_bn": td.BottleneckConfig("seq_bn"),
    "double_seq_bn": td.BottleneckConfig("double_seq_bn"),
    "par_bn": td.BottleneckConfig("par_bn"),
    "prompt tuning": td.PromptTuningConfig(num_virtual_tokens=3),
    "prefix tuning": td.PrefixTuningConfig(num_virtual_tokens=3),
    "biases, norms": td.BiasConfig(),
    "full": td.FullConfig(),
    "head": td.FullConfig("head"),
}


@dataclass(frozen=True)
class Target:
    """One target: the task it is tried for, and its public function on (deck, the adapter's folder, a new place)."""

    name: str
    form: str
    export: Callable[[td.Deck, Path, Path], object] = field(hash=False)


TARGETS = (
    Target("merge", "causal", lambda deck, folder, out: td.save_merged(deck, "a", out)),
    Target("onnx", "classifier", lambda deck, folder, out: td.save_onnx(deck, "a", out)),
    Target("onnx --multi-adapter", "classifier", lambda deck, folder, out: td.save_onnx_multi(deck, ["a"], out)),
    Target("peft", "causal", lambda deck, folder, out: convert_adapter(folder, out, "peft")),
    Target("adapterhub", "causal", lambda deck, folder, out: convert_adapter(folder, out, "adapterhub")),
    Target(
        "sentence-transformers",
        "embed",
        lambda deck, folder, out: save_sentence_transformers(deck, "a", out),
    ),
    Target("gguf-lora", "causal", lambda deck, folder, out: save_gguf_lora(open_adapter(folder), out / "a.gguf")),
    Target("vllm", "causal", lambda deck, folder, out: save_vllm({"a": open_adapter(folder)}, out)),
    Target("card", "causal", lambda deck, folder, out: save_card(folder, out, licence="mit")),
)
CASES = [(kind, target) for kind in KINDS for target in TARGETS]
TAKEN: Mapping[str, tuple[str, ...]] = {
    "merge": ("LoRA", "DoRA", "(IA)³", "biases, norms", "full", "head"),
    "onnx": tuple(kind for kind in KINDS if kind != "prefix tuning"),
    "onnx --multi-adapter": ("LoRA", "head"),
    "peft": ("LoRA", "DoRA", "(IA)³", "prompt tuning", "prefix tuning"),
    "adapterhub": ("LoRA", "seq_bn", "double_seq_bn", "par_bn"),
    "sentence-transformers": ("LoRA", "DoRA", "(IA)³", "biases, norms", "full"),
    "gguf-lora": ("LoRA",),
    "vllm": ("LoRA",),
    "card": tuple(KINDS),
}
"""The kinds that a target must take; every other must be refused."""


@cache
def refusal(kind: str, target: Target) -> str | None:
    """Export a stirred adapter; None where something was written, else the error's text. Nothing may be left then."""
    form = "classifier" if kind == "head" else target.form  # the other tasks have no head to train
    with tempfile.TemporaryDirectory() as home:
        deck, folder, out = _deck(form), Path(home) / "a", Path(home) / "out"
        tiny_models.add_stirred(deck, "a", KINDS[kind])
        deck.save("a", folder)
        try:
            target.export(deck, folder, out)
        except td.TunedeckError as error:
            assert [one.name for one in Path(home).iterdir() if one != out] == ["a"]
            assert not out.exists() or not any(out.iterdir())
            return str(error)
        assert [file for file in out.rglob("*") if file.is_file() and file.stat().st_size > 0]
        return None


def _deck(form: str) -> td.Deck:
    return (
        embedding_decks.embed_deck()
        if form == "embed"
        else tiny_models.deck_of("bert" if form == "classifier" else "llama", form)
    )


def page_with_table(text: str) -> str:
    """The page with the table in its place."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{_table()}\n{END}{rest.split(END)[1]}"


def on_the_page(kind: str, target: Target) -> str | None:
    """What the page says of a case: None for yes, else the text of the note, which is the refusal."""
    table = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    lines = re.sub(r"\n +", " ", table).splitlines()  # a note may have several lines
    (row,) = (line for line in lines if line.startswith(f"| {kind} |"))
    cell = row.strip("| ").split(" | ")[1 + TARGETS.index(target)]
    if cell == "yes":
        return None
    number = cell.removeprefix("no (").removesuffix(")")
    (note,) = (line for line in lines if line.startswith(f"{number}. refused: "))
    return note.removeprefix(f"{number}. refused: ").removesuffix(".")


def _table() -> str:
    lines = ["| | " + " | ".join(target.name for target in TARGETS) + " |", "|---" * (len(TARGETS) + 1) + "|"]
    notes: dict[str, int] = {}
    for kind in KINDS:
        cells = [_cell(refusal(kind, target), notes) for target in TARGETS]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    lines.append("")
    for text, number in notes.items():
        first, note = f"{number}. ", WORDS[language()][2].format(text)
        indent = " " * len(first)
        lines += textwrap.wrap(
            first + note, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
    return "\n".join(lines)


def _cell(found: str | None, notes: dict[str, int]) -> str:
    yes, no, _ = WORDS[language()]
    return yes if found is None else no.format(notes.setdefault(found, len(notes) + 1))


if __name__ == "__main__":
    for name, page in PAGES.items():
        set_language(name)
        refusal.cache_clear()
        page.write_text(page_with_table(page.read_text(encoding="utf-8")), encoding="utf-8")
