"""ONNX graphs as a backend: labels, entities, scores and vectors without the base's weights in torch.

Every row is a separate run, several of them at once. One run has one adapter, and an int8 graph takes the scale of a
layer's input from the whole batch, padding included; so a row's answer does not depend on the other rows, and nothing
is padded. On two cores batches of 32 answered no more texts a second (docs/serving.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final
from weakref import WeakValueDictionary

from tunedeck.core.checks import require
from tunedeck.core.errors import AdapterFileError, ConfigError, TunedeckError
from tunedeck.core.i18n import say
from tunedeck.core.text_pair import TextPair
from tunedeck.formats.probe import check_probe_values, probe_values
from tunedeck.serving.backends.onnx_folders import check_servable, graph_version, read_settings, servable_view, split
from tunedeck.tasks.text import cut_ids, cut_pairs, fitting_ids

if TYPE_CHECKING:
    from tunedeck.formats.onnx.runner import Runner


@final
@dataclass(frozen=True, slots=True)
class _Held:
    """One adapter in memory: the session it runs in, its name there, and what is switched on for its runs."""

    runner: Runner
    name: str
    active: list[Any]

    @property
    def told(self) -> dict[str, Any]:
        return self.runner.settings["adapters"][self.name]  # type: ignore[no-any-return]


@final
class OnnxBackend:
    """Run the exports of `tunedeck export onnx` of one task and one base; adapters of one graph share its session."""

    def __init__(self, task: str, base: str, precision: str, threads: int) -> None:
        """Raise ConfigError where ONNX Runtime is missing."""
        require("ONNX", ["onnxruntime"], "'tunedeck[export]'")
        self._task, self._base, self._precision, self._threads = task, base, precision, threads
        self._view = servable_view(task)
        self._held: dict[str | None, _Held] = {}
        self._runners: WeakValueDictionary[object, Runner] = WeakValueDictionary()
        self._pool = ThreadPoolExecutor(threads, "onnx")

    def load(self, place: Path, key: str) -> str | None:
        """Open the graph, unless another adapter has, and let the adapter answer its stored probe; a note when there is
        none.
        """
        folder, name = split(place)
        settings = read_settings(folder)
        check_servable(settings, folder, self._precision, self._task, self._base)
        with _translate_errors(place):
            runner = self._runner(folder)
            active = [] if name is None else [runner.read(name)[0]]
            held = _Held(runner, name or next(iter(settings["adapters"])), active)
            tested = self._check_probe(held, place)
            row = runner.windows(["a"], held.name)[0] if self._view.by_word else runner.tokenizer.encode("a").ids
            self._run(held, row)  # labels that do not fit the graph show here
        self._held[key] = held
        return None if tested else say("no stored probe: not tested on load")

    def remove(self, key: str) -> None:
        """Free the adapter, and its graph with the last adapter of it."""
        del self._held[key]

    def encode(self, contents: Sequence[Any], key: str | None) -> list[list[int]]:
        """Return token ids of texts behind their adapter's document instruction, cut to its length; a content may be
        token ids already. Of a text whose words are answered, the ids of all windows.
        """
        runner, told = self._held[key].runner, self._held[key].told
        if self._view.by_word:
            return runner.windows(list(contents), self._held[key].name)
        pairs = [one for one in contents if isinstance(one, TextPair)]
        if told.get("pairs") and len(pairs) < len(contents):
            raise ConfigError(say("this adapter answers pairs of texts, and a text has no second text"))
        both = iter(cut_pairs(runner.tokenizer, pairs, told["max_length"], runner.settings["truncation_side"]))
        instruction = told.get("document_instruction", "")
        texts = [instruction + one for one in contents if isinstance(one, str) and not isinstance(one, TextPair)]
        room = told["max_length"] - runner.tokenizer.num_special_tokens_to_add(False)
        encoded = iter(cut_ids(runner.tokenizer, texts, room, runner.settings["truncation_side"]))
        vocabulary = runner.tokenizer.get_vocab_size()
        rows = [
            (next(both) if isinstance(one, TextPair) else next(encoded))
            if isinstance(one, str)
            else fitting_ids(one, vocabulary, told["max_length"])
            for one in contents
        ]
        if not all(rows):
            raise ConfigError(say("the text has no tokens"))
        return rows

    def width(self, ids: Sequence[int], key: str | None) -> int:
        """Return positions that the ids take with the adapter's virtual tokens."""
        return len(ids) + int(self._held[key].told.get("virtual_tokens", 0))

    def answer(
        self, rows: Sequence[Sequence[int]], keys: Sequence[str | None], pause: Callable[[], None] | None = None
    ) -> list[Any]:
        """Return the task's answer to each row, such as a Prediction or a vector (hidden,)."""
        return list(self._pool.map(self._answer, rows, keys))

    def _answer(self, row: Sequence[int], key: str | None) -> Any:
        return self._run(self._held[key], row)

    def _run(self, held: _Held, row: Sequence[int]) -> Any:
        if self._view.by_word:
            (output,) = held.runner.word_logits([row], held.name, held.active, batch_size=1)
        else:
            output = held.runner.run_rows([row], held.active)[0]
        return self._view.read(held.runner, held.name, row, output)

    def _runner(self, folder: Path) -> Runner:
        from tunedeck.formats.onnx.runner import Runner

        version = graph_version(folder)
        found = self._runners.get(version)
        if found is None:
            found = self._runners[version] = Runner(folder, self._precision, self._threads, spin=False)
        return found

    def _check_probe(self, held: _Held, place: Path) -> bool:
        probe = held.told.get("probe")
        if probe is None:
            return False
        seen = probe_values(held.runner.run_rows([probe["input_ids"]], held.active)[0])
        check_probe_values(seen, probe["outputs"][self._precision], str(place), self._precision)
        return True


@contextmanager
def _translate_errors(place: Path) -> Iterator[None]:
    """ONNX Runtime and the tokenizer raise exceptions of many kinds, some of them without a class."""
    try:
        yield
    except (TunedeckError, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise AdapterFileError(say("{path} is damaged: {reason}", path=place, reason=reason)) from error
