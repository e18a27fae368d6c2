"""The program `ckptd`: its verbs, and what becomes of an error that a verb does not handle."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple

import click

from ckptd.cli import streams
from ckptd.cli.screen import Screen
from ckptd.cli.verb import DONE, FAILED, INTERRUPTED, WRONG_USAGE
from ckptd.errors import CkptdError

COMPLETION_VARIABLE: Final = "_CKPTD_COMPLETE"


class _Place(NamedTuple):
    group: str
    module: str
    name: str


# A verb's module is imported when it is asked for: `ckptd pin` waits for no daemon's imports.
_VERBS: Final[Mapping[str, _Place]] = {
    "plan": _Place("Look", "plan", "plan"),
    "list": _Place("Look", "list", "list_checkpoints"),
    "status": _Place("Look", "status", "status"),
    "history": _Place("Look", "history", "history"),
    "inspect": _Place("Look", "inspect", "inspect"),
    "verify": _Place("Look", "verify", "verify"),
    "sweep": _Place("Act", "sweep", "sweep"),
    "pin": _Place("Act", "pin", "pin"),
    "unpin": _Place("Act", "unpin", "unpin"),
    "undo": _Place("Act", "undo", "undo"),
    "approve": _Place("Act", "approve", "approve"),
    "export": _Place("Act", "export", "export"),
    "freeze": _Place("Act", "freeze", "freeze_graph"),
    "run": _Place("Run", "run", "run"),
    "check-config": _Place("Run", "check_config", "check_config"),
    "completion": _Place("Run", "completion", "completion"),
    "demo": _Place("Run", "demo", "demo"),
}


class Program(click.Group):
    """The group of all verbs. Calling it runs the program and exits."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs, in the order of the help."""
        del ctx
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        del ctx
        place = _VERBS.get(cmd_name)
        if place is None:
            return None
        found = getattr(import_module(f"ckptd.cli.{place.module}"), place.name)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs, grouped by what they are for."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, place in _VERBS.items():
            command = self.get_command(ctx, name)
            assert command is not None
            limit = formatter.width - 6 - max(map(len, _VERBS))
            groups.setdefault(place.group, []).append((name, command.get_short_help_str(limit)))
        longest = max(map(len, _VERBS))
        for heading, rows in groups.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(longest), text) for name, text in rows])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002 - click's signature
        windows_expand_args: bool = True,  # noqa: FBT001, FBT002
        **extra: Any,
    ) -> Any:
        """Run the program and exit with the verb's status; never with a traceback for bad input."""
        streams.prepare()
        arguments = list(sys.argv[1:] if args is None else args)

        def run() -> Any:
            return super(Program, self).main(
                arguments,
                prog_name or "ckptd",
                complete_var or COMPLETION_VARIABLE,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )

        given = arguments[: arguments.index("--")] if "--" in arguments else arguments
        screen = Screen.of_process(as_json="--json" in given, colour=True)
        try:
            result = run()
            status = result if isinstance(result, int) else DONE
        except CkptdError as error:
            status = _report(screen, error)
        except click.ClickException as error:
            status = _report_usage(screen, error)
        except (click.Abort, KeyboardInterrupt):
            status = INTERRUPTED
        except BrokenPipeError:
            status = DONE  # help that nobody reads to its end
        if standalone_mode:
            sys.exit(status)
        return status


def _report(screen: Screen, error: CkptdError) -> int:
    try:
        screen.fail(error)
    except CkptdError:
        return FAILED  # there is nowhere left to say it
    return error.exit_status


def _report_usage(screen: Screen, error: click.ClickException) -> int:
    context = error.ctx if isinstance(error, click.UsageError) else None
    where = context.command_path if context is not None else "ckptd"
    message = error.format_message()
    try:
        screen.message(f"{where}: {message}\nTry `{where} --help`.")
        if screen.as_json:
            screen.failure(type(error).__name__, message, WRONG_USAGE)
    except CkptdError:
        return FAILED
    return WRONG_USAGE


def _show_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    del parameter
    if not value or context.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 (15 ms)

    try:
        number = version("ckptd")
    except PackageNotFoundError:
        number = "(not installed)"
    click.echo(f"ckptd {number}")
    context.exit()


@click.group(
    "ckptd",
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)
@click.option("--no-color", is_flag=True, help="Print without colour; NO_COLOR does it too.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Print the version.",
)
@click.pass_context
def main(context: click.Context, *, no_color: bool) -> int:
    """Keep model directories: decide which checkpoints stay, and remove the rest safely.

    A first look, which changes nothing:

        ckptd plan DIR --max-to-keep 5
    """
    del no_color  # read by each verb
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        return WRONG_USAGE
    return DONE
