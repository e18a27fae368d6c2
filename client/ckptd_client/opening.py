"""One checkpoint open for reading: its tensors, and the files that they come from."""

import os
from collections.abc import Callable, Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple

from ckptd.checkpoints.inventory import Format
from ckptd.checkpoints.layouts.tensorflow import index_name, parse_file_name, shard_name
from ckptd.checkpoints.listing import Entry
from ckptd.errors import (
    CorruptIndexError,
    CorruptTensorError,
    FormatError,
    NotFoundError,
    StorageError,
    printable,
)
from ckptd.formats.arrays import Array
from ckptd.formats.bundle_index import LARGEST_INDEX
from ckptd.formats.tensor_bundle import Bundle
from ckptd.formats.tensors import Region, StoredTensor, TensorSource
from ckptd.formats.v1_checkpoint import V1Checkpoint
from ckptd.storage.reading import MappedFile, ReaderDirectory
from ckptd_client.locating import Located, locate

if TYPE_CHECKING:
    from ckptd.formats.object_graph import ObjectGraph

_ATTEMPTS: Final = 5  # how often a checkpoint may be saved again while it is opened


class CheckpointFile(NamedTuple):
    """One file of a checkpoint: its bare name, and its bytes by its length."""

    name: str
    size: int


def open_checkpoint(
    path: str | os.PathLike[str] | None, *, salvage: bool = False
) -> "OpenedCheckpoint":
    """Open the checkpoint that `path` means, for reading.

    `path` is a prefix; a directory, for the newest checkpoint by its state file; a SavedModel; or
    any file of a checkpoint, V1 or V2. No character in it is a pattern.

    Every data file is mapped at once, so that a checkpoint that is removed or saved again meanwhile
    stays readable as it was. Nothing of them is read until a tensor is used, and no descriptor stays
    open. A V2 checkpoint is opened also where data files are missing: only their tensors cannot be
    read. One of V1 that lacks shards does not say which tensors it lacks, and is opened only for
    `salvage`, as is an index that is damaged in part.

    Raises `NoSuchCheckpointError`, whose text says what there is instead, also for the None of a
    `latest_checkpoint` that has found nothing; `CorruptIndexError`,
    `CorruptStateFileError` or `StorageError`.
    """
    located = locate(path, salvage=salvage)
    if located.format is Format.V1:
        return _open_v1(located)
    return _open_v2(located, salvage=salvage)


