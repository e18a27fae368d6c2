"""The kernel's hints to one who waits for a directory to change. Nothing is decided by them.

A hint ends the wait; what has happened, the waiter looks up. Where there are none (a network file
system, no inotify instance left), the wait ends by its time. No thread: the kernel is asked while
somebody waits, and keeps what happens in between.
"""

import ctypes
import errno
import os
import select
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, cast

_SETTLE: Final = 0.05
"""Seconds that a save's other events are waited for after the first: one look for all of them."""
_BUFFER: Final = 64 * 2**10
_NONE: Final = -1
_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR})


class Hints:
    """Hints of what appears in the directory at `path`, which need not be there yet.

    A context manager; it has one descriptor open, or none where the user has no inotify instance left.
    """

    def __init__(self, path: str) -> None:
        from watchdog.observers.inotify_c import (  # noqa: PLC0415 (30 ms that only followers pay)
            InotifyConstants,
            inotify_add_watch,
            inotify_init,
            inotify_rm_watch,
        )

        # The types that watchdog gives these differ between its versions.
        self._add = cast("Callable[[int, bytes, int], int]", inotify_add_watch)
        self._remove = cast("Callable[[int, int], int]", inotify_rm_watch)
        appears = InotifyConstants.IN_CREATE | InotifyConstants.IN_MOVED_TO
        itself = InotifyConstants.IN_DELETE_SELF | InotifyConstants.IN_MOVE_SELF
        self._above_mask = appears | itself | InotifyConstants.IN_ONLYDIR
        self._mask = self._above_mask | InotifyConstants.IN_CLOSE_WRITE
        self._path = os.path.abspath(path)  # noqa: PTH100
        self._here = self._above = _NONE
        self._descriptor: int = inotify_init()
        if self._descriptor >= 0:
            os.set_inheritable(self._descriptor, False)
            os.set_blocking(self._descriptor, False)

    def wait(self, seconds: float) -> None:
        """Return soon after something has appeared since the last wait, at the latest in `seconds`.

        Returns at once where the directory has only begun to be watched: look again then.
        """
        if self._descriptor < 0:
            time.sleep(seconds)
            return
        if self._watch():
            return
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return
        time.sleep(min(_SETTLE, seconds))
        try:
            while os.read(self._descriptor, _BUFFER):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Let go of the descriptor; safe to call twice."""
        descriptor, self._descriptor = self._descriptor, _NONE
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> "Hints":  # noqa: PYI034 (Self is in typing from Python 3.11 on)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _watch(self) -> bool:
        """Watch the directory, or what is there of the way to it; say whether that is new."""
        number = self._add(self._descriptor, os.fsencode(self._path), self._mask)
        if number >= 0:
            if self._above >= 0:
                self._remove(self._descriptor, self._above)
                self._above = _NONE
            is_new, self._here = number != self._here, number
            return is_new
        above = self._path
        while number < 0 and above != "/" and ctypes.get_errno() in _NOT_THERE:
            above = os.path.dirname(above)  # noqa: PTH120
            number = self._add(self._descriptor, os.fsencode(above), self._above_mask)
        is_new = number >= 0 and number != self._above
        if is_new and self._above >= 0:
            self._remove(self._descriptor, self._above)
        self._above = number
        return is_new
