"""A run, described by one YAML file; every key has a flag, and an unknown key names the nearest valid one.

The file is long because each setting has its type, its default and its description in one place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_validator,
)

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.core.run_length import DEFAULT_BATCH_SIZE
from tunedeck.core.settings import Help
from tunedeck.core.syntax import yaml_reason
from tunedeck.core.system_reason import system_reason
from tunedeck.core.task_settings import DEFAULT_TASK, TaskConfig, task_config, task_values
from tunedeck.core.validation import reason_of
from tunedeck.core.values import to_values
from tunedeck.data.files import is_known
from tunedeck.data.settings import DataSettings
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.registry import DEFAULT_METHOD, METHODS, SHORT_NAMES, config_of
from tunedeck.training.earlier_names import UNSAID, with_current_names


def stored_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a run that a run folder keeps, under present names: earlier versions wrote their own,
    without a note.
    """
    found = dict(values)
    if isinstance(found.get("training"), Mapping):
        training = with_current_names(found["training"], note=False)
        if "head_init" not in training:
            task = found.get("task", DEFAULT_TASK)
            described = {"kind": task} if isinstance(task, str) else task
            found["task"] = task_values(task_config(task).as_described(described))
        found["training"] = {**UNSAID, **training}
    if isinstance(found.get("jobs"), list):
        found["jobs"] = [stored_values(job) for job in found["jobs"]]
    return found


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingSettings(_Settings):
    """How an adapter is trained. Counts are in optimizer steps."""

    epochs: Annotated[
        float | None,
        Help(say("passes over the data; by default two, or more for small data, so that a run has 40 steps")),
        Field(gt=0),
    ] = None
    max_steps: Annotated[int | None, Help(say("stop after this number of steps")), Field(ge=1)] = None
    max_minutes: Annotated[
        float | None,
        Help(say("stop after this many minutes of training steps, evaluations not counted; the schedule ends then")),
        Field(gt=0),
    ] = None
    batch_size: Annotated[int, Help(say("examples per batch")), Field(ge=1)] = DEFAULT_BATCH_SIZE
    gradient_accumulation_steps: Annotated[
        int, Help(say("batches whose gradients are added up for one step")), Field(ge=1)
    ] = 1
    learning_rate: Annotated[float | None, Help(say("peak learning rate; each method has a default")), Field(gt=0)] = (
        None
    )
    head_learning_rate: Annotated[
        float | None,
        Help(
            say("peak learning rate of the head; by default that of the rest, but at most 0.002 with head_init: probe")
        ),
        Field(gt=0),
    ] = None
    head_init: Annotated[
        Literal["probe", "random"],
        Help(
            say(
                "what a new head begins as: the logistic regression on the frozen base's vectors, which is "
                "all that a head only needs, or random numbers"
            )
        ),
    ] = "probe"
    schedule: Annotated[
        Literal["cosine", "linear", "constant"], Help(say("course of the learning rate after the warmup"))
    ] = "cosine"
    warmup_ratio: Annotated[
        float | None,
        Help(say("share of the steps in which the learning rate rises; by default 0.06, in short runs up to 0.2")),
        Field(ge=0, lt=1),
    ] = None
    optimizer: Annotated[
        Literal["adamw", "adamw_8bit"],
        Help(say("adamw_8bit keeps its states in 8 bits (arXiv 2110.02861): a quarter of their memory")),
    ] = "adamw"
    weight_decay: Annotated[
        float, Help(say("decay of weights; biases, norms and virtual tokens have none")), Field(ge=0)
    ] = 0.01
    max_grad_norm: Annotated[
        float | None, Help(say("gradients are scaled down to this norm; null leaves them")), Field(gt=0)
    ] = 1.0
    seed: Annotated[int, Help(say("seed of initialisation and order"))] = 0
    sampler: Annotated[
        Literal["balanced"] | None,
        Help(
            say("which examples an epoch has: all once by default; balanced draws as many, every label equally often")
        ),
    ] = None
    eval_steps: Annotated[
        int | None,
        Help(
            say(
                "steps between evaluations; by default four to ten evaluations in a run, fewer where they would take "
                "more than about a fifth of its time; without early stopping one at the end of each epoch"
            )
        ),
        Field(ge=1),
    ] = None
    early_stopping_patience: Annotated[
        int | None,
        Help(say("stop after this many evaluations without improvement; 0 or null never stops early")),
        Field(ge=0),
    ] = 2
    gradient_checkpointing: Annotated[
        bool | int,
        Help(
            say(
                "recompute the inside of layers in the backward pass: less memory, a third more time; a number: of the "
                "lowest layers only"
            )
        ),
    ] = False
    metric_for_best_model: Annotated[
        str | None, Help(say("the metric that chooses the best state (default: the task's)"))
    ] = None
    checkpoint_every: Annotated[
        int | None,
        Help(say("steps between checkpoints; by default one after each evaluation and when ten minutes have passed")),
        Field(ge=1),
    ] = None
    keep_checkpoints: Annotated[int, Help(say("how many checkpoints are kept; 0 writes none")), Field(ge=0)] = 2
    trackers: Annotated[
        tuple[Literal["tensorboard", "mlflow", "trackio", "wandb"], ...],
        Help(say("where else the run's events are shown")),
    ] = ()

    @model_validator(mode="before")
    @classmethod
    def _earlier_names(cls, values: Any) -> Any:
        return with_current_names(values) if isinstance(values, Mapping) else values


