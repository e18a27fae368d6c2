"""The kernel's hints that something happened in a directory. Nothing is decided by them.

A lost hint delays work until the next rescan; a wrong one costs a look. So an event is used only to
find the directory that it happened in, and never the name in it. On a network file system the
kernel tells only of what this host does; the rescan finds the rest.

watchdog gives each scheduled path an emitter of its own: two threads and an inotify instance in 6,
of which a user may have 128, and in 7 a walk through all that is below. Here one emitter, built on
watchdog's base classes, has one inotify instance and one watch for each directory, and sees what
watchdog's own hides: the overflow of the kernel's queue.
"""

import ctypes
import errno
import os
import select
import struct
import threading
import time
from collections.abc import Callable
from enum import Flag, auto
from typing import Any, Final, NamedTuple, cast

from watchdog.events import DirModifiedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers.api import BaseObserver, EventEmitter, EventQueue, ObservedWatch
from watchdog.observers.inotify_c import (
    InotifyConstants,
    inotify_add_watch,
    inotify_init,
    inotify_rm_watch,
)

from ckptd.checkpoints.inventory import OWN_DIRECTORY
from ckptd.daemon.log import Event, Log


class Role(Flag):
    """Why a directory is watched."""

    MODEL_DIRECTORY = auto()
    PARENT = auto()
    """Model directories may appear in it."""


_TEMPORARY: Final = b"_temp"  # TensorFlow's directories for shards in the making: PREFIX_temp[...]
_OWN: Final = os.fsencode(OWN_DIRECTORY)

# The types that watchdog gives these differ between its versions.
_add_watch = cast("Callable[[int, bytes, int], int]", inotify_add_watch)
_remove_watch = cast("Callable[[int, int], int]", inotify_rm_watch)

_ITSELF: Final = (
    InotifyConstants.IN_DELETE_SELF | InotifyConstants.IN_MOVE_SELF | InotifyConstants.IN_UNMOUNT
)
_NAMES: Final = InotifyConstants.IN_CREATE | InotifyConstants.IN_MOVE | InotifyConstants.IN_DELETE
# Never IN_MODIFY or IN_OPEN: a trainer that writes gigabytes would wake us for each piece.
_MASKS: Final = {
    Role.PARENT: _NAMES,
    Role.MODEL_DIRECTORY: _NAMES | InotifyConstants.IN_CLOSE_WRITE,
    Role.PARENT | Role.MODEL_DIRECTORY: _NAMES | InotifyConstants.IN_CLOSE_WRITE,
}
_ALWAYS: Final = (
    InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
    | InotifyConstants.IN_EXCL_UNLINK
)
_NONE: Final = -1
_HEADER: Final = struct.Struct("iIII")
_BUFFER: Final = 64 * 2**10
_TIMEOUT: Final = 5.0  # seconds between two heartbeats of an emitter that has nothing to do
_SILENT: Final = 30.0  # seconds without a heartbeat after which it is given up
_LONGEST_QUEUE: Final = 10_000

_SYSCTLS: Final = {
    errno.ENOSPC: "fs.inotify.max_user_watches",
    errno.EMFILE: "fs.inotify.max_user_instances",
}


class Watched(NamedTuple):
    """One directory that the kernel watches for us."""

    path: str
    role: Role


class _Emitter(EventEmitter):
    """Reads one inotify instance and queues, for each directory in which something happened, an event."""

    def __init__(
        self,
        event_queue: EventQueue,
        watch: ObservedWatch,
        on_loss: Callable[[str], None],
        **_: Any,
    ) -> None:
        super().__init__(event_queue, watch, timeout=_TIMEOUT)
        self._on_loss = on_loss
        self._lock = threading.Lock()
        self._watched: dict[int, Watched] = {}
        self._numbers: dict[str, int] = {}
        self._descriptor = -1
        self._wake = -1
        self.beat = time.monotonic()

    def on_thread_start(self) -> None:
        """Open the instance. Raises `OSError` where the user has too many."""
        descriptor = inotify_init()
        if descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        os.set_inheritable(descriptor, False)
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def on_thread_stop(self) -> None:
        """Wake the thread, so that it ends now."""
        with self._lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        """Queue events until stopped, then let go of the instance."""
        try:
            super().run()
        finally:
            with self._lock:
                os.close(self._descriptor)
                os.close(self._wake)
                self._descriptor = self._wake = -1

    def add(self, path: str, role: Role) -> bool:
        """Watch `path` in this role too; say whether that is new. Raises `OSError`."""
        with self._lock:
            known = self._watched.get(self._numbers.get(path, _NONE))
            descriptor = self._descriptor
        if known is not None and known.path == path:
            if role in known.role:
                return False
            role |= known.role
        if descriptor < 0:
            return False
        # Without the lock: on a dead network mount this call may never return.
        number = _add_watch(descriptor, os.fsencode(path), _MASKS[role] | _ALWAYS)
        if number < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), path)
        with self._lock:
            self._watched[number] = Watched(path, role)
            self._numbers[path] = number
        return True

    def remove(self, path: str, role: Role) -> None:
        """Watch `path` no more in this role."""
        with self._lock:
            number = self._numbers.get(path, _NONE)
            known = self._watched.get(number)
            if known is None or known.path != path:  # renamed, and watched under its new name
                self._numbers.pop(path, None)
                return
            left = known.role & ~role
            if left:
                self._watched[number] = Watched(path, left)
                return
            del self._watched[number], self._numbers[path]
            if self._descriptor >= 0:
                _remove_watch(self._descriptor, number)

    def queue_events(self, timeout: float) -> None:
        """Wait for what the kernel has to say, at most `timeout` seconds."""
        self.beat = time.monotonic()
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        ready = dict(poll.poll(timeout * 1000))
        if self._wake in ready or self._descriptor not in ready:
            return
        data = os.read(self._descriptor, _BUFFER)
        offset = 0
        while offset < len(data):
            number, mask, _, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size
            name = data[offset : offset + length].rstrip(b"\0")
            offset += length
            self._judge(number, mask, name)

    def _judge(self, number: int, mask: int, name: bytes) -> None:
        if mask & InotifyConstants.IN_Q_OVERFLOW:
            self._on_loss("the kernel's queue of events was full")
            return
        with self._lock:
            watched = self._watched.get(number)
            if watched is None:
                return
            if mask & InotifyConstants.IN_IGNORED:
                del self._watched[number]
                if self._numbers.get(watched.path) == number:
                    del self._numbers[watched.path]
        is_directory = bool(mask & InotifyConstants.IN_ISDIR)
        is_itself = bool(mask & (_ITSELF | InotifyConstants.IN_IGNORED))
        if name == _OWN or (is_directory and _TEMPORARY in name):
            return
        if is_itself or is_directory or Role.MODEL_DIRECTORY in watched.role:
            self.queue_event(DirModifiedEvent(watched.path))


