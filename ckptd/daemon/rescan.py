"""The truth behind the events: every directory is looked at again and again.

Most have not changed, and two system calls tell so. A listing, which sees more, is made of each
directory in one rescan of ten, and in every rescan of those where something is unfinished or wrong.
"""

import random
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Final

from ckptd.checkpoints.layouts.tensorflow import STATE_FILE
from ckptd.daemon.mailbox import Mailbox
from ckptd.daemon.roster import Roster
from ckptd.daemon.tending import Tended, Want
from ckptd.daemon.visits import Visits
from ckptd.storage.outlook import glance

_JITTER: Final = 0.1
_DEEP: Final = 10
_SCOUTS: Final = 4  # workers that take part: one that hangs does not keep the others from it


class Rescan:
    """Rescans when it is due. `interval` is in seconds. For the main loop only."""

    def __init__(self, mailbox: Mailbox, roster: Roster, visits: Visits, interval: float) -> None:
        self._mailbox = mailbox
        self._roster = roster
        self._visits = visits
        self._round = 0
        self._scouts = 0
        self.deadline = 0.0
        self._interval = interval

    def begin(self, now: float, interval: float | None = None) -> None:
        """Count anew from `now`, on the monotonic clock."""
        if interval is not None:
            self._interval = interval
        spread = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - hosts are not to march in step
        self.deadline = now + self._interval * spread

    def start(self, now: float) -> None:
        """Rescan."""
        self.begin(now)
        self._round += 1
        self._roster.search()
        light: deque[Tended] = deque()
        for tended in self._roster:
            is_turn = tended.number % _DEEP == self._round % _DEEP
            if tended.running_since is not None:
                continue
            if is_turn and tended.waits_for_a_person:  # no listing shows what a person has done
                self._visits.want(tended, Want.SWEEP)
            elif (is_turn or tended.unsure) and not tended.failures:
                self._visits.want(tended, Want.LOOK)
            else:
                light.append(tended)
        if not self._scouts:
            self._scouts = min(_SCOUTS, len(light))
            for _ in range(self._scouts):
                self._visits.workers.submit(partial(self._scout, light))

    def _scout(self, light: "deque[Tended]") -> None:
        """Glance at what is left in `light`, in a worker beside others that do the same."""
        changed = []
        while True:
            try:
                tended = light.popleft()
            except IndexError:
                break
            before = tended.glance
            try:
                now = glance(tended.real_path, STATE_FILE)
            except OSError:
                now = None
            if now is None or now.fresh or now != before:
                changed.append(tended)
        self._mailbox.post(partial(self._scouted, changed))

    def _scouted(self, changed: Sequence[Tended]) -> None:
        self._scouts -= 1
        for tended in changed:
            self._visits.want(tended, Want.LOOK)
