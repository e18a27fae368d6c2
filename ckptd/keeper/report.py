"""Plans and directories as JSON documents, for `--json`, the daemon's status and whoever reads them.

The schemas are shipped in `ckptd/schemas`; a document's ``schema`` names it. New keys may come;
those that are there keep their meaning.
"""

from collections.abc import Iterable
from typing import Any, Final

from ckptd.checkpoints.listing import Entry
from ckptd.keeper.keeper import Keeper, SweepResult
from ckptd.keeper.plan import DirectoryPlan, Verdict
from ckptd.retention.candidate import Outcome

PLAN_SCHEMA: Final = "ckptd.plan/1"


def plans_document(plans: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the document of `ckptd plan --json` and `ckptd sweep --json`."""
    return {"schema": PLAN_SCHEMA, "model_dirs": list(plans)}


def plan_entry(plan: DirectoryPlan) -> dict[str, Any]:
    """Return one model directory of a plan document: every name in it is in one of its lists."""
    inventory = plan.survey.inventory
    return {
        "path": plan.path,
        "keep": [verdict_entry(verdict) for verdict in plan.of(Outcome.KEEP)],
        "remove": [verdict_entry(verdict) for verdict in plan.of(Outcome.REMOVE)],
        "hold": [verdict_entry(verdict) for verdict in plan.of(Outcome.HOLD)],
        "partial": [
            {
                "name": partial.name,
                "reason": partial.reason,
                "damaged": partial.damaged is not None,
                "files": _names(partial.files),
            }
            for partial in inventory.partials
        ],
        "leftovers": [
            {"name": leftover.entry.name, "what": leftover.what} for leftover in inventory.leftovers
        ],
        "state_files": _names(inventory.state_files),
        "strangers": _names(inventory.strangers),
        "problems": [
            {"text": problem.text, "holds_removals": problem.holds} for problem in plan.problems
        ],
    }


def sweep_entry(result: SweepResult) -> dict[str, Any]:
    """Return one model directory of a sweep document: the plan, and what came of it."""
    return {
        **plan_entry(result.plan),
        "done": result.lines,
        "failed": result.failed,
        "busy": result.busy,
    }


def verdict_entry(verdict: Verdict) -> dict[str, Any]:
    """Return one checkpoint of a plan document."""
    checkpoint = verdict.checkpoint
    return {
        "name": checkpoint.name,
        "global_step": checkpoint.global_step,
        "bytes": checkpoint.bytes,
        "saved_at": verdict.decision.candidate.saved_at,
        "format": checkpoint.format.value,
        "shards": checkpoint.num_shards,
        "files": _names(checkpoint.files),
        "reasons": [
            {"rule": reason.rule, "text": reason.text} for reason in verdict.decision.reasons
        ],
    }


def status_entry(keeper: Keeper, plan: DirectoryPlan) -> dict[str, Any]:
    """Return what `ckptd status` says of one model directory. Bytes are lengths of files."""
    verdicts = plan.verdicts
    newest = max(verdicts, key=lambda v: v.decision.candidate.saved_at or 0.0, default=None)
    trash = keeper.trash()
    return {
        "path": plan.path,
        "checkpoints": len(verdicts),
        "bytes": sum(verdict.checkpoint.bytes for verdict in verdicts),
        "newest": None if newest is None else verdict_entry(newest),
        "current": [s.current for s in plan.survey.statements if s.current is not None],
        "partial": len(plan.survey.inventory.partials),
        "damaged": sum(p.damaged is not None for p in plan.survey.inventory.partials),
        "to_remove": len(plan.of(Outcome.REMOVE)),
        "held": len(plan.of(Outcome.HOLD)),
        "pinned": sorted(plan.survey.pins),
        "meta_graph_bytes_saved": keeper.bytes_saved(plan),
        "trash": [
            {"name": removed.name, "removed_at": removed.at, "bytes": removed.bytes}
            for removed in trash
        ],
        "weak_sync": keeper.directory.weak_sync,
        "problems": [problem.text for problem in plan.problems],
    }


def _names(entries: Iterable[Entry]) -> list[str]:
    return [entry.name for entry in entries]
