"""Which model a plan is for: a name of the catalogue, or any transformers config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tunedeck.core.checks import HUB_ID
from tunedeck.core.errors import ModelError
from tunedeck.core.i18n import nearest, say
from tunedeck.core.model_spec import ModelSpec
from tunedeck.core.syntax import json_reason
from tunedeck.core.toml import parse_toml

LENGTH_KEYS = ("max_position_embeddings", "seq_length", "n_positions")


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """A model by its architecture alone."""

    name: str
    reference: str
    """Reference of the model for `tunedeck train --model`."""
    spec: ModelSpec
    max_tokens: int | None
    """The longest sequence its config allows."""
    source: str

    @property
    def parameters(self) -> int:
        """Return all parameters, the causal model's output layer included."""
        return self.spec.base_parameters + self.spec.lm_head_parameters


def known_models() -> tuple[str, ...]:
    """Return the catalogue's names."""
    return tuple(_catalogue())


def find_planned_model(reference: str) -> PlannedModel:
    """Return the model behind a catalogue name, a hub id or `bundled:` name of the catalogue, a folder or a
    config.json.

    Raises ModelError for an unknown name, ConfigError for a config without the keys its size depends on, and
    TargetError for an architecture that is not known.
    """
    wanted = reference.strip()
    plain = wanted.removeprefix("hf:").removeprefix("ms:").lower()
    for name, row in _catalogue().items():
        if plain in {name, row["hub"].lower(), *(other.lower() for other in row["also"])}:
            exact = wanted if "/" in wanted or wanted.startswith("bundled:") else row["hub"]
            return _planned(name, exact, row["config"], row["source"])
    path = Path(wanted).expanduser()
    config = path / "config.json" if path.is_dir() else path
    if config.is_file() and config.suffix == ".json":
        folder = config.parent.resolve()
        return _planned(folder.name, str(folder), _read_config(config), str(config))
    cached = _in_hub_cache(wanted.removeprefix("hf:"))
    if cached is not None:
        return _planned(wanted.rpartition("/")[2], wanted, _read_config(cached), str(cached))
    if path.is_dir():
        raise ModelError(
            say("{path} has no config.json; give a folder or a file with a transformers config", path=wanted)
        )
    names = [*_catalogue(), *(row["hub"] for row in _catalogue().values())]
    raise ModelError(
        say("the planner does not know the model {name!r}", name=wanted)
        + nearest(wanted, names)
        + say("; give the folder or the path of its config.json, or one of: {known}", known=", ".join(_catalogue()))
    )


def _planned(name: str, reference: str, config: Mapping[str, Any], source: str) -> PlannedModel:
    lengths = (config[key] for key in LENGTH_KEYS if isinstance(config.get(key), int))
    return PlannedModel(name, reference, ModelSpec.from_config(config), next(lengths, None), source)


def _in_hub_cache(hub_id: str) -> Path | None:
    """Return the config.json of a model that was downloaded from the hub before."""
    if not HUB_ID.fullmatch(hub_id):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub_id, "config.json")
    return Path(found) if isinstance(found, str) else None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            say("cannot read {path} as a model's config.json: {reason}", path=path, reason=json_reason(error))
        ) from error
    if not isinstance(config, dict):
        raise ModelError(say("{path} is not a model's config.json: it holds no keys", path=path))
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) and "hidden_size" in inner else config


@cache
def _catalogue() -> dict[str, dict[str, Any]]:
    return parse_toml(files("tunedeck.planner").joinpath("models.toml").read_text(encoding="utf-8"))
