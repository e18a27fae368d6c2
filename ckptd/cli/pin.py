"""`ckptd pin`: keep one checkpoint, whatever the policy says."""

import click

from ckptd.cli.actions import show_action
from ckptd.cli.arguments import complete_steps, directory_argument, opened, person
from ckptd.cli.daemon_talk import nudge, socket_option
from ckptd.cli.screen import Screen
from ckptd.cli.verb import DONE, verb
from ckptd.errors import printable
from ckptd.keeper.keeper import find_step


@verb("pin", statuses=(11, 12, 13))
@directory_argument
@click.argument("step", shell_complete=complete_steps)
@click.option("--why", default="", metavar="TEXT", help="Why, for those who wonder later.")
@socket_option
def pin(screen: Screen, *, directory: str, step: str, why: str, socket: str | None) -> int:
    """Keep a checkpoint, whatever the policy says.

    It stays until it is unpinned. STEP is a global_step or a checkpoint's name.
    """
    with opened(directory) as keeper:
        checkpoint = find_step(keeper.plan(), step)
        keeper.pin(checkpoint.name, by=person(), why=why)
        path = printable(keeper.path)
        text = f"{printable(checkpoint.name)} in {path} stays until `ckptd unpin`"
        show_action(screen, "pin", keeper.path, text, name=checkpoint.name, why=why)
        nudge(screen, keeper, socket)
    return DONE
