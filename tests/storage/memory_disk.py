"""A disk in memory that fails when told to and forgets what was not synced.

A `MemoryDisk` holds inodes, counts every call that changes or syncs something, and writes down the
micro-operations that such a call is made of. From these it derives every state in which a power
loss could leave the disk. What may be lost follows the model of ALICE (Pillai et al., OSDI 2014):

- a power loss comes after any micro-operation;
- what was written to a file may be missing, zeros, half there or there, until a sync of that file;
- a change of names may be lost, each for itself, until a sync of a directory it touches; a rename,
  a replacement and an exchange are lost as a whole or not at all;
- a sync that returned is believed: what it covers is there.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from ckptd.checkpoints.listing import Kind
from ckptd.errors import storage_error

ROOT: Final = 1


class Crash(BaseException):
    """The process ends here: nothing after it reaches the disk, not even from a `finally`."""


class Names(NamedTuple):
    """Names that change at once: (directory, name, what it leads to or None)."""

    changes: tuple[tuple[int, str, int | None], ...]


class Data(NamedTuple):
    """Bytes added to the end of a file that held `before`."""

    inode: int
    before: bytes
    added: bytes


class Sync(NamedTuple):
    """A sync of a file or directory that has returned."""

    inode: int


class Promise(NamedTuple):
    """Something was reported to somebody who may rely on it from now on."""

    text: str


Operation = Names | Data | Sync | Promise


@dataclass(slots=True)
class Inode:
    kind: Kind
    mode: int
    mtime_ns: int
    data: bytes = b""
    names: dict[str, int] = field(default_factory=dict)
    links: int = 0


class MemoryDisk:
    """The inodes under one root, the count of changes, the faults to come and the trace."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] | None = None,
        can_exchange: bool = True,
        free_bytes: int = 2**40,
    ) -> None:
        """Without `clock` (seconds since the epoch) each new content is a second younger."""
        self.clock = clock
        self.can_exchange = can_exchange
        self.free_bytes = free_bytes
        self.replaced = False
        self.aliases: set[str] = set()
        self.other_directories: set[str] = set()
        self.operations = 0
        self.promises: tuple[str, ...] = ()
        self.locked: set[int] = set()
        self.trace: list[Operation] = []
        self._ticks = 1_700_000_000
        self.inodes = {ROOT: Inode(Kind.DIRECTORY, 0o755, self.now())}
        self._before = _copied(self.inodes)
        self._promised: tuple[str, ...] = ()
        self._crash_at: int | None = None
        self._fail_at: int | None = None
        self._errno = 0
        self._sticky = False

    def fail_at(self, n: int, error_errno: int, *, sticky: bool = False) -> None:
        """Refuse the `n`-th change from now (1 is the next), and with `sticky` all after it."""
        self._fail_at, self._errno, self._sticky = self.operations + n, error_errno, sticky

    def crash_at(self, n: int) -> None:
        """Raise `Crash` at the `n`-th change from now, before it takes effect, and ever after."""
        self._crash_at = self.operations + n

    def promise(self, text: str) -> None:
        """Note that `text` is reported now; a state after a later crash has it in `promises`."""
        self.do(Promise(text))

    def settle(self) -> None:
        """Take all that is there for durable: crash states start from here."""
        self._before = _copied(self.inodes)
        self._promised = self.promises
        self.trace.clear()

    def restarted(self) -> "MemoryDisk":
        """Return the disk as the next process finds it when only the process ended.

        Locks and faults are gone; what was not synced still is not.
        """
        disk = self._state([], {}, frozenset())
        for operation in self.trace:
            disk.do(operation)
        return disk

    def killed_states(self) -> Iterator["MemoryDisk"]:
        """Yield what each kill of the process leaves: everything up to a point, nothing lost."""
        for end in range(len(self.trace) + 1):
            yield self._state(self.trace[:end], {}, frozenset())

    def crash_states(self, *, limit: int = 10) -> Iterator["MemoryDisk"]:
        """Yield each different state that a power loss since `settle` could leave.

        Up to `limit` changes of names that are not synced are lost in every combination; of more,
        all, all but one, one or none.
        """
        seen = set()
        for end in range(len(self.trace) + 1):
            done = self.trace[:end]
            if done and isinstance(done[-1], Sync):
                continue  # a sync makes no new state, it only rules some out
            unsynced = [i for i, operation in enumerate(done) if not _is_synced(done, i)]
            names = [i for i in unsynced if isinstance(done[i], Names)]
            for lost in _subsets(names, limit):
                for contents in _contents(done, unsynced):
                    state = self._state(done, contents, lost)
                    key = (state.promises, state.tree())
                    if key not in seen:
                        seen.add(key)
                        yield state

    def tree(self) -> tuple[tuple[str, int, bytes], ...]:
        """Return (path, inode, content) of all that is reachable, in order."""
        found: list[tuple[str, int, bytes]] = []
        ahead = [("", ROOT)]
        while ahead:
            path, number = ahead.pop()
            inode = self.inodes[number]
            found.append((path, number, inode.data))
            ahead += [(f"{path}/{name}", inner) for name, inner in inode.names.items()]
        return tuple(sorted(found))

    def now(self) -> int:
        if self.clock is not None:
            return round(self.clock() * 1e9)
        self._ticks += 1
        return self._ticks * 10**9

    def count(self, operation: str, path: str) -> None:
        """Count a change about to be made, and fail or crash if it is the one."""
        self.operations += 1
        if self._crash_at is not None and self.operations >= self._crash_at:
            raise Crash(f"{operation} {path}")
        if self._fail_at is not None and (
            self.operations == self._fail_at or (self._sticky and self.operations > self._fail_at)
        ):
            raise storage_error(operation, path, OSError(self._errno, ""))

    def make_inode(self, kind: Kind, mode: int) -> int:
        number = max(self.inodes) + 1
        self.inodes[number] = Inode(kind, mode, self.now())
        return number

    def do(self, operation: Operation) -> None:
        self.trace.append(operation)
        self._apply(operation)

    def _apply(self, operation: Operation) -> None:
        if isinstance(operation, Data):
            self.inodes[operation.inode].data = operation.before + operation.added
        elif isinstance(operation, Names):
            for directory, name, number in operation.changes:
                names = self.inodes[directory].names
                previous = names.pop(name, None)
                if previous is not None:
                    self.inodes[previous].links -= 1
                if number is not None:
                    names[name] = number
                    self.inodes[number].links += 1
        elif isinstance(operation, Promise):
            self.promises += (operation.text,)

    def _state(
        self, done: Sequence[Operation], contents: dict[int, bytes], lost: frozenset[int]
    ) -> "MemoryDisk":
        """Return a disk on which `done` happened, but for what was `lost`."""
        disk = MemoryDisk(
            clock=self.clock, can_exchange=self.can_exchange, free_bytes=self.free_bytes
        )
        disk._ticks = self._ticks
        disk.inodes = _copied(self._before)
        disk.promises = self._promised
        for number, inode in self.inodes.items():
            if number not in disk.inodes:
                disk.inodes[number] = Inode(inode.kind, inode.mode, inode.mtime_ns)
            disk.inodes[number].mtime_ns = inode.mtime_ns
        for i, operation in enumerate(done):
            if i not in lost:
                disk._apply(operation)
        for number, data in contents.items():
            disk.inodes[number].data = data
        disk.settle()
        return disk


