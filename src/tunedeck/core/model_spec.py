"""Derive module paths, shapes, parameter counts and sites of a model from its config.json only.

The facts are in architectures.toml, one row per model type; nothing here knows an architecture by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from tunedeck.core.errors import ConfigError, TargetError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.core.toml import parse_toml

_MERGED = ("config", "sizes")  # tables that a row adds to when it is like another; the rest it replaces


@dataclass(frozen=True, slots=True)
class Linear:
    """One linear layer: its full path in the model with a task head, its shape and whether it has a bias."""

    path: str  # 'bert.encoder.layer.0.attention.self.query'
    in_features: int
    out_features: int
    bias: bool


@dataclass(frozen=True, slots=True)
class BlockSites:
    """Where a bottleneck adapter sits around one sub-block (attention or feed-forward); paths relative to one layer.

    `norm` is the LayerNorm applied to h + x in a post-LN block, None in a pre-LN one.
    """

    input: str  # its first argument is x, what enters the sub-block: un-normalised wherever AdapterHub's is
    output: str  # its output, or the first of its tuple, is h, which is added to x
    norm: str | None
    adapterhub: str  # the part of an AdapterHub key between the layer and the adapter's name


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The architecture of one model; every count is a number of parameters, exact."""

    model_type: str
    hidden_size: int
    num_layers: int
    vocab_size: int
    num_heads: int
    query_size: int  # width of one layer's queries: heads times head size
    key_value_size: int  # width of its keys, and of its values
    ffn_size: int
    gated: bool  # the feed-forward part multiplies two branches of that width
    causal: bool  # a decoder, in which a position sees only earlier ones
    sequence_first: bool  # hidden states inside the layers are (seq, batch, hidden)
    takes_cache: bool  # its attention takes keys and values from outside, as transformers passes a cache
    first_position_from: (
        str | None
    )  # in the last layer: after this module positions are independent, and the classifier reads the first
    prefix: str  # transformers' base_model_prefix: 'bert', 'model', 'transformer'
    layers: str  # list of layers, relative to the base: 'encoder.layer', 'layers', 'h'
    embedding: str  # word embedding, relative to the base: 'embeddings.word_embeddings'
    norm: Literal["post", "pre"]
    attention: BlockSites | None  # None where bottleneck adapters are not known to work
    ffn: BlockSites | None
    lora_targets: tuple[str, ...]
    keys_values: tuple[str, ...]  # the linears in a layer that make keys and values, or the one that makes queries too
    adapterhub_lora: Mapping[
        str, str
    ]  # q, k, v, intermediate, output = path in a layer; empty where AdapterHub has no LoRA
    linears: tuple[Linear, ...]  # all linear layers, in model order
    embedding_parameters: int  # word, position and type embeddings and their norm
    layer_parameters: tuple[int, ...]  # one entry per layer
    final_parameters: int  # after the layers: final norm, pooler where the sequence classifier has one
    head_fixed_parameters: int  # of the sequence classifier's head
    head_parameters_per_label: int
    lm_head_parameters: int  # of the causal language model; 0 when tied to the embedding, and for encoders

    @property
    def base_parameters(self) -> int:
        """Return parameters of the base inside a sequence classifier, without its head."""
        return self.embedding_parameters + sum(self.layer_parameters) + self.final_parameters

    @property
    def key_value_heads(self) -> int:
        """Return the heads of one layer's keys, and of its values."""
        return self.key_value_size * self.num_heads // self.query_size

    @property
    def ffn_output(self) -> str:
        """Return the path in a layer of its last linear layer, which leads from the feed-forward block to the hidden
        size.
        """
        return self.linears[-1].path.removeprefix(f"{self.prefix}.{self.layers}.{self.num_layers - 1}.")

    def head_parameters(self, num_labels: int) -> int:
        """Return parameters of the modules that the sequence classifier of `num_labels` classes adds to the base."""
        return self.head_fixed_parameters + num_labels * self.head_parameters_per_label

    def layers_path(self, prefix: str) -> str:
        """Return the path of the list of layers in a model whose base is at `prefix`, "" for a base without a
        head.
        """
        return f"{prefix}.{self.layers}" if prefix else self.layers

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelSpec:
        """Derive the spec from a parsed config.json or from transformers' `config.to_dict()`.

        Raises TargetError for a model type without a row, ConfigError for a missing key or a value that is not a size.
        """
        row = _row(config)
        sizes = _sizes(row, config)
        linears = {path: _linear(shape, sizes) for path, shape in row["linears"].items()}
        in_linears = sum(inputs * outputs + outputs * bias for inputs, outputs, bias in linears.values())
        vectors = [_size(row["layer_vectors"], sizes)] * sizes["layers"]
        vectors[0] = _size(row.get("first_layer_vectors", row["layer_vectors"]), sizes)
        head_fixed = _size(row["head_parameters"], {**sizes, "labels": 0})
        return cls(
            model_type=config["model_type"],
            hidden_size=sizes["hidden"],
            num_layers=sizes["layers"],
            vocab_size=sizes["vocab"],
            num_heads=sizes["heads"],
            query_size=sizes["q"],
            key_value_size=sizes["kv"],
            ffn_size=sizes["ffn"],
            gated=bool(sizes["gated"]),
            causal=bool(sizes["causal"]),
            sequence_first=row.get("sequence_first", False),
            takes_cache=row.get("takes_cache", True),
            first_position_from=row.get("first_position_from"),
            prefix=row["prefix"],
            layers=row["layers"],
            embedding=row["embedding"],
            norm=row["norm"],
            attention=_sites(row.get("attention")),
            ffn=_sites(row.get("ffn")),
            lora_targets=tuple(row["lora_targets"]),
            keys_values=tuple(row["keys_values"]),
            adapterhub_lora=row.get("adapterhub_lora", {}),
            linears=tuple(
                Linear(f"{row['prefix']}.{row['layers']}.{index}.{path}", *shape)
                for index in range(sizes["layers"])
                for path, shape in linears.items()
            ),
            embedding_parameters=_size(row["embedding_parameters"], sizes),
            layer_parameters=tuple(in_linears + count for count in vectors),
            final_parameters=_size(row["final_parameters"], sizes),
            head_fixed_parameters=head_fixed,
            head_parameters_per_label=_size(row["head_parameters"], {**sizes, "labels": 1}) - head_fixed,
            lm_head_parameters=_size(row["lm_head_parameters"], sizes),
        )


