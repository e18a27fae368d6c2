"""What all verbs share: a screen, `--json`, `--no-color`, and the exit statuses below their help."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import click

from ckptd.cli.screen import Screen
from ckptd.errors import CkptdError

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
IN_PART: Final = 3
FOUND_WORK: Final = 5
INTERRUPTED: Final = 130

_T = TypeVar("_T")

EXIT_STATUSES: Final[Mapping[int, str]] = {
    DONE: "done",
    FAILED: "failed: the message says why",
    WRONG_USAGE: "wrong usage",
    IN_PART: "done in part",
    4: "the configuration cannot be used",
    FOUND_WORK: "with --exit-code: there is something to do",
    10: "no daemon answers",
    11: "another ckptd keeps or holds the directory",
    12: "not permitted",
    13: "no such checkpoint or directory",
    INTERRUPTED: "interrupted from the keyboard",
}


class Verb(click.Command):
    """A command whose callback takes a `screen` first and returns its exit status."""

    def __init__(
        self, *args: Any, statuses: Iterable[int] = (), json: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.statuses = (DONE, FAILED, WRONG_USAGE, *statuses, INTERRUPTED)
        self.params.extend(_OUTPUT_OPTIONS if json else _OUTPUT_OPTIONS[1:])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the arguments apart; of what is wrong with them, say in which verb."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # click leaves it out where an option lacks its value
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run the callback with a screen on the standard streams."""
        root = ctx.find_root()
        no_colour = ctx.params.pop("no_color") or root.params.get("no_color", False)
        screen = Screen.of_process(as_json=ctx.params.pop("as_json", False), colour=not no_colour)
        screen.show_all = ctx.params.pop("show_all", False)
        assert self.callback is not None
        callback = functools.partial(self.callback, screen)
        return ctx.invoke(callback, **ctx.params)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those of the policy apart."""
        groups: dict[str, list[tuple[str, str]]] = {"Options": [], _POLICY: []}
        for param in self.get_params(ctx):
            record = None
            if isinstance(param, click.Option):
                record = param.get_help_record(ctx)
            if record is not None:
                heading = _POLICY if isinstance(param, PolicyOption) else "Options"
                groups[heading].append(record)
        for heading, records in groups.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit statuses, one line each."""
        del ctx
        with formatter.section("Exit status"):
            formatter.write_dl([(str(s), EXIT_STATUSES[s]) for s in sorted(self.statuses)])


class PolicyOption(click.Option):
    """An option that is a policy key of the configuration."""


_POLICY: Final = "Policy, in the words of the configuration"

_OUTPUT_OPTIONS: Final[list[click.Parameter]] = [
    click.Option(["--json", "as_json"], is_flag=True, help="Print JSON."),
    click.Option(["--no-color"], is_flag=True, help="Print without colour; NO_COLOR does it too."),
]

all_option = click.option(
    "--all", "show_all", is_flag=True, help="Show long lists in full on a terminal, too."
)


def verb(
    name: str, *, statuses: Iterable[int] = (), json: bool = True
) -> Callable[[Callable[..., int]], Verb]:
    """Make a verb of a function; `statuses` are those that it may return beside the usual ones."""
    return click.command(name, cls=Verb, statuses=tuple(statuses), json=json)


def in_turn(screen: Screen, items: Iterable[_T], work: Callable[[_T], int]) -> int:
    """Do `work` for each item, also after one that fails; return the exit status of all together.

    That is the item's own where there is one item, or where all fail alike, and else 3.
    """
    statuses = []
    for item in items:
        try:
            statuses.append(work(item))
        except CkptdError as error:  # noqa: PERF203 - an item is a directory
            screen.fail(error)
            statuses.append(error.exit_status)
    failures = [status for status in statuses if status]
    if not failures:
        return DONE
    if len(failures) == len(statuses) and len(set(failures)) == 1:
        return failures[0]
    return IN_PART
