"""Train the three specialists by their run files, compare each with the base model, and answer one mixed batch.

python examples/specialists/run.py            # the table of README.md: about 40 minutes on one core
python examples/specialists/run.py --short    # a few steps of each, to see that all of it works
python examples/specialists/run.py --keep     # evaluate what is in runs/specialists, without training again
python examples/specialists/run.py --model M  # on another base than that of the run files
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tunedeck as td
from tunedeck.data.chat import Conversation
from tunedeck.formats.folder import adapter_bytes
from tunedeck.tasks.generate.metrics import answer_metrics
from tunedeck.tasks.registry import task_of
from tunedeck.training.config import read_run_file, run_config

HERE = Path(__file__).parent
SPECIALISTS = ("sentiment", "law", "medicine")
SHORT = ["--train-size", "16", "--eval-size", "4", "--max-steps", "2", "--batch-size", "4", "--max-length", "160"]
BATCH_SIZE = 16


@dataclass(frozen=True)
class Answers:
    """What one model says to the held-out questions, and how good that is."""

    texts: list[str]
    metrics: dict[str, float]


@dataclass(frozen=True)
class Specialist:
    """One adapter beside the base model."""

    name: str
    method: str
    size_bytes: int
    train_s: float
    held_out: int
    majority: float
    """exact_match of always giving the most frequent answer of the held-out part."""
    questions: list[str]
    wanted: list[str]
    base: Answers
    adapter: Answers


def main() -> None:
    """Train, compare, mix."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a few steps of each")
    parser.add_argument("--keep", action="store_true", help="evaluate earlier runs")
    parser.add_argument("--model", help="another base")
    parser.add_argument("--out", type=Path, default=Path("runs/specialists"))
    options = parser.parse_args()
    if not options.keep:
        for name in SPECIALISTS:
            base = ["--model", options.model] if options.model else []
            train(name, options.out / name, [*base, *(SHORT if options.short else [])])
    deck = td.Deck.load(run_values(options.out / SPECIALISTS[0])["model"], td.Generate())
    for name in SPECIALISTS:
        deck.load_adapter(options.out / name / "adapter", name)
    found = [compared(deck, name, options.out / name) for name in SPECIALISTS]
    report = "\n\n".join([table(found), *(samples(one) for one in found), mixed(deck, found)])
    print(report)
    (options.out / "report.md").write_text(report + "\n", encoding="utf-8")
    values = json.dumps([asdict(one) for one in found], ensure_ascii=False, indent=1)
    (options.out / "report.json").write_text(values + "\n", encoding="utf-8")


def train(name: str, out: Path, flags: list[str]) -> None:
    """`tunedeck train NAME.yaml`, as anyone would type it."""
    command = ["train", str(HERE / f"{name}.yaml"), "--out", str(out), "--overwrite", *flags]
    print("$ tunedeck", *command, file=sys.stderr)
    subprocess.run([sys.executable, "-m", "tunedeck", *command], check=True, stdout=sys.stderr)


def run_values(run: Path) -> dict[str, Any]:
    """The settings that a run was made with."""
    return read_run_file(run / "config.yaml")


def compared(deck: td.Deck, name: str, run: Path) -> Specialist:
    """The base's and the adapter's answers to the held-out questions of a run."""
    config = run_config(run_values(run))
    held_out: list[Conversation] = task_of(config.task).read(config.data).evaluation
    wanted = [one.answer for one in held_out]
    labels = sorted(set(wanted)) if name == "sentiment" else []
    return Specialist(
        name=name,
        method=deck.adapter(name).config.kind,
        size_bytes=adapter_bytes(run / "adapter"),
        train_s=json.loads((run / "measurement.json").read_text(encoding="utf-8"))["train_s"],
        held_out=len(held_out),
        majority=Counter(wanted).most_common(1)[0][1] / len(wanted),
        questions=[one.prompt[-1].content for one in held_out],
        wanted=wanted,
        base=answered(deck, None, held_out, labels),
        adapter=answered(deck, name, held_out, labels),
    )


