"""`tunedeck serve`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from tunedeck.cli import options
from tunedeck.cli.console import format_bytes, tell
from tunedeck.core.checks import one_of
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, say, say_plural
from tunedeck.serving.bounds import BYTES, Bounds, flag_of


def size(text: str | int) -> int:
    """Return bytes of `2GB`, `512MiB` or a plain number; ConfigError for anything else."""
    from pydantic import ByteSize, TypeAdapter, ValidationError  # --help does without it

    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise ConfigError(say("invalid size {text!r}: use e.g. 2GB, 512MiB or a number of bytes", text=text)) from None


def with_bounds(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with one flag for each bound of a server, which are handed to it as `bounds`."""
    signature = inspect.signature(command, eval_str=True)
    own = [one for one in signature.parameters.values() if one.name != "bounds"]

    @wraps(command)
    def called(**values: Any) -> None:
        bounds = Bounds(**{one.name: values.pop(one.name) for one in fields(Bounds) if one.name in values})
        command(**values, bounds=bounds)

    cast(Any, called).__signature__ = signature.replace(parameters=[*own, *map(_flag, fields(Bounds))])
    called.__annotations__ = {}
    return called


def _flag(bound: Field[Any]) -> inspect.Parameter:
    default: Any = bound.default
    of_bytes = bound.metadata["unit"] == BYTES
    option = typer.Option(
        flag_of(bound.name),
        help=bound.metadata["text"](),
        rich_help_panel=say("Bounds"),
        hidden=True,
        parser=size if of_bytes else None,
        metavar="SIZE" if of_bytes else None,
        show_default=format_bytes(default) if of_bytes else True,
    )
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(bound.name, kind, default=default, annotation=Annotated[type(default), option])


@with_bounds
def serve(
    adapters: Annotated[Path, typer.Option(help=say("the folder that holds the adapter folders"))],
    model: Annotated[
        str | None, typer.Option(help=say("base model (default: the one recorded in the adapters)"))
    ] = None,
    task: Annotated[
        str | None, typer.Option(help=say("classify, generate, embed, tag or score (default: the adapters' task)"))
    ] = None,
    host: Annotated[str, typer.Option(help=say("address to listen on"))] = "127.0.0.1",
    port: Annotated[int, typer.Option(help=say("port to listen on"), min=1, max=65535, metavar="PORT")] = 8000,
    api_key_file: Annotated[Path | None, typer.Option(help=say("TOML file with hashed API keys"))] = None,
    adapter_memory: Annotated[str, typer.Option(help=say("memory for adapters, such as 2GB"))] = "1GiB",
    kv_cache_memory: Annotated[
        str, typer.Option(help=say("memory for the keys and values of requests in flight"))
    ] = "1GiB",
    prompt_cache_memory: Annotated[
        str, typer.Option(help=say("memory for the keys and values of earlier prompts; 0MB keeps none"))
    ] = "256MiB",
    drain_timeout: Annotated[
        float,
        typer.Option(
            help=say("grace period in seconds for in-flight requests after SIGTERM"), min=0, metavar="SECONDS"
        ),
    ] = 45.0,
    name: Annotated[str | None, typer.Option(help=say("name of the base model in requests"))] = None,
    dtype: options.DtypeName = "auto",
    quantize: options.Quantize = None,
    backend: Annotated[
        str,
        typer.Option(help=say("inference backend: deck (PyTorch) or onnx (folders written by tunedeck export onnx)")),
    ] = "deck",
    precision: Annotated[
        str | None, typer.Option(help=say("with --backend onnx: float32 or int8; float32 by default"))
    ] = None,
    trust_remote_code: options.TrustRemoteCode = False,
    *,
    bounds: Bounds,
) -> None:
    """Answer requests over HTTP, each by the adapter that its `model` names, mixed in batches on one base."""
    from tunedeck.core.compat.inference_imports import import_for_inference

    import_for_inference()
    try:
        from tunedeck.server.run import ServerSettings, bind, open_onnx_service, open_service
        from tunedeck.server.run import serve as listen
    except ModuleNotFoundError as error:
        raise ConfigError(
            say("serving needs {package}; install it with: pip install 'tunedeck[serve]'", package=error.name)
        ) from error
    from tunedeck.serving.infer_base import task_and_base

    _check_backend(backend, precision, task, model, dtype, quantize, trust_remote_code)
    settings = ServerSettings(
        host,
        port,
        api_key_file,
        size(adapter_memory),
        size(kv_cache_memory),
        size(prompt_cache_memory),
        drain_timeout,
        bounds,
    )
    sockets = bind(settings)
    if backend == "onnx":
        service = open_onnx_service(adapters, precision or "float32", settings, name, task)
    else:
        chosen, reference, trained_on = task_and_base(adapters, task, model)
        deck = options.base_model(reference, chosen, dtype, quantize or trained_on, trust_remote_code)
        service = open_service(deck, adapters, settings, name)
    tell(
        say_plural(
            "serving {model} with {count} adapter on http://{host}:{port} (docs: /docs; adapter memory: {bytes})",
            "serving {model} with {count} adapters on http://{host}:{port} (docs: /docs; adapter memory: {bytes})",
            model=service.base,
            count=len(service.engine.store.names()),
            host=host,
            port=port,
            bytes=format_bytes(settings.adapter_bytes),
        )
    )
    listen(service, settings, sockets)


def _check_backend(
    backend: str,
    precision: str | None,
    task: str | None,
    model: str | None,
    dtype: str,
    quantize: str | None,
    trust_remote_code: bool,
) -> None:
    """Raise ConfigError for a backend or precision that is not there, and for flags that it would leave unheard."""
    from tunedeck.tasks.registry import view_of

    one_of("--backend", backend, ("deck", "onnx"))
    one_of("--precision", precision or "float32", ("float32", "int8"))
    if backend == "deck":
        unheard = {"--precision": precision}
    elif task is not None and view_of(task).onnx is None:
        raise ConfigError(say("ONNX exports answer with labels or vectors; leave out --backend onnx to generate text"))
    else:
        unheard = {
            "--model": model,
            "--dtype": None if dtype == "auto" else dtype,
            "--quantize": quantize,
            "--trust-remote-code": "yes" if trust_remote_code else None,
        }
    given = [option for option, value in unheard.items() if value is not None]
    if given:
        raise ConfigError(
            say(
                "{options} has no meaning with --backend {backend}; leave it out",
                options=listing(given),
                backend=backend,
            )
        )
