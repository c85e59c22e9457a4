"""The deck: one frozen base, many named adapters, and a batch that may use any mix of them.

The file is long because the class is the package's public interface to a model: each of its methods is a few lines that
describe and call what the other modules of this folder do.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, final

import torch
from torch import nn

from tunedeck.core.compat.torch import fits_int8_product
from tunedeck.core.errors import AdapterError, ConfigError, UnknownAdapterError
from tunedeck.core.i18n import listing, nearest, renamed, say
from tunedeck.core.task_settings import DEFAULT_TASK, load_task
from tunedeck.deck.adapter import Adapter, Summary, summarise
from tunedeck.deck.choice import AUTO, Choice, choose, chosen_names, text_vectors
from tunedeck.deck.forward import Inputs, answer_name, call_model, position_limit, run_segments, with_answer
from tunedeck.deck.heads import NEW_ROWS_STD, grown, head_paths, new_head
from tunedeck.deck.merge import merged_model
from tunedeck.deck.probe import check_probes, take_probe
from tunedeck.deck.reading import (
    adapter_from_folder,
    bare_labels,
    check_trains,
    method_base,
    model_names,
    new_manifest,
)
from tunedeck.deck.task import Task, embedding, generating, has_labels, labels_of, pooling_of, predicting, with_labels
from tunedeck.formats.folder import base_of, detect_format, distinct_names, write_adapter
from tunedeck.formats.manifest import read_manifest
from tunedeck.formats.tensors import StoredAdapter
from tunedeck.methods.base import LeavesToModel, MethodConfig
from tunedeck.methods.int8 import Int8Linear
from tunedeck.methods.registry import method_of
from tunedeck.methods.routing import Grouping, Router, group_rows
from tunedeck.methods.sites import SiteRegistry
from tunedeck.models.load import LoadedBase, load_base
from tunedeck.models.precision import Dtype
from tunedeck.models.quantize import BasePart, Quantize, base_parts

AdapterNames: TypeAlias = str | Sequence[str | None] | None
"""One adapter name for all rows, one per row, or None for the base model. Methods that are given texts also take
"auto" for all rows: each text's adapter is chosen.
"""


@final
class Deck:
    """A frozen base with named adapters at its sites. Make one with `Deck.load` or `Deck.open`.

    `model` is the transformers model, its classes, names and tensors untouched; `tokenizer` its tokenizer or None;
    `positions` the longest sequence it takes, virtual tokens included, None without a limit.
    """

    def __init__(self, base: LoadedBase, task: Task) -> None:
        self.base = base
        self.task = task.for_base(base)
        self.model: Any = base.model
        self.tokenizer = base.tokenizer
        self.positions = position_limit(base.model)
        self.router = Router()
        self._sites = SiteRegistry(base.model, self.router)
        self._adapters: dict[str, Adapter] = {}

    @classmethod
    def load(
        cls,
        reference: str,
        task: Task,
        *,
        dtype: Dtype = "auto",
        device: str = "auto",
        trust_remote_code: bool = False,
        quantize: Quantize | None = None,
    ) -> Deck:
        """Load a base: a hub id, a folder, a .gguf file, `ms:` or `bundled:` reference.

        `dtype` "auto" takes bfloat16 where the hardware has it; `quantize` stores the linear layers as "nf4" or
        "int8". Raises ModelError when it cannot be found or loaded.
        """
        labels = labels_of(task)
        base = load_base(
            reference,
            task.auto_class,
            num_labels=len(labels) if labels else None,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            quantize=quantize,
        )
        return cls(base, task)

    @cached_property
    def int8_output(self) -> Int8Linear | None:
        """Return a copy of the output layer in 8 bits; None unless the base is in int8, in bfloat16 and on a CPU.

        The model itself keeps its output layer: a step of decoding multiplies few rows, where reading it is all that
        takes time.
        """
        output = self.model.get_output_embeddings()
        plain = self.base.quantize == "int8" and type(output) is nn.Linear and output.bias is None
        useful = plain and output.weight.dtype == torch.bfloat16 and fits_int8_product(output.weight)
        return Int8Linear(output.weight.detach(), None) if useful else None

    @property
    def placed(self) -> int:
        """Return a number that changes whenever an adapter's layers come or go."""
        return self._sites.changes

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Return the lock that is held while a batch runs; hold it to change what the model's hooks do. The same thread
        may take it again.
        """
        return self.router.lock

    @property
    def adapters(self) -> tuple[str, ...]:
        """Return the names of the loaded adapters."""
        return tuple(self._adapters)

    def adapter(self, name: str) -> Adapter:
        """Return a loaded adapter; UnknownAdapterError when there is none of that name."""
        if name not in self._adapters:
            raise UnknownAdapterError(
                say("adapter {name!r} is not loaded (loaded: {loaded})", name=name, loaded=listing(self._adapters))
                + nearest(name, self._adapters)
                + say("; load it with deck.load_adapter(folder, name={name!r})", name=name)
            )
        return self._adapters[name]

    def add(
        self,
        name: str,
        config: MethodConfig,
        *,
        labels: Sequence[str] | None = None,
        task: Task | None = None,
        seed: int = 0,
    ) -> None:
        """Add a fresh adapter, drawn with `seed`; `labels` or other settings of the deck's `task` where they differ.

        Raises AdapterError for a name in use, TargetError or ConfigError where the config does not fit the base.
        """
        task = self.task if task is None else task.for_base(self.base)
        task = task if labels is None else with_labels(task, labels)
        known = labels_of(task)
        self._check_name(name)
        check_trains(config, task)
        config = config.for_model(self.base.spec) if isinstance(config, LeavesToModel) else config
        # A method may run the base: no other batch runs meanwhile, and no adapter takes part.
        with torch.random.fork_rng(devices=[]), self.router.routed(()):
            torch.manual_seed(seed)
            own = head_paths(self.base) if has_labels(task) else ()
            built = method_of(config).build(method_base(self.base, own), config)
            head = new_head(self.base, len(known), pooling_of(task)) if known else {}
        self.attach(Adapter(name, config, task, built, head, new_manifest(self.base, task, config)))

    def set_labels(self, name: str, labels: Sequence[str], *, seed: int = 0) -> None:
        """Give an adapter added without labels its labels and a fresh head."""
        old = self.adapter(name)
        if old.labels is not None:
            raise AdapterError(
                say("adapter {name!r} has its labels already: {labels}", name=name, labels=listing(old.labels))
            )
        task = with_labels(old.task, labels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = new_head(self.base, len(labels), pooling_of(task))
        self.remove(name)
        self.attach(Adapter(name, old.config, task, old.built, head, new_manifest(self.base, task, old.config)))

    def set_task(self, name: str, task: Task) -> None:
        """Give an adapter other settings of its task, with the labels that it has."""
        adapter = self.adapter(name)
        adapter.task = task
        adapter.manifest = adapter.manifest.model_copy(update={"task": task.describe()})

    def add_labels(self, name: str, labels: Sequence[str], *, seed: int = 0) -> None:
        """Give an adapter more labels after its own, each with a fresh row of the head.

        What was known of its answers is forgotten: metrics, temperature, thresholds. Raises AdapterError for a label
        that it has, and for an adapter without a head.
        """
        old = self.adapter(name)
        known = (*(old.labels or ()), *labels)
        if not old.head or len(set(known)) < len(known):
            raise AdapterError(
                say("adapter {name!r} cannot get the labels {labels}", name=name, labels=listing(labels))
            )
        task = with_labels(old.task, known)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = grown(old.head, len(known), NEW_ROWS_STD)
        self.remove(name)
        self.attach(Adapter(name, old.config, task, old.built, head, new_manifest(self.base, task, old.config)))

    @classmethod
    def open(
        cls,
        *folders: str | Path,
        model: str | None = None,
        task: Task | None = None,
        dtype: Dtype = "auto",
        device: str = "auto",
        quantize: Quantize | Literal["none"] | None = None,
        trust_remote_code: bool = False,
        allow_base_mismatch: bool = False,
    ) -> Deck:
        """Open saved adapters on the base that they name: `Deck.open("adapters/law", "adapters/mail")`.

        Each adapter is named after its folder, or after the run folder that contains it; a second one of the same name
        gets a number. The base is `model`, else the one that the first folder names; `quantize` None quantizes it as it
        was for the first adapter's training, "none" never. `task` is what a folder that names no task is for, by
        default classification. Raises AdapterFileError for a folder that holds no adapter, ConfigError where no base is
        named, BaseMismatchError where an adapter was trained on another base (unless `allow_base_mismatch`), and what
        `load` raises.
        """
        places = [Path(folder).expanduser() for folder in folders]
        if not places:
            raise ConfigError(say("there is no adapter folder to open; give one or more"))
        for folder in places:
            detect_format(folder)
        reference = model or base_of(places[0])
        if not reference:
            raise ConfigError(say("{path} does not record its base model; name it with --model", path=places[0]))
        manifest = read_manifest(places[0])
        trained_on = cast("Quantize | None", manifest.base.quantize if manifest else None)
        deck = cls.load(
            reference,
            load_task(manifest.task) if manifest else task or load_task(DEFAULT_TASK),
            dtype=dtype,
            device=device,
            quantize=trained_on if quantize is None else None if quantize == "none" else quantize,
            trust_remote_code=trust_remote_code,
        )
        for folder, name in zip(places, distinct_names(places), strict=True):
            deck.load_adapter(folder, name, allow_base_mismatch=allow_base_mismatch)
        return deck

    def load_adapter(
        self,
        folder: str | Path,
        name: str | None = None,
        *,
        allow_base_mismatch: bool = False,
        any_base: bool | None = None,
    ) -> str:
        """Load an adapter from a PEFT, AdapterHub or Tunedeck folder and return its name (the folder's by default).

        Raises AdapterFileError for a damaged folder, UnsupportedKindError for a kind we lack, BaseMismatchError for
        another base than it was trained on, unless `allow_base_mismatch` (called `any_base` in earlier versions).
        """
        if any_base is not None:
            warnings.warn(renamed("any_base", "allow_base_mismatch"), stacklevel=2)
            allow_base_mismatch = any_base
        folder = Path(folder).expanduser()
        name = folder.resolve().name if name is None else name
        self._check_name(name)
        self.attach(adapter_from_folder(self.base, self.task, folder, name, allow_base_mismatch=allow_base_mismatch))
        return name

    def attach(self, adapter: Adapter) -> None:
        """Put a built adapter at its sites; it answers from the next batch on."""
        adapter.to(next(self.model.parameters()).device).eval()
        with self.router.lock:
            self._check_name(adapter.name)
            self._sites.attach(adapter.name, adapter.placements())
            self._adapters[adapter.name] = adapter

    def save(self, name: str, folder: str | Path) -> None:
        """Save an adapter in its kind's format with a tunedeck.json; the folder appears whole or not at
        all.
        """
        adapter = self.adapter(name)
        probe = take_probe(self.base, adapter, lambda ids: self(ids, adapter=name), self.positions)
        stored = StoredAdapter(
            config=adapter.config,
            tensors=adapter.tensors(),
            head=adapter.head_tensors(),
            labels=adapter.labels,
            base_reference=self.base.reference,
            manifest=adapter.manifest.model_copy(update={"probe": probe}),
        )
        write_adapter(Path(folder).expanduser(), stored, model_names(self.base), name, self.task.peft_task)

    def check_probe(self, name: str) -> bool:
        """Compare an adapter's answer with the one stored when it was saved; False when it brings none.

        Raises AdapterFileError when they differ by more than the precisions of then and now explain.
        """
        return self.check_probes([name])[0]

    def check_probes(self, names: Sequence[str]) -> list[bool]:
        """Do what `check_probe` does for several adapters, in one mixed batch where their stored questions allow it."""
        with self.router.lock:
            adapters = [self.adapter(name) for name in names]
            return check_probes(self.base, adapters, lambda ids, names: self(ids, adapter=names))

    def freeze_for_inference(self, name: str) -> None:
        """Let an adapter answer only, no longer train or be saved: it takes less memory."""
        with self.router.lock:
            adapter = self.adapter(name)
            adapter.freeze_for_inference()
            self._sites.attach(name, adapter.placements())

    def remove(self, name: str) -> None:
        """Remove an adapter and free its memory; the base is untouched."""
        with self.router.lock:
            adapter = self.adapter(name)
            self._sites.detach(name, adapter.placements())
            del self._adapters[name]

    def predict(self, texts: Sequence[str], adapter: AdapterNames = None) -> list[Any]:
        """Answer each text by the task: one adapter name for all, or one per text; None is the base model, "auto" what
        `choose` returns.
        """
        if isinstance(texts, str):
            raise ConfigError(say("texts must be a list of texts, not one text"))
        return predicting(self.task).predict(self, texts, self._adapters_for(texts, adapter))

    def choose(self, texts: Sequence[Any], *, among: Sequence[str] | None = None) -> list[Choice]:
        """Return the adapter whose training texts are nearest to each text, of those loaded or `among` them.

        A text may be near to none of them, which its `near` tells; `predict` and the like refuse it with
        NoNearAdapterError. Adapters trained on another base, and those without centroids, from other programs or
        earlier versions, are never chosen.
        """
        if isinstance(texts, str):
            raise ConfigError(say("texts must be a list of texts, not one text"))
        manifests = {name: self.adapter(name).manifest for name in among or self._adapters}
        known = {
            name: one.centroids
            for name, one in manifests.items()
            if one.centroids is not None and one.base.fingerprint == self.base.fingerprint
        }
        return choose(text_vectors(self.base, self.router, texts), known)

    def __call__(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        adapter: AdapterNames = None,
    ) -> Any:
        """Return the transformers output for a batch, all tensors (batch, seq); `adapter` is one name or one per row.

        `logits` are for the caller's positions, (batch, seq, vocab) or (batch, labels), in the caller's order;
        labels that a row's adapter does not have are -inf. A bare model's `last_hidden_state` is (batch, seq, hidden).
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        inputs = Inputs(input_ids, mask, token_type_ids)
        with self.router.lock:  # an adapter that another thread removes stays until these rows are done
            grouping = self._grouping(self.adapters_of_rows(adapter, len(input_ids)))
            if grouping.order is not None:
                inputs = inputs.rows(grouping.order.to(input_ids.device))
            used = [self._adapters.get(segment.adapter or "") for segment in grouping.segments]
            output = run_segments(
                self.model,
                self.router,
                inputs,
                grouping.segments,
                [adapter.built.virtual_tokens if adapter else 0 for adapter in used],
                [adapter.built.prefix if adapter else None for adapter in used],
                [adapter.built.weights if adapter else {} for adapter in used],
                self.positions,
            )
        if grouping.inverse is None:
            return output
        answer = output[answer_name(output)]
        return with_answer(output, answer[grouping.inverse.to(answer.device)])

    def call(self, adapters: Sequence[str | None], inputs: Mapping[str, Any]) -> Any:
        """Return the model's output for inputs as given: virtual token ids and positions are the caller's.

        The rows are in `order`, and a full adapter with its tensors runs alone. A single name applies to
        all rows, however many.
        """
        with self.routed(adapters) as weights:
            return call_model(self.model, inputs, weights)

    @contextmanager
    def routed(self, adapters: Sequence[str | None]) -> Iterator[Mapping[str, nn.Parameter]]:
        """Route the rows of a batch to their adapters while the block runs, as `call` does; yields the tensors of a
        full adapter.
        """
        with self.router.lock:
            grouping = self._grouping(self.adapters_of_rows(adapters, len(adapters)))
            used = [self._adapters[segment.adapter] for segment in grouping.segments if segment.adapter is not None]
            weights = next((adapter.built.weights for adapter in used if adapter.built.weights), {})
            assert grouping.order is None
            assert not weights or len(grouping.segments) == 1
            with self.router.routed(grouping.segments):
                yield weights

    def order(self, adapters: Sequence[str | None]) -> list[int]:
        """Return row numbers as `call` takes them: the rows of an adapter are neighbours, and so are adapters of one
        kind.
        """
        order = self._grouping(adapters).order
        return list(range(len(adapters))) if order is None else order.tolist()

    def virtual_tokens(self, adapter: str | None) -> int:
        """Return the number of virtual tokens before the texts of an adapter."""
        return 0 if adapter is None else self.adapter(adapter).built.virtual_tokens

    def positions_before(self, adapter: str | None) -> int:
        """Return the number of positions before the texts of an adapter: its virtual tokens, or its prefix."""
        return 0 if adapter is None else self.adapter(adapter).built.positions_before

    @property
    def length_limit(self) -> int:
        """Return the longest sequence in tokens that the model's positions and its tokenizer allow."""
        positions = 1_000_000 if self.positions is None else self.positions
        return min(positions, self.tokenizer.model_max_length if self.tokenizer else positions)

    def text_limit(self, adapter: str | None, max_length: int | None = None) -> int:
        """Return how many tokens of text fit behind what the adapter puts before them, of `max_length` in all where it
        is given.
        """
        limit = self.length_limit if max_length is None else min(max_length, self.length_limit)
        return limit - self.positions_before(adapter)

    def generate(self, prompts: Sequence[Any], adapter: AdapterNames = None, sampling: Any = None) -> list[str]:
        """Return an answer to each prompt, a text or a list of {"role", "content"}; `sampling` is a td.Sampling, greedy
        by default.
        """
        return generating(self.task).generate(self, prompts, self._adapters_for(prompts, adapter), sampling)

    def stream(self, prompts: Sequence[Any], adapter: AdapterNames = None, sampling: Any = None) -> Iterator[Any]:
        """Yield the answers to prompts as Chunk(row, text, done) while they are generated."""
        return generating(self.task).stream(self, prompts, self._adapters_for(prompts, adapter), sampling)

    def embed(self, texts: Sequence[str], adapter: AdapterNames = None, *, as_query: bool = False) -> torch.Tensor:
        """Return vectors (texts, hidden), float32, on the CPU; `as_query` puts the query instruction before each
        text.
        """
        return embedding(self.task).embed(self, texts, self._adapters_for(texts, adapter), as_query=as_query)

    def merge(self, name: str, *, dequantize: bool = False) -> nn.Module:
        """Return a plain transformers model with the adapter in its weights; UnsupportedKindError where the kind cannot
        merge.

        A quantized base is refused with AdapterError unless `dequantize`; a warning says what that loses.
        """
        return merged_model(self.base, self.adapter(name), dequantize)

    def base_parts(self) -> tuple[BasePart, ...]:
        """Return parameters and bytes in memory of the base's linear layers, embeddings, head and the rest."""
        return base_parts(self.model, self.base.prefix)

    def summary(self, name: str) -> Summary:
        """Return sites, parameters and bytes of an adapter."""
        return summarise(self.base, self.adapter(name))

    def adapters_of_rows(self, adapter: AdapterNames, rows: int) -> list[str | None]:
        """Return one adapter name per row; UnknownAdapterError or ConfigError when the names do not fit."""
        names = [adapter] * rows if adapter is None or isinstance(adapter, str) else list(adapter)
        if len(names) != rows:
            raise ConfigError(
                say("{names} adapter names for {rows} rows; give one, or one per row", names=len(names), rows=rows)
            )
        if rows == 0:
            raise ConfigError(say("the batch is empty"))
        for name in set(names):
            if name is not None:
                self.adapter(name)
        return names

    def _adapters_for(self, texts: Sequence[Any], adapter: AdapterNames) -> list[str | None]:
        if adapter == AUTO and texts and AUTO not in self._adapters:
            return [*chosen_names(self.choose(texts), texts)]
        return self.adapters_of_rows(adapter, len(texts))

    def label_names(self, adapter: str | None) -> tuple[str, ...]:
        """Return the labels of an adapter, or those of the base model."""
        if adapter is not None:
            labels = self.adapter(adapter).labels
            if labels is None and has_labels(self.task):
                raise AdapterError(
                    say(
                        "adapter {name!r} has no labels yet; train it, or give it some with "
                        "deck.set_labels({name!r}, labels)",
                        name=adapter,
                    )
                )
            return labels or ()
        return bare_labels(self.base, self.task)

    def _grouping(self, adapters: Sequence[str | None]) -> Grouping:
        return group_rows(adapters, lambda name: None if name is None else self.adapter(name).config.kind)

    def _check_name(self, name: str) -> None:
        if not name:
            raise AdapterError(say("an adapter needs a name"))
        if name in self._adapters:
            raise AdapterError(
                say("an adapter {name!r} is loaded already; remove it first or choose another name", name=name)
            )
