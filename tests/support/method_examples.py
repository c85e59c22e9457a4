"""Settings of every method that the contract suite and the format tests run through, by model type."""

from __future__ import annotations

from collections.abc import Mapping

from tunedeck.methods.base import MethodConfig
from tunedeck.methods.bias.config import BiasConfig
from tunedeck.methods.bottleneck.config import BottleneckConfig
from tunedeck.methods.full.config import FullConfig
from tunedeck.methods.ia3.config import Ia3Config
from tunedeck.methods.lora.config import LoraConfig
from tunedeck.methods.prefix_tuning.config import PrefixTuningConfig
from tunedeck.methods.prompt_tuning.config import PromptTuningConfig

FAMILIES = (("bert", "classifier"), ("llama", "classifier"), ("llama", "causal"))

_EVERYWHERE: Mapping[str, Mapping[str, MethodConfig]] = {
    "lora": {
        "defaults": LoraConfig(),
        "all-linear": LoraConfig(r=3, lora_alpha=12, target_modules="all-linear"),
        "rslora": LoraConfig(r=4, use_rslora=True),
        "second layer": LoraConfig(r=2, layers_to_transform=(1,)),
        "dora": LoraConfig(r=4, target_modules="all-linear", use_dora=True),
    },
    "ia3": {
        "defaults": Ia3Config(),
        "outputs only": Ia3Config("all-linear", feedforward_modules=()),
    },
    "bottleneck": {
        "seq_bn": BottleneckConfig("seq_bn"),
        "double_seq_bn": BottleneckConfig("double_seq_bn"),
        "par_bn": BottleneckConfig("par_bn"),
        "attention only": BottleneckConfig("seq_bn", mh_adapter=True, output_adapter=False, reduction_factor=8),
        "parallel at both": BottleneckConfig("par_bn", mh_adapter=True, reduction_factor=4),
        "learned scaling": BottleneckConfig("par_bn", scaling="learned", reduction_factor=8),
        "channel scaling": BottleneckConfig("double_seq_bn", scaling="channel", non_linearity="gelu"),
        "first layer left out": BottleneckConfig("seq_bn", leave_out=(0,), non_linearity="tanh"),
        "a factor for each layer": BottleneckConfig("double_seq_bn", reduction_factor={"0": 4, "default": 16}),
    },
    "prompt_tuning": {
        "from the vocabulary": PromptTuningConfig(num_virtual_tokens=5),
        "from a text": PromptTuningConfig(4, "TEXT", "w10 w11 w12"),
        "at random": PromptTuningConfig(3, "RANDOM"),
    },
    "prefix_tuning": {
        "from the vocabulary": PrefixTuningConfig(num_virtual_tokens=5),
        "from a text": PrefixTuningConfig(4, "TEXT", "w10 w11 w12"),
        "at random": PrefixTuningConfig(3, "RANDOM"),
    },
    "bias": {"norms": BiasConfig("norms")},
    "full": {"all": FullConfig("all"), "top layer": FullConfig(1), "both layers": FullConfig(2)},
}
_BY_TYPE: Mapping[str, Mapping[str, Mapping[str, MethodConfig]]] = {
    "bert": {
        "lora": {
            "names": LoraConfig(target_modules=("query", "attention.output.dense")),
            "regular expression": LoraConfig(
                target_modules=r".*layer\.\d+\.(attention\.self\.(query|key)|output\.dense)"
            ),
            "patterns": LoraConfig(
                r=4,
                target_modules="all-linear",
                rank_pattern={"query": 2, r"layer\.1\.output\.dense": 6},
                alpha_pattern={"value": 3},
            ),
        },
        "prefix_tuning": {"as AdapterHub has it": PrefixTuningConfig(3, shift_positions=False)},
        "bias": {
            # The gradient of a key's bias is zero: it moves all scores of a query by the same.
            "both": BiasConfig(bias_modules=("query", "value", "dense")),
            "biases of values": BiasConfig("biases", bias_modules=("value",)),
        },
        "ia3": {
            "as PEFT has it": Ia3Config(("key", "value", "output.dense"), ("output.dense",)),
            "regular expressions": Ia3Config(r".*layer\.1\..*(value|output\.dense)", r".*\.output\.dense"),
        },
    },
    "llama": {
        "lora": {
            "names": LoraConfig(target_modules=("q_proj", "down_proj")),
            "regular expression": LoraConfig(target_modules=r".*layers\.\d+\.(self_attn\.[qk]_proj|mlp\.down_proj)"),
            "patterns": LoraConfig(
                r=4,
                target_modules="all-linear",
                rank_pattern={"q_proj": 2, r"layers\.1\.mlp\.down_proj": 6},
                alpha_pattern={"v_proj": 3},
            ),
        },
        "bias": {"defaults": BiasConfig()},
        "ia3": {"queries and gates": Ia3Config(("q_proj", "gate_proj"), ("q_proj",))},
    },
}


def examples(kind: str, model_type: str, form: str) -> dict[str, MethodConfig]:
    """The example settings of a method by name; none for a method that has not been given any."""
    found = {**_EVERYWHERE.get(kind, {}), **_BY_TYPE[model_type].get(kind, {})}
    return {**found, "head": FullConfig("head")} if kind == "full" and form == "classifier" else found
