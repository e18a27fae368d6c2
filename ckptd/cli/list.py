"""`ckptd list`: the checkpoints of a model directory as they are."""

from typing import Any, Final

from ckptd.cli.amounts import count_text, size_text
from ckptd.cli.arguments import directory_argument, now_option, opened
from ckptd.cli.plan_sections import checkpoint_cells, newest_first, other_sections
from ckptd.cli.policy_options import Given, policy_options
from ckptd.cli.screen import Screen
from ckptd.cli.sections import Column, Section
from ckptd.cli.targets import config_option, targets
from ckptd.cli.verb import DONE, all_option, verb
from ckptd.keeper.plan import DirectoryPlan, Verdict
from ckptd.keeper.report import plan_entry, verdict_entry

LIST_SCHEMA: Final = "ckptd.list/1"

_COLUMNS: Final = (
    Column("step", right=True),
    Column("name", folds=True),
    Column("size", right=True),
    Column("age", right=True),
    Column("format"),
    Column("shards", right=True),
    Column("marks", folds=True),
)


@verb("list", statuses=(4, 12, 13))
@directory_argument
@config_option
@now_option
@all_option
@policy_options
def list_checkpoints(
    screen: Screen,
    *,
    directory: str,
    config_file: str | None,
    now: float | None,
    **options: Given | None,
) -> int:
    """List the checkpoints of a model directory.

    Complete and partial ones, and what else is there. With a policy, each one is marked with what a sweep would do.
    """
    target = targets((directory,), config_file, options).found[0]
    with opened(target.directory, target.policy, now) as keeper:
        plan = keeper.plan()
    if screen.as_json:
        screen.document(_document(plan))
        return DONE
    size = sum(verdict.checkpoint.bytes for verdict in plan.verdicts)
    count = count_text(len(plan.verdicts), "complete checkpoint")
    screen.heading(plan.path, f"{count}, {size_text(size)}")
    section = Section(
        title="COMPLETE",
        word="complete",
        note="",
        colour="green",
        columns=_COLUMNS,
        rows=[_row(plan, verdict) for verdict in newest_first(plan.verdicts)],
    )
    screen.sections([section, *other_sections(plan)])
    return DONE


def _row(plan: DirectoryPlan, verdict: Verdict) -> tuple[str, ...]:
    checkpoint = verdict.checkpoint
    marks = [f"named by {name}" for name in _named_by(plan, checkpoint.name)]
    marks += ["pinned"] if checkpoint.name in plan.survey.pins else []
    marks += [verdict.outcome.value] if plan.policy.has_rules else []
    return (
        *checkpoint_cells(plan, verdict),
        checkpoint.format.value,
        count_text(checkpoint.num_shards, "shard"),
        ", ".join(marks),
    )


def _named_by(plan: DirectoryPlan, name: str) -> list[str]:
    return [s.entry.name for s in plan.survey.statements if s.current == name]


def _document(plan: DirectoryPlan) -> dict[str, Any]:
    listed = []
    for verdict in plan.verdicts:
        entry = verdict_entry(verdict)
        del entry["reasons"]
        name = verdict.checkpoint.name
        entry["pinned"] = name in plan.survey.pins
        entry["named_by"] = _named_by(plan, name)
        entry["outcome"] = verdict.outcome.value if plan.policy.has_rules else None
        listed.append(entry)
    whole = plan_entry(plan)
    others = ("partial", "leftovers", "state_files", "strangers", "problems")
    return {
        "schema": LIST_SCHEMA,
        "path": plan.path,
        "checkpoints": listed,
        **{name: whole[name] for name in others},
    }
