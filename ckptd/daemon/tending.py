"""One model directory under the daemon's care: what a worker does there, and what is known of it.

The main loop owns a `Tended` and is the only one to change it. While a visit runs, its keeper
belongs to the worker that runs it; `Keeper.purge` may run beside.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any, Final

from ckptd.checkpoints.inventory import OWN_DIRECTORY, Checkpoint
from ckptd.checkpoints.layouts.tensorflow import STATE_FILE
from ckptd.config.values import ModelDirs
from ckptd.daemon.adoption import Candidate
from ckptd.daemon.listening import Conversation
from ckptd.daemon.watching import Role, Watcher
from ckptd.errors import (
    CkptdError,
    DirectoryReplacedError,
    NoSuchDirectoryError,
)
from ckptd.keeper.keeper import Keeper, SweepResult
from ckptd.keeper.report import plans_document, status_entry, sweep_entry
from ckptd.keeper.verification import Verification
from ckptd.storage.disk import open_model_directory
from ckptd.storage.outlook import Glance, glance

_SHORTEST_PAUSE: Final = 0.05  # seconds between two visits, however often things happen
_SHARE: Final = 2.0  # a visit is followed by a pause this many times as long
_LONGEST_BACKOFF: Final = 3600.0
_AFTER_FAILURE: Final = 1.0
_TO_VERIFY: Final = 4  # checkpoints that are remembered of those that nobody has verified


class Want(IntEnum):
    """What is wanted of the next visit; the greater includes the lesser."""

    NOTHING = 0
    LOOK = 1
    """A listing; a sweep only if it is not what the last sweep saw."""
    SWEEP = 2


class State(Enum):
    """What `ckptd status` says of a directory in one word."""

    NEW = "new"
    OK = "ok"
    HELD = "held"
    ERROR = "error"
    GONE = "gone"


@dataclass(slots=True, kw_only=True)
class Visit:
    """What a worker brings back. `error` says that nothing else is known."""

    glance: Glance | None
    seconds: float
    swept_at: float | None = None
    result: SweepResult | None = None
    status: bytes = b""
    figures: Mapping[str, Any] = field(default_factory=dict)
    document: dict[str, Any] | None = None
    owner: int | None = None
    due: float | None = None
    unverified: tuple[Checkpoint, ...] = ()
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class Tended:
    """One model directory. Times are on the monotonic clock unless they are called wall time."""

    candidate: Candidate
    number: int
    keeper: Keeper | None = None
    is_claimed: bool = False

    want: Want = Want.SWEEP
    when: float | None = None
    running_since: float | None = None
    not_before: float = 0.0
    waiting: list[Conversation] = field(default_factory=list)
    served: list[Conversation] = field(default_factory=list)
    is_purging: bool = False
    is_scrubbing: bool = False
    is_leaving: bool = False
    hangs: bool = False

    glance: Glance | None = None
    unsure: bool = True
    failures: int = 0
    repeats: int = 0
    error: str | None = None
    problems: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    held: int = 0
    logged: frozenset[str] = frozenset()
    purge_error: str | None = None
    was_visited: bool = False
    due: float | None = None  # wall time
    checkpoints: int = 0
    total_bytes: int = 0
    owner: int | None = None
    status: bytes = b""  # JSON: a thousand parsed ones would take ten times the memory
    swept_at: float | None = None  # wall time
    trash_due: float | None = None  # wall time

    unverified: tuple[Checkpoint, ...] = ()  # the newest ones
    verified: list[tuple[Checkpoint, Verification]] = field(default_factory=list)
    """What the next visit writes down."""

    @property
    def entry(self) -> ModelDirs:
        """The entry of `model_dirs` that it belongs to."""
        return self.candidate.entry

    @property
    def path(self) -> str:
        """The path as the configuration has it."""
        return self.candidate.path

    @property
    def real_path(self) -> str:
        """The path without links."""
        return self.candidate.real_path

    @property
    def is_free(self) -> bool:
        """Whether no thread has to do with it."""
        return self.running_since is None and not self.is_purging and not self.is_scrubbing

    @property
    def waits_for_a_person(self) -> bool:
        """Whether only somebody's doing, which no listing shows, makes a sweep of use."""
        return bool(self.held) or self.purge_error is not None

    @property
    def state(self) -> State:
        """What it is in, in one word."""
        if self.error is not None or self.failed or self.purge_error or self.hangs:
            return State.ERROR
        if self.held:
            return State.HELD
        return State.OK if self.status else State.NEW

    def take_in(self, visit: Visit, now: float) -> None:
        """Note what a visit has found, but for its failure."""
        self.was_visited = True
        self.glance = visit.glance
        self.owner = visit.owner if visit.owner is not None else self.owner
        self.not_before = now + max(_SHORTEST_PAUSE, _SHARE * visit.seconds)
        result = visit.result
        if result is None:
            return
        self.status = visit.status
        self.swept_at = visit.swept_at
        self.due = visit.due
        self.unverified = visit.unverified
        figures = visit.figures
        self.checkpoints, self.total_bytes = figures["checkpoints"], figures["bytes"]
        self.held = figures["held"]
        self.problems = tuple(figures["problems"])
        self.failed = tuple(result.failed)
        self.unsure = bool(figures["partial"] or self.problems or self.failed or self.held)
        removed = [row["removed_at"] for row in figures["trash"]]
        trash = self.entry.policy.trash
        self.trash_due = min(removed) + trash.seconds if removed and trash is not None else None

    def back_off(self, now: float) -> float:
        """Count a failure; return when to try again, though nothing should happen until then."""
        self.failures += 1
        self.not_before = now + _AFTER_FAILURE
        return now + min(_LONGEST_BACKOFF, 2.0 ** min(self.failures, 12))

    def status_entry(self) -> dict[str, Any]:
        """Return what `ckptd status` says of it."""
        entry: dict[str, Any] = json.loads(self.status or b"{}")
        entry["path"] = self.path
        entry["policy"] = self.entry.policy_name
        entry["state"] = self.state.value
        entry["last_sweep"] = self.swept_at
        problems = list(entry.get("problems", ()))
        problems += [
            text for text in (self.error, self.purge_error, *self.failed) if text is not None
        ]
        if self.hangs:
            problems.append("the file system does not answer")
        entry["problems"] = problems
        return entry

    def close(self) -> None:
        """Let go of the directory; nothing may be running."""
        keeper, self.keeper = self.keeper, None
        self.is_claimed = False
        if keeper is not None:
            keeper.close()


