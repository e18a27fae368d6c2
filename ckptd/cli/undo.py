"""`ckptd undo`: bring a removed checkpoint back from the trash."""

import click

from ckptd.cli.actions import show_action
from ckptd.cli.amounts import size_text
from ckptd.cli.arguments import complete_removed, directory_argument, opened, person
from ckptd.cli.daemon_talk import nudge, socket_option
from ckptd.cli.screen import Screen
from ckptd.cli.verb import DONE, verb
from ckptd.errors import printable
from ckptd.keeper.trash import Removed


@verb("undo", statuses=(11, 12, 13))
@directory_argument
@click.argument("step", required=False, shell_complete=complete_removed)
@socket_option
def undo(screen: Screen, *, directory: str, step: str | None, socket: str | None) -> int:
    """Bring back a removed checkpoint, and pin it.

    The one that was removed last, or STEP. STEP is a global_step or a checkpoint's name. Without the pin, the next sweep would remove it
    again.
    """

    def is_wanted(removed: Removed) -> bool:
        return step is None or step in {removed.name, str(removed.global_step)}

    with opened(directory) as keeper:
        removed = keeper.undo(is_wanted, by=person())
        name, path = printable(removed.name), printable(keeper.path)
        text = (
            f"{name} ({size_text(removed.bytes)}) is back in {path}, and pinned: `ckptd unpin` "
            "lets the policy decide again"
        )
        show_action(
            screen,
            "undo",
            keeper.path,
            text,
            name=removed.name,
            global_step=removed.global_step,
            bytes=removed.bytes,
            pinned=True,
        )
        nudge(screen, keeper, socket)
    return DONE
