"""The commands, gathered."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Any, cast, final

import typer
from typer.core import TyperGroup

from tunedeck import __version__
from tunedeck.cli import (
    adapters,
    chat,
    compare,
    data,
    demo,
    deploy_cost,
    doctor,
    embed,
    evaluate,
    explain,
    export,
    fetch,
    label,
    plan,
    predict,
    race,
    schema,
    serve,
    threshold,
    train,
    ui,
)
from tunedeck.cli.examples import EXAMPLES
from tunedeck.cli.help_style import markup_mode, set_help_style, translate_help
from tunedeck.cli.run_options import with_run_options
from tunedeck.cli.usage import usage_message
from tunedeck.core.errors import UsageError
from tunedeck.core.i18n import say
from tunedeck.core.process import USER_ERROR

HELP_ALL = "--help-all"
SHORTENED = ("train", "compare", "race", "plan", "deploy-cost", "serve")
"""Commands whose --help leaves out the less common options."""
RUN_COMMANDS: dict[str, tuple[Callable[..., None], Collection[str]]] = {
    "train": (train.train, ()),
    "compare": (compare.compare, compare.WITHOUT),
    "race": (race.race, race.WITHOUT),
}
"""Commands with an option for every key of a run file but those named."""


@final
class Commands(TyperGroup):
    """The commands; the options of a run are made when its command is called, not for every other one."""

    def get_help(self, ctx: Any) -> str:
        """Return the help of tunedeck itself, in the user's language."""
        translate_help(self, ctx)
        return super().get_help(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that is called, whole."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in RUN_COMMANDS:
            function, without = RUN_COMMANDS[name]
            alone = typer.Typer(add_completion=False, rich_markup_mode=markup_mode())
            text = command.help if command else None
            alone.command(name, help=text, epilog=_epilog(name))(with_run_options(function, without))
            command = typer.main.get_command(alone)
        return name, command, _with_help(command, ctx, rest)


def _with_help(command: Any, ctx: Any, arguments: list[str]) -> list[str]:
    """Return the arguments with --help for --help-all, for which, as for completion, every option is shown."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    if command:
        translate_help(command, ctx)
    if command and (HELP_ALL in arguments[:end] or ctx.resilient_parsing):
        for one in command.params:
            one.hidden = False
    return ["--help" if argument == HELP_ALL else argument for argument in arguments[:end]] + arguments[end:]


app = typer.Typer(
    name="tunedeck",
    cls=Commands,
    help=say("Turn one frozen model into many specialists: fine-tune, compare and switch adapters on one base."),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=markup_mode(),
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run() -> int:
    """Run the command in sys.argv and return its exit code; UsageError for a command line that is not understood."""
    try:
        return int(app(prog_name="tunedeck", standalone_mode=False) or 0)
    except typer.TyperException as error:
        text = cast(Any, error).format_message()  # the classes of Typer's errors are private
        if text:
            context = getattr(error, "ctx", None)
            group = context.command if context and isinstance(context.command, TyperGroup) else None
            raise UsageError(usage_message(text, list(group.commands) if group else [])) from error
        return USER_ERROR  # called without arguments: Typer has printed the help


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


app.command("demo", help=say("train four methods on real tweets, compare them and mix them in one batch"))(demo.demo)
app.command("fetch", help=say("fetch bundled models and data ahead of their first use"))(fetch.fetch_parts)
app.command("plan", help=say("estimate memory, time and cost of a run on every GPU before it starts"))(plan.plan)
app.add_typer(data.app, name="data", help=say("check data files before training"))
app.command("train", help=say("train an adapter from a run file or from flags"))(lambda: None)
app.command("compare", help=say("train several methods on your data and report which one to use"))(lambda: None)
app.command("race", help=say("find a good setting among many for a part of their cost, and train it"))(lambda: None)
app.command("eval", help=say("evaluate saved adapters on your data"))(evaluate.evaluate)
app.command("threshold", help=say("choose the probability from which an adapter answers, for a precision"))(
    threshold.threshold
)
app.add_typer(label.app, name="label", help=say("choose texts to label next, and add them once they are labelled"))
app.command("predict", help=say("predict with saved adapters"))(predict.predict)
app.command("chat", help=say("chat with a model and its adapters in the terminal"))(chat.chat)
app.command("embed", help=say("compute embeddings of texts"))(embed.embed)
app.add_typer(adapters.app, name="adapters", help=say("list, show, convert and merge adapters"))
app.add_typer(export.app, name="export", help=say("export adapters for other programs"))
app.command("serve", help=say("serve any number of adapters on one base over HTTP"))(serve.serve)
app.command("ui", help=say("open a page to check data, train and try adapters"))(ui.ui)
app.command("schema", help=say("print the JSON schema of run files, for editors"))(schema.schema)
app.command("explain", help=say("explain a term, a method, a setting or an error code"))(explain.explain)
app.command("doctor", help=say("check this machine: hardware, packages, what is missing"))(doctor.doctor)
app.command("deploy-cost", help=say("estimate what serving a model costs a month, by GPU and load"))(
    deploy_cost.deploy_cost
)


def _epilog(command: str) -> str:
    example = say("Example: {command}", command=EXAMPLES[command])
    if command not in SHORTENED:
        return example
    return example + "\n\n" + say("All options: tunedeck {command} --help-all", command=command)


for _group, _commands in (
    ("", app),
    ("data ", data.app),
    ("label ", label.app),
    ("adapters ", adapters.app),
    ("export ", export.app),
):
    for _command in _commands.registered_commands:
        _command.epilog = _epilog(f"{_group}{_command.name}")

set_help_style()
