"""`tunedeck adapters list | show | convert | merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunedeck.cli import options
from tunedeck.cli.console import format_bytes, print_json, print_table, tell
from tunedeck.cli.export_adapter import convert_folder
from tunedeck.core.checks import one_of
from tunedeck.core.errors import AdapterFileError, ConfigError
from tunedeck.core.i18n import listing, say

app = typer.Typer()


@app.command("list", help=say("list the adapters below a folder"))
def list_adapters(
    root: Annotated[Path, typer.Argument(help=say("where to look"))] = Path("runs"),
    as_json: options.AsJson = False,
) -> None:
    """Every adapter folder below `root`, with what it says of itself."""
    from tunedeck.formats.folder import adapter_name, describe_folder

    if not root.is_dir():
        raise AdapterFileError(say("there is no folder {path}", path=root))
    marks = {file.parent for name in ("adapter_config.json", "tunedeck.json") for file in root.rglob(name)}
    found = [{"name": adapter_name(folder), **describe_folder(folder)} for folder in sorted(marks)]
    if as_json:
        print_json(found)
        return
    if not found:
        tell(say("there is no adapter in {path}", path=root))
        return
    print_table(
        say("Adapters in {path}", path=root),
        [say("folder"), say("method"), say("base"), say("accuracy"), say("on disk")],
        [
            [
                str(Path(one["folder"]).relative_to(root)),
                one["method"],
                one["base"] or "?",
                f"{one['metrics']['accuracy']:.3f}" if "accuracy" in one["metrics"] else "",
                format_bytes(one["bytes"]),
            ]
            for one in found
        ],
        numbers_from=3,
    )


@app.command("show", help=say("describe an adapter folder"))
def show(
    folder: Annotated[Path, typer.Argument(help=say("adapter folder"))],
    as_json: options.AsJson = False,
) -> None:
    """One adapter in full: settings, labels, metrics, data, base, size."""
    from tunedeck.formats.folder import describe_folder

    found = describe_folder(folder)
    if as_json:
        print_json(found)
        return
    rows = [[key, _shown(value)] for key, value in _flat(found).items()]
    print_table("", [say("what"), say("value")], rows, numbers_from=9)


@app.command("convert", help=say("rewrite an adapter as PEFT's or AdapterHub's folder"))
def convert(
    source: Annotated[Path, typer.Argument(help=say("adapter folder"))],
    target: Annotated[Path, typer.Argument(help=say("new folder"))],
    to: Annotated[
        str | None, typer.Option(help=say("peft, adapterhub or tunedeck (default: the method's usual format)"))
    ] = None,
    model: options.Base = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Write an adapter in another library's format with a tunedeck.json, and read it back."""
    if to is not None:
        one_of("--to", to, ("peft", "adapterhub", "tunedeck"))
    convert_folder(source, target, to, model, trust_remote_code)


@app.command("merge", help=say("combine LoRA adapters of one base into one"))
def merge(
    folders: Annotated[list[Path], typer.Argument(help=say("adapter folders, two or more"))],
    out: options.NewFolder,
    weights: Annotated[
        str | None, typer.Option(help=say("a weight for each adapter, with commas; equal shares by default"))
    ] = None,
    how: Annotated[
        str,
        typer.Option(
            help=say(
                "cat (the exact sum, the ranks add up), svd (the sum at the largest rank), linear, ties, dare_linear "
                "or dare_ties"
            )
        ),
    ] = "cat",
    density: Annotated[float, typer.Option(help=say("share of values that ties and dare keep"))] = 0.5,
    seed: Annotated[int, typer.Option(help=say("seed of the values that dare drops"))] = 0,
    model: options.Base = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Write one adapter whose update of the base is the weighted combination of the others'."""
    options.check_sources(folders, model)
    from tunedeck.export.combine import combine_adapters

    combine_adapters(
        folders,
        out,
        weights=None if weights is None else _numbers(weights),
        how=how,  # type: ignore[arg-type]
        density=density,
        seed=seed,
        model=model,
        trust_remote_code=trust_remote_code,
    )
    tell(say("wrote {path}; measure it: tunedeck eval --adapter {path} --data FILE", path=out))


def _numbers(text: str) -> list[float]:
    """Return the numbers of a list with commas; ConfigError for anything else."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(say("--weights takes numbers with commas, as 0.7,0.3; got {value!r}", value=text)) from None


def _shown(value: object) -> str:
    """Return a value of an adapter as people read it."""
    if value is None or isinstance(value, bool):
        return {None: say("none"), True: say("yes"), False: say("no")}[value]
    if isinstance(value, list):
        return listing(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _flat(value: dict[str, object], start: str = "") -> dict[str, object]:
    """Return nested keys as `a.b`."""
    flat: dict[str, object] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{start}{key}.") if isinstance(inner, dict) else {f"{start}{key}": inner}
    return flat
