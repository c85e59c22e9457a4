"""Load a base model: frozen, in eval mode, in the precision and with the attention that suit the machine."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch import nn
from transformers.utils import logging as transformers_logging

from tunedeck.core.compat.torch import MetaWithoutSympy
from tunedeck.core.errors import ModelError, TargetError
from tunedeck.core.i18n import say
from tunedeck.core.model_spec import ModelSpec
from tunedeck.methods.packed_embedding import PackedEmbedding, packed_embeddings
from tunedeck.models.packed_folder import leave_out_words, put_packed_words
from tunedeck.models.precision import Dtype, choose_attention, choose_device, choose_dtype, stored_dtype
from tunedeck.models.quantize import Quantize, check_scheme, quantize_linears
from tunedeck.models.source import ModelSource, find_model, hub_help, is_only_cached
from tunedeck.models.unpacked import unpacked

_SAMPLES_PER_TENSOR = 1024


@dataclass(frozen=True, slots=True)
class LoadedBase:
    """A frozen base model and what is known of it."""

    model: nn.Module
    tokenizer: Any
    """A transformers tokenizer, or None when the folder has none."""
    reference: str
    prefix: str
    spec: ModelSpec | None
    untrained: tuple[str, ...]
    """Parameters that the checkpoint does not carry: the head of a plain encoder, for example."""
    fingerprint: str
    quantize: Quantize | None = None
    """Quantization of its linear layers, None without."""

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision the base computes in: that of its weights, or of the unquantized ones."""
        return next(p.dtype for p in self.model.parameters() if p.is_floating_point())

    @property
    def layers(self) -> nn.ModuleList | None:
        """Return the base's numbered layers, bottom first; None for an architecture that is not known."""
        if self.spec is None:
            return None
        try:
            found = self.model.get_submodule(self.spec.layers_path(self.prefix))
        except AttributeError:  # a model's code may build a known model type from other modules
            return None
        return found if isinstance(found, nn.ModuleList) else None


def load_base(
    reference: str,
    auto_class: str,
    *,
    num_labels: int | None = None,
    dtype: Dtype = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    quantize: Quantize | None = None,
) -> LoadedBase:
    """Load `reference` with a transformers auto class such as "AutoModelForCausalLM".

    `quantize` quantizes the linear layers, from the checkpoint's precision and after the fingerprint was
    taken, one after another: a safetensors file is mapped, not read, so that no more memory is needed than in the end.
    `dtype` "checkpoint" is the precision its config names. `num_labels` sizes the base's head when the checkpoint
    brings none. The same seedless start every time: tensors that the checkpoint lacks are drawn with seed 0. Raises
    ModelError when the model cannot be found or loaded.
    """
    check_scheme(quantize)
    source = find_model(reference)
    place = choose_device(device)
    is_gguf = source.gguf_file is not None
    chosen = None if dtype == "checkpoint" else choose_dtype(dtype, place)
    with (
        _quietly(),
        _translate_errors(source, trust_remote_code),
        torch.random.fork_rng(devices=[]),
        MetaWithoutSympy(),
    ):
        if chosen is not None:
            source = unpacked(source, auto_class, chosen)
        options = _options(source, trust_remote_code)
        torch.manual_seed(0)
        config = transformers.AutoConfig.from_pretrained(source.location, **options)
        if num_labels is not None and not _brings_head(config, auto_class):
            config.num_labels = num_labels
        chosen = chosen or stored_dtype(config)
        auto, folder = getattr(transformers, auto_class), Path(source.location)
        packed = leave_out_words(folder, auto, config)
        model, report = auto.from_pretrained(
            source.location,
            config=config,
            dtype=chosen if quantize is None or is_gguf else "auto",
            attn_implementation=choose_attention(chosen, place),
            output_loading_info=True,
            **packed,
            **options,
        )
        if packed:
            put_packed_words(model, folder, chosen, report["missing_keys"])
        tokenizer = _tokenizer(source, options)
    if report["mismatched_keys"]:
        raise ModelError(say("{model}: its tensors have other shapes than its config", model=reference))
    model.requires_grad_(False).eval()
    _settle_padding(model, tokenizer)
    untrained = tuple(sorted(report["missing_keys"]))
    prefix = _prefix(model)
    taken = fingerprint(model, untrained)
    if quantize is None:
        model.to(place)
    else:
        quantize_linears(model, prefix, quantize, chosen, place)
    return LoadedBase(model, tokenizer, reference, prefix, _spec(model), untrained, taken, quantize)


def load_skeleton(reference: str, auto_class: str, *, trust_remote_code: bool = False) -> LoadedBase:
    """Return a base without its weights, from its config alone: the modules are on torch's meta device, the fingerprint
    is empty.

    Raises ModelError when the config cannot be found or read.
    """
    source = find_model(reference)
    options = _options(source, trust_remote_code)
    with _quietly(), _translate_errors(source, trust_remote_code), torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(source.location, **options)
        model = getattr(transformers, auto_class).from_config(config, trust_remote_code=trust_remote_code)
    prefix = _prefix(model)
    return LoadedBase(model.eval(), None, reference, prefix, _spec(model), (), "")


