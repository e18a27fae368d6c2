"""Writing a checkpoint that TensorFlow restores, without TensorFlow."""

import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np

from ckptd.checkpoints.inventory import OWN_DIRECTORY, is_text
from ckptd.checkpoints.layouts.tensorflow import (
    STATE_FILE,
    index_name,
    leftover,
    meta_graph_name,
    parse_file_name,
    parse_v1_name,
    shard_name,
    v1_pattern,
    v1_shard_names,
)
from ckptd.errors import NoSpaceError, NoSuchDirectoryError, printable
from ckptd.formats.bundle_layout import Layout, lay_out
from ckptd.formats.bundle_writer import BundleWriter
from ckptd.formats.checksum import BytesLike
from ckptd.formats.collection import collection_paused
from ckptd.formats.dtypes import DataType
from ckptd.formats.partitions import Partitioned
from ckptd.formats.regions import Region
from ckptd.formats.tensor_values import TensorsToStore, take_tensors
from ckptd.formats.v1_writer import encode_v1, v1_pieces
from ckptd.storage.directory import is_bare_name
from ckptd.storage.disk import DiskDirectory, open_model_directory
from ckptd.storage.publish import NewFile, publish

__all__ = ["Partitioned", "Progress", "save_checkpoint"]

Progress = Callable[[int, int], None]
"""Told how many bytes of the tensors are written, and how many there are."""

_VERSIONS: Final = ("v2", "v1")


def save_checkpoint(
    prefix: str | os.PathLike[str],
    tensors: Mapping[str, Any],
    *,
    global_step: int | None = None,
    version: Literal["v2", "v1"] = "v2",
    num_shards: int = 1,
    shards: Mapping[str, int | Sequence[int]] | None = None,
    data_types: Mapping[str, str | DataType] | None = None,
    meta_graph: bytes | None = None,
    progress: Progress | None = None,
) -> str:
    """Write a checkpoint of `tensors`, durable on return; return what `tf.train` restores it by.

    `tensors` gives arrays, or what numpy makes one of, by name; `Partitioned` stores one in slices.
    The checkpoint is named `prefix`, with ``-<global_step>`` where a step is given, as
    `tf.compat.v1.train.Saver.save` does; one level of directories is made if it is missing. The
    state file is left alone. A checkpoint of that name is replaced, whole or not at all.

    - `version`: ``"v2"``, the tensor bundle that TensorFlow writes since 0.12, or the older ``"v1"``.
    - `num_shards`: how many data files; `shards` may give the one for each name (or for each slice
      of it), else they share the bytes evenly.
    - `data_types`: by name, what a dtype does not say: ``"qint8"`` and its kin for integers,
      ``"bfloat16"`` and others for raw bits (unsigned integers), ``"variant"`` for `bytes`.
    - `meta_graph`: what its ``.meta`` file is to hold.
    - `progress(done, total)` is called after each piece; an exception in it ends the save.

    Takes some megabytes beyond the arrays, which must not change meanwhile. Raises `TypeError` or `ValueError` for what cannot be saved before anything is
    written, and `ckptd.errors.StorageError` where the disk refuses; then nothing is left behind.
    """
    if version not in _VERSIONS:
        raise ValueError(f"version is 'v2' or 'v1', not {version!r}")
    head, name = _split(prefix, global_step)
    with collection_paused(len(tensors)):
        taken = take_tensors(tensors, data_types)
        layout = lay_out(taken.specs, num_shards=num_shards, shards=shards)
    if version == "v1":
        _require_v1(taken, name, num_shards)
    write = _write_v1 if version == "v1" else _write_v2
    directory = _open(head)
    try:
        _require_space(directory, name, sum(layout.sizes))
        counted = _Counted(progress, sum(layout.sizes))
        publish(directory, name, write(name, taken, layout, meta_graph, counted))
    finally:
        directory.close()
    returned = v1_pattern(name, num_shards) if version == "v1" and num_shards > 1 else name
    return f"{head}{returned}"


