"""Removing a flat directory of ckptd's own, as the ones in the trash are.

There is no walk: a directory inside is nothing that ckptd put there, and neither is a link or a
special file. They stay, and are reported.
"""

import errno

from ckptd.checkpoints.listing import Entry, Kind
from ckptd.errors import NotFoundError, StorageError
from ckptd.storage.directory import Directory


def empty_and_remove(directory: Directory, name: str) -> None:
    """Unlink the regular files in the directory `name` of `directory`, then remove it.

    One file's error does not spare the others: the first is raised at the end, as `StorageError`,
    and the directory `name` then stays. The removal is durable after a sync of `directory`.
    """
    inside = directory.open_directory(name)
    try:
        errors = [error for entry in inside.list() if (error := _unlink(inside, entry))]
    finally:
        inside.close()
    if errors:
        raise errors[0]
    directory.remove_directory(name)


def _unlink(directory: Directory, entry: Entry) -> StorageError | None:
    if entry.kind is not Kind.FILE:
        reason = f"it is a {entry.kind.value}, not a file that ckptd put there; remove it by hand"
        path = f"{directory.path}/{entry.name}"
        return StorageError("remove", path, reason, number=errno.ENOTEMPTY)
    try:
        directory.unlink(entry.name)
    except NotFoundError:
        return None  # somebody else removed it, which is all that was wanted
    except StorageError as error:
        return error
    return None
