"""When each model directory is visited: at most one visit at a time, many directories side by side.

A visit is wanted by an event, a rescan, a person or a timer. Too many wishes for one directory
become one visit, and a directory that fails is left in peace for a while, up to an hour, unless
something happens in it.
"""

import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from ckptd.checkpoints.inventory import Checkpoint
from ckptd.daemon.log import Event, Log
from ckptd.daemon.mailbox import Mailbox
from ckptd.daemon.tending import Tended, Visit, Want, is_gone, told, visit
from ckptd.daemon.watching import Watcher
from ckptd.daemon.workers import Workers
from ckptd.keeper.keeper import SweepResult
from ckptd.keeper.verification import Verification

HANGS: Final = 60.0
"""Seconds after which work in a directory is taken to hang."""

SETTLE: Final = 0.02
"""Seconds to wait after an event: a save makes several, and one visit answers them all."""

_WORKERS: Final = 3  # more threads only wait for one another: a plan is work for the interpreter
_BUSY: Final = 0.2
_LONGEST_AGAIN: Final = 60.0

_EVENTS: Final = {
    "removed": Event.REMOVED,
    "preserved": Event.PRESERVED,
    "damaged": Event.CHECKPOINT_DAMAGED,
    "meta_graph_moved": Event.META_GRAPH_MOVED,
    "state_redirected": Event.STATE_REDIRECTED,
}


