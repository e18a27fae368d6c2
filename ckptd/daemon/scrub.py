"""The slow look at every byte of what is kept: each checkpoint once, the newest first.

One thread reads, for at most half of the time, one checkpoint after the other over all directories;
it holds no lock, and works beside sweeps. What it has found is written down by a visit, which also
finds out whether the checkpoint is still the one that was read. The calendar begins a pass; a pass
tries each checkpoint once, and what cannot be read today is tried again in the next.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from ckptd.checkpoints.inventory import Checkpoint
from ckptd.checkpoints.listing import Identity
from ckptd.daemon.log import Event, Log
from ckptd.daemon.mailbox import Mailbox
from ckptd.daemon.tending import Tended, Want, told
from ckptd.daemon.visits import Visits
from ckptd.daemon.workers import Workers
from ckptd.errors import printable
from ckptd.keeper.survey import is_fresh
from ckptd.keeper.verification import Progress, ReadThrough, Verification, verify_checkpoint

_BATCH: Final = 30.0  # seconds of reading after which what was found is written down
_LONGEST_PAUSE: Final = 1.0

Found = tuple[Checkpoint, Verification | Exception, float]
"""A checkpoint, what was found or what kept it from being read, and the seconds that it took."""


class _StoppedError(Exception):
    """The daemon ends, or lets go of the directory."""


class Scrub:
    """Verifies what the directories have not verified yet. For the main loop only."""

    def __init__(
        self, mailbox: Mailbox, visits: Visits, log: Log, *, clock: Callable[[], float]
    ) -> None:
        self._mailbox = mailbox
        self._visits = visits
        self._log = log
        self._clock = clock
        self._worker = Workers(1, "ckptd-scrub", patience=float("inf"))
        self._stopping = threading.Event()
        self._waiting: deque[Tended] = deque()
        self._current: Tended | None = None
        self._tried: set[tuple[int, str, Identity]] = set()
        self._doubts: set[str] = set()

    def begin(self, directories: Iterable[Tended]) -> None:
        """Begin a pass, unless one is under way."""
        current = self._current
        if current is not None and not (current.is_leaving or current.hangs):
            return
        if current is not None and current.is_scrubbing:
            return  # its file system does not answer
        self._waiting = deque(tended for tended in directories if tended.unverified)
        self._tried.clear()
        self._next()

    def visited(self, tended: Tended) -> None:
        """Go on once what was found in a directory is written down."""
        if tended is self._current and tended.is_free and not tended.verified:
            self._waiting.appendleft(tended)  # it may have more
            self._next()

    def stop(self, *, wait: float) -> bool:
        """End at once what is under way; say whether the thread has ended within `wait` seconds."""
        self._stopping.set()
        self._waiting.clear()
        return self._worker.stop(wait=wait)

    def _next(self) -> None:
        self._current = None
        while self._waiting and not self._stopping.is_set():
            tended = self._waiting.popleft()
            batch = self._batch(tended)
            if batch and tended.keeper is not None and not tended.is_leaving:
                self._current = tended
                tended.is_scrubbing = True
                read_through = tended.keeper.directory.read_through
                self._worker.submit(partial(self._work, tended, batch, read_through))
                return

    def _batch(self, tended: Tended) -> list[Checkpoint]:
        now = self._clock()
        return [
            checkpoint
            for checkpoint in tended.unverified
            if self._key(tended, checkpoint) not in self._tried
            and not is_fresh(checkpoint.tensor_files, now)
        ]

    def _key(self, tended: Tended, checkpoint: Checkpoint) -> tuple[int, str, Identity]:
        return tended.number, checkpoint.name, checkpoint.index.identity

    def _work(self, tended: Tended, batch: Sequence[Checkpoint], read_through: ReadThrough) -> None:
        """Verify, in the thread; what is not reached in time is left to the next batch."""
        found: list[Found] = []
        begin = time.monotonic()
        for checkpoint in batch:
            start = time.monotonic()
            if found and start - begin > _BATCH:
                break
            outcome: Verification | Exception
            try:
                outcome = self._verify(tended, checkpoint, read_through)
            except _StoppedError:
                break
            except Exception as error:  # noqa: BLE001 - told; the others are verified all the same
                outcome = error
            found.append((checkpoint, outcome, time.monotonic() - start))
        self._mailbox.post(partial(self._scrubbed, tended, found))

    def _verify(
        self, tended: Tended, checkpoint: Checkpoint, read_through: ReadThrough
    ) -> Verification:
        """Look at a checkpoint, and a second time before it is condemned.

        Bits flip on their way from the disk too; a checksum that matches once is no accident.
        """
        found = verify_checkpoint(checkpoint, read_through, progress=self._paced(tended))
        if not found.damages or found.changed or found.in_doubt:
            return found
        return verify_checkpoint(checkpoint, read_through, progress=self._paced(tended))

    def _paced(self, tended: Tended) -> Progress:
        """Return what pauses after each read for as long as it took."""
        since = time.monotonic()

        def pause(_: int) -> None:
            nonlocal since
            took = min(time.monotonic() - since, _LONGEST_PAUSE)
            if self._stopping.wait(took) or tended.is_leaving:
                raise _StoppedError
            since = time.monotonic()

        return pause

    def _scrubbed(self, tended: Tended, found: Sequence[Found]) -> None:
        tended.is_scrubbing = False
        for checkpoint, outcome, seconds in found:
            self._tried.add(self._key(tended, checkpoint))
            if isinstance(outcome, Exception):
                self._tell_doubt(tended, checkpoint, told(outcome))
            elif outcome.changed:
                continue  # removed, or saved again: an event has told of it
            elif outcome.in_doubt:
                self._tell_doubt(tended, checkpoint, outcome.tensor_damage)
            else:
                tended.verified.append((checkpoint, outcome))
                self._log(
                    Event.SCRUBBED,
                    model_dir=tended.path,
                    name=checkpoint.name,
                    global_step=checkpoint.global_step,
                    bytes=outcome.bytes,
                    seconds=round(seconds, 3),
                )
        if tended.is_leaving:
            self._next()
            self._visits.on_end(tended)
        elif tended.verified:
            self._visits.want(tended, Want.SWEEP)
        else:
            if found:
                self._waiting.appendleft(tended)  # what could not be read keeps no other waiting
            self._next()

    def _tell_doubt(self, tended: Tended, checkpoint: Checkpoint, why: str) -> None:
        text = f"{printable(checkpoint.name)} cannot be verified: {why}"
        if (line := f"{tended.path}: {text}") not in self._doubts:
            self._doubts.add(line)
            self._log(Event.PROBLEM, model_dir=tended.path, name=checkpoint.name, reason=text)
