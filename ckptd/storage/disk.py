"""A directory on a real disk: one descriptor, held from the start, and names relative to it.

The operator's path is resolved once, when the directory is opened, and then walked from the root
one component at a time without following links. After that no path is used for work: whoever
renames a parent, or puts a link in its place, changes where the path leads, not what is held here.
`verify` tells the two apart.

Nothing is opened that can block or act on being opened: every open refuses links and does not wait
for the other end of a pipe.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from ckptd.checkpoints.listing import Entry, Identity, Kind
from ckptd.errors import (
    DirectoryReplacedError,
    NoSuchDirectoryError,
    StorageError,
    printable,
    storage_error,
)
from ckptd.formats.checksum import BytesLike
from ckptd.storage import renameat2
from ckptd.storage.directory import (
    Content,
    Directory,
    PassingFile,
    is_bare_name,
    not_a_bare_name,
    not_a_file,
    pieces_of,
)
from ckptd.storage.passing import DescriptorFile

_WALK: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HOLD: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW: Final = _FILE | os.O_CREAT | os.O_EXCL

_NO_DIRECTORY: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_NO_DIRECTORY_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP})
_NO_CLONE: Final = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS}
)
_FICLONE: Final = 0x40049409  # _IOW(0x94, 9, int), linux/fs.h; fcntl names it from Python 3.14 on

_KINDS: Final = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
}
_FORMAT_BITS: Final = 0o170000

_PIECE: Final = 8 * 2**20
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.2


def open_model_directory(path: str) -> "DiskDirectory":
    """Open the directory that `path` leads to now; links in it are followed here and never again.

    Raises `NoSuchDirectoryError` where there is none.
    """
    try:
        if not path:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        resolved = os.path.realpath(path, strict=True)
        reached = _walk(resolved)
        try:
            return DiskDirectory(os.open(".", _HOLD, dir_fd=reached), resolved)
        finally:
            os.close(reached)
    except ValueError as error:
        raise NoSuchDirectoryError(
            "open", path, "it has characters that no path can have", number=errno.EINVAL
        ) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # what was a link, and was to be read, is none any more
            reason = "the way there changes while it is walked"
            raise NoSuchDirectoryError("open", path, reason, number=error.errno) from error
        if error.errno not in _NO_DIRECTORY:
            raise storage_error("open", path, error) from error
        raise NoSuchDirectoryError(
            "open", path, os.strerror(error.errno), number=error.errno
        ) from error


class DiskDirectory:
    """A `Directory` that the kernel keeps. Made by `open_model_directory` and `open_directory`."""

    __slots__ = ("_descriptor", "_identity", "_path", "_weak_sync")

    def __init__(self, descriptor: int, path: str) -> None:
        """Take over `descriptor`, which was opened at `path`, a path without links."""
        status = os.fstat(descriptor)
        self._descriptor = descriptor
        self._path = path
        self._identity = (status.st_dev, status.st_ino)
        self._weak_sync = False

    def __repr__(self) -> str:
        return f"DiskDirectory({self._path!r})"

    def fileno(self) -> int:
        """Return the descriptor, which stays this object's; -1 after `close`."""
        return self._descriptor

    @property
    def path(self) -> str:
        """Where it was opened; for messages, never for work."""
        return self._path

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return self._identity

    @property
    def weak_sync(self) -> bool:
        """Whether a `sync` met a file system that cannot sync directories."""
        return self._weak_sync

    def verify(self) -> None:
        """Raise `DirectoryReplacedError` unless `path` still leads to this very directory."""
        operation = "go on with"
        try:
            reached = _walk(self._path)
        except OSError as error:
            if error.errno not in _NO_DIRECTORY:
                raise storage_error(operation, self._path, error) from error
            reason = "the path leads to no directory any more"
            raise DirectoryReplacedError(
                operation, self._path, reason, number=error.errno
            ) from error
        try:
            status = os.fstat(reached)
        finally:
            os.close(reached)
        if (status.st_dev, status.st_ino) != self._identity:
            reason = "the path leads to another directory than the one that was opened"
            raise DirectoryReplacedError(operation, self._path, reason)

    def list(self) -> list[Entry]:
        """Return every name but ``.`` and ``..``, in no order, without what vanishes meanwhile."""
        entries: list[Entry] = []
        with self._told("list"):
            # A descriptor of its own: the held one has one reading position for all threads.
            reading = os.open(".", _HOLD, dir_fd=self._descriptor)
            try:
                with os.scandir(reading) as found:
                    for item in found:
                        try:
                            status = item.stat(follow_symlinks=False)
                        except FileNotFoundError:
                            continue
                        entries.append(_entry(item.name, status))
            finally:
                os.close(reading)
        return entries

    def entry(self, name: str) -> Entry | None:
        """Return what `name` stands for, or None where there is no such name."""
        with self._told("look at", name):
            try:
                return _entry(name, _lstat(self._descriptor, name))
            except FileNotFoundError:
                return None

    def read(self, name: str, *, offset: int = 0, size: int | None = None, limit: int) -> bytes:
        """Return `size` bytes from `offset` (fewer at the end), or all; at most `limit`."""
        with self._told("read", name), self._opened("read", name, os.O_RDONLY) as descriptor:
            wanted = max(0, os.fstat(descriptor).st_size - offset)
            if size is not None:
                wanted = min(wanted, size)
            if wanted > limit:
                reason = f"{wanted} bytes, where at most {limit} are expected"
                raise StorageError("read", _join(self._path, name), reason, number=errno.EFBIG)
            pieces = []
            while wanted:
                piece = os.pread(descriptor, wanted, offset)
                if not piece:
                    break  # it was cut short meanwhile
                pieces.append(piece)
                offset += len(piece)
                wanted -= len(piece)
            return b"".join(pieces)

    @contextmanager
    def read_through(self, name: str) -> Iterator[PassingFile]:
        """Open a regular file to read all of it once, from the disk and past the page cache."""
        with self._told("read", name):
            descriptor = self._open_file("read", name, os.O_RDONLY)
        try:
            yield DescriptorFile(descriptor, _join(self._path, name))
        finally:
            os.close(descriptor)

    def create(self, name: str, data: Content, *, mode: int = 0o644, synced: bool = True) -> None:
        """Make a new file that holds `data`, written whole and synced; refuse an existing name."""
        new_file = _new_file(self._descriptor, name, mode, synced=synced)
        with self._told("create", name), new_file as descriptor:
            for piece in pieces_of(data):
                _write_all(descriptor, piece)

    def append(self, name: str, data: bytes) -> None:
        """Add `data` to the end of a file (made if missing) and sync it."""
        if self.entry(name) is None:
            self.create(name, data)
            return
        flags = os.O_WRONLY | os.O_APPEND
        with self._told("append to", name), self._opened("append to", name, flags) as descriptor:
            status = os.fstat(descriptor)
            if status.st_nlink > 1:
                reason = f"it has {status.st_nlink} names, and may be somebody else's file"
                raise StorageError(
                    "append to", _join(self._path, name), reason, number=errno.EMLINK
                )
            try:
                _write_all(descriptor, data)
                os.fsync(descriptor)
            except BaseException:
                # Half a record would spoil the one that is appended next.
                os.ftruncate(descriptor, status.st_size)
                raise

    def rename(self, name: str, new_name: str, *, into: Directory | None = None) -> None:
        """Give a file another name, here or in `into`; refuse an existing new name."""
        target = self._target(into)
        with self._told_of_two("give the name {} to", name, target, new_name):
            renameat2.rename_without_replacing(self._descriptor, name, target.fileno(), new_name)

    def replace(self, name: str, new_name: str, *, into: Directory | None = None) -> None:
        """Like `rename`, but takes the place of an existing file at once."""
        target = self._target(into)
        with self._told_of_two("give the name {} to", name, target, new_name):
            os.replace(name, new_name, src_dir_fd=self._descriptor, dst_dir_fd=target.fileno())
            if (target.identity, new_name) != (self.identity, name):
                self._drop_second_name(name, target, new_name)

    def exchange(self, name: str, other: str, *, into: Directory | None = None) -> bool:
        """Swap two names at once; False where the file system cannot."""
        target = self._target(into)
        with self._told_of_two("swap {} and", name, target, other):
            return renameat2.exchange(self._descriptor, name, target.fileno(), other)

    def link(self, name: str, new_name: str, *, into: Directory | None = None) -> None:
        """Give a regular file one more name, here or in `into`; refuse an existing name."""
        target = self._target(into)
        with self._told_of_two("give the second name {} to", name, target, new_name):
            found = _entry(name, _lstat(self._descriptor, name))
            if found.kind is not Kind.FILE:
                raise not_a_file("link", _join(self._path, name), found.kind)
            os.link(
                name,
                new_name,
                src_dir_fd=self._descriptor,
                dst_dir_fd=target.fileno(),
                follow_symlinks=False,
            )

    def clone(self, name: str, new_name: str, *, into: Directory | None = None) -> bool:
        """Make a new synced file that shares the extents of `name`; False where none can."""
        target = self._target(into)
        with (
            self._told_of_two("make the clone {} of", name, target, new_name),
            self._opened("clone", name, os.O_RDONLY) as source,
        ):
            try:
                with _new_file(target.fileno(), new_name, 0o600) as descriptor:
                    fcntl.ioctl(descriptor, _FICLONE, source)
                    _copy_mode(source, descriptor)
            except OSError as error:
                if error.errno not in _NO_CLONE:
                    raise
                return False
            return True

    def copy(self, name: str, new_name: str, *, into: Directory | None = None) -> None:
        """Make a new synced file with the same bytes, the same mode and an inode of its own."""
        target = self._target(into)
        with (
            self._told_of_two("make the copy {} of", name, target, new_name),
            self._opened("copy", name, os.O_RDONLY) as source,
            _new_file(target.fileno(), new_name, 0o600) as descriptor,
        ):
            piece = memoryview(bytearray(min(_PIECE, os.fstat(source).st_size + 1)))
            offset = 0
            while count := os.preadv(source, [piece], offset):
                _write_all(descriptor, piece[:count])
                offset += count
            _copy_mode(source, descriptor)

    def unlink(self, name: str) -> None:
        """Remove a name of a file (not of a directory)."""
        with self._told("remove", name):
            os.unlink(name, dir_fd=self._descriptor)

    def make_directory(self, name: str, *, mode: int | None = None) -> None:
        """Make a directory open to whom this one is open to; refuse an existing name.

        With a `mode` it is open to whom that lets in, less the umask, as any program makes one.
        """
        with self._told("make the directory", name):
            os.mkdir(name, 0o700 if mode is None else mode, dir_fd=self._descriptor)
            if mode is not None:
                return
            made = os.open(name, _HOLD, dir_fd=self._descriptor)
            try:
                group = os.fstat(made).st_mode & stat.S_ISGID
                # With the sticky bit, or what was kept from others here would not be in there.
                shared = os.fstat(self._descriptor).st_mode & (0o777 | stat.S_ISVTX)
                # By descriptor, for mkdir's own mode loses the umask's bits.
                os.fchmod(made, group | shared | 0o700)
            finally:
                os.close(made)

    def remove_directory(self, name: str) -> None:
        """Remove an empty directory."""
        with self._told("remove the directory", name):
            os.rmdir(name, dir_fd=self._descriptor)

    def open_directory(self, name: str) -> "DiskDirectory":
        """Open a directory inside this one: no link, same file system."""
        with self._told("open the directory", name):
            opened = DiskDirectory(
                os.open(name, _HOLD, dir_fd=self._descriptor), _join(self._path, name)
            )
            if opened._identity[0] != self._identity[0]:
                opened.close()
                reason = "it is on another file system than the directory that holds it"
                raise StorageError("open the directory", opened._path, reason, number=errno.EXDEV)
            return opened

    def sync(self) -> None:
        """Make the names in this directory durable, or set `weak_sync` where that is impossible."""
        with self._told("sync"):
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                if error.errno not in _NO_DIRECTORY_SYNC:
                    raise
                self._weak_sync = True

    def sync_file(self, name: str) -> None:
        """Make a file's content durable."""
        with self._told("sync", name), self._opened("sync", name, os.O_RDONLY) as descriptor:
            os.fsync(descriptor)

    def leads_here(self, path: str) -> bool | None:
        """Say whether `path`, links followed, is this directory; None where there is none."""
        try:
            status = os.stat(path)  # noqa: PTH116 - like every other call here
        except ValueError:
            return None
        except OSError as error:
            if error.errno in _NO_DIRECTORY or error.errno == errno.ENAMETOOLONG:
                return None
            raise storage_error("look at", path, error) from error
        if not stat.S_ISDIR(status.st_mode):
            return None
        return (status.st_dev, status.st_ino) == self._identity

    def free_bytes(self) -> int:
        """Return how many bytes the file system still has for this user."""
        with self._told("ask for the free space of"):
            status = os.statvfs(self._descriptor)
            return status.f_bavail * status.f_frsize

    @contextmanager
    def lock(self, name: str, *, wait: float = 0.0) -> Iterator[bool]:
        """Hold an exclusive lock on file `name` (made if missing); it dies with its holder.

        Yields whether the lock was got within `wait` seconds.
        """
        with self._told("lock", name):
            descriptor = self._locked(name, time.monotonic() + wait)
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                # A child forked meanwhile has the descriptor too: closing ours would not unlock.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                os.close(descriptor)

    def close(self) -> None:
        """Let go of the directory; safe to call twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _target(self, into: Directory | None) -> "DiskDirectory":
        if into is None:
            return self
        if not isinstance(into, DiskDirectory):
            raise TypeError(f"a {type(into).__name__} is not a directory of this disk")
        return into

    @contextmanager
    def _told(self, operation: str, name: str | None = None) -> Iterator[None]:
        """Turn what the kernel refuses inside the block into a `StorageError`; check `name`."""
        path = self._path if name is None else _join(self._path, name)
        if name is not None and not is_bare_name(name):
            raise not_a_bare_name(operation, path)
        try:
            yield
        except OSError as error:
            raise storage_error(operation, path, error) from error

    @contextmanager
    def _told_of_two(
        self, operation: str, name: str, target: "DiskDirectory", new_name: str
    ) -> Iterator[None]:
        """Like `_told`, for an `operation` that has a place for the second name."""
        shown = new_name if target is self else _join(target.path, new_name)
        if not is_bare_name(new_name):
            raise not_a_bare_name("use the name", shown)
        with self._told(operation.format(printable(shown)), name):
            yield

    @contextmanager
    def _opened(self, operation: str, name: str, flags: int) -> Iterator[int]:
        """Open a regular file and nothing else."""
        descriptor = self._open_file(operation, name, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _open_file(self, operation: str, name: str, flags: int) -> int:
        try:
            descriptor = os.open(name, flags | _FILE, dir_fd=self._descriptor)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR}:
                found = _entry(name, _lstat(self._descriptor, name))
                if found.kind is not Kind.FILE:
                    raise not_a_file(operation, _join(self._path, name), found.kind) from error
            raise
        try:
            found = _entry(name, os.fstat(descriptor))
        except OSError:
            os.close(descriptor)
            raise
        if found.kind is not Kind.FILE:
            os.close(descriptor)
            raise not_a_file(operation, _join(self._path, name), found.kind)
        return descriptor

    def _drop_second_name(self, name: str, target: "DiskDirectory", new_name: str) -> None:
        """Finish a replacement that POSIX makes a no-op: both names led to one file already."""
        with suppress(FileNotFoundError):
            if os.path.samestat(_lstat(self._descriptor, name), _lstat(target.fileno(), new_name)):
                os.unlink(name, dir_fd=self._descriptor)

    def _locked(self, name: str, deadline: float) -> int | None:
        """Return a descriptor that holds the lock, or None when `deadline` (monotonic) is over."""
        pause = _FIRST_PAUSE
        while True:
            descriptor = self._lock_file(name)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A lock on a file that somebody has replaced meanwhile excludes nobody.
                if os.path.samestat(os.fstat(descriptor), _lstat(self._descriptor, name)):
                    return descriptor
            except (BlockingIOError, FileNotFoundError):
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _lock_file(self, name: str) -> int:
        """Open the lock file; who may write into the directory may lock, and nobody else."""
        try:
            descriptor = os.open(name, os.O_RDWR | _NEW, 0o600, dir_fd=self._descriptor)
        except FileExistsError:
            descriptor = os.open(name, os.O_RDWR | _FILE, dir_fd=self._descriptor)
            found = _entry(name, os.fstat(descriptor))
            if found.kind is not Kind.FILE:
                os.close(descriptor)
                raise not_a_file("lock", _join(self._path, name), found.kind) from None
        else:
            writers = os.fstat(self._descriptor).st_mode & 0o022
            os.fchmod(descriptor, 0o600 | writers | writers << 1)
        return descriptor


def _walk(path: str) -> int:
    """Return an O_PATH descriptor of the directory at absolute `path`, reached through no link."""
    reached = os.open("/", _WALK)
    for component in path.split("/"):
        if component:
            try:
                inner = os.open(component, _WALK, dir_fd=reached)
            finally:
                os.close(reached)
            reached = inner
    return reached


def _join(path: str, name: str) -> str:
    return f"{path.rstrip('/')}/{name}"


def _lstat(directory: int, name: str) -> os.stat_result:
    return os.stat(name, dir_fd=directory, follow_symlinks=False)


def _entry(name: str, status: os.stat_result) -> Entry:
    return Entry(
        name,
        _KINDS.get(status.st_mode & _FORMAT_BITS, Kind.OTHER),
        Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns),
        status.st_nlink,
    )


@contextmanager
def _new_file(directory: int, name: str, mode: int, *, synced: bool = True) -> Iterator[int]:
    """Make a file that is written, `synced` and closed without an error, or is not there.

    A sync that failed is never tried again: the kernel reports a lost page once and then
    calls the file clean.
    """
    descriptor = os.open(name, os.O_WRONLY | _NEW, mode, dir_fd=directory)
    made = os.fstat(descriptor)
    try:
        try:
            yield descriptor
            if synced:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        # The error under way says more than a failure to tidy up after it would.
        with suppress(OSError):
            if os.path.samestat(_lstat(directory, name), made):
                os.unlink(name, dir_fd=directory)
        raise


def _copy_mode(source: int, descriptor: int) -> None:
    os.fchmod(descriptor, os.fstat(source).st_mode & 0o777)


def _write_all(descriptor: int, data: BytesLike) -> None:
    """Write all of `data`: the kernel may take less at a time, a full disk some of it."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
