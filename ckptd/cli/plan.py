"""`ckptd plan`: what would stay and go, and why. Changes nothing."""

from typing import Any

import click

from ckptd.cli.arguments import directories_argument, now_option, opened
from ckptd.cli.plan_sections import plan_sections, summary
from ckptd.cli.policy_options import Given, policy_options, policy_text
from ckptd.cli.screen import Screen
from ckptd.cli.targets import Target, config_option, targets
from ckptd.cli.verb import DONE, FOUND_WORK, IN_PART, all_option, in_turn, verb
from ckptd.keeper.plan import DirectoryPlan
from ckptd.keeper.report import plan_entry, plans_document
from ckptd.retention.candidate import Outcome


@verb("plan", statuses=(IN_PART, 4, FOUND_WORK, 12, 13))
@directories_argument
@config_option
@now_option
@all_option
@click.option(
    "--exit-code", is_flag=True, help="Exit with 5 if a sweep would remove or change something."
)
@policy_options
def plan(
    screen: Screen,
    *,
    directories: tuple[str, ...],
    config_file: str | None,
    now: float | None,
    exit_code: bool,
    **options: Given | None,
) -> int:
    """Explain what would stay and what would go, and why.

    Needs no daemon and no configuration, and changes nothing on disk. Without a rule, everything
    stays.
    """
    wanted = targets(directories, config_file, options)
    entries: list[dict[str, Any]] = []
    found_work = False

    def explain(target: Target) -> int:
        nonlocal found_work
        with opened(target.directory, target.policy, now) as keeper:
            made = keeper.plan()
        found_work = found_work or bool(made.of(Outcome.REMOVE) or made.restatements)
        if screen.as_json:
            entries.append(plan_entry(made))
        else:
            _show(screen, made, is_first=target is wanted.found[0])
        return DONE

    status = in_turn(screen, wanted.found, explain)
    if screen.as_json:
        screen.document(plans_document(entries))
    status = wanted.report(screen) or status
    return FOUND_WORK if exit_code and found_work and status == DONE else status


def _show(screen: Screen, made: DirectoryPlan, *, is_first: bool) -> None:
    if screen.draws_tables:
        if not is_first:
            screen.line()
        screen.heading(made.path, policy_text(made.policy))
        if not made.verdicts:
            screen.line()
            screen.line("no complete checkpoint")
    else:
        no_rules = "" if made.policy.has_rules else "; no rule is set: everything stays"
        screen.heading(made.path, f"{summary(made)}{no_rules}")
    screen.sections(plan_sections(made))
