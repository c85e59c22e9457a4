"""The options that several commands share, each declared once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.process import without_garbage_collection

if TYPE_CHECKING:
    from tunedeck.deck.deck import Deck
    from tunedeck.deck.task import Capability, Task

where = partial(typer.Option, rich_help_panel=say("Where and for how much"))

AdapterFolder: TypeAlias = Annotated[Path, typer.Option("--adapter", help=say("adapter folder"))]
AdapterFolders: TypeAlias = Annotated[
    list[Path] | None, typer.Option("--adapter", help=say("adapter folder; may be given several times"))
]
NewFolder: TypeAlias = Annotated[Path, typer.Option("--out", help=say("new folder"))]
Base: TypeAlias = Annotated[
    str | None, typer.Option("--model", help=say("base model (default: the one recorded in the adapter)"))
]
PlannedModel: TypeAlias = Annotated[
    str,
    typer.Option(
        "--model", help=say("a name such as qwen-7b, a hub id, a bundled: name, or the folder of a config.json")
    ),
]
Ray: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help=say("train on the workers of a Ray cluster: its address, auto, or local for this machine (extra ray)"),
    ),
]
DtypeName: TypeAlias = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16, float16")]
Quantize: TypeAlias = Annotated[
    str | None, typer.Option("--quantize", help=say("nf4, int8 or none (default: as the adapter was trained)"))
]
TrustRemoteCode: TypeAlias = Annotated[
    bool, typer.Option("--trust-remote-code", help=say("run code that comes with a model; off by default"))
]
AllowBaseMismatch: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--allow-base-mismatch",
        help=say("load the adapter even if the base model differs from the one it was trained on"),
    ),
]
TaskOfFolder: TypeAlias = Annotated[
    str, typer.Option("--task", help=say("task of an adapter folder that does not record one"))
]
DataFile: TypeAlias = Annotated[str | None, typer.Option("--file", help=say("a data file instead of texts"))]
TextColumn: TypeAlias = Annotated[str | None, typer.Option("--text", help=say("text column"))]
SecondTextColumn: TypeAlias = Annotated[
    str | None, typer.Option("--text-pair", help=say("column of the second text, where each example is a pair"))
]
LabelColumn: TypeAlias = Annotated[str | None, typer.Option("--label", help=say("label column"))]
Encoding: TypeAlias = Annotated[
    str, typer.Option("--encoding", help=say("encoding of the file, such as gb18030; auto detects it"))
]
MaxExamples: TypeAlias = Annotated[
    int | None,
    typer.Option("--max-examples", help=say("evaluate on at most this number of examples"), min=1),
]
Currency: TypeAlias = Annotated[str, where("--currency", help=say("CNY, USD, ..."))]
PriceList: TypeAlias = Annotated[str, where("--price-list", help=say("market, market-floor or reference"))]
PriceFile: TypeAlias = Annotated[
    Path | None, where("--prices", help=say("a price file that overrides the list"), hidden=True)
]
ExchangeRates: TypeAlias = Annotated[
    list[str] | None, where("--exchange-rate", help=say("what a currency costs, as USD=7.1"), hidden=True)
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help=say("print JSON"))]
AllRows: TypeAlias = Annotated[bool, typer.Option("--all", help=say("show every row"))]


def check_sources(adapters: Sequence[Path] = (), model: str | None = None, data: str | None = None) -> None:
    """Raise the error of an adapter folder, base model or data file that does not exist, before torch is loaded."""
    from tunedeck.data.table import check_reference
    from tunedeck.formats.manifest import check_folder
    from tunedeck.models.source import check_model

    for folder in adapters:
        check_folder(folder.expanduser())
    if data is not None:
        check_reference(data)
    if model is not None:
        check_model(model)


def check_task(folders: list[Path], capability: Capability, command: str) -> None:
    """Raise ConfigError, naming the right command, for an adapter whose task lacks what a command asks of it."""
    from tunedeck.formats.manifest import read_manifest
    from tunedeck.tasks.registry import view_of_values

    others: dict[Capability, str] = {"vectors": "embed", "text": "chat", "predictions": "predict"}
    for folder in folders:
        manifest = read_manifest(folder.expanduser())
        capabilities = [capability] if manifest is None else view_of_values(manifest.task).task.capabilities
        if manifest is not None and capability not in capabilities:
            raise ConfigError(
                say(
                    "{path} is an adapter for the task {task}, not for {command}; "
                    "use: tunedeck {other} --adapter {path}",
                    path=folder,
                    task=manifest.task.get("kind"),
                    command=command,
                    other=next(other for known, other in others.items() if known in capabilities),
                )
            )


def opened(
    folders: list[Path],
    model: str | None,
    dtype: str,
    quantize: str | None,
    trust_remote_code: bool,
    *,
    allow_base_mismatch: bool = False,
    task: str = "classify",
) -> Deck:
    """Return the deck that the options above ask for: the adapters on their base."""
    import tunedeck as td

    with without_garbage_collection():
        from tunedeck.tasks.registry import task_of

        hide_loading()
        return td.Deck.open(
            *folders,
            model=model,
            task=task_of({"kind": task}),
            dtype=dtype,  # type: ignore[arg-type]
            quantize=quantize,  # type: ignore[arg-type]
            trust_remote_code=trust_remote_code,
            allow_base_mismatch=allow_base_mismatch,
        )


def base_model(reference: str, task: Task, dtype: str, quantize: str | None, trust_remote_code: bool) -> Deck:
    """Return a deck without adapters, as the options above ask for it."""
    import tunedeck as td

    hide_loading()
    with without_garbage_collection():
        return td.Deck.load(
            reference,
            task,
            dtype=dtype,  # type: ignore[arg-type]
            quantize=None if quantize == "none" else quantize,  # type: ignore[arg-type]
            trust_remote_code=trust_remote_code,
        )


def hide_loading() -> None:
    """Hide transformers' progress bars, which would appear between a command's lines."""
    from transformers.utils import logging

    logging.disable_progress_bar()