class _Handler(FileSystemEventHandler):
    """Collects the directories in which something happened; cannot raise."""

    def __init__(self, on_events: Callable[[], None]) -> None:
        self._on_events = on_events
        self._lock = threading.Lock()
        self._paths: set[str] = set()

    def on_any_event(self, event: FileSystemEvent) -> None:
        with self._lock:
            first = not self._paths
            self._paths.add(os.fsdecode(event.src_path))
        if first:
            self._on_events()

    def take(self) -> set[str]:
        """Return the directories that were not taken yet."""
        with self._lock:
            paths, self._paths = self._paths, set()
            return paths


class Watcher:
    """Watches directories, as far as the kernel allows; what it cannot watch is left to the rescan.

    `on_events` is called when `take` has something to give, `on_loss` with a reason when events
    were lost; both in another thread, and neither may raise.
    """

    def __init__(
        self, log: Log, on_events: Callable[[], None], on_loss: Callable[[str], None]
    ) -> None:
        self._log = log
        self._on_loss = on_loss
        self._handler = _Handler(on_events)
        self._observer: BaseObserver | None = None
        self._emitter: _Emitter | None = None
        self._unwatched: set[str] = set()
        self._told: set[int] = set()

    @property
    def is_whole(self) -> bool:
        """Whether every directory is watched; else some are left to the rescan."""
        return self._emitter is not None and not self._unwatched

    @property
    def is_started(self) -> bool:
        """Whether any directory can be watched."""
        return self._emitter is not None

    def start(self) -> None:
        """Begin, with no directory watched yet."""
        on_loss = self._on_loss

        def make_emitter(event_queue: EventQueue, watch: ObservedWatch, **_: Any) -> _Emitter:
            return _Emitter(event_queue, watch, on_loss)

        observer = BaseObserver(make_emitter)  # type: ignore[arg-type]  # is only called
        observer.schedule(self._handler, "/")  # the one emitter of all directories
        (emitter,) = observer.emitters
        assert isinstance(emitter, _Emitter)
        try:
            observer.start()
        except OSError as error:
            self._tell_limit(error)
            return
        self._observer, self._emitter = observer, emitter

    def stop(self) -> None:
        """End, and wait for the threads."""
        observer, self._observer = self._observer, None
        self._emitter = None
        if observer is not None:
            observer.stop()
            observer.join()

    def rebuild(self) -> None:
        """Begin again; the caller has every directory watched anew, and looked at."""
        self.stop()
        self._unwatched.clear()
        self.start()

    def watch(self, path: str, role: Role) -> bool:
        """Watch `path` in this role too; say whether that is new. For any thread.

        Only what happens from now on is told: look after this call, not before.
        """
        emitter = self._emitter
        if emitter is None:
            return False
        try:
            added = emitter.add(path, role)
        except OSError as error:
            if error.errno in _SYSCTLS:
                self._unwatched.add(path)
                self._tell_limit(error)
            return False  # gone or closed to us: whoever looks into it will say so
        self._unwatched.discard(path)
        return added

    def unwatch(self, path: str, role: Role) -> None:
        """Watch `path` no more in this role. For any thread."""
        self._unwatched.discard(path)
        emitter = self._emitter
        if emitter is not None:
            emitter.remove(path, role)

    def take(self) -> set[str]:
        """Return the directories in which something happened since the last time."""
        return self._handler.take()

    def fault(self) -> str | None:
        """Return what is wrong with the threads, or None. Without inotify there are none."""
        observer, emitter = self._observer, self._emitter
        if observer is None or emitter is None:
            return None
        if not observer.is_alive():
            return "the thread that hands out events has ended"
        if not emitter.is_alive():
            return "the thread that reads events has ended"
        if time.monotonic() - emitter.beat > _SILENT:
            return f"the thread that reads events has not moved for {_SILENT:.0f} s"
        if observer.event_queue.qsize() > _LONGEST_QUEUE:
            return f"more than {_LONGEST_QUEUE:,} events wait"
        return None

    def _tell_limit(self, error: OSError) -> None:
        number = error.errno or 0
        if number in self._told:
            return
        self._told.add(number)
        sysctl = _SYSCTLS.get(number)
        advice = f"; raise it with `sysctl {sysctl}=N`" if sysctl else ""
        self._log(
            Event.WATCH_LIMIT,
            reason=f"inotify: {error.strerror}{advice}; changes are found by the rescan meanwhile",
            model_dir=error.filename,
        )
