"""A folder that sentence-transformers loads with the same vectors: the base with an adapter in its weights, and how it
pools.

The files are those of sentence-transformers 6.2 and, in 1_Pooling/config.json and sentence_bert_config.json, of its
versions before 5 too: both read the older keys.
"""

from __future__ import annotations

import copy
from pathlib import Path

from tunedeck.core.errors import AdapterError
from tunedeck.core.i18n import say
from tunedeck.core.storage import replacing_folder, write_json
from tunedeck.deck.deck import Deck
from tunedeck.export.transformers_folder import empty_place, merged, no_bar, tokenizer_of
from tunedeck.tasks.embed.encoding import EncodingConfig
from tunedeck.tasks.embed.task import Embed

_POOLING_KEYS = {
    "first": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "last": "pooling_mode_lasttoken",
}
_MODULES = (
    ("", "sentence_transformers.models.Transformer"),
    ("1_Pooling", "sentence_transformers.models.Pooling"),
    ("2_Normalize", "sentence_transformers.models.Normalize"),
)


def save_sentence_transformers(deck: Deck, name: str, folder: str | Path) -> None:
    """Write an adapter merged into its base, with pooling, normalization and instructions, as a standalone model.

    The weights have the deck's precision: load the deck in float32 for the closest vectors. Raises UnsupportedKindError
    for kinds that cannot be merged, AdapterError for a deck of another task, StorageError when the folder is not empty.
    """
    task = deck.adapter(name).task
    if not isinstance(task, Embed):
        raise AdapterError(
            say(
                "adapter {name!r} is for the task {kind}; sentence-transformers loads adapters for embeddings only, "
                "of the task embed",
                name=name,
                kind=task.kind,
            )
        )
    target = empty_place(folder)
    instead = say(
        "sentence-transformers runs plain models only: train lora or full, or make the vectors here with deck.embed or "
        "tunedeck embed"
    )
    model = merged(deck, name, instead)
    tokenizer = copy.deepcopy(tokenizer_of(deck))
    query, document = (task.encoding(as_query=flag) for flag in (True, False))
    longest = min(query.max_length, deck.length_limit)
    with replacing_folder(target) as staging, no_bar():
        model.save_pretrained(staging)
        tokenizer.model_max_length = longest
        tokenizer.save_pretrained(staging)
        _write_settings(staging, query, document, model.config.hidden_size, longest)


def _write_settings(
    folder: Path, query: EncodingConfig, document: EncodingConfig, hidden_size: int, longest: int
) -> None:
    modules = _MODULES if query.normalize else _MODULES[:-1]
    listed = [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (path, kind) in enumerate(modules)]
    for path, _ in modules[1:]:
        (folder / path).mkdir()
    write_json(folder / "modules.json", listed)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": False})
    pooling = {key: way == query.pooling for way, key in _POOLING_KEYS.items()}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": hidden_size, **pooling})
    told = {
        "prompts": {"query": query.instruction, "document": document.instruction},
        "default_prompt_name": "document" if document.instruction else None,
        "similarity_fn_name": "cosine",
    }
    write_json(folder / "config_sentence_transformers.json", told)
