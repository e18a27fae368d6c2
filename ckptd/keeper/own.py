"""`.ckptd/`, what ckptd keeps inside a model directory, and the small records in it.

.ckptd/ledger.json          memory between sweeps (`ledger`)
.ckptd/history.jsonl        what was done, one line each; history.1.jsonl before it
.ckptd/pins/NAME            one file for each pinned checkpoint, with who and why
.ckptd/held.json            removals that wait for an approval
.ckptd/trash/ID/            a removed checkpoint's files and record.json (`trash`)
.ckptd/meta_graphs/DIGEST   each meta graph once (`meta_graphs`)
.ckptd/lock, .ckptd/owner   held during an operation; held by a daemon for as long as it lives
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

from ckptd.checkpoints.inventory import OWN_DIRECTORY
from ckptd.checkpoints.listing import Kind
from ckptd.errors import (
    BusyError,
    CorruptRecordError,
    NotFoundError,
    StorageError,
    printable,
)
from ckptd.keeper.ledger import LEDGER, FileMark, Ledger, decode_ledger, encode_ledger
from ckptd.storage.atomic import (
    TEMPORARY_PREFIX,
    discard,
    temporary_name,
    write_atomically,
)
from ckptd.storage.directory import Directory

HISTORY: Final = "history.jsonl"
OLD_HISTORY: Final = "history.1.jsonl"
HELD: Final = "held.json"
LOCK: Final = "lock"
OWNER: Final = "owner"
OWNER_NOTE: Final = "owner.json"
PINS: Final = "pins"
TRASH: Final = "trash"
GRAPHS: Final = "meta_graphs"

_RECORD_LIMIT: Final = 256 * 2**20  # a ledger of a million checkpoints; more is not ours
_HISTORY_LIMIT: Final = 4 * 2**20  # bytes, then the file becomes the old one
_NOTE_LIMIT: Final = 64 * 2**10


class Pin(NamedTuple):
    """A checkpoint that stays until it is unpinned."""

    name: str
    at: float
    by: str
    why: str


class Own:
    """The directory `.ckptd`, opened once; made when something is first written."""

    def __init__(self, model_directory: Directory) -> None:
        self._model_directory = model_directory
        self._opened: dict[str, Directory] = {}

    def close(self) -> None:
        """Let go of all that was opened."""
        for directory in reversed(self._opened.values()):
            directory.close()
        self._opened.clear()

    def root(self) -> Directory:
        """Open `.ckptd`, made if it is missing."""
        return self._open(self._model_directory, OWN_DIRECTORY)

    def room(self, name: str) -> Directory:
        """Open a directory in `.ckptd`, made if it is missing."""
        return self._open(self.root(), name)

    def existing_root(self) -> Directory | None:
        """Open `.ckptd`, or return None where ckptd has never written here."""
        return self._existing(self._model_directory, OWN_DIRECTORY)

    def existing_room(self, name: str) -> Directory | None:
        """Open a directory in `.ckptd`, or return None where it is missing."""
        root = self.existing_root()
        return None if root is None else self._existing(root, name)

    def _existing(self, parent: Directory, name: str) -> Directory | None:
        if name in self._opened:
            return self._opened[name]
        try:
            opened = self._opened[name] = parent.open_directory(name)
        except NotFoundError:
            return None
        return opened

    def _open(self, parent: Directory, name: str) -> Directory:
        existing = self._existing(parent, name)
        if existing is not None:
            return existing
        try:
            parent.make_directory(name)
        except StorageError:
            if parent.entry(name) is None:
                raise  # else another ckptd has made it just now
        parent.sync()
        opened = self._opened[name] = parent.open_directory(name)
        return opened

    @contextmanager
    def locked(self, *, wait: float) -> Iterator[None]:
        """Hold the directory for one operation. Raises `BusyError` if others do, for `wait` seconds."""
        with self.root().lock(LOCK, wait=wait) as got:
            if not got:
                path = printable(self._model_directory.path)
                raise BusyError(
                    f"another ckptd has been at work in {path} for {wait:g} s: try again"
                )
            yield

    @contextmanager
    def claimed(self, owner: Mapping[str, Any]) -> Iterator[bool]:
        """Keep the directory for one daemon; yields whether nobody else has it. Dies with its holder."""
        root = self.root()
        with root.lock(OWNER) as got:
            if got:
                # A note for messages: not worth a sync in each of a thousand directories.
                temporary = temporary_name()
                note = json.dumps(dict(owner)).encode("ascii")
                root.create(temporary, note, synced=False)
                with suppress(NotFoundError):  # another ckptd, tidying up, took it for a leftover
                    root.replace(temporary, OWNER_NOTE)
            yield got

    def owner(self) -> dict[str, Any] | None:
        """Return what the daemon that keeps this directory says of itself, or None if there is none."""
        root = self.existing_root()
        if root is None or root.entry(OWNER) is None:
            return None
        with root.lock(OWNER) as got:
            if got:
                return None
        try:
            note = json.loads(self._read(OWNER_NOTE) or b"{}")
        except ValueError:
            note = {}
        return note if isinstance(note, dict) else {}

    def read_ledger(self) -> Ledger | None:
        """Return the ledger, or None where there is none. Raises `CorruptRecordError`."""
        data = self._read(LEDGER)
        return None if data is None else decode_ledger(data)

    def write_ledger(self, ledger: Ledger) -> None:
        """Replace the ledger, durably."""
        write_atomically(self.root(), LEDGER, encode_ledger(ledger))

    def set_aside(self, name: str, now: float) -> None:
        """Rename one of our records that does not parse, so that it can be looked at."""
        root = self.root()
        if root.entry(name) is not None:
            root.replace(name, f"{name}.broken-{int(now)}")
            root.sync()

    def pins(self) -> dict[str, Pin]:
        """Return what is pinned, by name. A pin file that says nothing pins all the same."""
        room = self.existing_room(PINS)
        if room is None:
            return {}
        pins = {}
        for entry in room.list():
            if entry.kind is not Kind.FILE or entry.name.startswith(TEMPORARY_PREFIX):
                continue
            try:
                note = json.loads(room.read(entry.name, limit=_NOTE_LIMIT))
                pin = Pin(entry.name, float(note["at"]), str(note["by"]), str(note["why"]))
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError, StorageError):
                # What it says is for people; that the file is there is what counts.
                pin = Pin(entry.name, entry.mtime, "", "")
            pins[entry.name] = pin
        return pins

    def pin(self, pin: Pin) -> None:
        """Pin a checkpoint, durably."""
        note = {"at": pin.at, "by": pin.by, "why": pin.why}
        write_atomically(self.room(PINS), pin.name, json.dumps(note).encode("ascii"))

    def unpin(self, name: str) -> bool:
        """Let go of a pin; return whether there was one."""
        room = self.existing_room(PINS)
        if room is None or room.entry(name) is None:
            return False
        discard(room, name)
        room.sync()
        return True

    def record(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Add lines to the history, durably."""
        if not lines:
            return
        root = self.root()
        entry = root.entry(HISTORY)
        if entry is not None and entry.links > 1:
            # A copy by hard links (a backup) holds this file too: it is not ours alone to write.
            write_atomically(root, HISTORY, root.read(HISTORY, limit=_RECORD_LIMIT))
            entry = root.entry(HISTORY)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        if entry is not None and entry.size > _HISTORY_LIMIT:
            root.replace(HISTORY, OLD_HISTORY)
        elif entry is not None and entry.size:
            last = root.read(HISTORY, offset=entry.size - 1, size=1, limit=1)
            text = text if last == b"\n" else "\n" + text  # a crash has cut the last line short
        root.append(HISTORY, text.encode("ascii"))

    def history(self) -> list[dict[str, Any]]:
        """Return what was done here, oldest first. A line cut short by a crash is left out."""
        lines: list[dict[str, Any]] = []
        for name in (OLD_HISTORY, HISTORY):
            for line in (self._read(name) or b"").splitlines():
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(row, dict):
                    lines.append(row)
        return lines

    def held(self) -> "Held | None":
        """Return the removals that wait for an approval or have it, or None."""
        data = self._read(HELD)
        if data is None:
            return None
        try:
            document = json.loads(data)
            victims = {
                str(name): FileMark(*(int(number) for number in mark))
                for name, mark in document["victims"].items()
            }
            return Held(victims, str(document["why"]), bool(document["approved"]))
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            raise CorruptRecordError(f"held.json does not parse: {error!r}") from error

    def hold(self, held: "Held") -> None:
        """Write down what is held back."""
        document = {
            "victims": {name: list(mark) for name, mark in held.victims.items()},
            "why": held.why,
            "approved": held.approved,
        }
        write_atomically(self.root(), HELD, json.dumps(document).encode("ascii"))

    def release(self) -> None:
        """Forget what was held back."""
        root = self.existing_root()
        if root is not None and root.entry(HELD) is not None:
            discard(root, HELD)
            root.sync()

    def has_temporaries(self) -> bool:
        """Say whether there are temporary files of ours, of a crash or of another process."""
        return next(self._temporaries(), None) is not None

    def sweep_temporaries(self) -> None:
        """Remove temporary files of ours that a crash left; called while the lock is held."""
        for room, name in list(self._temporaries()):
            discard(room, name)

    def _temporaries(self) -> Iterator[tuple[Directory, str]]:
        for room in (self.existing_root(), self.existing_room(PINS), self.existing_room(GRAPHS)):
            if room is None:
                continue
            for entry in room.list():
                if entry.name.startswith(TEMPORARY_PREFIX) and entry.kind is Kind.FILE:
                    yield room, entry.name

    def _read(self, name: str) -> bytes | None:
        root = self.existing_root()
        if root is None:
            return None
        try:
            return root.read(name, limit=_RECORD_LIMIT)
        except NotFoundError:
            return None


class Held(NamedTuple):
    """Removals held back: checkpoints by name with the marks of their indexes, and why.

    `approved` says that a person has let them go since.
    """

    victims: Mapping[str, FileMark]
    why: str
    approved: bool
