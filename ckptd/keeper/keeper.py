"""The keeper of one model directory: the daemon, the commands and a trainer on its own all use it.

A sweep is one pass: list, plan, act, record. Acting goes in an order in which every crash leaves
what the next start finishes: ledger, meta graphs, state file, removals, history.
"""

import dataclasses
import functools
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar, cast

from ckptd.checkpoints.inventory import Checkpoint
from ckptd.checkpoints.layouts.tensorflow import STATE_FILE
from ckptd.checkpoints.listing import Entry, Kind
from ckptd.errors import (
    BusyError,
    CkptdError,
    NoSpaceError,
    NoSuchCheckpointError,
    StalePlanError,
    printable,
)
from ckptd.formats.collection import collection_paused
from ckptd.formats.state_file import StateFile, format_state_file
from ckptd.keeper import meta_graphs, trash
from ckptd.keeper.ledger import LEDGER, FileMark, Ledger, Verified, marks_of
from ckptd.keeper.own import GRAPHS, TRASH, Held, Own, Pin
from ckptd.keeper.plan import DirectoryPlan, Verdict, plan_directory
from ckptd.keeper.state import name_in_state
from ckptd.keeper.survey import Surveyor, is_fresh
from ckptd.keeper.trash import Removed
from ckptd.keeper.verification import Verification
from ckptd.retention.candidate import Outcome, Reason
from ckptd.retention.policy import Policy
from ckptd.storage.atomic import swap_in, temporary_name, unchanged
from ckptd.storage.directory import Directory

_ATTEMPTS = 5  # plans made anew because the trainer wrote the state file meanwhile
_LOCK_WAIT = 10.0


@dataclass(slots=True)
class SweepResult:
    """What one sweep did. `lines` are what went into the history; `failed` what the disk refused.

    `changed` is False for a sweep that found nothing to do. `busy` says that the trainer was
    faster each time, and nothing was removed.
    """

    plan: DirectoryPlan
    changed: bool = False
    busy: bool = False
    lines: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    trash_waits: bool = False
    recorded: int = 0  # of the lines


_Method = TypeVar("_Method", bound=Callable[..., Any])


def _releasing(method: _Method) -> _Method:
    """Make a method of `Keeper` let go of `.ckptd` when it is done.

    Descriptors are for work: a thousand idle keepers hold one each.
    """

    @functools.wraps(method)
    def released(self: "Keeper", *arguments: Any, **named: Any) -> Any:
        try:
            return method(self, *arguments, **named)
        finally:
            self._own.close()

    return cast("_Method", released)