def answered(deck: td.Deck, name: str | None, held_out: list[Conversation], labels: list[str]) -> Answers:
    """Greedy answers, a little longer at most than the longest that is wanted."""
    wanted = [one.answer for one in held_out]
    room = max(len(deck.tokenizer(answer)["input_ids"]) for answer in wanted) + 8
    prompts = [Conversation(one.prompt).as_dicts() for one in held_out]
    texts: list[str] = []
    for start in range(0, len(prompts), BATCH_SIZE):
        texts += deck.generate(prompts[start : start + BATCH_SIZE], adapter=name, sampling=td.Sampling(max_tokens=room))
    metrics = answer_metrics(texts, wanted)
    if labels:
        named = [first_named(text, labels) for text in texts]
        metrics["label_named_first"] = sum(map(str.__eq__, named, wanted)) / len(wanted)
    return Answers(texts, metrics)


def first_named(text: str, labels: list[str]) -> str:
    """The label that a free answer names first: being talkative is no mistake here. Empty when it names none."""
    found = re.search(r"\b(" + "|".join(labels) + r")\b", text.lower())
    return found[1] if found else ""


def table(found: list[Specialist]) -> str:
    """One line for the base and one for the specialist, for each of the three."""
    rows = [
        "| specialist | method | file | trained in | held out | answers by | exact match | ROUGE-L | chrF |",
        "|---|---|--:|--:|--:|---|--:|--:|--:|",
    ]
    for one in found:
        kept = f"{one.size_bytes / 1e6:.2f} MB" if one.size_bytes >= 1e6 else f"{one.size_bytes / 1e3:.0f} kB"
        rows.append(
            f"| {one.name} | {one.method} | {kept} | {one.train_s:.0f} s | {one.held_out} | the base model "
            f"{cells(one.base)}"
        )
        rows.append(f"| | | | | | **the specialist** {cells(one.adapter)}")
    notes = [
        f"{one.name}: always giving the most frequent answer matches {one.majority:.2f}"
        + (
            f"; the label named first is right for the base in {one.base.metrics['label_named_first']:.2f}, "
            f"for the specialist in {one.adapter.metrics['label_named_first']:.2f}"
            if "label_named_first" in one.base.metrics
            else ""
        )
        for one in found
    ]
    return "\n".join(rows) + "\n\n" + "\n".join(f"- {note}" for note in notes)


def cells(answers: Answers) -> str:
    """The metrics as the last cells of a line."""
    return "| " + " | ".join(f"{answers.metrics[key]:.2f}" for key in ("exact_match", "rouge_l", "chrf")) + " |"


def samples(one: Specialist) -> str:
    """Three held-out questions with both answers: the first three, not chosen."""
    lines = [f"### {one.name}"]
    for number in range(min(3, one.held_out)):
        lines += [
            f"> {shown(one.questions[number], 240)}",
            "",
            f"- wanted: {shown(one.wanted[number])}",
            f"- base: {shown(one.base.texts[number])}",
            f"- specialist: {shown(one.adapter.texts[number])}",
            "",
        ]
    return "\n".join(lines).rstrip()


def mixed(deck: td.Deck, found: list[Specialist]) -> str:
    """One batch that all three specialists and the base model answer, row by row."""
    rows = [(one.name, one.questions[number]) for number in (-1, -2) for one in found] + [
        (None, found[0].questions[-1])
    ]
    names = [name for name, _ in rows]
    answers = deck.generate([text for _, text in rows], adapter=names, sampling=td.Sampling(max_tokens=40))
    lines = [
        "### One batch, three specialists and the base model",
        "",
        "| adapter | question | answer |",
        "|---|---|---|",
    ]
    for (name, question), answer in zip(rows, answers, strict=True):
        lines.append(f"| {name or 'none'} | {shown(question, 110)} | {shown(answer)} |")
    return "\n".join(lines)


def shown(text: str, width: int = 200) -> str:
    """A text on one line, cut where it is long."""
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= width else line[: width - 2] + " …"


if __name__ == "__main__":
    main()