def keep_in_memory(model: nn.Module) -> None:
    """Copy weights on the CPU, one after another, into separate memory.

    safetensors maps a file whose precision is the model's: shortening that file ends the process (SIGBUS). What
    is mapped counts as the process's memory as well, so that a copy takes no more of it; only other processes do not
    share it.
    """
    copied: dict[tuple[object, ...], torch.Tensor] = {}
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())  # tied weights stay one
            if tensor.device.type == "cpu" and place not in copied:
                copied[place] = tensor.data.clone()
            tensor.data = copied.get(place, tensor.data)


def fingerprint(model: nn.Module, untrained: tuple[str, ...]) -> str:
    """Return sha256 over names, shapes and evenly spaced values (as bfloat16) of the base's tensors, head and pooler
    left out.

    The same for every task class and precision the base is loaded with, quantized or not: it is taken before.
    """
    digest = hashlib.sha256()
    base = cast(nn.Module, cast(Any, model).base_model)
    skipped = {name.removeprefix(f"{cast(Any, model).base_model_prefix}.") for name in untrained}
    packed = {f"{path}.weight": embedding for path, embedding in packed_embeddings(base).items()}
    tensors: dict[str, nn.Parameter | PackedEmbedding] = {**dict(base.named_parameters()), **packed}
    for name, tensor in sorted(tensors.items(), key=itemgetter(0)):
        if name in skipped or name.startswith("pooler."):
            continue
        if isinstance(tensor, PackedEmbedding):
            values = tensor.values_at(_sampled(tensor.numel()))
        else:
            values = tensor.detach().flatten()[_sampled(tensor.numel())]
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(values.to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def _sampled(numel: int) -> slice:
    """Return evenly spaced places in a flattened tensor, at most _SAMPLES_PER_TENSOR from its start."""
    step = max(1, numel // _SAMPLES_PER_TENSOR)
    return slice(0, min(numel, _SAMPLES_PER_TENSOR * step), step)


def _options(source: ModelSource, trust_remote_code: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if source.gguf_file is not None:
        options["gguf_file"] = source.gguf_file
    if is_only_cached(source):
        options["local_files_only"] = True
    return options


def _brings_head(config: Any, auto_class: str) -> bool:
    head = auto_class.removeprefix("AutoModel")
    return any(head in name for name in config.architectures or ())


def _tokenizer(source: ModelSource, options: dict[str, Any]) -> Any:
    has_one = source.gguf_file or not Path(source.location).is_dir() or _has_tokenizer(Path(source.location))
    return transformers.AutoTokenizer.from_pretrained(source.location, **options) if has_one else None


def _has_tokenizer(folder: Path) -> bool:
    names = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
    return any((folder / name).exists() for name in names)


def _settle_padding(model: Any, tokenizer: Any) -> None:
    """A padding token for tokenizers without one: the end token, as is usual for decoders; token 0 where there is
    none.
    """
    if tokenizer is not None and tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        own = None if tokenizer is None else tokenizer.pad_token_id
        model.config.pad_token_id = 0 if own is None else own


def _prefix(model: Any) -> str:
    return model.base_model_prefix if model.base_model_prefix in dict(model.named_children()) else ""


def _spec(model: Any) -> ModelSpec | None:
    try:
        return ModelSpec.from_config(model.config.to_dict())
    except TargetError:
        return None


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' load report and weight-loading bar; the deck says itself what matters."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def _translate_errors(source: ModelSource, trust_remote_code: bool) -> Iterator[None]:
    try:
        yield
    except (AttributeError, TypeError) as error:
        if not trust_remote_code:
            raise
        raise ModelError(
            say(
                "the code that comes with {model} does not run with transformers {version}: {reason}; "
                "it may be written for another version",
                model=source.reference,
                version=transformers.__version__,
                reason=error,
            )
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                say(
                    "{model} comes with code, which is not run unless you allow it; read it, then pass "
                    "trust_remote_code=True (--trust-remote-code)",
                    model=source.reference,
                )
            ) from error
        reason = str(error).strip().split("\n")[0]
        if Path(source.location).is_dir():
            text = say("cannot load the model in {path}: {reason}", path=source.location, reason=reason)
        else:
            text = say(
                "cannot load the model {model!r}: {reason}; {advice}",
                model=source.reference,
                reason=reason.removesuffix("."),
                advice=hub_help(source.reference),
            )
        raise ModelError(text) from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise ModelError(
            say("the weights in {path} are damaged: {reason}; fetch them again", path=source.location, reason=error)
        ) from error