class Keeper:
    """Tends one model directory. `clock` gives seconds since the epoch.

    Not for two threads at once, but for `purge`, which may run beside anything.
    """

    def __init__(self, directory: Directory, policy: Policy, clock: Callable[[], float]) -> None:
        self.directory = directory
        self.policy = policy
        self._clock = clock
        self._own = Own(directory)
        self._surveyor = Surveyor(directory, self._own)
        self._recovered = False
        self._settled: tuple[Entry, ...] | None = None
        self._due: float | None = None
        self._claim = ExitStack()
        self._had_ledger = False
        self._entries = 0  # in the directory at the last plan

    def __enter__(self) -> "Keeper":  # noqa: PYI034 (Self is in typing from Python 3.11 on)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the directory."""
        self._claim.close()
        self._own.close()
        self.directory.close()

    @property
    def path(self) -> str:
        """The model directory."""
        return self.directory.path

    @_releasing
    def claim(self, owner: Mapping[str, Any]) -> None:
        """Keep the directory until `close`, for one daemon; `owner` says who it is (pid, since).

        Makes `.ckptd`. Raises `BusyError`, which names the daemon that has it.
        """
        if not self._claim.enter_context(self._own.claimed(owner)):
            self._claim.close()
            raise BusyError(owned_by(self.path, self._own.owner() or {}))

    @_releasing
    def owner(self) -> dict[str, Any] | None:
        """Return what the daemon that keeps this directory says of itself, or None."""
        return self._own.owner()

    @_releasing
    def plan(self) -> DirectoryPlan:
        """Return what a sweep would do now. Changes nothing."""
        return self._plan()

    def _plan(self) -> DirectoryPlan:
        now = self._clock()
        with collection_paused(self._entries):
            survey = self._surveyor.look(now)
            if self._had_ledger and survey.ledger is None and not survey.lost:
                # Somebody has deleted `.ckptd`: what was preserved must not go for it.
                survey = dataclasses.replace(survey, lost=True)
            self._had_ledger |= survey.ledger is not None
            plan = plan_directory(survey, self.policy, now)
        self._entries = len(plan.survey.entries)
        return plan

    def is_settled(self) -> bool:
        """Say whether nothing has changed since the last sweep, by one listing and the clock."""
        self.directory.verify()
        if self._settled is None or (self._due is not None and self._clock() >= self._due):
            return False
        return self._surveyor.entries() == self._settled

    @_releasing
    def sweep(self) -> SweepResult:
        """Plan, and do it. Raises `CkptdError` where the directory cannot be worked in at all."""
        self.directory.verify()
        try:
            return self._sweep()
        except CkptdError:
            self._recovered = False  # what was begun is finished by the next sweep
            self._settle(None)
            raise

    def _sweep(self) -> SweepResult:
        if not self._recovered:
            self._recovered = not self._interrupted()
        plan = self._plan()
        untouched = not plan.verdicts and self._own.existing_root() is None
        if untouched or (self._recovered and not self._has_work(plan)):
            self._settle(plan)
            return SweepResult(plan, trash_waits=self.expire(plan))
        with self._working() as lines:
            result = self._act_with_space()
            result.lines[:0] = lines
            result.trash_waits = self._retire_due(result.plan)
        self._settle(result.plan if not result.changed else None)
        return result

    @_releasing
    def expire(self, plan: DirectoryPlan | None = None) -> bool:
        """Let what is due leave the trash; return whether `purge` has something to do."""
        bins = self._own.existing_room(TRASH)
        if bins is None or not bins.list():
            return False
        with self._working():
            return self._retire_due(plan or self._plan())

    def purge(self) -> int:
        """Unlink what has left the trash; return how many checkpoints. May take long, needs no lock."""
        own = Own(self.directory)
        try:
            bins = own.existing_room(TRASH)
            return 0 if bins is None else trash.purge(bins)
        finally:
            own.close()

    @_releasing
    def pin(self, name: str, *, by: str, why: str = "") -> None:
        """Keep a checkpoint until it is unpinned; raise `NoSuchCheckpointError` if it is not there."""
        self._find(self._plan(), name)  # before `.ckptd` is made for nothing
        with self._working():
            self._find(self._plan(), name)  # another ckptd may have removed it meanwhile
            now = self._clock()
            self._own.pin(Pin(name, now, by, why))
            self._own.record([{"at": now, "event": "pinned", "name": name, "by": by, "why": why}])
        self._settle(None)

    @_releasing
    def unpin(self, name: str, *, by: str) -> bool:
        """Let go of a pin; return whether there was one."""
        if self._own.existing_root() is None:
            return False
        with self._working():
            found = self._own.unpin(name)
            if found:
                now = self._clock()
                self._own.record([{"at": now, "event": "unpinned", "name": name, "by": by}])
        self._settle(None)
        return found

    @_releasing
    def trash(self) -> list[Removed]:
        """Return what can be brought back, oldest first."""
        bins = self._own.existing_room(TRASH)
        return [] if bins is None else trash.contents(bins)

    @_releasing
    def undo(self, wanted: Callable[[Removed], bool], *, by: str) -> Removed:
        """Bring back the last removed checkpoint that is `wanted`, and pin it.

        Without a pin the next sweep would remove it again. Raises `NoSuchCheckpointError`.
        """
        path = printable(self.path)
        if self._own.existing_room(TRASH) is None:
            raise NoSuchCheckpointError(f"nothing to bring back: {path} has no trash")
        with self._working():
            bins = self._own.room(TRASH)
            found = [removed for removed in trash.contents(bins) if wanted(removed)]
            if not found:
                there = ", ".join(printable(removed.name) for removed in trash.contents(bins))
                raise NoSuchCheckpointError(
                    f"nothing to bring back in {path}: the trash holds {there or 'nothing'}"
                )
            removed = found[-1]
            now = self._clock()
            pinned = self._own.pins().get(removed.name)
            if pinned is None:
                self._own.pin(Pin(removed.name, now, by, "brought back by undo"))
            try:
                trash.restore(self.directory, bins, removed)
            except CkptdError as error:
                refused = isinstance(error, NoSuchCheckpointError)
                if pinned is None and (refused or self.directory.entry(removed.index) is None):
                    self._own.unpin(removed.name)
                raise
            self._own.record(
                [{"at": now, "event": "undone", "name": removed.name, "by": by, "id": removed.id}]
            )
        self._settle(None)
        return removed

    @_releasing
    def approve(self, *, by: str) -> Held:
        """Let what is held back by the brake go at the next sweep; raise if nothing is held."""
        held = self._own.held()
        if held is None:
            raise NoSuchCheckpointError(f"nothing is held back in {printable(self.path)}")
        with self._working():
            approved = held._replace(approved=True)
            self._own.hold(approved)
            now = self._clock()
            count = len(approved.victims)
            self._own.record([{"at": now, "event": "approved", "count": count, "by": by}])
        self._settle(None)
        return approved

    @_releasing
    def record_verified(
        self, found: Sequence[tuple[Checkpoint, Verification]]
    ) -> list[dict[str, Any]]:
        """Write down what verifications have found; return what went into the history.

        What is damaged counts as partial from then on. A checkpoint that has changed since it was
        listed is passed over, and so is one in whose reading a file was gone or the disk refused
        something: undone, it would be there again, with the same files. A directory
        that ckptd has never worked in, and of which no damage is to be written down, is left without
        a trace.
        """
        now = self._clock()
        is_damage = any(one.damages and _is_sure(checkpoint, one, now) for checkpoint, one in found)
        if self._own.existing_root() is None and not is_damage:
            return []
        with self._working():
            plan = self._plan()
            survey = plan.survey
            forgotten = survey.ledger is None and self._own.existing_room(GRAPHS) is not None
            if survey.lost or forgotten:
                return []  # the next sweep sets that right first
            lines: list[dict[str, Any]] = []
            verified = dict(plan.ledger.verified)
            there = {entry.name: entry.identity for entry in survey.entries}
            for checkpoint, verification in found:
                files = checkpoint.tensor_files
                is_as_it_was = all(there.get(entry.name) == entry.identity for entry in files)
                if not is_as_it_was or not _is_sure(checkpoint, verification, plan.at):
                    continue
                name, damage = checkpoint.name, verification.tensor_damage
                before, after = verified.get(name), Verified(marks_of(files), plan.at, damage)
                verified[name] = after
                known = before.damage if before is not None and before.files == after.files else ""
                if damage != known:
                    line = {
                        "at": plan.at,
                        "event": "damaged" if damage else "found_sound",
                        "name": name,
                        "global_step": checkpoint.global_step,
                        "bytes": checkpoint.bytes,
                    }
                    lines.append(line | ({"reasons": [damage]} if damage else {}))
            before_all = survey.ledger or plan.ledger
            if verified != plan.ledger.verified:
                self._own.write_ledger(dataclasses.replace(before_all, verified=verified))
            self._own.record(lines)
        self._settle(None)
        return lines

    @_releasing
    def history(self) -> list[dict[str, Any]]:
        """Return what was done here, oldest first."""
        return self._own.history()

    def bytes_saved(self, plan: DirectoryPlan) -> int:
        """Return the bytes of meta graphs that are stored once instead of many times."""
        return meta_graphs.bytes_saved(plan.survey.checkpoints.values(), plan.ledger)

    @_releasing
    def rebuild_state(self) -> StateFile:
        """Write the state file anew from what is complete; what was there is copied aside.

        Raises `NoSuchCheckpointError` where nothing is complete.
        """
        with self._working():
            plan = self._plan()
            state = _rebuilt(plan)
            root, name = self._own.root(), STATE_FILE
            now = self._clock()
            before = self.directory.entry(name)
            aside = f"{name}.broken-{int(now)}-{secrets.token_hex(4)}"
            if before is not None and before.kind is Kind.FILE:
                self.directory.copy(name, aside, into=root)
            elif before is not None:  # a link or a pipe is nothing that a trainer wrote
                self.directory.rename(name, aside, into=root)
                before = None
            temporary = temporary_name()
            root.create(temporary, format_state_file(state))
            if not swap_in(self.directory, name, root, temporary, unchanged(before)):
                raise BusyError("the trainer has just written the state file: left as it is")
            line = {"at": now, "event": "state_rebuilt", "name": state.model_checkpoint_path}
            self._own.record([line])
        self._settle(None)
        return state

    # What follows runs under the lock.

    def _interrupted(self) -> bool:
        """Say whether an earlier process may have left something to finish."""
        bins = self._own.existing_room(TRASH)
        return bool(bins is not None and bins.list()) or self._own.has_temporaries()

    @contextmanager
    def _working(self) -> Iterator[list[dict[str, Any]]]:
        """Hold the directory; yield the history's lines of what others had left to finish."""
        with self._own.locked(wait=_LOCK_WAIT):
            yield self._recover()

    def _recover(self) -> list[dict[str, Any]]:
        self._own.sweep_temporaries()
        bins = self._own.existing_room(TRASH)
        finished = [] if bins is None else trash.recover(self.directory, bins)
        lines: list[dict[str, Any]] = []
        if bins is not None and (finished or not self._recovered):
            told = {i for line in self._own.history() if isinstance(i := line.get("id"), str)}
            untold = [removed for removed in trash.contents(bins) if removed.id not in told]
            lines = [_removal_line(removed) for removed in untold]
            self._own.record(lines)
        self._recovered = True
        return lines

    def _act_with_space(self) -> SweepResult:
        result = SweepResult(self._plan())
        try:
            self._act(result)
        except NoSpaceError:
            if not self._make_space(result):
                raise
            result.plan = self._plan()
            self._act(result)
        return result

    def _make_space(self, result: SweepResult) -> bool:
        """Empty the trash, but for what this sweep has put there if that will do."""
        bins = self._own.existing_room(TRASH)
        there = [] if bins is None else trash.contents(bins)
        if bins is None or not there:
            return False
        just_now = {line.get("id") for line in result.lines}
        with suppress(NoSpaceError):  # the reasons first; if they do not fit yet, they come after
            self._tell(result)
            self._recovered = False  # also of what was moved when the error came
            self._recover()
        trash.retire(bins, [one for one in there if one.id not in just_now] or there)
        trash.purge(bins)
        return True

    def _tell(self, result: SweepResult) -> None:
        """Write what was done since the last time into the history."""
        self._own.record(result.lines[result.recorded :])
        result.recorded = len(result.lines)

    def _act(self, result: SweepResult) -> None:
        for attempt in range(_ATTEMPTS):
            if attempt:
                result.plan = self._plan()
            plan = result.plan
            if not self._has_work(plan):
                break
            result.changed = True
            self._remember(plan, result)
            if not self._share(plan, result) or not self._restate(plan, result):
                continue  # the trainer was faster: look again
            self._remove(plan, result)
            if plan.survey.held is not None and plan.of(Outcome.REMOVE):
                self._own.release()  # the approval is used up
            break
        else:
            result.busy = True
        self._tell(result)

    def _has_work(self, plan: DirectoryPlan) -> bool:
        survey = plan.survey
        return bool(
            plan.of(Outcome.REMOVE)
            or plan.restatements
            or plan.ledger != survey.remembered()
            or survey.lost
            or self._held_now(plan) != survey.held
            or (
                plan.policy.meta_graph == "share"
                and meta_graphs.is_due(
                    survey.checkpoints,
                    plan.staying,
                    plan.ledger,
                    {entry.name for entry in survey.entries},
                )
            )
        )

    def _remember(self, plan: DirectoryPlan, result: SweepResult) -> None:
        """Write the ledger first: what is preserved is written down before anything goes."""
        survey = plan.survey
        if survey.lost:
            self._own.set_aside(LEDGER, plan.at)
        before = survey.ledger or Ledger()
        if plan.ledger != before or survey.ledger is None:
            self._own.write_ledger(plan.ledger)
        for series, memory in plan.ledger.series.items():
            known = before.series.get(series)
            fresh = memory.preserved - (known.preserved if known is not None else frozenset())
            result.lines += [
                {"at": plan.at, "event": "preserved", "name": name} for name in sorted(fresh)
            ]
        held = self._held_now(plan)
        if held != survey.held:
            if held is None:
                self._own.release()
            else:
                self._own.hold(held)

    def _held_now(self, plan: DirectoryPlan) -> Held | None:
        """Return what must be written down as held back; an approval stays until it is used up."""
        braked = [
            verdict
            for verdict in plan.of(Outcome.HOLD)
            if verdict.decision.reasons[0].rule == "max_removals_per_sweep"
        ]
        held = plan.survey.held
        if held is not None and held.approved and plan.of(Outcome.REMOVE):
            return held
        if braked:
            victims = {v.checkpoint.name: FileMark.of(v.checkpoint.index.identity) for v in braked}
            return Held(victims, braked[0].decision.reasons[0].text, approved=False)
        return None

    def _share(self, plan: DirectoryPlan, result: SweepResult) -> bool:
        """Store meta graphs once; False if a file changed meanwhile and all must be planned anew."""
        if plan.policy.meta_graph != "share":
            return True
        checkpoints = plan.survey.checkpoints
        forgotten = plan.survey.ledger is None and self._own.existing_room(GRAPHS) is not None
        has_graphs = forgotten or bool(plan.ledger.graphs)
        if not has_graphs and not any(c.meta_graph for c in checkpoints.values()):
            return True
        examined = meta_graphs.examine(self.directory, checkpoints.values(), plan.ledger)
        fresh = frozenset(examined.digests.keys() - plan.ledger.digests.keys())
        shared = meta_graphs.share(
            self.directory,
            self._own.room(GRAPHS),
            plan.series(),
            checkpoints,
            plan.staying,
            examined,
            fresh,
        )
        graphs = meta_graphs.belongs(plan.series(), checkpoints, shared.ledger)
        after = dataclasses.replace(
            shared.ledger,
            checkpoints={
                name: known._replace(graph=graphs.get(name, known.graph))
                for name, known in shared.ledger.checkpoints.items()
            },
        )
        if after != plan.ledger:
            self._own.write_ledger(after)
        result.failed += shared.problems
        result.lines += [{"at": plan.at, **line} for line in shared.lines]
        # Linking renews the inode of a .meta: what is about to be removed must be listed again.
        victims = [verdict.checkpoint for verdict in plan.of(Outcome.REMOVE)]
        with suppress(StalePlanError):
            for victim in victims:
                trash.check_unchanged(self.directory, victim)
            return True
        return False

    def _restate(self, plan: DirectoryPlan, result: SweepResult) -> bool:
        """Write the state files; False if the trainer has written one meanwhile: its word wins."""
        root = self._own.root()
        for statement, restated in plan.restatements:
            temporary = temporary_name()
            root.create(temporary, format_state_file(restated))
            name = statement.entry.name
            if not swap_in(self.directory, name, root, temporary, unchanged(statement.entry)):
                return False
            if restated.model_checkpoint_path != statement.state.model_checkpoint_path:
                line = {
                    "at": plan.at,
                    "event": "state_redirected",
                    "name": restated.model_checkpoint_path,
                    "was": statement.state.model_checkpoint_path,
                }
                result.lines.append(line)
        return True

    def _remove(self, plan: DirectoryPlan, result: SweepResult) -> None:
        for verdict in plan.of(Outcome.REMOVE):
            try:
                removed = trash.remove(
                    self.directory,
                    self._own.room(TRASH),
                    verdict.checkpoint,
                    verdict.decision.reasons,
                    plan.at,
                )
            except StalePlanError:
                continue  # changed or gone since it was listed: the next sweep sees it as it is
            except NoSpaceError:
                raise
            except CkptdError as error:
                result.failed.append(f"{printable(verdict.checkpoint.name)} stays: {error}")
                continue
            result.lines.append(_removal_line(removed))

    def _retire_due(self, plan: DirectoryPlan) -> bool:
        bins = self._own.room(TRASH)
        there = trash.contents(bins)
        sizes = [verdict.checkpoint.bytes for verdict in plan.verdicts]
        # The next save is about as large as the largest one here.
        need_space = bool(there) and self.directory.free_bytes() < max(sizes, default=0)
        due = trash.overdue(there, self.policy.trash, self._clock(), need_space=need_space)
        trash.retire(bins, due)
        return any(entry.name.startswith("gone-") for entry in bins.list())

    def _settle(self, plan: DirectoryPlan | None) -> None:
        """Note what a quiet sweep saw, so that an unchanged directory costs one listing."""
        self._settled = None if plan is None else plan.survey.entries
        self._due = None if plan is None else plan.due()

    def _find(self, plan: DirectoryPlan, name: str) -> Verdict:
        for verdict in plan.verdicts:
            if verdict.checkpoint.name == name:
                return verdict
        raise NoSuchCheckpointError(
            f"{printable(self.path)} has no complete checkpoint called {printable(name)}"
        )


