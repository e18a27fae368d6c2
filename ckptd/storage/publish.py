"""Puts a checkpoint under its name: whole, durable, and never a mixture with the one before.

Every file is written and synced under a temporary name first, so that a full disk costs nothing
that was there. Then, each step durable before the next:

    the file without which the checkpoint that is replaced does not exist goes, if others of its
    files are replaced too, its meta graph among them
    all files but the last take their names
    the last takes its own: from here on the checkpoint exists
    what is left of the one before goes

The last file is the one without which there is no checkpoint: the index, or the first shard of a V1
checkpoint. So whatever a crash leaves is the old checkpoint, none, or the new one, and temporary
files as TensorFlow's own saves leave them.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from secrets import randbits
from typing import NamedTuple

from ckptd.checkpoints.layouts.tensorflow import (
    Role,
    index_name,
    parse_file_name,
    parse_v1_name,
    temporary_name,
)
from ckptd.checkpoints.listing import Entry, Kind
from ckptd.errors import CkptdError, FormatError, StorageError
from ckptd.formats.v1_table import read_v1_promise
from ckptd.storage.atomic import discard
from ckptd.storage.directory import Content, Directory, not_a_file


class NewFile(NamedTuple):
    """A file of the checkpoint to be published, and what it is to hold."""

    name: str
    data: Content


class _Waiting(NamedTuple):
    """A file that is written, but does not have its name yet."""

    temporary: str
    name: str


def publish(directory: Directory, prefix: str, files: Iterable[NewFile]) -> None:
    """Publish `files`, the last of which makes the checkpoint `prefix` exist; durable on return.

    They are taken one by one, each when the one before is written. After an error, also one in what
    makes them, there are no temporary files, and the checkpoint that was there is as it was; only
    where some of its files had been replaced already there is none of that name.
    """
    waiting: list[_Waiting] = []
    try:
        for file in files:
            temporary = _temporary(file.name)
            directory.create(temporary, file.data)
            waiting.append(_Waiting(temporary, file.name))
        names = [file.name for file in waiting]
        _take_names(directory, prefix, waiting)
    except BaseException:
        _discard(directory, waiting)
        raise
    _remove_previous(directory, prefix, names)


def _take_names(directory: Directory, prefix: str, waiting: list[_Waiting]) -> None:
    """Give each file its name; what is left in `waiting` after an error has none."""
    there = {entry.name: entry for entry in directory.list()}
    for file in waiting:
        found = there.get(file.name)
        if found is not None and found.kind not in {Kind.FILE, Kind.SYMLINK}:
            raise not_a_file("replace", f"{directory.path.rstrip('/')}/{file.name}", found.kind)
    *others, last = waiting
    # A meta graph speaks of the whole checkpoint, also where its name is new.
    mixed = any(file.name in there or _role(file.name) is Role.META_GRAPH for file in others)
    first = _first_of_previous(directory, prefix, there, last.name) if mixed else []
    with _withdrawn(directory, first, waiting) if first else nullcontext():
        for file in others:
            directory.replace(*file)
            waiting.remove(file)
        if others:
            directory.sync()
        directory.replace(*last)
        waiting.remove(last)
        directory.sync()


def _first_of_previous(
    directory: Directory, prefix: str, there: Mapping[str, Entry], last: str
) -> list[str]:
    """Return the files without which there is no checkpoint of that name, of either format."""
    return [
        entry.name
        for entry in there.values()
        if entry.name in {index_name(prefix), last}
        or (_is_first_v1_shard(entry, prefix) and _is_removable(directory, entry))
    ]


@contextmanager
def _withdrawn(
    directory: Directory, names: Iterable[str], waiting: list[_Waiting]
) -> Iterator[None]:
    """Take files away durably in the block; bring them back if that fails before anything changed."""
    before = len(waiting)
    aside: list[_Waiting] = []
    try:
        for name in names:
            temporary = _temporary(name)
            directory.rename(name, temporary)
            aside.append(_Waiting(temporary, name))
        directory.sync()
        yield
    except BaseException:
        if len(waiting) == before:
            for file in aside:
                with suppress(CkptdError):
                    directory.rename(*file)
        else:
            _discard(directory, aside)
        raise
    _discard(directory, aside)


def _remove_previous(directory: Directory, prefix: str, names: Collection[str]) -> None:
    """Remove what an earlier checkpoint of this name has left besides the files of the new one."""
    previous = [
        entry
        for entry in directory.list()
        if entry.kind is Kind.FILE and entry.name not in names and _is_of(entry.name, prefix)
    ]
    index = index_name(prefix)
    if any(entry.name == index for entry in previous):
        # It comes before a V1 checkpoint with every reader: only now the new one is seen.
        directory.unlink(index)
        directory.sync()
    for entry in previous:
        # The new checkpoint is durable: what cannot be removed now goes with it one day.
        with suppress(StorageError):
            if entry.name != index and _is_removable(directory, entry):
                directory.unlink(entry.name)


def _role(name: str) -> Role | None:
    parsed = parse_file_name(name)
    return None if parsed is None else parsed.role


def _is_of(name: str, prefix: str) -> bool:
    parsed = parse_file_name(name)
    if parsed is not None and parsed.prefix == prefix:
        return parsed.role in {Role.INDEX, Role.DATA}
    return parse_v1_name(name).prefix == prefix


def _is_first_v1_shard(entry: Entry, prefix: str) -> bool:
    if entry.kind is not Kind.FILE or parse_file_name(entry.name) is not None:
        return False
    parsed = parse_v1_name(entry.name)
    return parsed.prefix == prefix and parsed.shard == 0


def _is_removable(directory: Directory, entry: Entry) -> bool:
    """Say whether a file is a checkpoint's; a name without suffix could be anybody's."""
    if parse_file_name(entry.name) is not None:
        return True
    try:
        read_v1_promise(
            lambda offset, size: directory.read(entry.name, offset=offset, size=size, limit=size),
            entry.size,
        )
    except FormatError:
        return False
    return True


def _temporary(name: str) -> str:
    return temporary_name(name, randbits(63))


def _discard(directory: Directory, files: Iterable[_Waiting]) -> None:
    """Remove what has no name yet. The error under way says more than one met here would."""
    for file in files:
        with suppress(StorageError):
            discard(directory, file.temporary)
