"""What a directory holds to restore from: judged as the keeper judges, seen as a reader sees.

Complete means here what it means to the keeper, by the bytes of the index; but links are followed,
because people link checkpoints together and hubs store them as links.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Final

from ckptd.checkpoints.inventory import (
    OWN_DIRECTORY,
    Checkpoint,
    Inventory,
    Partial,
    take_inventory,
)
from ckptd.checkpoints.layouts.tensorflow import STATE_FILE, prefix_of_path, v1_shards_of_path
from ckptd.checkpoints.listing import Entry
from ckptd.errors import CkptdError, NoSuchDirectoryError, printable
from ckptd.formats.state_file import MAX_STATE_FILE_SIZE, StateFile, parse_state_file
from ckptd.keeper.chronicle import in_order
from ckptd.keeper.inspector import DirectoryInspector
from ckptd.keeper.ledger import LEDGER, decode_ledger
from ckptd.retention.candidate import Candidate
from ckptd.storage.reading import ReaderDirectory

_SHOWN: Final = 5
_LEDGER_LIMIT: Final = 64 * 2**20  # bytes: for a hint, no more is read


class Holdings:
    """One directory, looked at once or again and again; reads only what has changed since."""

    def __init__(self, path: str) -> None:
        """Take a path, the empty one for the working directory; nothing need be there yet."""
        self.directory: Final = ReaderDirectory(path)
        self._inspector = DirectoryInspector(self.directory)

    def state(self, name: str = STATE_FILE) -> StateFile | None:
        """Return what a state file says, None where there is none.

        Raises `CorruptStateFileError` and `StorageError`.
        """
        if self.directory.entry(name) is None:
            return None
        return parse_state_file(self.directory.read(name, limit=MAX_STATE_FILE_SIZE))

    def judge(self, path: str) -> Checkpoint | Partial | None:
        """Return the checkpoint that the last part of `path` names, or what is there of it.

        V1's pattern over shards is such a name. Only the files of that name are looked at.
        """
        name = prefix_of_path(path)
        if not name:
            return None
        try:
            entries = self.directory.list(start=name)
        except NoSuchDirectoryError:
            return None
        files = [e for e in entries if e.name == name or e.name[len(name)] in ".-"]
        shards = {name: v1_shards_of_path(path)}
        found = take_inventory(files, self._inspector, named={name}, v1_shards=shards)
        judged: list[Checkpoint | Partial] = [*found.checkpoints, *found.partials]
        return next((each for each in judged if each.name == name), None)

    def require_v1(self, entry: Entry) -> None:
        """Return if a file is one complete shard of a V1 checkpoint; raise `FormatError` if not."""
        self._inspector.v1_shard(entry)

    def is_state_file(self, entry: Entry) -> bool:
        """Say whether a file is a state file, by its name or by how it begins."""
        return entry.name == STATE_FILE or self._inspector.is_state_file(entry)

    def look(self, named: Sequence[str] = ()) -> Inventory:
        """Return everything in the directory; `named` are paths that the state file names."""
        return self._sorted(self.directory.list(), named)

    def look_known(self, named: Sequence[str] = ()) -> Inventory:
        """Return what `look` does, less what a verification has found and written down as damaged.

        That counts as partial, as it does for the keeper. Nothing is verified here.
        """
        inventory = self.look(named)
        name = f"{OWN_DIRECTORY}/{LEDGER}"
        try:
            ledger = decode_ledger(self.directory.read(name, limit=_LEDGER_LIMIT))
        except CkptdError:  # none, or none that can be read: then nothing is known
            return inventory
        return inventory.with_damaged(ledger.damages(inventory.checkpoints))

    def _sorted(self, entries: list[Entry], named: Sequence[str]) -> Inventory:
        shards = {prefix_of_path(path): v1_shards_of_path(path) for path in named}
        inventory = take_inventory(entries, self._inspector, named=shards, v1_shards=shards)
        self._inspector.forget_all_but(entries)
        return inventory


def holdings_of(prefix: str) -> Holdings:
    """Return the directory that the checkpoint `prefix` lies in."""
    return Holdings(os.path.split(prefix)[0])


def oldest_first(checkpoints: Iterable[Checkpoint], listed: Sequence[str] = ()) -> list[Checkpoint]:
    """Sort by the time of the index, then step; `listed` (a state file's names) take its order."""
    by_name = {checkpoint.name: checkpoint for checkpoint in checkpoints}
    candidates = [Candidate(c.name, c.global_step, c.index.mtime) for c in by_name.values()]
    places = {name: place for place, name in enumerate(listed)}
    return [by_name[candidate.name] for candidate in in_order(candidates, places)]


def describe(inventory: Inventory) -> str:
    """Say in one sentence what a directory holds, for who looked for a checkpoint in it."""
    complete = [c.name for c in oldest_first(inventory.checkpoints)]
    if complete:
        be = "is" if len(complete) == 1 else "are"
        return f"complete {be} {enumerate_names(complete)}"
    if inventory.partials:
        reasons = [f"{printable(p.name)}: {p.reason}" for p in inventory.partials]
        shown = "; ".join(reasons[-_SHOWN:])
        more = len(reasons) - _SHOWN
        return f"nothing in it is complete: {shown}" + (f"; and {more:,} more" if more > 0 else "")
    if inventory.leftovers:
        left = [item.entry.name for item in inventory.leftovers]
        what = enumerate_names(left, in_order=False)
        return f"it holds what saves that did not finish left behind: {what}"
    others = [entry.name for entry in (*inventory.strangers, *inventory.state_files)]
    if not others:
        return "it is empty"
    return f"it holds no checkpoint, only {enumerate_names(others, in_order=False)}"


def enumerate_names(names: Sequence[str], *, in_order: bool = True) -> str:
    """Write names for a message: the last five, and how many there are before.

    Where they are in no order of time, the first five, and how many there are more.

    >>> enumerate_names(["m-1"]), enumerate_names(["m-1", "m-2", "m-3"])
    ('m-1', 'm-1, m-2 and m-3')
    >>> enumerate_names([f"m-{n}" for n in range(9)])
    'm-4, m-5, m-6, m-7 and m-8, and 4 before'
    >>> enumerate_names("abcdefghi", in_order=False)
    'a, b, c, d, e and 4 more'
    """
    left = max(0, len(names) - _SHOWN)
    shown = [printable(name) for name in (names[left:] if in_order else names[:_SHOWN])]
    if left and not in_order:
        shown.append(f"{left:,} more")
    text = f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else "".join(shown)
    return f"{text}, and {left:,} before" if left and in_order else text
