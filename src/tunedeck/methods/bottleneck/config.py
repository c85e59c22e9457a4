"""The bottleneck adapter's hyper-parameters, by AdapterHub's names and with its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from tunedeck.core.checks import one_of
from tunedeck.core.errors import ArchitectureError, ConfigError, TargetError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.core.model_spec import BlockSites, ModelSpec
from tunedeck.core.settings import Help
from tunedeck.core.values import check_finite
from tunedeck.methods.base import SearchSpace, Trains

# Defaults of SeqBnConfig, DoubleSeqBnConfig and ParBnConfig in adapters 1.3.0, configuration/adapter_config.py.
KINDS: Mapping[str, Mapping[str, Any]] = {
    "seq_bn": {
        "mh_adapter": False,
        "output_adapter": True,
        "reduction_factor": 16.0,
        "non_linearity": "relu",
        "original_ln_before": True,
        "is_parallel": False,
        "scaling": 1.0,
        "init_weights": "bert",
    },
    "double_seq_bn": {
        "mh_adapter": True,
        "output_adapter": True,
        "reduction_factor": 16.0,
        "non_linearity": "swish",
        "original_ln_before": False,
        "is_parallel": False,
        "scaling": 1.0,
        "init_weights": "bert",
    },
    "par_bn": {
        "mh_adapter": False,
        "output_adapter": True,
        "reduction_factor": 2.0,
        "non_linearity": "relu",
        "original_ln_before": False,
        "is_parallel": True,
        "scaling": 4.0,
        "init_weights": "mam_adapter",
    },
}
OLD_NAMES = {"pfeiffer": "seq_bn", "houlsby": "double_seq_bn", "parallel": "par_bn"}
NON_LINEARITIES = ("relu", "swish", "gelu", "gelu_new", "gelu_orig", "silu", "tanh", "sigmoid", "leakyrelu", "linear")


@dataclass(frozen=True, slots=True)
class BottleneckConfig:
    """Bottleneck hyper-parameters: a kind, and settings that differ from its defaults.

    `name` is seq_bn, double_seq_bn or par_bn (or AdapterHub's older pfeiffer, houlsby, parallel). A field left at None
    takes the kind's default. `reduction_factor` may be a mapping from layer index (as text) to factor, with "default".
    `scaling` is a number, "learned" or "channel". `leave_out` lists layers without an adapter.
    Raises ConfigError for values out of range.
    """

    kind: ClassVar[str] = "bottleneck"
    layer_module: ClassVar[str] = "tunedeck.methods.bottleneck.layer"
    stored_as: ClassVar[str] = "adapterhub"
    mergeable: ClassVar[bool] = False
    short_names: ClassVar[Mapping[str, Mapping[str, Any]]] = {name: {"name": name} for name in (*KINDS, *OLD_NAMES)}
    quantized_name: ClassVar[str | None] = None
    search_space: ClassVar[SearchSpace | None] = SearchSpace("reduction_factor", (2, 4, 8, 16, 32))
    learning_rate: ClassVar[float] = 2e-3
    learning_rates: ClassVar[tuple[float, float]] = (5e-4, 5e-3)
    trains: ClassVar[Trains] = "adapter"
    virtual_tokens: ClassVar[int] = 0

    name: Annotated[
        str, Help(say("seq_bn, double_seq_bn or par_bn: which places, and the defaults of what follows"))
    ] = "seq_bn"
    reduction_factor: Annotated[
        float | Mapping[str, float] | None, Help(say("bottleneck width: hidden size / this"))
    ] = None
    non_linearity: Annotated[str | None, Help(say("activation function: relu, gelu, swish, ..."))] = None
    scaling: Annotated[float | str | None, Help(say("factor on the output: a number, learned or channel"))] = None
    leave_out: Annotated[tuple[int, ...], Help(say("layers without an adapter, from 0"))] = ()
    dropout: Annotated[float, Help(say("dropout of the adapter's output"))] = 0.0
    mh_adapter: Annotated[bool | None, Help(say("an adapter after the attention block"))] = None
    output_adapter: Annotated[bool | None, Help(say("an adapter after the feed-forward block"))] = None
    original_ln_before: Annotated[bool | None, Help(say("apply the layer's normalisation before the adapter"))] = None
    is_parallel: Annotated[bool | None, Help(say("the adapter reads the block's input, in parallel to it"))] = None
    init_weights: Annotated[str | None, Help(say("initial weights: bert or mam_adapter"))] = None

    def __post_init__(self) -> None:
        name = OLD_NAMES.get(self.name, self.name)
        if name not in KINDS:
            known = [*KINDS, *OLD_NAMES]
            raise ConfigError(
                say("unknown bottleneck kind {name!r}", name=self.name)
                + nearest(self.name, known)
                + say("; allowed: {known}", known=listing(known))
            )
        object.__setattr__(self, "name", name)
        for key, default in KINDS[name].items():
            if getattr(self, key) is None:
                object.__setattr__(self, key, default)
        self._check()

    def _check(self) -> None:
        check_finite(self)
        one_of("non_linearity", self.non_linearity, NON_LINEARITIES)
        one_of("init_weights", self.init_weights, ("bert", "mam_adapter"))
        if isinstance(self.scaling, str):
            one_of("scaling", self.scaling, ("learned", "channel"))
        if not 0 <= self.dropout < 1:
            raise ConfigError(
                say("{name} must be at least 0 and below 1, got {value}", name="dropout", value=self.dropout)
            )
        if not (self.mh_adapter or self.output_adapter):
            raise ConfigError(say("mh_adapter and output_adapter are both off; nothing would be trained"))
        factors = self.reduction_factor
        for factor in factors.values() if isinstance(factors, Mapping) else (factors,):
            if factor is None or factor <= 0:
                raise ConfigError(say("reduction_factor must be above 0, got {value}", value=factor))

    def size(self, layer: int, hidden_size: int) -> int:
        """Return the bottleneck's width in a layer: hidden / reduction_factor, rounded down, at least 1."""
        factors = self.reduction_factor
        if isinstance(factors, Mapping):
            factor = factors.get(str(layer), factors.get("default"))
            if factor is None:
                raise ConfigError(
                    say("reduction_factor has neither a value for layer {layer} nor a default", layer=layer)
                )
        else:
            assert factors is not None
            factor = factors
        return max(1, int(hidden_size // factor))

    def blocks(self, spec: ModelSpec) -> list[tuple[int, str, BlockSites]]:
        """Return (layer, "attention" or "ffn", sites) for every adapter, in model order.

        Raises ArchitectureError where the architecture's sites are not known, TargetError where `leave_out` names a
        layer that is not there.
        """
        missing = [layer for layer in self.leave_out if not 0 <= layer < spec.num_layers]
        if missing:
            raise TargetError(
                say(
                    "leave_out names layers {missing}; the model has layers 0 to {last}",
                    missing=listing(missing),
                    last=spec.num_layers - 1,
                )
            )
        if spec.attention is None or spec.ffn is None:
            raise ArchitectureError(
                say(
                    "bottleneck adapters are not supported on {model_type} models; use lora", model_type=spec.model_type
                )
            )
        chosen = [("attention", spec.attention)] if self.mh_adapter else []
        chosen += [("ffn", spec.ffn)] if self.output_adapter else []
        layers = [layer for layer in range(spec.num_layers) if layer not in self.leave_out]
        return [(layer, block, sites) for layer in layers for block, sites in chosen]

    def count_parameters(self, spec: ModelSpec) -> int:
        """Return 2·H·d + d + H for every adapter of width d, plus a learned scaling."""
        hidden = spec.hidden_size
        extra = {"learned": 1, "channel": hidden}.get(str(self.scaling), 0)
        widths = [self.size(layer, hidden) for layer, _, _ in self.blocks(spec)]
        return sum(2 * hidden * d + d + hidden + extra for d in widths)

    def lowest_layer(self, spec: ModelSpec) -> int:
        """Return the lowest layer with an adapter."""
        return min((layer for layer, *_ in self.blocks(spec)), default=spec.num_layers)

    def kept_bytes(self, spec: ModelSpec, number_bytes: int, *, float32_inputs: bool) -> int:
        """Return input and output of every adapter's two projections: H and d numbers, twice."""
        hidden = spec.hidden_size
        return 2 * number_bytes * sum(hidden + self.size(layer, hidden) for layer, *_ in self.blocks(spec))

    def forward_overhead(self, spec: ModelSpec) -> float:
        """Return no overhead: not measured, the two products are thin."""
        return 0.0
