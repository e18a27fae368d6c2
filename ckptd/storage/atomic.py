"""Write a small file whole or not at all, durably."""

import secrets
from collections.abc import Callable

from ckptd.checkpoints.listing import Entry
from ckptd.errors import CkptdError, NotFoundError, StorageError
from ckptd.storage.directory import Directory

TEMPORARY_PREFIX = ".ckptd-tmp-"


def temporary_name() -> str:
    """Return a name of ours that nobody else has."""
    return f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"


def write_atomically(directory: Directory, name: str, data: bytes, *, mode: int = 0o644) -> None:
    """Put `data` under `name`: after a crash there is the old file or the new one, never a mixture."""
    temporary = temporary_name()
    directory.create(temporary, data, mode=mode)
    try:
        directory.replace(temporary, name)
    except CkptdError:
        discard(directory, temporary)
        raise
    directory.sync()


def swap_in(
    directory: Directory,
    name: str,
    source: Directory,
    temporary: str,
    expected: Callable[[Entry | None], bool],
) -> bool:
    """Put `temporary` (in `source`) in the place of `name`, if what `name` was is as `expected`.

    The two change places at once, and only then is what came out looked at: whatever another
    program wrote there in between goes back, and is never lost. Where the file system cannot
    exchange, the look comes before the replacement, as near as it can be. Returns whether `name`
    is the new file now; whatever else came out is removed, or stays where the other program put it.
    """
    before = directory.entry(name)
    if not expected(before):
        discard(source, temporary)
        return False
    if before is None:
        try:
            source.rename(temporary, name, into=directory)
        except StorageError:
            discard(source, temporary)
            if directory.entry(name) is None:
                raise
            return False  # somebody else made it just now
        directory.sync()
        return True
    placed = source.entry(temporary)
    try:
        if not source.exchange(temporary, name, into=directory):
            source.replace(temporary, name, into=directory)
            directory.sync()
            return True
    except StorageError:
        discard(source, temporary)
        if directory.entry(name) is not None:
            raise
        return False  # somebody else removed it just now
    came_out = source.entry(temporary)
    taken = expected(came_out)
    while not taken:
        # Another program wrote in between: its file goes back. If it wrote once more meanwhile,
        # what comes out now is newer than what went in, and goes back in its turn.
        source.exchange(temporary, name, into=directory)
        placed, came_out, previous = came_out, source.entry(temporary), placed
        if came_out is None or previous is None or came_out.identity == previous.identity:
            break
    discard(source, temporary)
    directory.sync()
    return taken


def unchanged(was: Entry | None) -> Callable[[Entry | None], bool]:
    """Return the question whether what is found is still the file `was`, under whatever name."""
    identity = None if was is None else was.identity
    return lambda found: (None if found is None else found.identity) == identity


def discard(directory: Directory, name: str) -> None:
    """Remove a temporary file of ours; one that is gone already is fine."""
    try:
        directory.unlink(name)
    except NotFoundError:
        return