def visit(
    tended: Tended,
    want: Want,
    *,
    watcher: Watcher,
    clock: Callable[[], float],
    claim: Mapping[str, Any],
    describe: bool,
    verified: Sequence[tuple[Checkpoint, Verification]] = (),
) -> Visit:
    """Do what is wanted in one directory, and write down what was verified.

    For a worker: may block for long, never raises.
    """
    start = time.monotonic()
    # Watched before it is listed, looked at before it is swept: what happens later is seen later.
    try:
        watcher.watch(tended.real_path, Role.MODEL_DIRECTORY)
        seen = glance(tended.real_path, STATE_FILE)
    except OSError:
        seen = None
    try:
        found = _visit(tended, want, clock, claim, verified, describe=describe)
    except Exception as error:  # noqa: BLE001 - one directory's trouble is no other's
        found = Visit(glance=None, seconds=0.0, error=error)
    found.glance = seen
    found.seconds = time.monotonic() - start
    return found


def is_gone(error: Exception | None) -> bool:
    """Say whether an error means that the directory is no longer where it was."""
    return isinstance(error, (DirectoryReplacedError, NoSuchDirectoryError))


def told(error: Exception) -> str:
    """Return an error in words; a bug has none of its own."""
    if isinstance(error, (CkptdError, OSError)):
        return str(error)
    return f"a fault in ckptd, please report it: {error!r}"


def _visit(
    tended: Tended,
    want: Want,
    clock: Callable[[], float],
    claim: Mapping[str, Any],
    verified: Sequence[tuple[Checkpoint, Verification]],
    *,
    describe: bool,
) -> Visit:
    keeper = tended.keeper
    if keeper is None:
        keeper = _open(tended, clock)
        tended.keeper = keeper
    found = Visit(glance=None, seconds=0.0, owner=_owner(keeper))
    if keeper.policy != tended.entry.policy:
        keeper.policy = tended.entry.policy
        want = Want.SWEEP
    if want is Want.LOOK and keeper.is_settled():
        return found
    if not tended.is_claimed and _has_something(keeper):
        keeper.claim(claim)
        tended.is_claimed = True
    found.swept_at = clock()
    lines = keeper.record_verified(verified) if verified else []
    found.result = result = keeper.sweep()
    result.lines[:0] = lines
    found.figures = entry = status_entry(keeper, result.plan)
    found.status = json.dumps(entry, separators=(",", ":")).encode("ascii")
    found.due = result.plan.due()
    found.unverified = tuple(result.plan.unverified()[:_TO_VERIFY])
    if describe:
        found.document = plans_document([sweep_entry(result)])
    return found


def _open(tended: Tended, clock: Callable[[], float]) -> Keeper:
    directory = open_model_directory(tended.real_path)
    if directory.path != tended.real_path or directory.identity != tended.candidate.identity:
        directory.close()
        reason = "another directory has taken its place"
        raise DirectoryReplacedError("adopt", tended.real_path, reason)
    return Keeper(directory, tended.entry.policy, clock)


def _owner(keeper: Keeper) -> int | None:
    descriptor = getattr(keeper.directory, "fileno", lambda: -1)()
    return os.fstat(descriptor).st_uid if descriptor >= 0 else None


def _has_something(keeper: Keeper) -> bool:
    """Say whether there is anything to keep; a directory of no checkpoints is left without a trace."""
    return keeper.directory.entry(OWN_DIRECTORY) is not None or bool(keeper.plan().verdicts)
