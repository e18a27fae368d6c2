"""A plan as sections for people: what stays, what goes, what is held back, and what else is there."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ckptd.cli.amounts import age_text, count_text, size_text
from ckptd.cli.sections import Column, Section, problems_section
from ckptd.config.scalars import duration_text
from ckptd.keeper.plan import DirectoryPlan, Verdict
from ckptd.retention.candidate import Outcome, Reason
from ckptd.retention.policy import Trash

CHECKPOINT: Final = (
    Column("step", right=True),
    Column("name", folds=True),
    Column("size", right=True),
    Column("age", right=True),
)
WITH_REASONS: Final = (*CHECKPOINT, Column("reasons", folds=True))
WITH_MISSES: Final = (*CHECKPOINT, Column("why no rule keeps it", folds=True))

_PARTIAL: Final = (
    Column("name", folds=True),
    Column("files", right=True),
    Column("size", right=True),
    Column("what is wrong", folds=True),
)
_LEFTOVER: Final = (Column("name", folds=True), Column("what it is", folds=True))
_NAME: Final = (Column("name", folds=True),)


def plan_sections(plan: DirectoryPlan) -> Iterator[Section]:
    """Yield all sections of a plan; some are empty."""
    kept, removed, held = (plan.of(outcome) for outcome in Outcome)
    yield Section(
        title="KEEP",
        word="keep",
        note=_amount(kept),
        colour="green",
        columns=WITH_REASONS,
        rows=_rows(plan, kept),
    )
    yield Section(
        title="REMOVE",
        word="remove",
        note=f"{count_text(len(removed), 'checkpoint')}, {freed(plan)}",
        colour="red",
        columns=WITH_MISSES,
        gathers=True,
        rows=_rows(plan, removed),
    )
    yield Section(
        title="HOLD",
        word="hold",
        note=f"{_amount(held)}, not removed",
        lead=_brake(held),
        colour="yellow",
        columns=WITH_MISSES,
        gathers=True,
        rows=_rows(plan, held, skip=1),
    )
    yield Section(
        title="STATE FILE",
        word="state",
        colour="cyan",
        columns=(_NAME[0], Column("what it will say", folds=True)),
        rows=list(_restatements(plan)),
    )
    yield from other_sections(plan)


def other_sections(plan: DirectoryPlan) -> Iterator[Section]:
    """Yield what is in the directory beside complete checkpoints, and what is wrong with it."""
    inventory = plan.survey.inventory
    yield Section(
        title="PARTIAL",
        word="partial",
        note="not complete: never counted, never removed",
        colour="yellow",
        columns=_PARTIAL,
        rows=[
            (
                partial.name,
                count_text(len(partial.files), "file"),
                size_text(sum(entry.size for entry in partial.files)),
                partial.reason,
            )
            for partial in inventory.partials
        ],
    )
    yield Section(
        title="LEFTOVERS",
        word="leftover",
        note="of saves that did not finish: never removed",
        colour="yellow",
        columns=_LEFTOVER,
        rows=[(leftover.entry.name, leftover.what) for leftover in inventory.leftovers],
    )
    strangers = inventory.strangers
    yield Section(
        title="STRANGERS",
        word="stranger",
        note=f"{count_text(len(strangers), 'name')} that ckptd leaves alone",
        columns=_NAME,
        rows=[(entry.name,) for entry in strangers],
    )
    yield problems_section(problem.text for problem in plan.problems)


def summary(plan: DirectoryPlan) -> str:
    """Say in one line what a plan does."""
    kept, removed, held = (plan.of(outcome) for outcome in Outcome)
    parts = [f"{len(kept):,} stay"]
    parts += [f"{len(held):,} held back"] if held else []
    parts += [f"{len(removed):,} go: {freed(plan)}"] if removed else []
    return ", ".join(parts) if plan.verdicts else "no complete checkpoint"


def freed(plan: DirectoryPlan) -> str:
    """Say how many bytes the removals give back, and what can be brought back."""
    removed = plan.of(Outcome.REMOVE)
    size = size_text(sum(verdict.checkpoint.bytes for verdict in removed))
    return f"frees {size}{trash_text(plan.policy.trash, len(removed))}"


def trash_text(trash: Trash | None, removed: int) -> str:
    """Say what becomes of so many removed checkpoints, to follow a statement on them.

    >>> trash_text(Trash(), 5), trash_text(Trash(), 1), trash_text(None, 5)
    ('; the last 2 can be brought back for 1h', '; it can be brought back for 1h', ' for good')
    """
    if trash is None:
        return " for good"
    which = "they" if removed <= trash.checkpoints else f"the last {trash.checkpoints:,}"
    which = "it" if removed == 1 else which
    return f"; {which} can be brought back for {duration_text(trash.seconds)}"


def newest_first(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return verdicts with the newest of each series first."""
    series: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        series.setdefault(verdict.checkpoint.series, []).insert(0, verdict)
    return [verdict for verdicts in series.values() for verdict in verdicts]


def checkpoint_cells(plan: DirectoryPlan, verdict: Verdict) -> tuple[str, str, str, str]:
    """Return step, name, size and age."""
    checkpoint = verdict.checkpoint
    step = checkpoint.global_step
    saved_at = verdict.decision.candidate.saved_at
    return (
        "-" if step is None else str(step),
        checkpoint.name,
        size_text(checkpoint.bytes),
        "?" if saved_at is None else age_text(plan.at - saved_at),
    )


def _rows(
    plan: DirectoryPlan, verdicts: Sequence[Verdict], *, skip: int = 0
) -> list[tuple[str, ...]]:
    return [
        (*checkpoint_cells(plan, verdict), _told(verdict.decision.reasons[skip:]))
        for verdict in newest_first(verdicts)
    ]


def _told(reasons: Iterable[Reason]) -> str:
    return ", ".join(dict.fromkeys(reason.text for reason in reasons))


def _amount(verdicts: Sequence[Verdict]) -> str:
    size = sum(verdict.checkpoint.bytes for verdict in verdicts)
    return f"{count_text(len(verdicts), 'checkpoint')}, {size_text(size)}"


def _brake(held: Sequence[Verdict]) -> str:
    return held[0].decision.reasons[0].text if held else ""


def _restatements(plan: DirectoryPlan) -> Iterator[tuple[str, str]]:
    for statement, restated in plan.restatements:
        said, says = statement.state, restated
        changes = []
        if says.model_checkpoint_path != said.model_checkpoint_path:
            changes.append(
                f"names {says.model_checkpoint_path} instead of {said.model_checkpoint_path}"
            )
        before, after = len(said.all_model_checkpoint_paths), len(says.all_model_checkpoint_paths)
        if says.all_model_checkpoint_paths != said.all_model_checkpoint_paths:
            changes.append(f"lists {count_text(after, 'checkpoint')} (now {before:,})")
        yield statement.entry.name, ", ".join(changes) or "the same checkpoints, with other times"