def known_model_types() -> tuple[str, ...]:
    """Return the model types that have a row, in the order of the table."""
    return tuple(_table())


@cache
def _table() -> dict[str, dict[str, Any]]:
    text = files("tunedeck.core").joinpath("architectures.toml").read_text(encoding="utf-8")
    rows: dict[str, dict[str, Any]] = {}
    for model_type, row in parse_toml(text).items():
        like = rows[row["like"]] if "like" in row else {}
        merged = {name: {**like.get(name, {}), **row.get(name, {})} for name in _MERGED}
        rows[model_type] = {**like, **row, **merged}
    return rows


def _row(config: Mapping[str, Any]) -> dict[str, Any]:
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise ConfigError(
            say("the model's config names no model_type; it must be the config.json of a transformers model")
        )
    if model_type not in _table():
        raise TargetError(
            say(
                "models of type {model_type!r} are not known{hint} (known: {known}); "
                "LoRA works on any model if you name its target_modules",
                model_type=model_type,
                hint=nearest(model_type, _table()),
                known=listing(_table()),
            )
        )
    if config.get("add_cross_attention"):
        raise TargetError(
            say(
                "this {model_type!r} model has cross-attention layers, which are not known; "
                "LoRA works on any model if you name its target_modules",
                model_type=model_type,
            )
        )
    return _table()[model_type]


def _sizes(row: dict[str, Any], config: Mapping[str, Any]) -> dict[str, int]:
    """Return every name of [config] and [sizes] with its value for this model."""
    sizes: dict[str, int] = {}
    for name, entry in row["config"].items():
        key, *default = [entry] if isinstance(entry, str) else entry
        if config.get(key) is None and default:
            sizes[name] = _size(default[0], sizes)
        else:
            sizes[name] = _value(config, key)
    for name, size in row["sizes"].items():
        sizes[name] = _size(size, sizes)
    return sizes


def _value(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if value is None:
        raise ConfigError(
            say(
                "the config of this {model_type!r} model lacks {key!r}, without which its size is unknown",
                model_type=config["model_type"],
                key=key,
            )
        )
    if not isinstance(value, int) or (value < 1 and not isinstance(value, bool)):
        raise ConfigError(
            say("{key} of the model's config must be a whole number of 1 or more, got {value!r}", key=key, value=value)
        )
    return int(value)


def _size(size: int | str, sizes: Mapping[str, int]) -> int:
    """Evaluate a size of the table: a number, or terms joined by ' + ' of factors joined by ' * ' and ' // '."""
    if not isinstance(size, str):
        return int(size)
    return sum(_product(term.split(), sizes) for term in size.split(" + "))


def _product(words: list[str], sizes: Mapping[str, int]) -> int:
    value = _factor(words[0], sizes)
    for operator, word in zip(words[1::2], words[2::2], strict=True):
        assert operator in ("*", "//"), f"architectures.toml: unknown operator {operator!r}"
        value = value * _factor(word, sizes) if operator == "*" else value // _factor(word, sizes)
    return value


def _factor(word: str, sizes: Mapping[str, int]) -> int:
    return sizes[word] if word in sizes else int(word)


def _linear(shape: list[Any], sizes: Mapping[str, int]) -> tuple[int, int, bool]:
    inputs, outputs, bias = (_size(size, sizes) for size in shape)
    return inputs, outputs, bool(bias)


def _sites(table: dict[str, str] | None) -> BlockSites | None:
    return BlockSites(table["input"], table["output"], table.get("norm"), table["adapterhub"]) if table else None
