"""Generate an option for every key of a run file, and combine options and a run file into a run's values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial, wraps
from keyword import iskeyword
from pathlib import Path
from typing import Annotated, Any, TypeAlias, cast

import typer

from tunedeck.cli.console import tell
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, say
from tunedeck.core.settings import Setting, settings_of

RunFile: TypeAlias = Annotated[
    Path | None, typer.Argument(help=say("a YAML run file or a data file; flags override keys"))
]
Assignments: TypeAlias = Annotated[
    list[str] | None, typer.Option("--set", help=say("any other key, as training.warmup_ratio=0.1"))
]
SHOWN = frozenset(
    [
        "model",
        "data",
        "eval_data",
        "text",
        "label",
        "task",
        "max_length",
        "method",
        "r",
        "lora_alpha",
        "target_modules",
        "epochs",
        "batch_size",
        "learning_rate",
        "quantize",
    ]
)
"""Options that --help shows; --help-all shows the others too."""
RESERVED = ("name", "out")
"""Keys of a run itself: a method's or task's setting of that name gets no flag."""
KIND = "kind"
"""The key that names a method or a task in its group."""


def with_run_options(command: Callable[..., None], without: Collection[str] = ()) -> Callable[..., None]:
    """Return a command with an option for each key of a run file, which are handed to it as `flags`, by dotted key.

    `without` are the groups and keys that get none. Loads pydantic.
    """
    signature = inspect.signature(command, eval_str=True)
    own = [one for one in signature.parameters.values() if one.name != "flags"]
    options = dict(_options(without, {one.name for one in own}))

    @wraps(command)
    def called(**values: Any) -> None:
        flags = {key: values.pop(option.name) for key, option in options.items() if option.name in values}
        command(**values, flags={key: value for key, value in flags.items() if value is not None})

    cast(Any, called).__signature__ = signature.replace(parameters=[*own, *options.values()])
    called.__annotations__ = {}
    return called


def run_values(
    run_file: Path | None, flags: Mapping[str, Any], assignments: Sequence[str], stored: bool = False
) -> dict[str, Any]:
    """Return the plain values of a run: the run file's, over them the flags by dotted key, over them --set, and what
    the data tells. Raises ConfigError.

    `stored` is whether the file is that of a run folder, where earlier names of settings are not the user's mistake.
    """
    from tunedeck.training.config import override, parsed_assignments, read_run_file, stored_values
    from tunedeck.training.left_out import with_left_out

    values = read_run_file(run_file) if run_file else {}
    if stored:
        values = stored_values(values)
    for group in ("method", "task"):  # another method's keys would not fit
        if f"{group}.{KIND}" in flags:
            values = {**values, group: flags[f"{group}.{KIND}"]}
    rest = {key: value for key, value in flags.items() if not key.endswith(f".{KIND}")}
    return with_left_out(override(values, {**rest, **parsed_assignments(assignments)}), tell)


def names_or_pattern(text: str) -> str | list[str]:
    """`query,value` is a list of names; all-linear or anything with a character no name has is one string."""
    if text == "all-linear" or any(character in text for character in "*\\()[]|+^$?"):
        return text
    return [name.strip() for name in text.split(",")]


def described_settings() -> Iterator[tuple[str, Setting, str]]:
    """(dotted key, setting, text) of every key that has a flag; a method's settings are keys of `method`."""
    for _, group, setting, text in _settings():
        yield f"{group}.{setting.name}" if group else setting.name, setting, text


def _options(without: Collection[str], taken: set[str]) -> Iterator[tuple[str, inspect.Parameter]]:
    """Yield the option of each key; the first key of a name has it, others are left to --set."""
    for panel, group, setting, text in _settings():
        key = f"{group}.{setting.name}" if group else setting.name
        flag = setting.help.flag if setting.help and setting.help.flag else "--" + setting.name.replace("_", "-")
        name = group if setting.name == KIND else flag.removeprefix("--").replace("-", "_")
        name += "_" * iskeyword(name)
        if group in without or key in without or name in taken or (group and name in RESERVED):
            continue
        taken.add(name)
        yield key, _option(f"--{group}" if setting.name == KIND else flag, name, setting, text, panel)


def _settings() -> Iterator[tuple[str | None, str, Setting, str]]:
    """(panel, group, setting, text of the flag) of every key that has a flag."""
    from tunedeck.core.task_settings import CONFIGS
    from tunedeck.data.settings import DataSettings
    from tunedeck.methods.registry import METHODS, SHORT_NAMES
    from tunedeck.training.config import RunConfig, TrainingSettings

    data, method, loop = say("Data"), say("Method"), say("Training")
    base, *others = [one for one in settings_of(RunConfig) if one.plain is not None and one.name != "out"]
    yield None, "", base, _text(base)
    for one in settings_of(DataSettings):
        yield data, "data", one, _text(one)
    yield data, "task", Setting(KIND, str), listing(CONFIGS)
    for one, text in _of_kinds(CONFIGS):
        yield data, "task", one, text
    yield method, "method", Setting(KIND, str), listing([*METHODS, *SHORT_NAMES])
    for one, text in _of_kinds(METHODS):
        yield method, "method", one, text
    for one in settings_of(TrainingSettings):
        yield loop, "training", one, _text(one)
    for one in others:
        yield None if one.name == "name" else loop, "", one, _text(one)


def _of_kinds(configs: Mapping[str, type[Any]]) -> Iterator[tuple[Setting, str]]:
    """Yield each setting of methods or of tasks once, with its text and the kinds that have it."""
    fields: dict[str, tuple[Setting, list[str]]] = {}
    for kind, config in configs.items():
        for one in settings_of(config):
            fields.setdefault(one.name, (one, []))[1].append(kind)
    for one, kinds in fields.values():
        yield one, " ".join(filter(None, [_text(one), f"({listing(kinds)})"]))


def _text(setting: Setting) -> str:
    return setting.help.text if setting.help else ""


def _option(flag: str, name: str, setting: Setting, text: str, panel: str | None) -> inspect.Parameter:
    plain = setting.plain
    if plain is bool:
        names = {False: flag, True: f" /--no-{flag.removeprefix('--')}"}
        plain, flag = (bool, names[setting.default]) if setting.default in names else (None, flag)
    choices = "" if not setting.choices else f": {', '.join(setting.choices)}"
    option = typer.Option(
        flag,
        help=text + choices,
        rich_help_panel=panel,
        hidden=name not in SHOWN,
        parser=None if plain else partial(_value, setting, flag),
        metavar=None if plain else "VALUE",
    )
    kind: Any = plain or str
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=None, annotation=Annotated[kind | None, option])


def _value(setting: Setting, flag: str, text: str) -> Any:
    """Parse a value that is not a single word or number: a list by commas, else YAML."""
    import yaml

    if setting.is_list_or_pattern:
        return names_or_pattern(text)
    try:
        if setting.is_list:
            return [yaml.safe_load(part) for part in text.split(",")]
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(say("--set {key}: the value {value!r} is not YAML", key=flag, value=text)) from error
