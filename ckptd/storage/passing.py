"""Reading a whole file once, from the disk and past the page cache.

What a trainer has in the cache is worth more than a checkpoint that is only looked over, and what the
cache holds of that one says nothing of the disk. So its pages are let go of before and after.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ckptd.checkpoints.listing import Identity, Kind
from ckptd.errors import StorageError, storage_error
from ckptd.storage.directory import not_a_file
from ckptd.storage.reading import look_at


class DescriptorFile:
    """A `PassingFile` over a descriptor of a regular file, which somebody else closes."""

    __slots__ = ("_descriptor", "_path")

    def __init__(self, descriptor: int, path: str) -> None:
        """Take a descriptor open for reading; `path` is for messages."""
        self._descriptor = descriptor
        self._path = path
        self._advise(os.POSIX_FADV_DONTNEED)
        self._advise(os.POSIX_FADV_SEQUENTIAL)

    @property
    def identity(self) -> Identity:
        """What the file is now; a write into it changes that."""
        try:
            status = os.fstat(self._descriptor)
        except OSError as error:
            raise storage_error("look at", self._path, error) from error
        return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset`; return how many bytes, fewer only where the file ends."""
        filled = 0
        try:
            while filled < len(buffer):
                count = os.preadv(self._descriptor, [buffer[filled:]], offset + filled)
                if not count:
                    break
                filled += count
        except OSError as error:
            raise storage_error("read", self._path, error) from error
        self._advise(os.POSIX_FADV_DONTNEED, offset, filled)
        return filled

    def _advise(self, advice: int, offset: int = 0, size: int = 0) -> None:
        with suppress(OSError):  # a file system that takes no advice reads the same bytes
            os.posix_fadvise(self._descriptor, offset, size, advice)


@contextmanager
def read_through(path: str) -> Iterator[DescriptorFile]:
    """Open the regular file at the end of `path`, links followed, to read all of it once.

    For one who only reads; a keeper asks its `Directory`. Raises `StorageError`.
    """
    found = look_at(path)  # before it is opened: opening alone acts on some devices
    if found is not None and found.kind not in {Kind.FILE, Kind.SYMLINK}:
        raise not_a_file("read", path, found.kind)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise storage_error("read", path, error) from error
    except ValueError as error:
        reason = "it has characters that no path can have"
        raise StorageError("read", path, reason) from error
    try:
        yield DescriptorFile(descriptor, path)
    finally:
        os.close(descriptor)
