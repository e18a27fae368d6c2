"""`ckptd sweep`: do once what `ckptd plan` prints."""

import threading
from collections.abc import Iterator
from typing import Any, Final

import click

from ckptd.cli.amounts import count_text, size_text
from ckptd.cli.arguments import directories_argument, now_option, opened
from ckptd.cli.events import event_section
from ckptd.cli.plan_sections import trash_text
from ckptd.cli.policy_options import Given, policy_options
from ckptd.cli.screen import Screen
from ckptd.cli.targets import Target, config_option, targets
from ckptd.cli.verb import DONE, IN_PART, all_option, in_turn, verb
from ckptd.errors import BusyError, CkptdError, printable
from ckptd.formats.state_file import StateFile
from ckptd.keeper.keeper import Keeper, SweepResult, owned_by
from ckptd.keeper.report import plans_document, sweep_entry
from ckptd.retention.candidate import Outcome

_QUICK: Final = 1.0  # seconds; a purge that takes longer is shown


@verb("sweep", statuses=(IN_PART, 4, 11, 12, 13))
@directories_argument
@config_option
@now_option
@all_option
@click.option(
    "--rebuild-state",
    is_flag=True,
    help="First write the state file anew from what is complete, with a copy of the old one kept.",
)
@policy_options
def sweep(
    screen: Screen,
    *,
    directories: tuple[str, ...],
    config_file: str | None,
    now: float | None,
    rebuild_state: bool,
    **options: Given | None,
) -> int:
    """Remove what no rule keeps, and set the state file right.

    Does what `ckptd plan` prints, without a daemon, and refuses where a daemon keeps the
    directory. What is removed can be brought back with `ckptd undo` while it is in the trash.
    Without a rule, nothing is removed.
    """
    wanted = targets(directories, config_file, options)
    entries: list[dict[str, Any]] = []

    def act(target: Target) -> int:
        with opened(target.directory, target.policy, now) as keeper:
            owner = keeper.owner()
            if owner is not None:
                raise BusyError(owned_by(keeper.path, owner))
            state = keeper.rebuild_state() if rebuild_state else None
            result = keeper.sweep()
            if screen.as_json:
                entries.append(sweep_entry(result))
            else:
                _show(screen, result, state)
            status = _judge(screen, result)
            if result.trash_waits:
                _purge(screen, keeper)
            return status

    status = in_turn(screen, wanted.found, act)
    if screen.as_json:
        screen.document(plans_document(entries))
    return wanted.report(screen) or status


def _judge(screen: Screen, result: SweepResult) -> int:
    """Say what was not done; return the exit status of that."""
    path = printable(result.plan.path)
    undone = [f"{path}: {text}" for text in result.failed]
    undone += [f"{path}: {problem.text}" for problem in result.plan.problems if problem.holds]
    held = result.plan.of(Outcome.HOLD)
    if held and not any(problem.holds for problem in result.plan.problems):
        undone.append(
            f"{path}: {held[0].decision.reasons[0].text}; see `ckptd plan`, and let them go with "
            f"`ckptd approve`"
        )
    if result.busy:
        undone.append(f"{path}: the trainer wrote the state file each time: nothing is removed")
    for text in undone:
        screen.warn(text)
    return IN_PART if undone else DONE


def _show(screen: Screen, result: SweepResult, state: StateFile | None) -> None:
    plan = result.plan
    screen.heading(plan.path, *_summary(result, state))
    screen.sections([event_section("DONE", "", result.lines)])


def _summary(result: SweepResult, state: StateFile | None) -> Iterator[str]:
    plan = result.plan
    removed = [line for line in result.lines if line["event"] == "removed"]
    if state is not None:
        yield f"state file written anew, it names {state.model_checkpoint_path}"
    if removed:
        size = sum(line["bytes"] for line in removed)
        where = trash_text(plan.policy.trash, len(removed))
        yield f"removed {count_text(len(removed), 'checkpoint')}, {size_text(size)}{where}"
    elif plan.of(Outcome.HOLD):
        yield f"nothing removed, {len(plan.of(Outcome.HOLD)):,} held back"
    elif state is None and not result.lines and not result.failed:
        yield "state file set right" if result.plan.restatements else "nothing to do"
    gone = {line["name"] for line in removed}
    staying = [verdict for verdict in plan.verdicts if verdict.checkpoint.name not in gone]
    size = sum(verdict.checkpoint.bytes for verdict in staying)
    why = "" if plan.policy.has_rules else " (no rule is set)"
    yield f"{count_text(len(staying), 'checkpoint')} there, {size_text(size)}{why}"


def _purge(screen: Screen, keeper: Keeper) -> None:
    """Unlink what has left the trash, with a sign of life where that takes long."""
    if not screen.has_live_messages:
        keeper.purge()
        return
    failures: list[CkptdError] = []

    def work() -> None:
        try:
            keeper.purge()
        except CkptdError as error:
            failures.append(error)

    # A daemon thread: Ctrl-C ends the program at once, and the next sweep goes on where it stopped.
    worker = threading.Thread(target=work, name="purge", daemon=True)
    worker.start()
    worker.join(_QUICK)
    if worker.is_alive():

        def is_done(seconds: float) -> bool:
            worker.join(seconds)
            return not worker.is_alive()

        screen.waiting(f"emptying the trash of {keeper.path}", is_done)
    if failures:
        raise failures[0]