class Visits:
    """Has workers visit what is due, and learns from what they bring back. For the main loop only.

    `on_gone` is called with a directory that is no longer at its path, and why; `on_end` when a
    thread has done with a directory.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        watcher: Watcher,
        log: Log,
        *,
        clock: Callable[[], float],
        claim: Mapping[str, Any],
        on_gone: Callable[[Tended, str], None],
        on_end: Callable[[Tended], None],
    ) -> None:
        self._mailbox = mailbox
        self._watcher = watcher
        self._log = log
        self._clock = clock
        self._claim = claim
        self._on_gone = on_gone
        self.on_end = on_end
        self._timers: list[tuple[float, int, Tended]] = []
        self._pushed = 0
        self._running: set[Tended] = set()
        self.workers = Workers(_WORKERS, "ckptd-worker", patience=HANGS)
        self.reaper = Workers(1, "ckptd-reaper", patience=float("inf"))
        self.last_end = time.monotonic()

    @property
    def hanging(self) -> list[Tended]:
        """The directories in which a worker waits in vain."""
        return [tended for tended in self._running if tended.hangs]

    def want(self, tended: Tended, want: Want, delay: float = 0.0) -> None:
        """Have a directory visited in `delay` seconds, or as soon as it may be again."""
        if tended.is_leaving:
            return
        tended.want = max(tended.want, want)
        if tended.running_since is None:
            self._at(tended, max(time.monotonic() + delay, tended.not_before))

    def next_deadline(self) -> float:
        """Return when `start_due` has something to do, on the monotonic clock."""
        return self._timers[0][0] if self._timers else float("inf")

    def start_due(self, now: float) -> None:
        """Start what is due."""
        while self._timers and self._timers[0][0] <= now:
            when, _, tended = heapq.heappop(self._timers)
            if tended.when == when:
                tended.when = None
                self._start(tended, now)

    def find_hanging(self, now: float) -> list[Tended]:
        """Return the directories that are found to hang for the first time; replace their workers."""
        found = [
            tended
            for tended in self._running
            if not tended.hangs
            and tended.running_since is not None
            and now - tended.running_since > HANGS
        ]
        for tended in found:
            tended.hangs = True
            self._log(Event.DIRECTORY_HANGS, model_dir=tended.path, seconds=HANGS)
        self.workers.relieve()
        return found

    def _at(self, tended: Tended, when: float) -> None:
        if tended.when is None or when < tended.when:
            tended.when = when
            self._pushed += 1
            heapq.heappush(self._timers, (when, self._pushed, tended))

    def _start(self, tended: Tended, now: float) -> None:
        if tended.running_since is not None or tended.is_leaving:
            return
        want = max(tended.want, Want.LOOK)
        tended.want = Want.NOTHING
        tended.running_since = now
        tended.served, tended.waiting = tended.waiting, []
        self._running.add(tended)
        verified, tended.verified = tended.verified, []
        describe = bool(tended.served)
        self.workers.submit(partial(self._visit, tended, want, verified, describe=describe))

    def _visit(
        self,
        tended: Tended,
        want: Want,
        verified: Sequence[tuple[Checkpoint, Verification]],
        *,
        describe: bool,
    ) -> None:
        """Visit, in a worker."""
        tended.running_since = time.monotonic()
        found = visit(
            tended,
            want,
            watcher=self._watcher,
            clock=self._clock,
            claim=self._claim,
            describe=describe,
            verified=verified,
        )
        self._mailbox.post(partial(self._visited, tended, found))

    def _visited(self, tended: Tended, found: Visit) -> None:
        now = self.last_end = time.monotonic()
        self._running.discard(tended)
        tended.running_since = None
        if tended.hangs:
            tended.hangs = False
            self._log(Event.DIRECTORY_RECOVERED, model_dir=tended.path)
        tended.take_in(found, now)
        self._serve(tended, found)
        if found.error is None:
            self._go_on(tended, found, now)
        elif is_gone(found.error):
            self._on_gone(tended, str(found.error))
        else:
            self._fail(tended, told(found.error), now)
        if not tended.is_leaving:
            if tended.want is not Want.NOTHING:
                self._at(tended, max(now, tended.not_before))
            if tended.due is not None:
                self._at(tended, now + max(SETTLE, tended.due - self._clock()))
        self.on_end(tended)

    def _fail(self, tended: Tended, text: str, now: float) -> None:
        if text != tended.error:
            self._log(Event.DIRECTORY_FAILED, model_dir=tended.path, reason=text)
            tended.error = text
        self._at(tended, tended.back_off(now))

    def _go_on(self, tended: Tended, found: Visit, now: float) -> None:
        if tended.error is not None:
            self._log(Event.DIRECTORY_RECOVERED, model_dir=tended.path)
            tended.error = None
        result = found.result
        if result is None:  # nothing has changed
            tended.repeats = 0
            return
        self._tell(tended, result, found.seconds)
        if result.failed:
            self._at(tended, tended.back_off(now))
        else:
            tended.failures = 0
            if result.changed or result.busy:  # look again at what it is like now
                tended.repeats += 1
                first = _BUSY if result.busy else SETTLE
                again = min(_LONGEST_AGAIN, first * 2.0 ** min(tended.repeats, 16))
                self.want(tended, Want.SWEEP, again)
            else:
                tended.repeats = 0
        if result.trash_waits:
            self._purge(tended)

    def _tell(self, tended: Tended, result: SweepResult, seconds: float) -> None:
        """Log what a sweep has done; of what it has found, what was not there before."""
        steps = {v.checkpoint.name: v.checkpoint.global_step for v in result.plan.verdicts}
        for line in result.lines:
            name, happened = line.get("name"), str(line["event"])
            self._log(
                _EVENTS.get(happened, Event.RECORDED),
                model_dir=tended.path,
                name=name,
                global_step=line.get("global_step", steps.get(str(name))),
                reason="; ".join(line.get("reasons", ())) or happened.replace("_", " "),
                bytes=line.get("bytes"),
                was=line.get("was"),
            )
        known, tended.logged = tended.logged, frozenset((*tended.failed, *tended.problems))
        for text in tended.failed:
            if text not in known:
                self._log(Event.REMOVAL_FAILED, model_dir=tended.path, reason=text)
        problem = Event.REMOVALS_HELD if tended.held else Event.PROBLEM
        for text in tended.problems:
            if text not in known:
                self._log(problem, model_dir=tended.path, reason=text)
        self._log(
            Event.SWEPT,
            model_dir=tended.path,
            checkpoints=tended.checkpoints,
            seconds=round(seconds, 6),
        )

    def _serve(self, tended: Tended, found: Visit) -> None:
        served, tended.served = tended.served, []
        for conversation in served:
            if found.error is not None:
                conversation.refuse(told(found.error), getattr(found.error, "exit_status", 1))
            elif found.document is not None:
                conversation.reply(found.document)

    def _purge(self, tended: Tended) -> None:
        keeper = tended.keeper
        if tended.is_purging or keeper is None:
            return
        tended.is_purging = True

        def purge() -> None:
            count, error = 0, None
            try:
                count = keeper.purge()
            except Exception as raised:  # noqa: BLE001 - told; a later sweep has it tried again
                error = told(raised)
            self._mailbox.post(partial(self._purged, tended, count, error))

        self.reaper.submit(purge)

    def _purged(self, tended: Tended, count: int, error: str | None) -> None:
        tended.is_purging = False
        if error is not None and error != tended.purge_error:
            text = f"what has left the trash cannot be removed: {error}"
            self._log(Event.REMOVAL_FAILED, model_dir=tended.path, reason=text)
        tended.purge_error = error
        if count:
            self._log(Event.PURGED, model_dir=tended.path, checkpoints=count)
        self.on_end(tended)
