"""Read the settings of a sentence-transformers model: pooling, normalization, prompts and maximum length.

Files: modules.json, <n>_Pooling/config.json, config_sentence_transformers.json and sentence_bert_config.json, in the
older form (`pooling_mode_mean_tokens`) and that of sentence-transformers 6.2 (`pooling_mode`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunedeck.core.compat.transformers import hub_file
from tunedeck.core.errors import ModelError
from tunedeck.core.hub import hub_is_reachable
from tunedeck.core.i18n import say
from tunedeck.core.pooling import Pooling
from tunedeck.core.syntax import json_reason
from tunedeck.models.source import find_model

POOLINGS: Mapping[str, Pooling] = {"mean": "mean", "cls": "first", "lasttoken": "last"}
"""Ours by sentence-transformers' names."""
_OLDER_NAMES = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max", "lasttoken": "lasttoken"}
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


@dataclass(frozen=True, slots=True)
class SentenceSettings:
    """How a base makes vectors; `lacking` names what of it we cannot do, and is empty where all is known."""

    pooling: Pooling | None = None
    normalize: bool = False
    query_prompt: str = ""
    document_prompt: str = ""
    max_length: int | None = None
    lacking: tuple[str, ...] = field(default=())


def sentence_settings(reference: str) -> SentenceSettings | None:
    """Return the settings next to a base model's weights, None for a model that is not of this kind.

    Raises ModelError when one of the files is damaged.
    """
    files = _Files(find_model(reference).location)
    modules = files.read("modules.json")
    if not isinstance(modules, list):
        return None
    kinds = {str(module["type"]).rpartition(".")[2]: str(module.get("path", "")) for module in modules}
    lacking = tuple(kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize"))
    pooling = files.table(f"{kinds['Pooling']}/config.json") if "Pooling" in kinds else {}
    names = _pooling_names(pooling)
    if len(names) != 1 or names[0] not in POOLINGS:
        lacking += (f"pooling {' + '.join(names) or None}",)
    if pooling.get("include_prompt") is False:
        lacking += ("include_prompt: false",)
    told = files.table("config_sentence_transformers.json")
    prompts = told.get("prompts") or {}
    usual = prompts.get(told.get("default_prompt_name")) or ""
    return SentenceSettings(
        pooling=POOLINGS.get(names[0]) if len(names) == 1 else None,
        normalize="Normalize" in kinds,
        query_prompt=prompts.get("query", usual),
        document_prompt=next((prompts[name] for name in _DOCUMENT_PROMPTS if name in prompts), usual),
        max_length=files.table("sentence_bert_config.json").get("max_seq_length"),
        lacking=lacking,
    )


def _pooling_names(config: Mapping[str, Any]) -> list[str]:
    """Return the poolings whose results are put side by side: one, nearly always."""
    named = config.get("pooling_mode")
    if named is not None:
        return [named] if isinstance(named, str) else list(named)
    start = "pooling_mode_"
    chosen = [key.removeprefix(start) for key, value in config.items() if key.startswith(start) and value]
    return [_OLDER_NAMES.get(name, name) for name in chosen]


@dataclass(frozen=True, slots=True)
class _Files:
    """JSON files of a model folder or a model on the hub."""

    location: str

    def table(self, name: str) -> dict[str, Any]:
        """Return a JSON object, empty if the file does not exist."""
        found = self.read(name)
        return found if isinstance(found, dict) else {}

    def read(self, name: str) -> Any:
        """Return the content of a file, None where there is none."""
        path = Path(self.location) / name if Path(self.location).is_dir() else self._from_hub(name)
        if path is None or not path.is_file():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise ModelError(say("{path} is damaged: {reason}", path=path, reason=json_reason(error))) from error

    def _from_hub(self, name: str) -> Path | None:
        return hub_file(self.location, name, local_files_only=not hub_is_reachable())