def find_step(plan: DirectoryPlan, step: str) -> Checkpoint:
    """Return the one checkpoint that `step` means: a name, or a global_step.

    Raises `NoSuchCheckpointError` where there is none, or several have that step.
    """
    named = [v.checkpoint for v in plan.verdicts if v.checkpoint.name == step]
    found = named or [v.checkpoint for v in plan.verdicts if str(v.checkpoint.global_step) == step]
    if len(found) == 1:
        return found[0]
    path = printable(plan.path)
    if found:
        names = ", ".join(printable(checkpoint.name) for checkpoint in found)
        raise NoSuchCheckpointError(f"step {step} in {path} is one of {names}: give the name")
    partial = plan.survey.partial(step)
    if partial is not None:
        raise NoSuchCheckpointError(
            f"{printable(step)} in {path} is not complete: {partial.reason}"
        )
    steps = [v.checkpoint.name for v in plan.verdicts]
    has = ", ".join(printable(name) for name in steps[-8:]) or "no complete checkpoint"
    raise NoSuchCheckpointError(f"{path} has no checkpoint {printable(step)}; it has {has}")


def owned_by(path: str, owner: Mapping[str, Any]) -> str:
    """Say who keeps a directory."""
    pid = f" with pid {owner['pid']}" if "pid" in owner else ""
    return f"a daemon{pid} keeps {printable(path)}: it sweeps by itself, see `ckptd status`"


