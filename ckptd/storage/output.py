"""A file that a person asked for, written as a stream, whole or not at all, durably."""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final

from ckptd.errors import StorageError, storage_error
from ckptd.storage.atomic import discard, temporary_name
from ckptd.storage.disk import DiskDirectory, open_model_directory

_WRITTEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Output:
    """A file on its way: nobody sees it under its name before it is whole."""

    stream: BinaryIO
    path: str
    """Where it grows meanwhile, for a library that writes by path."""


@contextmanager
def new_output(path: str, *, replace: bool) -> Iterator[Output]:
    """Make the file at `path` in the block: durable and under its name when that ends well.

    After an error there is nothing of it, and what was there before is as it was. An existing file
    is refused unless it is to be `replace`d, also one that came meanwhile. Raises `StorageError`.
    """
    head, name = os.path.split(path)
    directory = open_model_directory(head or ".")
    try:
        if not replace and directory.entry(name) is not None:
            raise _exists(path)
        temporary = temporary_name()
        try:
            with _stream(directory, temporary, path) as stream:
                mode = os.fstat(stream.fileno()).st_mode & 0o777
                yield Output(stream, f"{directory.path.rstrip('/')}/{temporary}")
            _finish(directory, temporary, mode, path)
            if replace:
                directory.replace(temporary, name)
            else:
                directory.rename(temporary, name)
        except BaseException:
            discard(directory, temporary)
            raise
        directory.sync()
    finally:
        directory.close()


@contextmanager
def _stream(directory: DiskDirectory, name: str, path: str) -> Iterator[BinaryIO]:
    try:
        descriptor = os.open(name, _NEW, 0o666, dir_fd=directory.fileno())
        with io.open(descriptor, "w+b", buffering=_BUFFER) as stream:  # noqa: UP020 - says that it is io's
            yield stream
    except OSError as error:
        raise storage_error("write", path, error) from error


def _finish(directory: DiskDirectory, name: str, mode: int, path: str) -> None:
    """Sync what has that name: a library that writes by path may have put another file there."""
    try:
        descriptor = os.open(name, _WRITTEN, dir_fd=directory.fileno())
        try:
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_error("write", path, error) from error


_BUFFER: Final = 2**20


def _exists(path: str) -> StorageError:
    return StorageError("write", path, "there is such a file already", number=errno.EEXIST)
