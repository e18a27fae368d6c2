"""What can be seen of a directory from outside, by its path: a hint, on which nothing is done.

Two system calls tell most unchanged directories from the changed ones. What they cannot tell (a
file rewritten in place, two changes within one tick of the file system's clock) a listing does.
"""

import os
import stat
import time
from typing import Final, NamedTuple

_SETTLING: Final = 2 * 10**9
"""Nanoseconds after a change in which another one may bear the same time; two seconds on FAT."""


class Glance(NamedTuple):
    """A directory and one file in it: equal glances mean that no name has come or gone."""

    directory: tuple[int, int, int, int]
    file: tuple[int, int, int, int] | None
    fresh: bool
    """Whether the last change is so young that the next one may look the same."""

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode of the directory."""
        return self.directory[:2]


def glance(path: str, name: str) -> Glance | None:
    """Look at the directory at `path` and at `name` in it; None where there is no directory.

    Raises `OSError` where it cannot be known.
    """
    now = time.time_ns()
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISDIR(found.st_mode):
        return None
    try:
        file = _mark(os.lstat(f"{path}/{name}"))
    except (FileNotFoundError, NotADirectoryError):
        file = None
    latest = max(found.st_mtime_ns, found.st_ctime_ns, *(file[2:] if file else ()))
    return Glance(_mark(found), file, fresh=abs(now - latest) < _SETTLING)


def _mark(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns
