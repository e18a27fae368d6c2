"""`ckptd approve`: let go what the brake holds back."""

from ckptd.cli.actions import show_action
from ckptd.cli.amounts import count_text
from ckptd.cli.arguments import directory_argument, opened, person
from ckptd.cli.daemon_talk import nudge, socket_option
from ckptd.cli.screen import Screen
from ckptd.cli.sections import Column, Section
from ckptd.cli.verb import DONE, all_option, verb
from ckptd.errors import printable


@verb("approve", statuses=(11, 12, 13))
@directory_argument
@socket_option
@all_option
def approve(screen: Screen, *, directory: str, socket: str | None) -> int:
    """Let go what max_removals_per_sweep holds back.

    The next sweep removes them, if they are still what they were and nothing else keeps them.
    """
    with opened(directory) as keeper:
        plan = keeper.plan()
        held = keeper.approve(by=person())
        kept = keeper.owner() is not None
        there = [verdict.checkpoint.name for verdict in plan.verdicts]
        names = [name for name in there if name in held.victims]
        doer = "the daemon" if kept else "the next sweep"
        what = f"{doer} removes {count_text(len(names), 'checkpoint')}"
        text = f"{printable(keeper.path)}: {what}"
        show_action(screen, "approve", keeper.path, text, names=names, why=held.why)
        if not screen.as_json:
            rows = [(name,) for name in names]
            columns = (Column("name", folds=True),)
            screen.sections([Section(title="LET GO", word="goes", columns=columns, rows=rows)])
        nudge(screen, keeper, socket)
    return DONE
