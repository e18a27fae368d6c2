"""What one listing of a directory says of each name: the values that every decision starts from."""

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """What a name stands for, without following symbolic links."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    OTHER = "special file"


class Identity(NamedTuple):
    """What makes a file this file and this content: when it changes, a plan made before is void."""

    device: int
    inode: int
    size: int
    mtime_ns: int


class Entry(NamedTuple):
    """One name in a directory, by lstat."""

    name: str
    kind: Kind
    identity: Identity
    links: int

    @property
    def size(self) -> int:
        """Bytes in the file, by its length."""
        return self.identity.size

    @property
    def mtime(self) -> float:
        """Seconds since the epoch."""
        return self.identity.mtime_ns / 1e9
