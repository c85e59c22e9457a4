"""`tunedeck export peft | adapterhub`, and what `tunedeck adapters convert` shares with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunedeck.cli import options
from tunedeck.cli.console import tell
from tunedeck.core.i18n import say


def add_commands(app: typer.Typer) -> None:
    """Put these commands into `tunedeck export`."""
    app.command("peft", help=say("a folder that PEFT loads"))(peft)
    app.command("adapterhub", help=say("a folder that AdapterHub's adapters library loads"))(adapterhub)
    app.command("gguf-lora", help=say("a LoRA file for llama.cpp"))(gguf_lora)
    app.command("vllm", help=say("LoRA adapters with the command that serves them by vLLM"))(vllm)
    app.command("card", help=say("a model card (README.md) as the hub expects it"))(card)


def peft(
    adapter: options.AdapterFolder,
    out: options.NewFolder,
    model: options.Base = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """LoRA, (IA)³, norms and prompt tuning as PEFT keeps them."""
    convert_folder(adapter, out, "peft", model, trust_remote_code)


def adapterhub(
    adapter: options.AdapterFolder,
    out: options.NewFolder,
    model: options.Base = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Bottleneck adapters, and LoRA and (IA)³ where their places are AdapterHub's."""
    convert_folder(adapter, out, "adapterhub", model, trust_remote_code)


def gguf_lora(
    adapter: options.AdapterFolder,
    out: Annotated[Path, typer.Option("--out", help=say("new .gguf file"))],
    model: options.Base = None,
    dtype: Annotated[str, typer.Option(help="f32, f16, bf16")] = "f32",
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """LoRA without a head, on the architectures that llama.cpp's converter and this one agree on."""
    from tunedeck.export.gguf_lora import save_gguf_lora
    from tunedeck.export.standalone import open_adapter

    difference = save_gguf_lora(open_adapter(adapter, model, trust_remote_code=trust_remote_code), out, dtype)
    tell(
        say(
            "wrote {path}; read back, its products differ by at most {difference:.1e} of the largest value. "
            "Run it with: llama-server -m BASE.gguf --lora {path}",
            path=out,
            difference=difference,
        )
    )


def vllm(
    adapter: Annotated[list[Path], typer.Option("--adapter", help=say("adapter folder; once for each adapter"))],
    out: options.NewFolder,
    model: options.Base = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Write PEFT folders below one folder, with a serve.sh."""
    from tunedeck.export.standalone import open_adapter
    from tunedeck.export.vllm import SCRIPT, save_vllm
    from tunedeck.formats.folder import distinct_names

    named = dict(zip(distinct_names(adapter), adapter, strict=True))
    opened = {name: open_adapter(one, model, trust_remote_code=trust_remote_code) for name, one in named.items()}
    command = save_vllm(opened, out)
    tell(say("wrote {path}; {script} there runs, in that folder:", path=out, script=SCRIPT))
    print(command)


def card(
    adapter: options.AdapterFolder,
    out: Annotated[Path, typer.Option("--out", help=say("a folder for README.md, or a .md file"))],
    licence: Annotated[
        str | None, typer.Option("--licence", help=say("the adapter's licence; that of a bundled base by default"))
    ] = None,
) -> None:
    """Write the model card of a run in the hub's format."""
    from tunedeck.comparison.hindsight import cost_of
    from tunedeck.export.card import save_card
    from tunedeck.formats.manifest import read_manifest

    manifest = read_manifest(adapter)
    cost = cost_of(manifest.measurement) if manifest and manifest.measurement else None
    tell(say("wrote {path}; read it before you publish it", path=save_card(adapter, out, licence=licence, cost=cost)))


def convert_folder(source: Path, target: Path, to: str | None, model: str | None, trust_remote_code: bool) -> None:
    """Write an adapter in another form and say so."""
    from tunedeck.export.folders import convert_adapter
    from tunedeck.formats.folder import POOLED_FILE

    form = convert_adapter(source, target, to, model=model, trust_remote_code=trust_remote_code)
    tell(say("wrote {path} ({format}); read back, every tensor is the same", path=target, format=form))
    if (target / POOLED_FILE).exists():
        tell(
            say(
                "its head reads pooled states, which no classifier there does: {file} holds the head, and the rest is "
                "loaded onto the model without one; train with --pooling model for a head that is loaded with it",
                file=POOLED_FILE,
            )
        )
