"""A few threads for work that may block on a disk.

`concurrent.futures` waits at exit for each of its threads, and one that hangs in a dead mount would
keep the daemon from ending. These are let go.
"""

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

_MOST: Final = 4  # times as many threads as were asked for, when some of them hang


class Workers:
    """`count` threads, started as they are needed, that call what `submit` gives them, in order.

    A job must not raise. One that runs for `patience` seconds is taken to hang: another thread
    takes its thread's place, up to four times `count` in all.
    """

    def __init__(self, count: int, name: str, *, patience: float = 60.0) -> None:
        self._count = count
        self._name = name
        self._patience = patience
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._running: dict[int, float] = {}  # since when, by thread
        self._lock = threading.Lock()
        self._waiting = 0
        self._stopped = False

    @property
    def busy(self) -> int:
        """How many jobs run or wait."""
        with self._lock:
            return len(self._running) + self._waiting

    def submit(self, job: Callable[[], None]) -> None:
        """Have `job` called by the next free thread."""
        with self._lock:
            if self._stopped:
                return
            self._waiting += 1
            self._jobs.put(job)
            self._hire()

    def relieve(self) -> None:
        """Put other threads in the place of those that hang."""
        with self._lock:
            self._hire()

    def stop(self, *, wait: float) -> bool:
        """Forget what has not begun; wait for what has, at most `wait` seconds. Say if all is done."""
        with self._lock:
            first = not self._stopped
            self._stopped = True
            if first:
                for _ in self._threads:
                    self._jobs.put(None)
        deadline = time.monotonic() + wait
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _hire(self) -> None:
        now = time.monotonic()
        hanging = sum(now - since > self._patience for since in self._running.values())
        idle = len(self._threads) - len(self._running)
        able = len(self._threads) - hanging
        if self._stopped or idle >= self._waiting or able >= self._count:
            return
        if len(self._threads) >= self._count * _MOST:
            return
        name = f"{self._name}-{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        me = threading.get_ident()
        while (job := self._jobs.get()) is not None:
            with self._lock:
                self._waiting -= 1
                if self._stopped:
                    continue
                self._running[me] = time.monotonic()
            try:
                job()
            finally:
                with self._lock:
                    del self._running[me]