class OpenedCheckpoint:
    """A checkpoint that `open_checkpoint` has opened: a `TensorSource`, and a context manager.

    Closing lets go of the maps. Arrays that were handed out stay valid: each keeps what it lies in mapped.
    """

    def __init__(
        self,
        located: Located,
        source: TensorSource,
        num_shards: int,
        index: CheckpointFile | None,
        shards: Mapping[int, "MappedFile | StorageError"],
    ) -> None:
        self.prefix: Final = located.prefix
        """The prefix, as relative or absolute as the path that was given."""
        self.format: Final = located.format
        self.num_shards: Final = num_shards
        """How many shards the checkpoint was saved in."""
        self._located = located
        self._index = index
        self._source: TensorSource | None = source
        self._shards = dict(shards)

    def __repr__(self) -> str:
        return f"<{self.format.value} checkpoint {self.prefix!r}>"

    @property
    def source(self) -> TensorSource:
        """The tensors: a `Bundle` or a `V1Checkpoint`. Raises `ValueError` after `close`."""
        if self._source is None:
            raise ValueError(f"{self!r} is closed")
        return self._source

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """Every tensor by name, in order of the names' bytes."""
        return self.source.tensors

    @cached_property
    def files(self) -> tuple[CheckpointFile, ...]:
        """The files that were read or mapped, the index first, then the data files in order."""
        mapped = [
            CheckpointFile(os.path.basename(shard.path), len(shard.view))  # noqa: PTH119
            for _, shard in sorted(self._shards.items())
            if isinstance(shard, MappedFile)
        ]
        return tuple(mapped if self._index is None else [self._index, *mapped])

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """The bare names of files that tensors should lie in, and that could not be opened."""
        failed = [os.path.basename(error.path) for error in self.unopened.values()]  # noqa: PTH119
        return (*self._located.missing, *failed)

    @cached_property
    def unopened(self) -> Mapping[int, StorageError]:
        """Why data files of a V2 checkpoint could not be opened, by the number of the shard.

        What `read` raises for each tensor in it.
        """
        return {
            number: shard
            for number, shard in sorted(self._shards.items())
            if isinstance(shard, StorageError)
        }

    @cached_property
    def object_graph(self) -> "ObjectGraph | None":
        """The objects that `tf.train.Checkpoint` saved; None where variables have names only.

        Raises `CorruptTensorError` or `CorruptGraphError`.
        """
        from ckptd.formats.object_graph import (  # noqa: PLC0415 (most checkpoints have none)
            OBJECT_GRAPH_KEY,
            read_object_graph,
        )

        if OBJECT_GRAPH_KEY not in self.tensors:
            return None
        return read_object_graph(self.read(OBJECT_GRAPH_KEY).item())

    def read(self, name: str, *, region: Region | None = None, verify: bool = False) -> Array:
        """Return a tensor, or a part of it, as `source.read` does, after a look at its files.

        A data file that was cut short since it was opened is a `StorageError`, where touching the
        array would end the process. Damage is told with the path of its file.
        """
        source = self.source
        stored = source.tensors.get(name)
        files = [self._shards.get(shard) for shard in stored.shards] if stored is not None else []
        for file in files:
            if isinstance(file, MappedFile):
                file.require_whole()
        try:
            return source.read(name, region=region, verify=verify)
        except CorruptTensorError as error:
            path = self._path_of(error.file)
            raise CorruptTensorError(
                error.tensor, error.problem, file=path, offset=error.offset
            ) from error

    def _path_of(self, file: str) -> str:
        """Return the path of a file that an error names, in the words of who opened the checkpoint."""
        head, base = os.path.split(self.prefix)
        for shard in self._shards:
            if file == f"shard {shard} of {self.num_shards}":
                file = shard_name(base, shard, self.num_shards)
        return os.path.join(head, file or index_name(base))  # noqa: PTH118

    def close(self) -> None:
        """Let go of the files; safe to call twice."""
        self.__dict__.setdefault("files", self.files)
        self.__dict__.setdefault("missing", self.missing)
        self.__dict__.setdefault("unopened", self.unopened)
        self._source = None
        self._shards = {}

    def __enter__(self) -> "OpenedCheckpoint":  # noqa: PYI034 (Self is in typing from Python 3.11 on)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _open_v2(located: Located, *, salvage: bool) -> OpenedCheckpoint:
    head, base = os.path.split(located.prefix)
    directory = ReaderDirectory(head)
    name = index_name(base)
    told = _told_num_shards(directory, base) if salvage else None
    for attempt in range(_ATTEMPTS):
        before = directory.entry(name)
        data = directory.read(name, limit=LARGEST_INDEX)
        shards: dict[int, MappedFile | StorageError] = {}
        try:
            source = Bundle(data, _views(shards), salvage=salvage, num_shards=told)
        except CorruptIndexError as error:
            if attempt + 1 < _ATTEMPTS and _changed(before, directory.entry(name)):
                continue  # TensorFlow writes some indexes in place
            text = f"{printable(index_name(located.prefix))}: {error}"
            raise CorruptIndexError(text) from error
        used = {shard for stored in source.tensors.values() for shard in stored.shards}
        for shard in sorted(used):
            shards[shard] = _map(directory, shard_name(base, shard, source.num_shards))
        if not _changed(before, directory.entry(name)):
            break
    index = CheckpointFile(name, len(data))
    return OpenedCheckpoint(located, source, source.num_shards, index, shards)


def _changed(before: Entry | None, now: Entry | None) -> bool:
    """Say whether a file was written again; one that was only removed was not."""
    return before is not None and now is not None and before.identity != now.identity


def _map(directory: ReaderDirectory, name: str) -> "MappedFile | StorageError":
    """Map a data file; what is wrong with it is told when a tensor in it is asked for."""
    try:
        return directory.map(name)
    except NotFoundError as error:
        reason = "it is not there, and the index says that tensors lie in it"
        return NotFoundError("read", error.path, reason, number=error.number)
    except StorageError as error:
        return error


def _views(shards: Mapping[int, "MappedFile | StorageError"]) -> Callable[[int], memoryview]:
    def view(number: int) -> memoryview:
        shard = shards[number]
        if isinstance(shard, StorageError):  # a new one: a raised error holds what it has met
            raise type(shard)(shard.operation, shard.path, shard.reason, number=shard.number)
        return shard.view

    return view


def _told_num_shards(directory: ReaderDirectory, base: str) -> int | None:
    """Return how many shards the names of the data files tell of; None if there are none."""
    names = (parse_file_name(entry.name) for entry in directory.list(start=f"{base}.data-"))
    counts = [name.num_shards for name in names if name is not None and name.prefix == base]
    return max(counts, default=None)


def _open_v1(located: Located) -> OpenedCheckpoint:
    directory = ReaderDirectory(os.path.split(located.prefix)[0])
    maps = {name: directory.map(name) for name in located.shards}
    views = {name: file.view for name, file in maps.items()}
    try:
        source = V1Checkpoint(views, missing=located.missing)
    except FormatError as error:
        head = os.path.split(located.prefix)[0]
        raise CorruptIndexError(f"{printable(os.path.join(head, ''))}{error}") from error  # noqa: PTH118
    names = sorted({*located.shards, *located.missing})
    shards = {number: maps[name] for number, name in enumerate(names) if name in maps}
    return OpenedCheckpoint(located, source, len(names), None, shards)