def _copied(inodes: dict[int, Inode]) -> dict[int, Inode]:
    return {number: replace(inode, names=dict(inode.names)) for number, inode in inodes.items()}


def _is_synced(done: Sequence[Operation], i: int) -> bool:
    operation = done[i]
    if isinstance(operation, Names):
        touched = {directory for directory, _, _ in operation.changes}
    elif isinstance(operation, Data):
        touched = {operation.inode}
    else:
        return True
    return any(isinstance(later, Sync) and later.inode in touched for later in done[i:])


def _subsets(items: Sequence[int], limit: int) -> Iterable[frozenset[int]]:
    sizes: Iterable[int] = range(len(items) + 1)
    if len(items) > limit:
        sizes = (0, 1, len(items) - 1, len(items))
    return (frozenset(s) for size in sizes for s in itertools.combinations(items, size))


def _contents(done: Sequence[Operation], unsynced: Sequence[int]) -> Iterable[dict[int, bytes]]:
    """Yield every combination of what the files not synced may hold."""
    choices: dict[int, list[bytes]] = {}
    for i in unsynced:
        operation = done[i]
        if isinstance(operation, Data):
            _, before, added = operation
            found = choices.setdefault(operation.inode, [before])
            found += [before + bytes(len(added)), before + added[: len(added) // 2], before + added]
    for combination in itertools.product(*choices.values()):
        yield dict(zip(choices, combination, strict=True))
