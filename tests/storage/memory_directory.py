"""A `Directory` on a disk in memory: the same contract as the real one, and what tests add to it.

`MemoryDirectory()` is the root of a new `MemoryDisk`, which its `disk` leads to for faults, crash
states and the trace.
"""

import errno
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from storage.memory_disk import ROOT, Crash, Data, Inode, MemoryDisk, Names, Sync

from ckptd.checkpoints.listing import Entry, Identity, Kind
from ckptd.errors import DirectoryReplacedError, StorageError, storage_error
from ckptd.storage.directory import (
    Content,
    Directory,
    PassingFile,
    is_bare_name,
    not_a_bare_name,
    not_a_file,
)

DEVICE: Final = 1


class _PassingFile:
    """One inode of a disk, read as far as it goes at the time."""

    def __init__(self, disk: MemoryDisk, number: int) -> None:
        self._disk = disk
        self._number = number

    @property
    def identity(self) -> Identity:
        inode = self._disk.inodes[self._number]
        return Identity(DEVICE, self._number, len(inode.data), inode.mtime_ns)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        data = self._disk.inodes[self._number].data[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        return len(data)


class MemoryDirectory:
    """One directory of a `MemoryDisk`; `MemoryDirectory()` is the root of a new one."""

    def __init__(
        self, disk: MemoryDisk | None = None, inode: int = ROOT, path: str = "/memory"
    ) -> None:
        self.disk = disk or MemoryDisk()
        self._inode = inode
        self._path = path
        self._is_open = True

    @property
    def path(self) -> str:
        return self._path

    @property
    def identity(self) -> tuple[int, int]:
        return DEVICE, self._inode

    @property
    def weak_sync(self) -> bool:
        return False

    def verify(self) -> None:
        if self.disk.replaced or (self._inode != ROOT and not self._self().links):
            reason = "the path leads to another directory than the one that was opened"
            raise DirectoryReplacedError("go on with", self._path, reason)

    def list(self) -> list[Entry]:
        return [self._entry(name) for name in self._self().names]

    def entry(self, name: str) -> Entry | None:
        self._check("look at", name)
        return self._entry(name) if name in self._self().names else None

    def read(self, name: str, *, offset: int = 0, size: int | None = None, limit: int) -> bytes:
        data = self._file("read", name).data[offset:]
        data = data if size is None else data[:size]
        if len(data) > limit:
            reason = f"{len(data)} bytes, where at most {limit} are expected"
            raise StorageError("read", self._at(name), reason, number=errno.EFBIG)
        return data

    @contextmanager
    def read_through(self, name: str) -> Iterator[PassingFile]:
        self._file("read", name)
        yield _PassingFile(self.disk, self._self().names[name])

    def create(self, name: str, data: Content, *, mode: int = 0o644, synced: bool = True) -> None:
        if isinstance(data, (bytes, bytearray, memoryview)):
            self._make("create", name, bytes(data), mode, synced=synced)
            return
        self._make("create", name, b"", mode, synced=False)
        number = self._self().names[name]
        try:
            for piece in data:  # each can fail, or be the last before a crash
                self.disk.count("create", self._at(name))
                self._write(number, bytes(piece), synced=False)
        except Crash:
            raise
        except BaseException:
            self.disk.do(Names(((self._inode, name, None),)))
            raise
        if synced:
            self.disk.do(Sync(number))

    def append(self, name: str, data: bytes) -> None:
        self._check("append to", name)
        if name not in self._self().names:
            self._make("append to", name, data, 0o644, synced=True)
            return
        file = self._file("append to", name)
        if file.links > 1:
            raise StorageError("append to", self._at(name), "it has 2 names", number=errno.EMLINK)
        self.disk.count("append to", self._at(name))
        self._write(self._self().names[name], data, synced=True)

    def rename(self, name: str, new_name: str, *, into: Directory | None = None) -> None:
        target = self._target(into)
        number = self._number("rename", name)
        target._refuse_existing("rename", new_name)
        self.disk.count("rename", self._at(name))
        self._move(name, number, target, new_name)

    def replace(self, name: str, new_name: str, *, into: Directory | None = None) -> None:
        target = self._target(into)
        number = self._number("replace", name)
        target._check("replace", new_name)
        found = target.entry(new_name)
        if found and found.kind is Kind.DIRECTORY and self._entry(name).kind is not Kind.DIRECTORY:
            raise self._refused("replace", new_name, errno.EISDIR)
        self.disk.count("replace", self._at(name))
        if (target._inode, new_name) != (self._inode, name):
            self._move(name, number, target, new_name)

    def exchange(self, name: str, other: str, *, into: Directory | None = None) -> bool:
        target = self._target(into)
        number, other_number = (
            self._number("exchange", name),
            target._number("exchange", other),
        )
        self.disk.count("exchange", self._at(name))
        if self.disk.can_exchange:
            changes = ((self._inode, name, other_number), (target._inode, other, number))
            self.disk.do(Names(changes))
        return self.disk.can_exchange

    def link(self, name: str, new_name: str, *, into: Directory | None = None) -> None:
        target = self._target(into)
        self._file("link", name)
        target._refuse_existing("link", new_name)
        self.disk.count("link", self._at(name))
        self.disk.do(Names(((target._inode, new_name, self._self().names[name]),)))

    def clone(self, name: str, new_name: str, *, into: Directory | None = None) -> bool:
        self._file("clone", name)
        self._target(into)._refuse_existing("clone", new_name)
        self.disk.count("clone", self._at(name))
        return False

    def copy(self, name: str, new_name: str, *, into: Directory | None = None) -> None:
        file = self._file("copy", name)
        self._target(into)._make("copy", new_name, file.data, file.mode, synced=True)

    def unlink(self, name: str) -> None:
        number = self._number("remove", name)
        if self.disk.inodes[number].kind is Kind.DIRECTORY:
            raise self._refused("remove", name, errno.EISDIR)
        self._remove("remove", name)

    def make_directory(self, name: str) -> None:
        self._refuse_existing("make the directory", name)
        self.disk.count("make the directory", self._at(name))
        number = self.disk.make_inode(Kind.DIRECTORY, self._self().mode)
        self.disk.do(Names(((self._inode, name, number),)))

    def remove_directory(self, name: str) -> None:
        if self._directory("remove the directory", name).names:
            raise self._refused("remove the directory", name, errno.ENOTEMPTY)
        self._remove("remove the directory", name)

    def open_directory(self, name: str) -> "MemoryDirectory":
        self._directory("open the directory", name)
        return MemoryDirectory(self.disk, self._self().names[name], self._at(name))

    def sync(self) -> None:
        self._self()
        self.disk.count("sync", self._path)
        self.disk.do(Sync(self._inode))

    def sync_file(self, name: str) -> None:
        self._file("sync", name)
        self.disk.count("sync", self._at(name))
        self.disk.do(Sync(self._self().names[name]))

    def leads_here(self, path: str) -> bool | None:
        path = posixpath.normpath(path)
        if path == self._path or (self._inode == ROOT and path in self.disk.aliases):
            return True
        return False if path in self.disk.other_directories else None

    def free_bytes(self) -> int:
        return self.disk.free_bytes

    @contextmanager
    def lock(self, name: str, *, wait: float = 0.0) -> Iterator[bool]:
        self._check("lock", name)
        if name not in self._self().names:
            self._make("lock", name, b"", 0o600, synced=False)
        self._file("lock", name)
        number = self._self().names[name]
        got = number not in self.disk.locked
        self.disk.locked.add(number)
        try:
            yield got
        finally:
            if got:
                self.disk.locked.discard(number)

    def close(self) -> None:
        self._is_open = False

    def plant(self, name: str, kind: Kind) -> None:
        """Put a link, a special file or a directory there, as another program could."""
        self.disk.do(Names(((self._inode, name, self.disk.make_inode(kind, 0o755)),)))

    def set_mtime(self, name: str, seconds: float) -> None:
        """Give `name` a modification time in seconds since the epoch."""
        self.disk.inodes[self._number("touch", name)].mtime_ns = round(seconds * 1e9)

    def _self(self) -> Inode:
        if not self._is_open:
            raise storage_error("use", self._path, OSError(errno.EBADF, ""))
        return self.disk.inodes[self._inode]

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _refused(self, operation: str, name: str, number: int) -> StorageError:
        return storage_error(operation, self._at(name), OSError(number, ""))

    def _target(self, into: Directory | None) -> "MemoryDirectory":
        target = self if into is None else into
        assert isinstance(target, MemoryDirectory)
        assert target.disk is self.disk
        return target

    def _check(self, operation: str, name: str) -> None:
        if not is_bare_name(name):
            raise not_a_bare_name(operation, self._at(name))

    def _number(self, operation: str, name: str) -> int:
        self._check(operation, name)
        number = self._self().names.get(name)
        if number is None:
            raise self._refused(operation, name, errno.ENOENT)
        return number

    def _file(self, operation: str, name: str) -> Inode:
        inode = self.disk.inodes[self._number(operation, name)]
        if inode.kind is not Kind.FILE:
            raise not_a_file(operation, self._at(name), inode.kind)
        return inode

    def _directory(self, operation: str, name: str) -> Inode:
        inode = self.disk.inodes[self._number(operation, name)]
        if inode.kind is not Kind.DIRECTORY:
            raise self._refused(operation, name, errno.ENOTDIR)
        return inode

    def _entry(self, name: str) -> Entry:
        number = self._self().names[name]
        inode = self.disk.inodes[number]
        identity = Identity(DEVICE, number, len(inode.data), inode.mtime_ns)
        return Entry(name, inode.kind, identity, inode.links)

    def _refuse_existing(self, operation: str, name: str) -> None:
        self._check(operation, name)
        if name in self._self().names:
            raise self._refused(operation, name, errno.EEXIST)

    def _make(self, operation: str, name: str, data: bytes, mode: int, *, synced: bool) -> None:
        self._refuse_existing(operation, name)
        self.disk.count(operation, self._at(name))
        number = self.disk.make_inode(Kind.FILE, mode)
        self.disk.do(Names(((self._inode, name, number),)))
        self._write(number, data, synced=synced)

    def _write(self, number: int, data: bytes, *, synced: bool) -> None:
        inode = self.disk.inodes[number]
        self.disk.do(Data(number, inode.data, bytes(data)))
        inode.mtime_ns = self.disk.now()
        if synced:
            self.disk.do(Sync(number))

    def _move(self, name: str, number: int, target: "MemoryDirectory", new_name: str) -> None:
        self.disk.do(Names(((self._inode, name, None), (target._inode, new_name, number))))

    def _remove(self, operation: str, name: str) -> None:
        self.disk.count(operation, self._at(name))
        self.disk.do(Names(((self._inode, name, None),)))
