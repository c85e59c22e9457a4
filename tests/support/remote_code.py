"""Model folders that bring their own code: stand-ins for ChatGLM3, Qwen v1 and MiniCPM, with their modules' names and
shapes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

from support.tiny_models import LABELS, VOCAB, tiny_tokenizer

_SHARED = '''
import torch
from torch import nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput, SequenceClassifierOutput


def attend(q, k, v, mask):
    """(batch, seq, heads, size) each, mask (batch, seq); every token sees what stands before it."""
    k, v = (t.repeat_interleave(q.shape[2] // t.shape[2], dim=2) for t in (k, v))
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    seen = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril() & mask.bool()[:, None, None, :]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen | torch.eye(q.shape[2], dtype=torch.bool))
    return out.transpose(1, 2).flatten(2)


def last(hidden, mask):
    return hidden[torch.arange(len(hidden)), mask.sum(dim=1) - 1]
'''

_CHATGLM = (
    _SHARED
    + """

class ChatGLMConfig(PretrainedConfig):
    model_type = "chatglm"

    def __init__(self, num_layers=2, padded_vocab_size=120, hidden_size=64, ffn_hidden_size=64, kv_channels=16,
                 num_attention_heads=4, multi_query_group_num=2, add_qkv_bias=True, add_bias_linear=False, **kwargs):
        self.num_layers, self.padded_vocab_size, self.vocab_size = num_layers, padded_vocab_size, padded_vocab_size
        self.hidden_size, self.ffn_hidden_size, self.kv_channels = hidden_size, ffn_hidden_size, kv_channels
        self.num_attention_heads, self.multi_query_group_num = num_attention_heads, multi_query_group_num
        self.add_qkv_bias, self.add_bias_linear = add_qkv_bias, add_bias_linear
        super().__init__(**kwargs)


class SelfAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.q, self.kv, self.size = c.num_attention_heads, c.multi_query_group_num, c.kv_channels
        width = (self.q + 2 * self.kv) * self.size
        self.query_key_value = nn.Linear(c.hidden_size, width, bias=c.add_qkv_bias)
        self.dense = nn.Linear(self.q * self.size, c.hidden_size, bias=False)

    def forward(self, x, mask):  # (seq, batch, hidden), as ChatGLM has it
        q, k, v = self.query_key_value(x).split([n * self.size for n in (self.q, self.kv, self.kv)], dim=-1)
        q, k, v = (t.transpose(0, 1).unflatten(-1, (-1, self.size)) for t in (q, k, v))
        return self.dense(attend(q, k, v, mask).transpose(0, 1))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.dense_h_to_4h = nn.Linear(c.hidden_size, 2 * c.ffn_hidden_size, bias=False)
        self.dense_4h_to_h = nn.Linear(c.ffn_hidden_size, c.hidden_size, bias=False)

    def forward(self, x):
        gate, up = self.dense_h_to_4h(x).chunk(2, dim=-1)
        return self.dense_4h_to_h(F.silu(gate) * up)


class GLMBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(c.hidden_size)
        self.self_attention = SelfAttention(c)
        self.post_attention_layernorm = nn.RMSNorm(c.hidden_size)
        self.mlp = MLP(c)

    def forward(self, x, mask):
        x = x + self.self_attention(self.input_layernorm(x), mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Embedding(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.word_embeddings = nn.Embedding(c.padded_vocab_size, c.hidden_size)

    def forward(self, ids):
        return self.word_embeddings(ids).transpose(0, 1)


class GLMTransformer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.layers = nn.ModuleList(GLMBlock(c) for _ in range(c.num_layers))
        self.final_layernorm = nn.RMSNorm(c.hidden_size)

    def forward(self, x, mask):
        for layer in self.layers:
            x = layer(x, mask)
        return self.final_layernorm(x)


class ChatGLMPreTrainedModel(PreTrainedModel):
    config_class = ChatGLMConfig
    base_model_prefix = "transformer"


class ChatGLMModel(ChatGLMPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.embedding = Embedding(config)
        self.encoder = GLMTransformer(config)
        self.output_layer = nn.Linear(config.hidden_size, config.padded_vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.embedding.word_embeddings

    def forward(self, input_ids, attention_mask):
        return self.encoder(self.embedding(input_ids), attention_mask).transpose(0, 1)


class ChatGLMForConditionalGeneration(ChatGLMPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.transformer = ChatGLMModel(config)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, **kwargs):
        return CausalLMOutput(logits=self.transformer.output_layer(self.transformer(input_ids, attention_mask)))


class ChatGLMForSequenceClassification(ChatGLMPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.transformer = ChatGLMModel(config)
        self.classifier_head = nn.Linear(config.hidden_size, config.num_labels, bias=True)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, **kwargs):
        hidden = self.transformer(input_ids, attention_mask)
        return SequenceClassifierOutput(logits=self.classifier_head(last(hidden, attention_mask)))
"""
)

_QWEN = (
    _SHARED
    + """

class QWenConfig(PretrainedConfig):
    model_type = "qwen"

    def __init__(self, vocab_size=120, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, kv_channels=16,
                 intermediate_size=128, no_bias=True, tie_word_embeddings=False, **kwargs):
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        self.num_attention_heads, self.kv_channels = num_attention_heads, kv_channels
        self.intermediate_size, self.no_bias = intermediate_size, no_bias
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)


class QWenAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.size = c.kv_channels
        self.c_attn = nn.Linear(c.hidden_size, 3 * c.kv_channels * c.num_attention_heads)
        self.c_proj = nn.Linear(c.kv_channels * c.num_attention_heads, c.hidden_size, bias=not c.no_bias)

    def forward(self, x, mask):
        q, k, v = (t.unflatten(-1, (-1, self.size)) for t in self.c_attn(x).chunk(3, dim=-1))
        return self.c_proj(attend(q, k, v, mask))


class QWenMLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.w1 = nn.Linear(c.hidden_size, c.intermediate_size // 2, bias=not c.no_bias)
        self.w2 = nn.Linear(c.hidden_size, c.intermediate_size // 2, bias=not c.no_bias)
        self.c_proj = nn.Linear(c.intermediate_size // 2, c.hidden_size, bias=not c.no_bias)

    def forward(self, x):
        return self.c_proj(self.w1(x) * F.silu(self.w2(x)))


class QWenBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.ln_1, self.attn = nn.RMSNorm(c.hidden_size), QWenAttention(c)
        self.ln_2, self.mlp = nn.RMSNorm(c.hidden_size), QWenMLP(c)

    def forward(self, x, mask):
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class QWenPreTrainedModel(PreTrainedModel):
    config_class = QWenConfig
    base_model_prefix = "transformer"


class QWenModel(QWenPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        self.h = nn.ModuleList(QWenBlock(config) for _ in range(config.num_hidden_layers))
        self.ln_f = nn.RMSNorm(config.hidden_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.wte

    def forward(self, input_ids, attention_mask):
        x = self.wte(input_ids)
        for block in self.h:
            x = block(x, attention_mask)
        return self.ln_f(x)


class QWenLMHeadModel(QWenPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.transformer = QWenModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, **kwargs):
        return CausalLMOutput(logits=self.lm_head(self.transformer(input_ids, attention_mask)))
"""
)

_MINICPM = """
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM


class MiniCPMConfig(LlamaConfig):
    model_type = "minicpm"


class MiniCPMForCausalLM(LlamaForCausalLM):
    config_class = MiniCPMConfig
"""
CLASSES = {
    "chatglm": (_CHATGLM, "ChatGLMConfig", "ChatGLMForConditionalGeneration", "ChatGLMForSequenceClassification"),
    "qwen": (_QWEN, "QWenConfig", "QWenLMHeadModel", None),
    "minicpm": (_MINICPM, "MiniCPMConfig", "MiniCPMForCausalLM", None),
}
_SIZES: dict[str, dict[str, Any]] = {
    "chatglm": {},
    "qwen": {},
    "minicpm": {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
    },
}


def write_folder(folder: Path, model_type: str, form: str) -> Path:
    """A model folder whose code lies in it: config.json with an auto_map, the code, weights and a tokenizer."""
    code, config_class, causal, classifier = CLASSES[model_type]
    folder.mkdir(parents=True)
    (folder / f"modeling_{model_type}.py").write_text(code, encoding="utf-8")
    home = f"modeling_{model_type}"
    auto_map = {"AutoConfig": f"{home}.{config_class}", "AutoModelForCausalLM": f"{home}.{causal}"}
    if classifier:
        auto_map["AutoModelForSequenceClassification"] = f"{home}.{classifier}"
    config = {
        "model_type": model_type,
        "auto_map": auto_map,
        "pad_token_id": 0,
        "num_labels": len(LABELS),
        "architectures": [causal if form == "causal" else classifier],
        **_SIZES[model_type],
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    loaded = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
    auto = "AutoModelForCausalLM" if form == "causal" else "AutoModelForSequenceClassification"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, auto).from_config(loaded, trust_remote_code=True)
        state = {name: tensor + torch.randn_like(tensor) * 0.1 for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    tiny_tokenizer(model_type).save_pretrained(folder)
    return folder
