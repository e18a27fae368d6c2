"""Removal and its undoing: `.ckptd/trash/ID/`.

A checkpoint is removed by renaming its files into a directory of its own in the trash, the index
first: from then on it no longer exists for anybody. What is to be moved is written to
``record.json`` there and synced before the first rename, so that the record is the intent. After a
crash the index says what to do, for it is the checkpoint:

- it is in place: the removal never began, or its first rename was lost; what was moved goes back
- it is in the trash: the rest follows, unless the checkpoint has been saved anew meanwhile
- it is nowhere: the trainer took it; what lies in the trash is gone for good

Undo moves the files back, the index last, so that a crash in between is finished the same way: the
checkpoint ends wholly in the trash or wholly in place. A record that lies can therefore not take a
complete checkpoint away. A directory called ``gone-ID`` is to be unlinked for good; that may take
long, and nothing waits for it.
"""

import json
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from ckptd.checkpoints.inventory import Checkpoint
from ckptd.checkpoints.layouts.tensorflow import (
    STATE_FILE,
    Role,
    parse_file_name,
    parse_v1_name,
)
from ckptd.checkpoints.listing import Kind
from ckptd.errors import (
    CorruptRecordError,
    NoSuchCheckpointError,
    NotFoundError,
    StalePlanError,
    StorageError,
    printable,
)
from ckptd.keeper.ledger import FileMark
from ckptd.retention.candidate import Reason
from ckptd.retention.policy import Trash
from ckptd.storage.atomic import discard
from ckptd.storage.directory import Directory, is_bare_name
from ckptd.storage.removal import empty_and_remove

RECORD: Final = "record.json"
_SCHEMA: Final = "ckptd.removed/1"
_GONE: Final = "gone-"
_LIMIT: Final = 16 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """One removed checkpoint; `files` in the order of removal, `at` in seconds since the epoch."""

    id: str
    name: str
    global_step: int | None
    at: float
    reasons: tuple[Reason, ...]
    files: tuple[tuple[str, FileMark], ...]

    @property
    def index(self) -> str:
        """The file that makes the checkpoint exist."""
        return self.files[0][0]

    @property
    def bytes(self) -> int:
        """Bytes in its files."""
        return sum(mark.size for _, mark in self.files)


def check_unchanged(directory: Directory, checkpoint: Checkpoint) -> None:
    """Raise `StalePlanError` unless every file is still the one that the plan saw."""
    for entry in checkpoint.files:
        found = directory.entry(entry.name)
        if found is None or found.kind is not Kind.FILE or found.identity != entry.identity:
            _refuse(entry.name, "is gone" if found is None else "has changed")


def remove(
    directory: Directory,
    trash: Directory,
    checkpoint: Checkpoint,
    reasons: Sequence[Reason],
    now: float,
) -> Removed:
    """Move a checkpoint into the trash. Raise `StalePlanError` if it has changed, or `StorageError`.

    Each file is looked at again once it lies in the trash,
    where nobody else writes: one that the trainer has written meanwhile goes back, and so does
    what was moved before it. One that is gone, because the trainer rotates by itself, makes the
    checkpoint nobody's: the rest goes too, and cannot be brought back.
    """
    check_unchanged(directory, checkpoint)
    removed = Removed(
        id=_next_id(trash, now),
        name=checkpoint.name,
        global_step=checkpoint.global_step,
        at=now,
        reasons=tuple(reasons),
        files=tuple((entry.name, FileMark.of(entry.identity)) for entry in checkpoint.files),
    )
    trash.make_directory(removed.id)
    bin_ = trash.open_directory(removed.id)
    try:
        bin_.create(RECORD, _encode(removed))
        bin_.sync()
        trash.sync()
        moved: list[str] = []
        try:
            for name, mark in removed.files:
                if _move(directory, bin_, name, mark):
                    moved.append(name)
                elif not moved:
                    _refuse(name, "is gone")
        except (StorageError, StalePlanError):
            back = [_put_back(directory, bin_, name) for name in reversed(moved)]
            if all(back):
                _forget(trash, bin_, removed.id)
            else:
                _retire(trash, removed.id)
            directory.sync()
            raise
        bin_.sync()
        directory.sync()
    finally:
        bin_.close()
    if len(moved) < len(removed.files):
        _retire(trash, removed.id)
    return removed


