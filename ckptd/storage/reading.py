"""Files for one who only reads: by path, links followed, the large ones mapped rather than read.

A keeper works on bare names in a directory that it holds open, and follows no link. A reader is told
a path by a person, and people and model hubs keep checkpoints as links: so here every link is
followed, and what counts is that a regular file is at its end. Nothing here opens a pipe or a
device, and no descriptor stays open.

An index is read into memory: TensorFlow writes some of them in place, and a map of one would
change under its reader. A data file is mapped: TensorFlow renames it into place when it is whole, so
that neither a later save nor the removal of the checkpoint takes a byte away from who has mapped it.

One danger is left. A data file that somebody else truncates while it is mapped, or a page of it
that the disk or the network cannot give, ends the process with SIGBUS when that page is touched:
no exception can be made of it. `MappedFile.require_whole` sees the first just before the use; who
reads from storage that fails in such ways copies the file to a local disk first.
"""

import ctypes
import errno
import mmap
import os
import stat
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from ckptd.checkpoints.listing import Entry, Identity, Kind
from ckptd.errors import NoSuchDirectoryError, NotFoundError, StorageError, storage_error
from ckptd.storage.directory import not_a_file

_OPEN: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MISSING: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
_NO_DIRECTORY: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_KINDS: Final = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.SYMLINK}


@dataclass(frozen=True, slots=True)
class MappedFile:
    """A file's bytes, mapped. They stay as long as `view` or anything made of it is in use.

    `path` is absolute, so that a later change of the working directory does not matter.
    """

    path: str
    identity: Identity
    view: memoryview = field(repr=False)

    def require_whole(self) -> None:
        """Raise `StorageError` if the mapped file has been cut short: touching it could kill us.

        A file that was removed, or replaced by another one, is whole as far as it is mapped.
        """
        try:
            status = os.stat(self.path)  # noqa: PTH116 - like every other call here
        except OSError:
            return
        same = (status.st_dev, status.st_ino) == (self.identity.device, self.identity.inode)
        if same and status.st_size < len(self.view):
            left = f"{status.st_size:,} of {len(self.view):,} bytes"
            reason = f"it has been cut short since it was opened: {left} are left"
            raise StorageError("read", self.path, reason, number=errno.ESTALE)


class ReaderDirectory:
    """A directory as a reader sees it: a path, nothing held open.

    A link counts as what it leads to, and as a `Kind.SYMLINK` only where that is nothing. Every
    method raises `StorageError` and its kinds; a directory that is not there `NoSuchDirectoryError`.
    """

    def __init__(self, path: str) -> None:
        """Take an absolute or relative path; the empty one is the working directory."""
        self.path: Final = os.path.abspath(path)  # noqa: PTH100

    def __repr__(self) -> str:
        return f"ReaderDirectory({self.path!r})"

    def list(self, *, start: str = "") -> list[Entry]:
        """Return the names that begin with `start`, in no order, less what vanishes meanwhile."""
        entries = []
        try:
            with os.scandir(self.path) as found:
                for item in found:
                    if item.name.startswith(start):
                        entry = look_at(item.path)
                        if entry is not None:
                            entries.append(entry)
        except ValueError as error:
            reason = "it has characters that no path can have"
            raise NoSuchDirectoryError("list", self.path, reason, number=errno.EINVAL) from error
        except OSError as error:
            if error.errno not in _NO_DIRECTORY:
                raise storage_error("list", self.path, error) from error
            reason = os.strerror(error.errno)
            raise NoSuchDirectoryError("list", self.path, reason, number=error.errno) from error
        return entries

    def entry(self, name: str) -> Entry | None:
        """Return what `name` leads to, or None where there is no such name."""
        return look_at(self.path_of(name))

    def read(self, name: str, *, offset: int = 0, size: int | None = None, limit: int) -> bytes:
        """Return `size` bytes from `offset` (fewer at the end) or all, refusing more than `limit`."""
        path = self.path_of(name)
        with _opened("read", path) as descriptor:
            wanted = max(0, os.fstat(descriptor).st_size - offset)
            if size is not None:
                wanted = min(wanted, size)
            if wanted > limit:
                reason = f"{wanted} bytes, where at most {limit} are expected"
                raise StorageError("read", path, reason, number=errno.EFBIG)
            pieces = []
            while wanted and (piece := os.pread(descriptor, wanted, offset)):
                pieces.append(piece)
                offset += len(piece)
                wanted -= len(piece)
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def map(self, name: str) -> MappedFile:
        """Map a whole file, to read it where and when it is used."""
        path = self.path_of(name)
        with _opened("map", path) as descriptor:
            status = os.fstat(descriptor)
            return MappedFile(path, _identity(status), _mapped(descriptor, status.st_size))

    def path_of(self, name: str) -> str:
        """Return the absolute path of a name in here."""
        return f"{self.path.rstrip('/')}/{name}"


def look_at(path: str) -> Entry | None:
    """Return what `path` leads to, links followed, under its own last name; None if nothing is there.

    A link that leads nowhere is a `Kind.SYMLINK`. Raises `StorageError` where it cannot be known.
    """
    name = path.rsplit("/", 1)[-1]
    try:
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ELOOP}:
                raise
            status = os.lstat(path)
    except ValueError:
        return None  # a NUL in it: no file has such a path
    except OSError as error:
        if error.errno in _MISSING:
            return None
        raise storage_error("look at", path, error) from error
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), Kind.OTHER)
    return Entry(name, kind, _identity(status), status.st_nlink)


def _identity(status: os.stat_result) -> Identity:
    return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@contextmanager
def _opened(operation: str, path: str) -> Iterator[int]:
    """Open a regular file and nothing else; say what the kernel refuses inside the block."""
    found = look_at(path)  # before it is opened: opening alone acts on some devices
    if found is None:
        raise NotFoundError(operation, path, os.strerror(errno.ENOENT), number=errno.ENOENT)
    if found.kind is Kind.SYMLINK:
        raise NotFoundError(operation, path, "the link leads nowhere", number=errno.ENOENT)
    if found.kind is not Kind.FILE:
        raise not_a_file(operation, path, found.kind)
    try:
        descriptor = os.open(path, _OPEN)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise not_a_file(operation, path, Kind.OTHER)
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_error(operation, path, error) from error


def _mapped(descriptor: int, size: int) -> memoryview:
    """Map a file by the C library: Python's own maps keep a descriptor open, up to 3.13 always."""
    import numpy as np  # noqa: PLC0415 (the daemon maps nothing)

    if not size:
        return memoryview(b"")
    address = _mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    whole = (ctypes.c_ubyte * size).from_address(address)
    # Not at exit: whoever still runs then may still read.
    weakref.finalize(whole, _munmap, address, size).atexit = False
    # The collector does not look into an array of numpy. Else it would find `whole` in a cycle of
    # garbage, and have it unmapped before the finalizers of that cycle run, which may still read.
    hidden = np.frombuffer(memoryview(whole), np.uint8)
    hidden.flags.writeable = False
    return hidden.data


_FAILED: Final = ctypes.c_void_p(-1).value


def _from_c_library() -> tuple[
    Callable[[None, int, int, int, int, int], int], Callable[[int, int], int]
]:
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    )
    library.mmap.restype = ctypes.c_void_p
    library.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    library.munmap.restype = ctypes.c_int
    return library.mmap, library.munmap


_mmap, _munmap = _from_c_library()
