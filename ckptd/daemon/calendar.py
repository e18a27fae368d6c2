"""What happens by the clock on the wall: trash that is due, scrubbing, a line in the log each day.

APScheduler keeps the calendar in memory and only tells the main loop that something is due; the
loop does it. Nothing that safety rests on is here: the scheduler sleeps until a time of day, and a
clock that is set back by a day keeps it asleep for that day. `ClockGuard` notices such a jump.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler

from ckptd.daemon.log import Event, Log

EXPIRY_INTERVAL: Final = 60.0
"""Seconds between two looks at what the trash should let go."""

SCRUB_INTERVAL: Final = 600.0
"""Seconds between two passes that verify what has not been verified yet."""

_SILENT: Final = 5 * EXPIRY_INTERVAL
_JUMP: Final = 30.0
_DEFAULTS: Final = {"coalesce": True, "misfire_grace_time": None, "max_instances": 1}
_WHAT_WENT_WRONG: Final = {
    EVENT_JOB_ERROR: "it failed",
    EVENT_JOB_MISSED: "it was missed",
    EVENT_JOB_MAX_INSTANCES: "the one before still runs",
}


class Calendar:
    """Calls `on_expiry` each minute, `on_scrub` every ten, `on_report` each day at 00:00 UTC.

    It does so in another thread. None of them may raise or take long.
    """

    def __init__(
        self,
        log: Log,
        *,
        on_expiry: Callable[[], None],
        on_scrub: Callable[[], None],
        on_report: Callable[[], None],
    ) -> None:
        self._log = log
        self._on_expiry = on_expiry
        self._on_scrub = on_scrub
        self._on_report = on_report
        self._scheduler: BackgroundScheduler | None = None
        self._heard = 0.0

    def start(self) -> None:
        """Begin."""
        self._heard = time.monotonic()
        scheduler = BackgroundScheduler(
            jobstores={"default": MemoryJobStore()},
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults=_DEFAULTS,
            timezone="UTC",
        )
        scheduler.add_listener(self._tell, sum(_WHAT_WENT_WRONG))
        scheduler.add_job(self._expiry, "interval", seconds=EXPIRY_INTERVAL, id="trash_expiry")
        scheduler.add_job(self._on_scrub, "interval", seconds=SCRUB_INTERVAL, id="scrub")
        scheduler.add_job(self._on_report, "cron", hour=0, minute=0, id="daily_report")
        scheduler.start()
        self._scheduler = scheduler

    def stop(self) -> None:
        """End, and wait for the threads."""
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.shutdown(wait=True)

    def restart(self) -> None:
        """Make all appointments anew, from the clock as it is now."""
        self.stop()
        self.start()

    def fault(self) -> str | None:
        """Return what is wrong with the scheduler, or None."""
        if self._scheduler is None or not self._scheduler.running:
            return "the scheduler does not run"
        if time.monotonic() - self._heard > _SILENT:
            return f"the scheduler has called nothing for {_SILENT:.0f} s"
        return None

    def _expiry(self) -> None:
        self._heard = time.monotonic()
        self._on_expiry()

    def _tell(self, event: Any) -> None:
        what = _WHAT_WENT_WRONG.get(event.code, "it did not run")
        exception = getattr(event, "exception", None)
        reason = f"{what}: {exception!r}" if exception is not None else what
        self._log(Event.JOB_FAILED, name=event.job_id, reason=reason)


class ClockGuard:
    """Compares the wall clock with the monotonic one, both in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wall = clock()
        self._steady = time.monotonic()

    def jump(self) -> float | None:
        """Return by how much the clock was set since the last call, or None if it was not.

        The monotonic clock stands still while the host sleeps: waking up looks like a jump, and
        everything is to be looked at then as well.
        """
        wall, steady = self._clock(), time.monotonic()
        jumped = (wall - self._wall) - (steady - self._steady)
        self._wall, self._steady = wall, steady
        return jumped if abs(jumped) > _JUMP else None