def _method(value: Any) -> MethodConfig:
    """Return a method's config from its name, from `kind` and its settings, or as it is; raises what `config_of`
    raises.
    """
    if isinstance(value, tuple(METHODS.values())):
        return cast(MethodConfig, value)
    if not isinstance(value, str | Mapping):
        raise ConfigError(say("method: must be a name or a group of keys with kind, got {value!r}", value=value))
    values = {"kind": value} if isinstance(value, str) else dict(value)
    name = str(values.pop("kind", DEFAULT_METHOD)).replace("-", "_")
    fixed = dict(SHORT_NAMES.get(name, {"kind": name}))
    return config_of(str(fixed.pop("kind")), {**values, **fixed})


def _method_values(method: MethodConfig) -> dict[str, Any]:
    return {"kind": method.kind, **to_values(method)}


class RunConfig(_Settings):
    """One run: the content of a run file."""

    model: Annotated[str, Help(say("hub id, folder, .gguf file, ms: or bundled: name"))]
    data: Annotated[DataSettings, Help(say("what the adapter is trained and evaluated on"))]
    task: Annotated[
        TaskConfig,
        PlainValidator(task_config),
        PlainSerializer(task_values),
        Help(say("what is trained: a task's name, or its kind and settings")),
    ] = Field(default_factory=lambda: task_config(DEFAULT_TASK))
    method: Annotated[
        MethodConfig,
        PlainValidator(_method),
        PlainSerializer(_method_values),
        Help(say("how: a method's name, or its kind and settings")),
    ] = Field(default_factory=lambda: _method(DEFAULT_METHOD))
    training: Annotated[TrainingSettings, Help(say("the training loop"))] = TrainingSettings()
    start_from: Annotated[
        str | None,
        Help(
            say("continue from this adapter folder, with new labels if the data has them; method and task stay"),
            flag="--from",
        ),
    ] = None
    replay: Annotated[
        str | None, Help(say("earlier data to train on as well, so that it is not forgotten; needs --from"))
    ] = None
    folds: Annotated[
        int | None,
        Help(
            say(
                "cross-validate: train this number of adapters, each without one part of the texts, and measure each "
                "on its part"
            )
        ),
        Field(ge=2),
    ] = None
    refit_head: Annotated[
        bool,
        Help(
            say(
                "at the end, fit the head again to all examples, the held-out ones included; the metrics are those "
                "from before"
            )
        ),
    ] = False
    name: Annotated[str | None, Help(say("the adapter's name; that of the run folder by default"))] = None
    out: Annotated[str | None, Help(say("run folder"))] = None
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Help(say("precision of the base; auto is bfloat16 where the hardware has it")),
    ] = "auto"
    quantize: Annotated[
        Literal["nf4", "int8"] | None,
        Help(say("quantize the linear layers of the base; the adapter stays in float32")),
    ] = None
    device: Annotated[str, Help(say("auto, cpu, cuda or cuda:1"))] = "auto"
    trust_remote_code: Annotated[bool, Help(say("run code that comes with a model; off by default"))] = False


def read_run_file(path: Path) -> dict[str, Any]:
    """Return the plain values of a run file, or of the run on the data file, folder or `bundled:` name that `path` is.

    Raises ConfigError when the file is missing or is not a YAML mapping.
    """
    if str(path).startswith(("bundled:", "hf:")) or path.is_dir() or (is_known(path) and path.suffix != ".json"):
        return {"data": {"train": str(path)}}
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(say("there is no run file {path}", path=path)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            say("cannot read the run file {path}: {reason}", path=path, reason=system_reason(error))
        ) from error
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            say("the run file {path} is not YAML: {reason}", path=path, reason=yaml_reason(error))
        ) from error
    if isinstance(values, list) and path.suffix == ".json":
        return {"data": {"train": str(path)}}
    if not isinstance(values, dict):
        raise ConfigError(say("the run file {path} must hold keys such as model and data", path=path))
    return values


def override(values: dict[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with dotted keys set, as `training.epochs`; a flag that is None changes nothing."""
    changed = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    if isinstance(changed.get("training"), dict):
        changed["training"] = with_current_names(changed["training"])
    for dotted, value in flags.items():
        if value is None:
            continue
        *parents, last = dotted.split(".")
        if parents == ["training"]:
            (last,) = with_current_names({last: value})
        place = changed
        for parent in parents:
            if parent in ("method", "task") and isinstance(place.get(parent), str):
                place[parent] = {"kind": place[parent]}
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(say("{key} is not a group of keys", key=parent))
        place[last] = value
    return changed


def parsed_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Return `key=value` pairs as dotted keys and YAML values; ConfigError for anything else."""
    parsed: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise ConfigError(say("--set takes key=value, got {value!r}", value=assignment))
        try:
            parsed[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(say("--set {key}: the value {value!r} is not YAML", key=key, value=value)) from error
    return parsed


def run_config(values: Mapping[str, Any]) -> RunConfig:
    """Validate a run's plain values; ConfigError names the key, the value seen and the nearest valid key."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        known = list(_fields(path[:-1]))
        text = say("unknown key {key!r}", key=key) + nearest(path[-1], known)
        return text + say("; allowed: {known}", known=listing(known))
    if first["type"] == "missing":
        return say(
            "the key {key!r} is missing; set it in a run file or pass --{option}", key=key, option=key.partition(".")[0]
        )
    return say("{key}: {reason}, got {value!r}", key=key, reason=reason_of(first), value=first["input"])


def _fields(path: list[str]) -> Mapping[str, Any]:
    model: Any = RunConfig
    for part in path:
        annotation = model.model_fields[part].annotation
        model = next((t for t in get_args(annotation) if isinstance(t, type)), annotation)
    fields: Mapping[str, Any] = model.model_fields
    return fields
