"""Write the tokenizer, settings and runner next to a graph, and compare the whole folder with the deck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tunedeck.core.i18n import say
from tunedeck.core.text_pair import TextPair
from tunedeck.deck.deck import Deck
from tunedeck.export.onnx.graph import onnx_view
from tunedeck.export.probe import Difference, compare, probe_batches
from tunedeck.export.transformers_folder import tokenizer_of
from tunedeck.formats.onnx.settings import RUNNER, TOKENIZER, WORDS, adapter_file, write_settings
from tunedeck.formats.probe import PROBE_TEXT, probe_values
from tunedeck.tasks.text_head import reads_pairs

if TYPE_CHECKING:
    from tunedeck.formats.onnx.runner import Runner

FLOAT32, INT8 = "model.onnx", "model.int8.onnx"
BOUND = 1e-4
"""The largest difference allowed, as a share of the largest answer (at least 1)."""
TEXTS = (
    "good",
    "The parcel came two days late, and nobody answered the phone!",
    "这家酒店的服务很好，下次还会再来。",
    "one two three four five six seven eight nine ten " * 150,
)


def write_beside(
    folder: Path, deck: Deck, names: Sequence[str], files: Mapping[str, str], model_version: int | None = None
) -> None:
    """Write tokenizer.json, settings.json and run.py; `files` are the graphs by precision.

    `model_version` is what the adapter files must name, None for a graph that holds its adapter.
    """
    tokenizer = tokenizer_of(deck)
    tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
    settings: dict[str, Any] = {
        "task": deck.task.kind,
        "base": deck.base.reference,
        "files": dict(files),
        "pad_id": deck.model.config.pad_token_id,
        "truncation_side": tokenizer.truncation_side,
        "positions": deck.positions,
        "adapters": {name: _adapter_settings(deck, name) for name in names},
    }
    if model_version is not None:
        settings["model_version"] = model_version
        for name in names:
            settings["adapters"][name]["file"] = adapter_file(name)
    write_settings(folder, settings)
    _copy_module("tunedeck.formats.onnx", "runner.py", folder / RUNNER)
    if onnx_view(deck).by_word:
        _copy_module("tunedeck.core", "tagging.py", folder / WORDS)


def _copy_module(package: str, name: str, target: Path) -> None:
    target.write_bytes(package_files(package).joinpath(name).read_bytes())


def write_probes(folder: Path, names: Sequence[str], runners: Mapping[str, Runner]) -> None:
    """Put a short input and each graph's answer to it into settings.json; `tunedeck serve` asks again when it loads
    them.
    """
    first = next(iter(runners.values()))
    settings = first.settings
    for name in names:
        ids = first.token_ids([PROBE_TEXT], name)[0]
        outputs = {
            precision: probe_values(runner.run_rows([ids], runner.active([name]))[0])
            for precision, runner in runners.items()
        }
        settings["adapters"][name]["probe"] = {"input_ids": ids, "outputs": outputs}
    write_settings(folder, settings)


def _adapter_settings(deck: Deck, name: str) -> dict[str, Any]:
    """Return how an adapter's answers are made and read."""
    method, virtual = deck.adapter(name).config.kind, deck.virtual_tokens(name)
    return {"method": method, "virtual_tokens": virtual, **onnx_view(deck).settings(deck, name)}


def verify(deck: Deck, name: str, runner: Runner) -> Difference:
    """Compare a runner's answers with the deck's, to token ids of several shapes and to texts.

    Raises AdapterError when they differ by more than BOUND.
    """
    batches, view = probe_batches(deck, name), onnx_view(deck)
    pairs = [(view.expected(deck, name, ids, mask), answered(runner, name, ids, mask)) for ids, mask in batches]
    texts = both_ways(TEXTS) if reads_pairs(deck.adapter(name).task) else TEXTS
    for as_query in (False, True):
        told = torch.from_numpy(runner.outputs(runner_texts(texts), [name], as_query))
        pairs.append((view.answers(deck, name, texts, as_query), told))
    found = compare(
        [left for left, _ in pairs], [right for _, right in pairs], [mask for _, mask in [*batches, *batches[:2]]]
    )
    found.check(BOUND, say("the ONNX graph"))
    return found


def both_ways(texts: Sequence[str]) -> list[str]:
    """Return pairs of short and long texts."""
    return [TextPair(a, b) for a, b in zip(texts, reversed(texts), strict=True)]


def runner_texts(texts: Sequence[str]) -> list[Any]:
    """Return texts as the runner takes them: a pair is a tuple."""
    return [(one.first, one.second) if isinstance(one, TextPair) else one for one in texts]


def distance(deck: Deck, name: str, whole: Runner, small: Runner) -> tuple[Difference, float | None]:
    """Return how far the int8 graph is from the float32 one, and for vectors the lowest cosine between them."""
    batches = probe_batches(deck, name)
    left, right = ([answered(runner, name, *batch) for batch in batches] for runner in (whole, small))
    found = compare(left, right, [mask for _, mask in batches])
    if not onnx_view(deck).by_cosine:
        return found, None
    return found, torch.cosine_similarity(torch.cat(left), torch.cat(right)).min().item()


def answered(runner: Runner, name: str, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the runner's output for a batch of token ids."""
    return torch.from_numpy(runner.run(ids.cpu().numpy(), mask.cpu().numpy(), [name]))
