"""Looks into files for the inventory, each file once: what was read is remembered by its identity."""

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from ckptd.checkpoints.listing import Entry, Identity
from ckptd.errors import FormatError, NotFoundError, StorageError
from ckptd.formats.bundle_index import LARGEST_INDEX, IndexPromise, read_promise
from ckptd.formats.state_file import MAX_STATE_FILE_SIZE
from ckptd.formats.v1_table import read_v1_promise

_STATE_FILE_START: Final = b"model_checkpoint_path:"


class Files(Protocol):
    """What is needed of a directory: a keeper's `Directory`, or a `ReaderDirectory`."""

    def read(self, name: str, *, offset: int = 0, size: int | None = None, limit: int) -> bytes:
        """Return `size` bytes from `offset` (fewer at the end) or all, refusing more than `limit`."""


class DirectoryInspector:
    """An `Inspector` over a directory. `doubts` holds what the disk refused since it was emptied."""

    def __init__(self, directory: Files) -> None:
        self._directory = directory
        self._promises: dict[Identity, IndexPromise | FormatError] = {}
        self._v1: dict[Identity, FormatError | None] = {}
        self._state_files: dict[Identity, bool] = {}
        self.doubts: list[str] = []

    def index(self, entry: Entry) -> IndexPromise:
        """Return what an index promises; raise `FormatError` or `StorageError`."""
        known = self._promises.get(entry.identity)
        if known is None:
            try:
                known = read_promise(self._read(entry, limit=LARGEST_INDEX))
            except FormatError as error:
                known = error
            self._promises[entry.identity] = known
        if isinstance(known, FormatError):
            raise known
        return known

    def v1_shard(self, entry: Entry) -> None:
        """Return if the file is a complete V1 shard; raise `FormatError` or `StorageError`."""
        if entry.identity not in self._v1:
            try:
                read_v1_promise(self._reader(entry), entry.size)
            except FormatError as error:
                self._v1[entry.identity] = error
            else:
                self._v1[entry.identity] = None
        refused = self._v1[entry.identity]
        if refused is not None:
            raise refused

    def is_state_file(self, entry: Entry) -> bool:
        """Say whether a file begins as TensorFlow's state files do."""
        if not 0 < entry.size <= MAX_STATE_FILE_SIZE:
            return False
        known = self._state_files.get(entry.identity)
        if known is None:
            try:
                start = self._read(entry, size=len(_STATE_FILE_START), limit=MAX_STATE_FILE_SIZE)
            except StorageError:
                return False  # nobody's file, and not readable: a stranger
            known = self._state_files[entry.identity] = start == _STATE_FILE_START
        return known

    def forget_all_but(self, entries: Iterable[Entry]) -> None:
        """Drop what is remembered of files that are gone."""
        there = {entry.identity for entry in entries}
        memories: tuple[dict[Identity, Any], ...] = (self._promises, self._v1, self._state_files)
        for memory in memories:
            for identity in memory.keys() - there:
                del memory[identity]

    def _reader(self, entry: Entry) -> Callable[[int, int], bytes]:
        return lambda offset, size: self._read(entry, offset=offset, size=size, limit=LARGEST_INDEX)

    def _read(self, entry: Entry, *, offset: int = 0, size: int | None = None, limit: int) -> bytes:
        try:
            return self._directory.read(entry.name, offset=offset, size=size, limit=limit)
        except NotFoundError:
            raise  # it vanished since it was listed: not the disk's fault
        except StorageError as error:
            self.doubts.append(str(error))
            raise