def _move(directory: Directory, bin_: Directory, name: str, mark: FileMark) -> bool:
    """Move a file into the trash; return False if it is gone, raise if it is not the planned one."""
    try:
        directory.rename(name, name, into=bin_)
    except NotFoundError:
        if directory.entry(name) is not None:
            raise
        return False
    if not _is(bin_, name, mark):
        _put_back(directory, bin_, name)
        _refuse(name, "has changed")
    return True


def _put_back(directory: Directory, bin_: Directory, name: str) -> bool:
    """Move a file out of the trash again; return False if the trainer has put a newer one there."""
    try:
        bin_.rename(name, name, into=directory)
    except StorageError:
        if directory.entry(name) is None:
            raise
        return False
    return True


def _refuse(name: str, what: str) -> NoReturn:
    raise StalePlanError(f"{printable(name)} {what} since the plan was made")


def contents(trash: Directory) -> list[Removed]:
    """Return what is in the trash, in the order of removal, less what has no record that parses."""
    found = []
    for identifier in _bins(trash):
        with suppress(CorruptRecordError, StorageError):
            found.append(_read(trash, identifier))
    return found


def recover(directory: Directory, trash: Directory) -> list[Removed]:
    """Finish what a crash interrupted; return the removals that were finished here."""
    finished = []
    for identifier in _bins(trash):
        try:
            removed = _read(trash, identifier)
        except (CorruptRecordError, StorageError):
            # A crash before its record was synced, so nothing has been moved. Should something lie
            # there all the same, it stays for somebody to look at.
            _forget_if_empty(trash, identifier)
            continue
        bin_ = trash.open_directory(identifier)
        try:
            if _finish(directory, bin_, removed):
                finished.append(removed)
            is_empty = all(entry.name == RECORD for entry in bin_.list())
            is_whole = bin_.entry(removed.index) is not None
        finally:
            bin_.close()
        if is_empty or not is_whole:
            _retire(trash, identifier)
    return finished


def _finish(directory: Directory, bin_: Directory, removed: Removed) -> bool:
    """Bring one bin to rest; return whether files had to follow their index into it."""
    for name, mark in removed.files:
        if bin_.entry(name) is not None and not _is_in(bin_, name, mark):
            _put_back(directory, bin_, name)  # the trainer's: a crash came before it went back
    there = [name for name, mark in removed.files if _is_in(bin_, name, mark)]
    here = [
        name
        for name, mark in removed.files
        # A shared meta graph has one inode in place and in the trash: there it is enough.
        if name not in there and _is(directory, name, mark)
    ]
    if removed.index in here:
        for name in there:
            _put_back(directory, bin_, name)
        moved = bool(there)
    else:
        moved = removed.index in there and directory.entry(removed.index) is None and bool(here)
        for name in here if moved else ():
            directory.rename(name, name, into=bin_)
    if moved:
        bin_.sync()
        directory.sync()
    return moved and removed.index in there


def restore(directory: Directory, trash: Directory, removed: Removed) -> None:
    """Move a removed checkpoint back, its index last. Raise `NoSuchCheckpointError` if it cannot be."""
    bin_ = trash.open_directory(removed.id)
    try:
        for name, mark in removed.files:
            if not _is_in(bin_, name, mark):
                raise NoSuchCheckpointError(
                    f"{printable(removed.name)} is no longer whole in the trash: "
                    f"{printable(name)} is missing"
                )
            if directory.entry(name) is not None:
                raise NoSuchCheckpointError(
                    f"cannot bring {printable(removed.name)} back: there is a "
                    f"{printable(name)} in {printable(directory.path)} again"
                )
        index, *others = (name for name, _ in removed.files)
        for name in reversed(others):
            bin_.rename(name, name, into=directory)
        directory.sync()  # all that the index promises, before the index
        bin_.rename(index, index, into=directory)
        directory.sync()
        bin_.sync()
    finally:
        bin_.close()
    _retire(trash, removed.id)


def overdue(
    removed: Sequence[Removed], policy: Trash | None, now: float, *, need_space: bool
) -> list[Removed]:
    """Return what leaves the trash now: the old, the too many, or all where space is needed."""
    if policy is None or need_space:
        return list(removed)
    too_many = max(len(removed) - policy.checkpoints, 0)
    return [
        one
        for place, one in enumerate(removed)
        if place < too_many or one.at + policy.seconds <= now
    ]


def retire(trash: Directory, removed: Iterable[Removed]) -> None:
    """Mark checkpoints in the trash as gone for good: they cannot be brought back from now on."""
    for one in removed:
        _retire(trash, one.id)


