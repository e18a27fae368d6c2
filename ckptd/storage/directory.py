"""What ckptd may do inside one directory: the whole of its power over a disk, as one interface.

Every name is a bare name: no slash, not ``.`` or ``..``, no NUL. Nothing follows a symbolic link,
nothing leaves the directory, nothing crosses to another file system. `ckptd.storage.disk` does it
with the kernel; the tests hold a directory in memory that can forget what was not synced, and one
contract suite runs over both.

What was made, renamed or removed is durable after `sync` of the directory, not before. What
`create`, `append`, `clone` and `copy` wrote into a file is durable when they return, its name is
not. An error leaves the directory as it was.
"""

import errno
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Final, Protocol, TypeAlias

from ckptd.checkpoints.listing import Entry, Identity, Kind
from ckptd.errors import StorageError
from ckptd.formats.checksum import BytesLike

Content: TypeAlias = BytesLike | Iterable[BytesLike]
"""What a new file is to hold: all of it, or one piece after the other."""


class PassingFile(Protocol):
    """A regular file held open to be read through: the same file, whatever becomes of its name."""

    @property
    def identity(self) -> Identity:
        """What the file is now; a write into it changes that."""

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset`; return how many bytes, fewer only where the file ends."""


class Directory(Protocol):
    """A directory held open. All methods raise `StorageError` and its kinds when the disk refuses.

    A name that is missing raises `NotFoundError`. `into` is another directory of the same file
    system and the same implementation; without it both names are in this one.
    """

    @property
    def path(self) -> str:
        """Where it was opened; for messages, never for work."""

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""

    @property
    def weak_sync(self) -> bool:
        """Whether a `sync` met a file system that cannot sync directories."""

    def verify(self) -> None:
        """Raise `DirectoryReplacedError` unless `path` still leads to this very directory."""

    def list(self) -> list[Entry]:
        """Return every name but ``.`` and ``..``, in no order, without what vanishes meanwhile."""

    def entry(self, name: str) -> Entry | None:
        """Return what `name` stands for, or None where there is no such name."""

    def read(self, name: str, *, offset: int = 0, size: int | None = None, limit: int) -> bytes:
        """Return `size` bytes from `offset` (fewer at the end) or all, refusing more than `limit`.

        Only a regular file is read: a pipe, a device or a link is refused, and never waited for.
        """

    def read_through(self, name: str) -> AbstractContextManager[PassingFile]:
        """Open a regular file to read all of it once, from the disk and past the page cache.

        What a trainer has in the cache is worth more than a checkpoint that is only looked over.
        """

    def create(self, name: str, data: Content, *, mode: int = 0o644, synced: bool = True) -> None:
        """Make a new file that holds `data`, written whole and synced; refuse an existing name.

        Of pieces each is written before the next is asked for; an error while they are made leaves
        no file. The process's umask takes its bits from `mode`. What need not outlive a power loss
        may do without being `synced`.
        """

    def append(self, name: str, data: bytes) -> None:
        """Add `data` to the end of a file (made if missing) and sync it.

        A file with more than one name is refused: the others' owners did not ask for it.
        """

    def rename(self, name: str, new_name: str, *, into: "Directory | None" = None) -> None:
        """Give a file another name, here or in `into`; refuse an existing new name."""

    def replace(self, name: str, new_name: str, *, into: "Directory | None" = None) -> None:
        """Like `rename`, but takes the place of an existing file at once."""

    def exchange(self, name: str, other: str, *, into: "Directory | None" = None) -> bool:
        """Swap two names at once; False where the file system cannot."""

    def link(self, name: str, new_name: str, *, into: "Directory | None" = None) -> None:
        """Give a regular file one more name, here or in `into`; refuse an existing name."""

    def clone(self, name: str, new_name: str, *, into: "Directory | None" = None) -> bool:
        """Make a new synced file that shares the extents of `name`; False where none can."""

    def copy(self, name: str, new_name: str, *, into: "Directory | None" = None) -> None:
        """Make a new synced file with the same bytes, the same mode and an inode of its own."""

    def unlink(self, name: str) -> None:
        """Remove a name of a file (not of a directory)."""

    def make_directory(self, name: str) -> None:
        """Make a directory open to whom this one is open to; refuse an existing name.

        Its permission bits and its group are this directory's, whatever the umask says: a trainer
        and a daemon of different users share what is inside.
        """

    def remove_directory(self, name: str) -> None:
        """Remove an empty directory."""

    def open_directory(self, name: str) -> "Directory":
        """Open a directory inside this one: no link, same file system."""

    def sync(self) -> None:
        """Make the names in this directory durable.

        A file system that has no such call (some network ones) sets `weak_sync` instead.
        """

    def sync_file(self, name: str) -> None:
        """Make a file's content durable."""

    def leads_here(self, path: str) -> bool | None:
        """Say whether `path`, links followed, is this directory; None where there is no directory.

        For understanding paths in a state file: nothing is opened, nothing is done there. Where it
        cannot be known (a parent that may not be entered), that is a `StorageError`.
        """

    def free_bytes(self) -> int:
        """Return how many bytes the file system still has for this user."""

    def lock(self, name: str, *, wait: float = 0.0) -> AbstractContextManager[bool]:
        """Hold an exclusive lock on file `name` (made if missing); it dies with its holder.

        Yields whether the lock was got within `wait` seconds. The file stays: removing it would let
        two holders lock two files of one name.
        """

    def close(self) -> None:
        """Let go of the directory; safe to call twice."""


_NOT_A_FILE: Final = {
    Kind.SYMLINK: errno.ELOOP,
    Kind.DIRECTORY: errno.EISDIR,
    Kind.OTHER: errno.ENXIO,
}


def pieces_of(data: Content) -> Iterable[BytesLike]:
    """Return the pieces in which `data` comes."""
    return (data,) if isinstance(data, (bytes, bytearray, memoryview)) else data


def is_bare_name(name: str) -> bool:
    r"""Say whether `name` can name an entry of a directory and nothing else.

    >>> [is_bare_name(name) for name in ("checkpoint", "..", "a/b", "", "a\0")]
    [True, False, False, False, False]
    """
    if not name or name in {".", ".."} or "/" in name or "\0" in name:
        return False
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def not_a_bare_name(operation: str, path: str) -> StorageError:
    """Return the error for a `path` whose last part is no bare name."""
    reason = "the last part is not the name of an entry of a directory"
    return StorageError(operation, path, reason, number=errno.EINVAL)


def not_a_file(operation: str, path: str, kind: Kind) -> StorageError:
    """Return the error for a `path` where a regular file is due and a `kind` was found."""
    reason = f"it is a {kind.value}, not a regular file"
    return StorageError(operation, path, reason, number=_NOT_A_FILE[kind])
