"""Answer texts with the ONNX files in this folder; needs onnxruntime and tokenizers, nothing else.

    python run.py "a text" "another one"
    python run.py --adapter law --int8 < texts.txt

One JSON object per line: label, probability and every label's, entities, scores, or a vector. Below the adapter's
threshold, where it has one, "labels" is empty and "abstain" is "unsure". For pairs of texts, two texts after one
another are a pair, and so are two in a line with a tab between them.
"""

# One file, although it is long, because every export carries a copy of it.

from __future__ import annotations

import argparse
import difflib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
from tokenizers import Tokenizer


class RunnerError(Exception):
    """Something the caller can mend."""


class TypedIds(list):  # type: ignore[type-arg]
    """Token ids, and the type of each: 1 in the second text of a pair, else 0."""

    def __init__(self, ids: list[int], types: list[int]) -> None:
        super().__init__(ids)
        self.types = types


class Runner:
    """The files of one folder, ready to answer. `threads` 0 takes all cores; without `spin` they sleep as soon as a run
    ends.
    """

    def __init__(self, folder: str | Path, precision: str = "float32", threads: int = 0, *, spin: bool = True) -> None:
        self.folder = Path(folder)
        self.settings: dict[str, Any] = json.loads((self.folder / "settings.json").read_text(encoding="utf-8"))
        if precision not in self.settings["files"]:
            raise RunnerError(f"there is no {precision} file here; there is: {', '.join(self.settings['files'])}")
        self.tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # defaults that adapters replace are reported one by one otherwise
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        file = self.folder / self.settings["files"][precision]
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._tagging: Any = tagging_module() if self.settings["task"] == "tag" else None
        self._takes_types = "token_type_ids" in {given.name for given in self.session.get_inputs()}
        self._loaded: dict[str, Any] = {}

    def answer(self, texts: list[Any], adapters: list[str] | None = None, query: bool = False) -> list[dict[str, Any]]:
        """One object per text, or tuple of two texts: label, score, probabilities and labels, entities, scores, or
        vector.
        """
        names = self.chosen(adapters)
        if self._tagging is not None:
            encoded = self.windows(texts, names[0])
            logits = self.word_logits(encoded, names[0], self.active(names))
            found = [self.tagged(*one, names[0]) for one in zip(encoded, logits, strict=True)]
            return [{"text": text, "adapter": names[0], **one} for text, one in zip(texts, found, strict=True)]
        outputs = self.outputs(texts, names, query)
        if self.settings["task"] == "embed":
            return [{"text": text, "vector": row.tolist()} for text, row in zip(texts, outputs, strict=True)]
        read = self.scored if self.settings["task"] == "score" else self.labelled
        asked = [{"text": t} if isinstance(t, str) else {"text": t[0], "text_pair": t[1]} for t in texts]
        return [{**text, "adapter": names[0], **read(row, names[0])} for text, row in zip(asked, outputs, strict=True)]

    def outputs(self, texts: list[Any], adapters: list[str], query: bool = False, batch_size: int = 32) -> Any:
        """Logits (texts, labels), vectors (texts, hidden), or logits (words, labels) of the words of all texts."""
        if self._tagging is not None:
            encoded = self.windows(texts, adapters[0])
            return numpy.concatenate(self.word_logits(encoded, adapters[0], self.active(adapters), batch_size))
        return numpy.stack(
            self.in_batches(self.token_ids(texts, adapters[0], query), self.active(adapters), batch_size)
        )

    def in_batches(self, ids: list[Any], active: list[Any], batch_size: int) -> list[Any]:
        """The graph's output for each row of token ids; batches go from short to long rows."""
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        rows: list[Any] = [None] * len(ids)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            found = self.run_rows([ids[row] for row in chosen], active)
            for row, output in zip(chosen, found, strict=True):
                rows[row] = output
        return rows

    def token_ids(self, texts: list[Any], adapter: str, query: bool = False) -> list[TypedIds]:
        """Token ids of each text behind its instruction, or of each pair, cut to the adapter's length; RunnerError for
        one without tokens.

        Of a pair the longer text is cut first; a line break comes between the two where the tokenizer puts no token. Of
        a text whose words are answered, one row for each window.
        """
        if self._tagging is not None:
            return [TypedIds(row, [0] * len(row)) for one in self.windows(texts, adapter) for row in one.rows]
        told = self.settings["adapters"][adapter]
        instruction = told.get("query_instruction" if query else "document_instruction", "")
        self.tokenizer.enable_truncation(told["max_length"], direction=self.settings["truncation_side"])
        specials = [self.tokenizer.num_special_tokens_to_add(pair) for pair in (False, True)]
        between = "" if specials[1] > specials[0] else "\n"
        asked = [instruction + text if isinstance(text, str) else (text[0], between + text[1]) for text in texts]
        ids = [TypedIds(found.ids, found.type_ids) for found in self.tokenizer.encode_batch(asked)]
        empty = next((number for number, row in enumerate(ids, 1) if not row), None)
        if empty is not None:
            raise RunnerError(f"text {empty} is empty")
        return ids

    def windows(self, texts: list[Any], adapter: str) -> list[Any]:
        """Texts in windows that overlap, of the adapter's length at most, and their words; nothing is cut off."""
        told = self.settings["adapters"][adapter]
        if self.tokenizer.truncation is not None:
            self.tokenizer.no_truncation()
        special = self._tagging.special_ids(self.tokenizer)
        found = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        return [
            self._tagging.encoded_text(text, one, special, told["max_length"], told["subwords"])
            for text, one in zip(texts, found, strict=True)
        ]

    def word_logits(self, encoded: list[Any], adapter: str, active: list[Any], batch_size: int = 32) -> list[Any]:
        """Logits (words, labels) of each text, each word's from the window that decides it."""
        outputs = iter(self.in_batches([row for one in encoded for row in one.rows], active, batch_size))
        found = []
        for one in encoded:
            logits = numpy.zeros((len(one.words), len(self.settings["adapters"][adapter]["labels"])), numpy.float32)
            for row in range(len(one.rows)):
                numbers, positions = one.decided(row)
                logits[numbers] = next(outputs)[positions]
            found.append(logits)
        return found

    def padded(self, rows: list[list[int]]) -> tuple[Any, Any]:
        """Token ids and mask, (batch, longest), padded on the right."""
        ids = numpy.full((len(rows), max(map(len, rows))), self.settings["pad_id"], dtype=numpy.int64)
        mask = numpy.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(row)] = 1
        return ids, mask

    def run(self, input_ids: Any, attention_mask: Any, adapters: list[str]) -> Any:
        """One batch: logits (batch, labels) or vectors (batch, hidden)."""
        return self.run_with(input_ids, attention_mask, self.active(adapters))

    def run_rows(self, rows: list[Any], active: list[Any]) -> Any:
        """One batch of rows of token ids, which may have `types`, with adapters that were read before."""
        ids, mask = self.padded(rows)
        types = numpy.zeros_like(ids)
        for number, row in enumerate(rows):
            types[number, : len(row)] = getattr(row, "types", 0)
        return self.run_with(ids, mask, active, types)

    def run_with(self, input_ids: Any, attention_mask: Any, active: list[Any], types: Any = None) -> Any:
        """Answer texts with adapters that were read before."""
        options = onnxruntime.RunOptions()
        for adapter in active:
            options.add_active_adapter(adapter)
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._takes_types:
            feeds["token_type_ids"] = numpy.zeros_like(input_ids) if types is None else types
        return self.session.run(None, feeds, options)[0]

    def chosen(self, adapters: list[str] | None) -> list[str]:
        """The adapters asked for, the only one by default; RunnerError for unknown ones and for those that cannot work
        together.
        """
        known = self.settings["adapters"]
        if not adapters:
            if len(known) > 1:
                raise RunnerError(f"name an adapter with --adapter: {', '.join(known)}")
            return list(known)
        for name in adapters:
            if name not in known:
                close = difflib.get_close_matches(name, list(known), n=3)
                hint = f" (did you mean {' or '.join(close)}?)" if close else ""
                raise RunnerError(f"there is no adapter {name!r}{hint}; known: {', '.join(known)}")
        self.active(adapters)
        return adapters

    def active(self, names: list[str]) -> list[Any]:
        """The adapters to switch on. ONNX Runtime lets the first of two that set the same parameter win, without a
        word.
        """
        owners: dict[str, str] = {}
        found = []
        for name in names:
            if self.settings["adapters"][name].get("file") is None:
                continue
            adapter, parameters = self._load(name)
            for parameter in parameters:
                if parameter in owners:
                    raise RunnerError(
                        f"adapters {owners[parameter]!r} and {name!r} cannot be active together: both set {parameter}"
                    )
            owners.update(dict.fromkeys(parameters, name))
            found.append(adapter)
        return found

    def _load(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = self.read(name)
        return self._loaded[name]

    def read(self, name: str) -> tuple[Any, list[str]]:
        """An adapter from its file, and which inputs it sets; RunnerError for one of another graph."""
        file = str(self.folder / self.settings["adapters"][name]["file"])
        content = onnxruntime.AdapterFormat.read_adapter(file)
        if content.get_model_version() != self.settings["model_version"]:
            raise RunnerError(f"{file} was written for another graph; export the adapters together")
        adapter = onnxruntime.LoraAdapter()
        adapter.Load(file)
        return adapter, list(content.get_parameters())

    def labelled(self, logits: Any, name: str) -> dict[str, Any]:
        """Return label, score, probabilities and labels of logits (labels,)."""
        told = self.settings["adapters"][name]
        wide = logits.astype(numpy.float64) / told.get("temperature", 1.0)
        if told["multi_label"]:
            chances = 1 / (1 + numpy.exp(-wide))
        else:
            powers = numpy.exp(wide - wide.max())
            chances = powers / powers.sum()
        best = told["labels"][int(chances.argmax())]
        found = dict(zip(told["labels"], chances.tolist(), strict=True))
        limits = told.get("thresholds")
        if limits is None:
            above = [label for label, chance in found.items() if chance > 0.5]
        else:  # a label without a limit is never answered
            known = {label: limit for label, limit in limits.items() if limit is not None}
            above = [label for label, chance in found.items() if label in known and chance >= known[label]]
        certain = limits is None or best in above
        return {
            "label": best,
            "score": float(chances.max()),
            "probabilities": found,
            "labels": above if told["multi_label"] else [best] if certain else [],
            "abstain": None if told["multi_label"] or certain else "unsure",
        }

    def scored(self, output: Any, name: str) -> dict[str, Any]:
        """Return score, scores and levels of a head's answer (targets,), in the scores' unit."""
        told = self.settings["adapters"][name]
        wide = output.astype(numpy.float64)
        if told["logistic"]:
            scores = 1 / (1 + numpy.exp(-wide))
        else:
            scores = wide * numpy.array(told["stds"]) + numpy.array(told["means"])
        levels = None
        if told["levels"] is not None:
            scores = scores.clip(*told["levels"])
            levels = dict(zip(told["labels"], map(int, numpy.rint(scores)), strict=True))
        found = dict(zip(told["labels"], scores.tolist(), strict=True))
        return {"score": float(scores[0]), "scores": found, "levels": levels}

    def tagged(self, encoded: Any, logits: Any, name: str) -> dict[str, Any]:
        """Return the entities of a text, from the logits (words, labels) of its words; offsets count code points."""
        labels, words = self.settings["adapters"][name]["labels"], encoded.words
        wide = logits.astype(numpy.float64)
        powers = numpy.exp(wide - wide.max(-1, keepdims=True))
        chances = powers.max(-1) / powers.sum(-1)
        entities = []
        for run in self._tagging.runs_of(labels[number] for number in logits.argmax(-1)):
            start, end = words[run.first].start, words[run.last - 1].end
            score = float(chances[run.first : run.last].mean())
            place = {"start": start, "end": end, "score": score}
            entities.append({"text": encoded.text[start:end], "label": run.label, **place})
        return {"entities": entities}

    def in_pairs(self, texts: list[str], adapters: list[str] | None) -> list[Any]:
        """Return texts as tuples of two where the adapter answers pairs; RunnerError for one without its second."""
        if not self.settings["adapters"][self.chosen(adapters)[0]].get("pairs"):
            return texts
        if all(text.count("\t") == 1 for text in texts):
            return [tuple(part.strip() for part in text.split("\t")) for text in texts]
        if len(texts) % 2:
            raise RunnerError(f"the adapter answers pairs of texts, and {texts[-1]!r} has no second text")
        return list(zip(texts[::2], texts[1::2], strict=True))


def tagging_module() -> Any:
    """The module of words and windows: Tunedeck's, or its copy beside this file."""
    if __package__:
        return importlib.import_module("tunedeck.core.tagging")
    spec = importlib.util.spec_from_file_location("tagging", Path(__file__).with_name("tagging.py"))
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def main() -> None:
    """Answer the texts given as arguments, or else the lines of standard input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="*", help="texts; without any, the lines of standard input")
    parser.add_argument("--adapter", action="append", help="which adapter answers, where there are several")
    parser.add_argument("--int8", action="store_true", help="the smaller, faster file")
    parser.add_argument("--query", action="store_true", help="embeddings: put the query instruction before each text")
    parser.add_argument("--threads", type=int, default=0, help="all cores by default")
    asked = parser.parse_args()
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    texts = asked.texts or ([] if sys.stdin.isatty() else sys.stdin.read().splitlines())
    texts = [text for text in texts if text.strip()]
    try:
        if not texts:
            raise RunnerError("there is no text; give some as arguments or as lines on standard input")
        runner = Runner(Path(__file__).resolve().parent, "int8" if asked.int8 else "float32", asked.threads)
        for found in runner.answer(runner.in_pairs(texts, asked.adapter), asked.adapter, asked.query):
            print(json.dumps(found, ensure_ascii=False))
    except (RunnerError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