class _Counted:
    """Tells how far a save is, while the pieces pass."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def add(self, size: int) -> None:
        self._done += size
        if self._progress is not None:
            self._progress(self._done, self._total)

    def passing(self, pieces: Iterator[BytesLike]) -> Iterator[BytesLike]:
        for piece in pieces:
            yield piece
            self.add(len(piece))


def _write_v2(
    name: str, taken: TensorsToStore, layout: Layout, meta_graph: bytes | None, counted: _Counted
) -> Iterator[NewFile]:
    writer = BundleWriter(taken, layout)
    num_shards = len(layout.shards)
    for shard in range(num_shards):
        yield NewFile(shard_name(name, shard, num_shards), counted.passing(writer.shard(shard)))
    if meta_graph is not None:
        yield NewFile(meta_graph_name(name), meta_graph)
    yield NewFile(index_name(name), writer.index())


def _write_v1(
    name: str, taken: TensorsToStore, layout: Layout, meta_graph: bytes | None, counted: _Counted
) -> Iterator[NewFile]:
    num_shards = len(layout.shards)
    names = [name] if num_shards == 1 else list(v1_shard_names(name, num_shards))
    types = {spec.name: spec.data_type for spec in taken.specs}
    if meta_graph is not None:
        yield NewFile(meta_graph_name(name), meta_graph)
    # The first shard makes the checkpoint exist, so it comes last.
    for shard_file, parts in reversed(list(zip(names, layout.shards, strict=True))):
        slices: dict[str, list[Region]] = {}
        for part in parts:
            if part.region is not None:
                slices.setdefault(part.name, []).append(part.region)
        arrays = {part.name: taken.arrays[part.name] for part in parts}
        yield NewFile(shard_file, v1_pieces(arrays, slices=slices, data_types=types))
        counted.add(sum(part.size for part in parts))


def _split(prefix: str | os.PathLike[str], global_step: int | None) -> tuple[str, str]:
    """Return the directory with its slash, and the name of the checkpoint in it."""
    path = os.fspath(prefix)
    if not isinstance(path, str):
        raise TypeError(f"a prefix is text, not {type(path).__name__}")
    at = path.rfind("/") + 1
    head, name = path[:at], path[at:]
    if global_step is not None and name:
        name = f"{name}-{operator.index(global_step)}"
    if not is_bare_name(name):
        raise ValueError(f"prefix {printable(path)!r} does not end in the name of a checkpoint")
    if not is_text(name):
        raise ValueError(
            f"prefix {printable(path)!r}: its name is not UTF-8, no state file can say it"
        )
    if leftover(index_name(name), is_directory=False) is not None:
        raise ValueError(f"prefix {printable(path)!r}: its files would be taken for temporary ones")
    return head, name


def _require_v1(taken: TensorsToStore, name: str, num_shards: int) -> None:
    if name == STATE_FILE and num_shards == 1:
        raise ValueError(f"a V1 checkpoint named {name!r} would take the place of the state file")
    if num_shards == 1 and not _is_v1_name(name):
        raise ValueError(
            f"a V1 checkpoint named {name!r} would be taken for a file of another kind"
        )
    for tensor in taken.arrays:
        if not is_text(tensor):
            raise ValueError(f"tensor {printable(tensor)!r}: V1 has no names that are not UTF-8")
    # Whether V1 has a type does not depend on the values: refused before anything is written.
    samples = {tensor: np.empty(0, array.dtype) for tensor, array in taken.arrays.items()}
    encode_v1(samples, data_types={spec.name: spec.data_type for spec in taken.specs})


def _is_v1_name(name: str) -> bool:
    """Say whether a V1 checkpoint's one file can have that name, and be known for what it is."""
    return (
        name != OWN_DIRECTORY
        and leftover(name, is_directory=False) is None
        and parse_file_name(name) is None
        and parse_v1_name(name).prefix == name
    )


def _open(head: str) -> DiskDirectory:
    try:
        return open_model_directory(head or ".")
    except NoSuchDirectoryError:
        above, name = os.path.split(head.rstrip("/"))
        if not is_bare_name(name):
            raise
    parent = open_model_directory(above or ".")
    try:
        parent.make_directory(name, mode=0o777)
        parent.sync()
        return parent.open_directory(name)
    finally:
        parent.close()


def _require_space(directory: DiskDirectory, name: str, size: int) -> None:
    free = directory.free_bytes()
    if size > free:
        reason = f"it takes {size:,} bytes, {free:,} are free"
        raise NoSpaceError("save", f"{directory.path.rstrip('/')}/{name}", reason)