def _is_sure(checkpoint: Checkpoint, verification: Verification, now: float) -> bool:
    """Say whether what was found is still true of files with the same marks."""
    is_known = not (verification.changed or verification.in_doubt)
    return is_known and not is_fresh(checkpoint.tensor_files, now)


def _removal_line(removed: Removed) -> dict[str, Any]:
    return {
        "at": removed.at,
        "event": "removed",
        "name": removed.name,
        "global_step": removed.global_step,
        "bytes": removed.bytes,
        "reasons": [reason.text for reason in removed.reasons],
        "id": removed.id,
    }


def _rebuilt(plan: DirectoryPlan) -> StateFile:
    """Return a state file from what is complete, in CheckpointManager's style: names and times."""
    series: dict[str, list[Verdict]] = {}
    for verdict in plan.verdicts:
        series.setdefault(verdict.checkpoint.series, []).append(verdict)
    if not series:
        raise NoSuchCheckpointError(
            f"nothing in {printable(plan.path)} is complete: no state file can be true"
        )
    newest = max(
        series.values(), key=lambda verdicts: verdicts[-1].decision.candidate.saved_at or 0.0
    )
    rolling = [
        v
        for v in newest
        if v is newest[-1]
        or plan.policy.max_to_keep is None
        or _is_kept_by(v.decision.reasons, "max_to_keep")
    ]
    return StateFile(
        model_checkpoint_path=name_in_state(newest[-1].checkpoint),
        all_model_checkpoint_paths=tuple(name_in_state(v.checkpoint) for v in rolling),
        all_model_checkpoint_timestamps=tuple(
            v.decision.candidate.saved_at or 0.0 for v in rolling
        ),
        last_preserved_timestamp=plan.ledger.series[newest[-1].checkpoint.series].last_preserved,
    )


def _is_kept_by(reasons: Sequence[Reason], rule: str) -> bool:
    return any(reason.rule == rule for reason in reasons)
