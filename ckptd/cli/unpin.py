"""`ckptd unpin`: let a pinned checkpoint go its way again."""

import click

from ckptd.cli.actions import show_action
from ckptd.cli.arguments import complete_pinned, directory_argument, opened, person
from ckptd.cli.daemon_talk import nudge, socket_option
from ckptd.cli.screen import Screen
from ckptd.cli.verb import DONE, verb
from ckptd.errors import NoSuchCheckpointError, printable
from ckptd.keeper.keeper import find_step
from ckptd.keeper.plan import DirectoryPlan


@verb("unpin", statuses=(11, 12, 13))
@directory_argument
@click.argument("step", shell_complete=complete_pinned)
@socket_option
def unpin(screen: Screen, *, directory: str, step: str, socket: str | None) -> int:
    """Let go of a pin.

    The policy decides on the checkpoint again. STEP is a global_step or a checkpoint's name. A pin can outlive its checkpoint.
    """
    with opened(directory) as keeper:
        name = _pinned(keeper.plan(), step)
        path = printable(keeper.path)
        if not keeper.unpin(name, by=person()):
            raise NoSuchCheckpointError(f"{printable(name)} in {path} is not pinned")
        text = f"{printable(name)} in {path} is no longer pinned"
        show_action(screen, "unpin", keeper.path, text, name=name)
        nudge(screen, keeper, socket)
    return DONE


def _pinned(plan: DirectoryPlan, step: str) -> str:
    """Return the pinned name that `step` means, be its checkpoint there or not."""
    pins = plan.survey.pins
    if step in pins:
        return step
    there = {verdict.checkpoint.name for verdict in plan.verdicts}
    gone = [name for name in pins if name not in there and name.rpartition("-")[2] == step]
    return gone[0] if len(gone) == 1 else find_step(plan, step).name