def purge(trash: Directory) -> int:
    """Unlink what is gone for good; return how many checkpoints that were. May take long.

    One that cannot be unlinked does not spare the others: the first error is raised at the end.
    """
    count, errors = 0, []
    for entry in trash.list():
        if entry.kind is not Kind.DIRECTORY or not entry.name.startswith(_GONE):
            continue
        try:
            empty_and_remove(trash, entry.name)
            count += 1
        except NotFoundError:
            continue  # another ckptd was faster
        except StorageError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return count


def _bins(trash: Directory) -> list[str]:
    return sorted(
        entry.name
        for entry in trash.list()
        if entry.kind is Kind.DIRECTORY and not entry.name.startswith(_GONE)
    )


def _next_id(trash: Directory, now: float) -> str:
    """Return an ID that sorts behind all others, also when the clock has been set back."""
    taken = [int(head) for name in _bins(trash) if (head := name.split("-")[0]).isdecimal()]
    number = max([int(now * 1000), *(one + 1 for one in taken)])
    return f"{number:014d}-{secrets.token_hex(4)}"


def _retire(trash: Directory, identifier: str) -> None:
    trash.rename(identifier, _GONE + identifier)
    trash.sync()


def _is(directory: Directory, name: str, mark: FileMark) -> bool:
    entry = directory.entry(name)
    return entry is not None and entry.kind is Kind.FILE and FileMark.of(entry.identity) == mark


def _is_in(bin_: Directory, name: str, mark: FileMark) -> bool:
    """Say whether a recorded file lies in the trash.

    A meta graph may be shared, so that its time is not its own: that it is there must do.
    """
    parsed = parse_file_name(name)
    if parsed is not None and parsed.role in {Role.META_GRAPH, Role.DEBUG_INFO}:
        entry = bin_.entry(name)
        return entry is not None and entry.kind is Kind.FILE
    return _is(bin_, name, mark)


def _forget(trash: Directory, bin_: Directory, identifier: str) -> None:
    discard(bin_, RECORD)
    trash.remove_directory(identifier)


def _forget_if_empty(trash: Directory, name: str) -> None:
    bin_ = trash.open_directory(name)
    try:
        if any(entry.name != RECORD for entry in bin_.list()):
            return
        if bin_.entry(RECORD) is not None:
            bin_.unlink(RECORD)
    finally:
        bin_.close()
    trash.remove_directory(name)


def _read(trash: Directory, identifier: str) -> Removed:
    bin_ = trash.open_directory(identifier)
    try:
        return _decode(identifier, bin_.read(RECORD, limit=_LIMIT))
    finally:
        bin_.close()


def _encode(removed: Removed) -> bytes:
    document = {
        "schema": _SCHEMA,
        "name": removed.name,
        "global_step": removed.global_step,
        "at": removed.at,
        "reasons": [list(reason) for reason in removed.reasons],
        "files": [[name, *mark] for name, mark in removed.files],
    }
    return json.dumps(document).encode("ascii")


def _decode(identifier: str, data: bytes) -> Removed:
    try:
        document: dict[str, Any] = json.loads(data)
        if document["schema"] != _SCHEMA:
            raise CorruptRecordError(f"{identifier}: written by another ckptd")
        step = document["global_step"]
        removed = Removed(
            id=identifier,
            name=str(document["name"]),
            global_step=None if step is None else int(step),
            at=float(document["at"]),
            reasons=tuple(Reason(str(rule), str(text)) for rule, text in document["reasons"]),
            files=tuple(
                (str(name), FileMark(int(inode), int(size), int(mtime)))
                for name, inode, size, mtime in document["files"]
            ),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CorruptRecordError(f"{identifier}/{RECORD} does not parse: {error!r}") from error
    names = [name for name, _ in removed.files]
    if (
        not names
        or len(set(names)) < len(names)
        or not all(_belongs(name, removed.name) for name in names)
    ):
        raise CorruptRecordError(f"{identifier}/{RECORD} lists what is no file of one checkpoint")
    return removed


def _belongs(name: str, checkpoint: str) -> bool:
    """Say whether a recorded name is one of the checkpoint's: nobody's word is taken for it."""
    parsed = parse_file_name(name) or parse_v1_name(name)
    return is_bare_name(name) and name != STATE_FILE and parsed.prefix == checkpoint
