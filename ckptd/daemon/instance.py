"""One daemon for each socket: a lock held for life, and the listening socket that it protects."""

import errno
import fcntl
import json
import os
import socket
import stat
from contextlib import suppress
from types import TracebackType
from typing import Any, Final

from ckptd.errors import BusyError, CkptdError, printable, storage_error

_OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NOTE: Final = 256  # bytes, always as many: one write replaces the note of the daemon before
_LONGEST_PATH: Final = 107  # bytes of an address (unix(7))
_BACKLOG: Final = 64


class Instance:
    """Holds `<socket>.lock` and listens at the socket. Use with `with`.

    The lock is a flock: it goes with the process, however that ends. Its file stays, for removing
    it would let two daemons lock two files of one name; it says who holds it.
    """

    def __init__(self, path: str, note: dict[str, Any]) -> None:
        """Raise `BusyError` if another daemon has the lock, or `CkptdError`."""
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise CkptdError(
                f"cannot listen at {printable(path)}: "
                f"the path of a socket is at most {_LONGEST_PATH} bytes long"
            )
        self.path = path
        self._make_directory()
        self._lock = self._take_lock(note)
        try:
            self.listening = self._listen()
            status = os.stat(path, follow_symlinks=False)  # noqa: PTH116 - whose it is, later
            self._identity = (status.st_dev, status.st_ino)
        except OSError as error:
            os.close(self._lock)
            raise storage_error("listen at", path, error) from error
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> "Instance":  # noqa: PYI034 (Self is in typing from Python 3.11 on)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.listening.close()
        with suppress(OSError):
            status = os.stat(self.path, follow_symlinks=False)  # noqa: PTH116 - as above
            if (status.st_dev, status.st_ino) == self._identity:
                os.unlink(self.path)  # noqa: PTH108 - as above
        os.close(self._lock)

    def _make_directory(self) -> None:
        """Make the directory of the socket, where only that is missing."""
        try:
            os.mkdir(os.path.dirname(self.path), 0o700)  # noqa: PTH102, PTH120 - as below
        except FileExistsError:
            return
        except OSError as error:
            raise storage_error("make the directory of", self.path, error) from error

    def _take_lock(self, note: dict[str, Any]) -> int:
        path = f"{self.path}.lock"
        try:
            lock = os.open(path, _OPEN, 0o600)
        except OSError as error:
            raise storage_error("open the lock file", path, error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            try:
                if error.errno != errno.EWOULDBLOCK:
                    raise storage_error("lock", path, error) from error
                raise BusyError(_who(os.read(lock, _NOTE), self.path)) from None
            finally:
                os.close(lock)
        with suppress(OSError):  # a full disk: the lock holds without its note
            os.write(lock, json.dumps(note).encode("ascii").ljust(_NOTE - 1) + b"\n")
        return lock

    def _listen(self) -> socket.socket:
        self._remove_stale()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            before = os.umask(0o177)  # from the first moment, nobody else may connect
            try:
                listening.bind(self.path)
            finally:
                os.umask(before)
            os.chmod(self.path, 0o660)  # noqa: PTH101 - a socket of ours, a moment old
            listening.setblocking(False)
            listening.listen(_BACKLOG)
        except BaseException:
            listening.close()
            raise
        return listening

    def _remove_stale(self) -> None:
        """Remove the socket of a daemon that was killed: its lock is ours now."""
        try:
            status = os.stat(self.path, follow_symlinks=False)  # noqa: PTH116 - what is in the way
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(status.st_mode):
            raise CkptdError(
                f"cannot listen at {printable(self.path)}: what is there is no socket; remove it, "
                "or choose another path"
            )
        os.unlink(self.path)  # noqa: PTH108 - no directory of models


def _who(note: bytes, path: str) -> str:
    try:
        said = json.loads(note)
        pid, since = int(said["pid"]), str(said["since"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"another daemon listens at {printable(path)}"
    return f"another daemon, pid {pid}, has listened at {printable(path)} since {printable(since)}"
