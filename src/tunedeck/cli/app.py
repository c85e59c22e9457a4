"""The commands, gathered. Each is imported when it is called, not for the help of the others."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any, cast, final

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from tunedeck import __version__
from tunedeck.cli.examples import EXAMPLES
from tunedeck.cli.help_page import HelpCommand, HelpGroup, translate_help
from tunedeck.cli.usage import usage_message
from tunedeck.core.errors import UsageError
from tunedeck.core.i18n import say

HELP_ALL = "--help-all"
SHORTENED = ("train", "compare", "race", "plan", "deploy-cost", "serve")
"""Commands whose --help leaves out the less common options."""
RUN_COMMANDS = ("train", "compare", "race")
"""Commands with an option for every key of a run file but those in WITHOUT of their module."""
COMMANDS = {
    "demo": ("demo.demo", say("train four methods on real tweets, compare them and mix them in one batch")),
    "fetch": ("fetch.fetch_parts", say("fetch bundled models and data ahead of their first use")),
    "plan": ("plan.plan", say("estimate memory, time and cost of a run on every GPU before it starts")),
    "data": ("data.app", say("check data files before training")),
    "train": ("train.train", say("train an adapter from a run file or from flags")),
    "compare": ("compare.compare", say("train several methods on your data and report which one to use")),
    "race": ("race.race", say("find a good setting among many for a part of their cost, and train it")),
    "eval": ("evaluate.evaluate", say("evaluate saved adapters on your data")),
    "threshold": (
        "threshold.threshold",
        say("choose the probability from which an adapter answers, for a precision"),
    ),
    "label": ("label.app", say("choose texts to label next, and add them once they are labelled")),
    "predict": ("predict.predict", say("predict with saved adapters")),
    "chat": ("chat.chat", say("chat with a model and its adapters in the terminal")),
    "embed": ("embed.embed", say("compute embeddings of texts")),
    "adapters": ("adapters.app", say("list, show, convert and merge adapters")),
    "export": ("export.app", say("export adapters for other programs")),
    "serve": ("serve.serve", say("serve any number of adapters on one base over HTTP")),
    "ui": ("ui.ui", say("open a page to check data, train and try adapters")),
    "schema": ("schema.schema", say("print the JSON schema of run files, for editors")),
    "explain": ("explain.explain", say("explain a term, a method, a setting or an error code")),
    "doctor": ("doctor.doctor", say("check this machine: hardware, packages, what is missing")),
    "deploy-cost": ("deploy_cost.deploy_cost", say("estimate what serving a model costs a month, by GPU and load")),
}
"""The function of each command, or the app of a group, in tunedeck.cli; and its line in the help."""


@final
class Commands(HelpGroup):
    """The commands by name, and the one that is called whole."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that is called."""
        name, command, rest = super().resolve_command(ctx, args)
        return (name, *_with_help(loaded(name), ctx, rest)) if name else (name, command, rest)


def loaded(name: str) -> Any:
    """Return a command, imported and with all of its options, or a group with its commands."""
    place, text = COMMANDS[name]
    module_name, _, attribute = place.partition(".")
    module = import_module(f"tunedeck.cli.{module_name}")
    called: Any = getattr(module, attribute)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    if isinstance(called, typer.Typer):
        for one in called.registered_commands:
            one.epilog, one.cls = _epilog(f"{name} {one.name}"), HelpCommand
        alone.add_typer(called, name=name, help=text, cls=HelpGroup)
        return get_group(alone).commands[name]
    if name in RUN_COMMANDS:
        from tunedeck.cli.run_options import with_run_options  # loads pydantic

        called = with_run_options(called, module.WITHOUT)
    alone.command(name, help=text, epilog=_epilog(name), cls=HelpCommand)(called)
    return get_command(alone)


def _with_help(command: Any, ctx: Any, arguments: list[str]) -> tuple[Any, list[str]]:
    """Return a command and its arguments, with --help for --help-all, for which, as for completion, every option is
    shown.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    translate_help(command, ctx)
    if HELP_ALL in arguments[:end] or ctx.resilient_parsing:
        for one in command.params:
            one.hidden = False
    return command, ["--help" if argument == HELP_ALL else argument for argument in arguments[:end]] + arguments[end:]


app = typer.Typer(
    name="tunedeck",
    cls=Commands,
    help=say("Turn one frozen model into many specialists: fine-tune, compare and switch adapters on one base."),
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run() -> int:
    """Run the command in sys.argv and return its exit code; UsageError for a command line that is not understood."""
    try:
        return int(app(prog_name="tunedeck", standalone_mode=False) or 0)
    except typer.TyperException as error:
        text = cast(Any, error).format_message()  # the classes of Typer's errors are private
        context = getattr(error, "ctx", None)
        group = context.command if context and isinstance(context.command, TyperGroup) else None
        raise UsageError(usage_message(text, list(group.commands) if group else [])) from error


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tunedeck {__version__}")
        raise typer.Exit


@app.callback()
def _settings(
    lang: Annotated[str | None, typer.Option("--lang", help=say("language of messages: en or zh"))] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help=say("print the version"))
    ] = False,
) -> None:
    """Options before the command."""


def _epilog(command: str) -> str:
    example = say("Example: {command}", command=EXAMPLES[command])
    if command not in SHORTENED:
        return example
    return example + "\n\n" + say("All options: tunedeck {command} --help-all", command=command)


for _name, (_, _text) in COMMANDS.items():
    app.command(_name, help=_text)(lambda: None)  # in place of the command until it is called
