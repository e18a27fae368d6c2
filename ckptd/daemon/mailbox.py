"""How other threads, and signals, speak to the main loop: they leave an action and wake it."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress


class Mailbox:
    """Actions for the main loop, in the order in which they came.

    `post` takes no lock, so that a signal handler may call it in the middle of anything.
    """

    def __init__(self) -> None:
        self._actions: deque[Callable[[], None]] = deque()
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """Return the descriptor that is readable while there are actions."""
        return self._event

    def post(self, action: Callable[[], None]) -> None:
        """Leave `action` to be called in the main loop. After `close`, nobody will."""
        self._actions.append(action)
        with suppress(BlockingIOError):  # the counter is full: the loop is awake anyway
            if self._event >= 0:
                os.eventfd_write(self._event, 1)

    def take(self) -> Iterator[Callable[[], None]]:
        """Yield what is there now; what comes meanwhile waits for the next turn."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._event)
        for _ in range(len(self._actions)):
            yield self._actions.popleft()

    def close(self) -> None:
        """Let go of the descriptor; no other thread may post any more."""
        event, self._event = self._event, -1
        if event >= 0:
            os.close(event)
