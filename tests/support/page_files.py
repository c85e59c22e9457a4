"""The files and folders that the pages of docs/ name, small: data, adapters, and a cache with tiny bundled models."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tunedeck as td
from support import labelled_words, tagged_words, tiny_models
from support.tokenizers_of_all_kinds import tokenizer_of
from tunedeck.core.bundle import RECEIPT, folder_of, read_bundles

MINILM, CHAT, MULTILINGUAL = "all-minilm-l6-v2", "smollm2-135m-instruct", "multilingual-e5-small"
SENTIMENT = {"red": "negative", "green": "neutral", "blue": "positive"}
Write = Callable[[Path], object]


def fill_cache() -> None:
    """Put tiny models where the bundled ones are kept, with the receipts of the real ones."""
    for name, bundle in read_bundles("tunedeck.models").items():
        folder = folder_of(bundle)
        if name == CHAT:
            sizes = {"vocab_size": 290, "max_position_embeddings": 2048}
            tiny_models.tiny_model("llama", "causal", **sizes).save_pretrained(folder)
            tokenizer_of("bytes").save_pretrained(folder)
        else:
            shutil.copytree(tiny_models.folder_of("bert", "unpooled"), folder)
        (folder / RECEIPT).write_text(json.dumps({"sha256": bundle.digest, "files": {}}), encoding="utf-8")


def bundled_rows(reference: str) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """Return few rows with the columns of a bundled data set."""
    name = reference.partition(":")[0]
    seed = len(reference)
    if name == "tweet-ratings":
        return ("text", "rating"), [{"text": text, "rating": value} for text, value in _rated(60, seed)]
    if name.startswith("home-intents") or name == "people-daily-ner":
        examples = tagged_words.texts(60, seed)
        key = "entities" if name == "people-daily-ner" else "slots"
        return ("text", "label", key), [
            {
                "text": one.text,
                "label": one.text.split()[-1],
                key: [{"start": span.start, "end": span.end, "label": span.label} for span in one.spans],
            }
            for one in examples
        ]
    rows = [
        {"text": text, "label": label, "instruction": "Which sentiment?", "input": text, "output": label}
        for text, label in labelled(80, seed)
    ]
    return tuple(rows[0]), list(rows)


def labelled(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return English texts with labels that a tiny encoder can learn."""
    return [
        (f"this is what I have to say about it: {text}", SENTIMENT[label])
        for text, label in labelled_words.rows(count, seed)
    ]


def _rated(count: int, seed: int) -> list[tuple[str, float]]:
    return [(text, float(len(text) % 5)) for text, _ in labelled(count, seed)]


def _labelled(count: int = 60, seed: int = 0) -> Write:
    return lambda path: labelled_words.write_csv(path, labelled(count, seed))


def _table(columns: Sequence[str], rows: Callable[[], Sequence[Sequence[object]]]) -> Write:
    def write(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *rows()])

    return write


def _lines(row: Callable[[str, str], dict[str, Any]], count: int = 24) -> Write:
    def write(path: Path) -> None:
        rows = [row(text, label) for text, label in labelled(count)]
        path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")

    return write


def _pairs() -> list[tuple[str, str, str]]:
    texts = labelled(60)
    return [(text, other, label) for (text, label), (other, _) in zip(texts, texts[::-1], strict=True)]


def _relevance() -> list[tuple[str, str, int]]:
    return [(first, second, int(label == "positive")) for first, second, label in _pairs()]


def _chats(text: str, label: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": label}]}


def _sheet(path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    for row in [("text", "label"), *labelled(40)]:
        book.worksheets[0].append(row)
    book.save(path)


def _texts(path: Path) -> None:
    path.write_text("\n".join(["text", *(text for text, _ in labelled(60, seed=5))]), encoding="utf-8")


EVERYWHERE: Mapping[str, Write] = {
    "reviews.csv": _labelled(),
    "more-reviews.csv": _labelled(20, 1),
    "评论.csv": _labelled(),
    "train.csv": _labelled(),
    "test.csv": _labelled(20, 2),
    "held-out.csv": _labelled(40, 3),
    "small.csv": _labelled(40),
    "more.csv": _labelled(40, 3),
    "new.csv": _labelled(40, 4),
    "old.csv": _labelled(40, 5),
    "texts.csv": _texts,
    "texts.txt": _texts,
    "reviews.xlsx": _sheet,
    "run.yaml": lambda path: path.write_text(
        "model: bundled:all-minilm-l6-v2\ndata: {train: reviews.csv}\nmethod: lora\n"
    ),
}
OF_A_PAGE: Mapping[str, Mapping[str, Write]] = {
    "guides/embeddings": {
        "pairs.jsonl": _lines(lambda text, label: {"query": label, "positive": text}),
        "more.jsonl": _lines(lambda text, label: {"query": label, "positive": text}, 12),
    },
    "guides/generation": {"chats.jsonl": _lines(_chats), "more.jsonl": _lines(_chats, 6)},
    "guides/score": {
        "test.csv": _table(("text", "rating"), lambda: _rated(20, 3)),
        "nli.csv": _table(("premise", "hypothesis", "label"), _pairs),
        "more.csv": _table(("premise", "hypothesis"), lambda: [one[:2] for one in _pairs()]),
        "relevance.csv": _table(("query", "document", "relevance"), _relevance),
    },
    "plan": {"train.jsonl": _lines(_chats)},
}


MADE = {"guides/labelling": ("train.csv",)}
"""Files that the blocks of a page make themselves."""


def write_files(page: str, folder: Path) -> None:
    """Write every file that a page may name into a folder."""
    for name, write in {**EVERYWHERE, **OF_A_PAGE.get(page, {})}.items():
        write(folder / name)
    for name in MADE.get(page, ()):
        (folder / name).unlink()
    for path in ADAPTERS.get(page, ()):
        _save_adapter(folder / path, ADAPTERS[page][path])


ADAPTERS: Mapping[str, Mapping[str, str]] = {
    "export": {
        **{f"runs/{name}/adapter": "classify" for name in ("reviews", "law", "mail", "reds", "half-a", "half-b")},
        **{f"runs/{name}/adapter": "generate" for name in ("chats", "de")},
    },
    "guides/labelling": {"runs/a/adapter": "classify"},
    "handbook/better": {"runs/reviews/adapter": "classify"},
    "serving": {
        **{f"classifiers/{name}": "classify" for name in ("sentiment", "topic")},
        **{f"adapters/{name}": "generate" for name in ("law", "medicine")},
        **{f"runs/{name}/adapter": "classify" for name in ("reviews", "law", "mail")},
    },
}
"""Folders of adapters that a page takes from elsewhere, and their task."""


def _save_adapter(folder: Path, kind: str) -> None:
    deck = _deck(kind)
    name = folder.parent.name if folder.name == "adapter" else folder.name
    tiny_models.add_stirred(deck, name, td.LoraConfig(r=4), seed=random.Random(name).randrange(100))
    deck.save(name, folder)


def _deck(kind: str) -> td.Deck:
    if kind == "generate":
        return td.Deck.load(f"bundled:{CHAT}", td.Generate())
    return td.Deck.load(f"bundled:{MINILM}", td.Classify(labels=tuple(sorted(SENTIMENT.values()))))
