"""The arguments and options that several verbs take, and how a shell completes them."""

import math
import os
import pwd
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

from ckptd.errors import CkptdError
from ckptd.storage.disk import open_model_directory

if TYPE_CHECKING:  # a keeper takes as long to import as a file's reader to run
    from ckptd.keeper.keeper import Keeper
    from ckptd.retention.policy import Policy


class DirectoryPath(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.2
    """A directory's path as it is given; whether it is there is found out by opening it."""

    name = "directory"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Leave it to the shell, which knows directories."""
        del ctx, param
        return [CompletionItem(incomplete, type="dir")]


class FilePath(DirectoryPath):
    """A file's path as it is given."""

    name = "file"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Leave it to the shell, which knows files."""
        del ctx, param
        return [CompletionItem(incomplete, type="file")]


class UnixSeconds(click.ParamType):  # type: ignore[type-arg]
    """A time in seconds since the epoch."""

    name = "unix seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or refuse what is no time."""
        try:
            seconds = float(value)
        except (ValueError, OverflowError):
            seconds = math.nan
        if not (0 <= seconds < _LAST_SECOND):
            self.fail(
                f"must be seconds since 1970 such as 1772431200; found {value!r}: "
                "`date -d '2026-03-02 06:00' +%s` reckons them",
                param,
                ctx,
            )
        return seconds


_LAST_SECOND: Final = 253_402_300_800.0  # the year 10000, which no calendar of Python knows

directory_argument = click.argument("directory", metavar="DIR", type=DirectoryPath())
directories_argument = click.argument(
    "directories", metavar="[DIR]...", nargs=-1, type=DirectoryPath()
)
now_option = click.option(
    "--now",
    type=UnixSeconds(),
    metavar="SECONDS",
    help="Reckon with this time (Unix seconds) instead of the clock.",
)


def clock(now: float | None) -> Callable[[], float]:
    """Return the clock that `--now` asks for."""
    return time.time if now is None else lambda: now


@contextmanager
def opened(
    directory: str, policy: "Policy | None" = None, now: float | None = None
) -> Iterator["Keeper"]:
    """Open a model directory with a keeper, for one verb."""
    from ckptd.keeper.keeper import Keeper  # noqa: PLC0415
    from ckptd.retention.policy import Policy  # noqa: PLC0415

    with Keeper(open_model_directory(directory), policy or Policy(), clock(now)) as keeper:
        yield keeper


def person() -> str:
    """Return who runs this: the login name, or the number where it has none."""
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def complete_steps(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete a complete checkpoint of DIR, by its step or its name."""
    del parameter
    return _completed(context, incomplete, _checkpoints)


def complete_pinned(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete a pinned checkpoint of DIR."""
    del parameter
    return _completed(
        context, incomplete, lambda keeper: ((name, "") for name in keeper.plan().survey.pins)
    )


def complete_removed(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete a checkpoint in the trash of DIR."""
    del parameter
    return _completed(
        context, incomplete, lambda keeper: ((each.name, "") for each in keeper.trash())
    )


def _checkpoints(keeper: "Keeper") -> Iterator[tuple[str, str]]:
    checkpoints = [verdict.checkpoint for verdict in keeper.plan().verdicts]
    for checkpoint in checkpoints:
        if checkpoint.global_step is not None:
            yield str(checkpoint.global_step), checkpoint.name
    for checkpoint in checkpoints:
        yield checkpoint.name, ""


def _completed(
    context: click.Context,
    incomplete: str,
    offered: "Callable[[Keeper], Iterable[tuple[str, str]]]",
) -> list[CompletionItem]:
    directory = context.params.get("directory")
    if not directory:
        return []
    try:
        with opened(directory) as keeper:
            pairs = list(offered(keeper))
    except CkptdError:
        return []  # a shell that completes has no place for a message
    # A name with a line break would be taken for two.
    return [
        CompletionItem(value, help=text or None)
        for value, text in pairs
        if value.startswith(incomplete) and value.isprintable()
    ]
