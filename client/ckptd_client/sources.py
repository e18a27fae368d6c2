"""What lies at a path, of all that ckptd can look into, and whatever there holds tensors, opened."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Final

from ckptd.checkpoints.layouts.tensorflow import STATE_FILE, Role, index_name, parse_file_name
from ckptd.checkpoints.listing import Kind
from ckptd.errors import CkptdError, CorruptGraphError, FormatError, NoSuchTensorError, printable
from ckptd.formats.object_graph import OBJECT_GRAPH_KEY, ObjectGraph, read_object_graph
from ckptd.formats.tensors import TensorSource
from ckptd.storage.reading import ReaderDirectory, look_at
from ckptd_client.holdings import Holdings
from ckptd_client.locating import SAVED_MODEL_FILES
from ckptd_client.opening import OpenedCheckpoint, open_checkpoint

LARGEST_GRAPH: Final = 2**31
"""Bytes; protobuf reads no larger message, and TensorFlow writes none."""

_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")


class Content(Enum):
    """What a path can lead to."""

    CHECKPOINT = "checkpoint"
    SAVED_MODEL = "SavedModel"
    META_GRAPH = "meta graph"
    FROZEN_GRAPH = "graph"
    STATE_FILE = "state file"
    NPZ = "npz"
    SAFETENSORS = "safetensors"


def identify(path: str) -> Content:
    """Say what `path` leads to, by its name where that is clear, and else by how its bytes begin.

    What is nothing of all this counts as a checkpoint: `open_checkpoint` says best what is wrong.
    """
    found = look_at(path) if path else None
    if found is None or look_at(index_name(path)) is not None:
        return Content.CHECKPOINT
    if found.kind is Kind.DIRECTORY:
        directory = ReaderDirectory(path)
        is_model = any(directory.entry(name) is not None for name in SAVED_MODEL_FILES)
        if is_model and directory.entry(STATE_FILE) is None:
            return Content.SAVED_MODEL
        return Content.CHECKPOINT
    if found.kind is not Kind.FILE:
        return Content.CHECKPOINT
    return _of_file(path)


def _of_file(path: str) -> Content:
    head, base = os.path.split(path)
    if base in SAVED_MODEL_FILES:
        return Content.SAVED_MODEL
    parsed = parse_file_name(base)
    if parsed is not None and parsed.role in {Role.INDEX, Role.DATA}:
        return Content.CHECKPOINT
    if parsed is not None and parsed.role is Role.META_GRAPH:
        return _of_graph(path, otherwise=Content.META_GRAPH)
    suffix = os.path.splitext(base)[1]  # noqa: PTH122 (str in, str out)
    if suffix == ".safetensors":
        return Content.SAFETENSORS
    if suffix == ".npz" or ReaderDirectory(head).read(base, size=4, limit=4) in _ZIP:
        return Content.NPZ
    holdings = Holdings(head)
    entry = holdings.directory.entry(base)
    assert entry is not None
    if holdings.is_state_file(entry):
        return Content.STATE_FILE
    if suffix in {".pb", ".pbtxt"}:
        return _of_graph(path, otherwise=Content.FROZEN_GRAPH)
    try:
        holdings.require_v1(entry)
    except FormatError:
        return _of_graph(path, otherwise=Content.CHECKPOINT)
    return Content.CHECKPOINT


def _of_graph(path: str, *, otherwise: Content) -> Content:
    from ckptd.formats.graph_file import GraphKind, what_is  # noqa: PLC0415 (not for checkpoints)

    return {
        GraphKind.META_GRAPH: Content.META_GRAPH,
        GraphKind.SAVED_MODEL: Content.SAVED_MODEL,
        GraphKind.GRAPH: Content.FROZEN_GRAPH,
        None: otherwise,
    }[what_is(read_file(path)).kind]


def read_file(path: str, *, limit: int = LARGEST_GRAPH) -> bytes:
    """Return all of a file of at most `limit` bytes. Raises `StorageError`."""
    head, base = os.path.split(path)
    return ReaderDirectory(head).read(base, limit=limit)


def saved_model_file(path: str) -> str:
    """Return the path of the graph of the SavedModel that `path`, a directory or its file, means."""
    if os.path.basename(path) in SAVED_MODEL_FILES:  # noqa: PTH119
        return path
    directory = ReaderDirectory(path)
    name = next((n for n in SAVED_MODEL_FILES if directory.entry(n)), SAVED_MODEL_FILES[0])
    return os.path.join(path, name)  # noqa: PTH118


def damaged_in(opened: OpenedCheckpoint) -> Mapping[str, CkptdError]:
    """Return why tensors cannot be read, by name, as far as an index tells; also of unlisted ones."""
    found: Mapping[str, CkptdError] = getattr(opened.source, "damaged", {})
    return found


def lost_in(opened: OpenedCheckpoint) -> tuple[str, ...]:
    """Return sentences on what of an index could not be read at all."""
    return tuple(getattr(opened.source, "lost", ()))


class _Watched:
    """A checkpoint's tensors, each read after a look whether its files are still whole."""

    def __init__(self, opened: OpenedCheckpoint) -> None:
        self.tensors = opened.source.tensors
        self.read = opened.read
        self.damaged = damaged_in(opened)
        self.lost = lost_in(opened)


def source_of(opened: OpenedCheckpoint) -> TensorSource:
    """Return the tensors of an open checkpoint, its files looked at before each is read."""
    return _Watched(opened)


def objects_in(source: TensorSource) -> ObjectGraph | None:
    """Return the graph of objects among tensors; None where there is none, or none to be read."""
    if OBJECT_GRAPH_KEY not in source.tensors:
        return None
    try:
        return read_object_graph(source.read(OBJECT_GRAPH_KEY).item())
    except (CkptdError, TypeError, ValueError):  # also where it is no string, or several
        return None


@contextmanager
def open_tensors(path: str, *, salvage: bool = False) -> Iterator[TensorSource]:
    """Open whatever holds tensors at `path`: a checkpoint, SavedModel, frozen graph, npz, safetensors.

    With `salvage`, also a V1 checkpoint that lacks shards. Raises what `open_checkpoint` does,
    `FormatError` for what is damaged, and `NoSuchTensorError` for what holds no tensors at all.
    """
    content = identify(path)
    head, base = os.path.split(path)
    if content in {Content.CHECKPOINT, Content.SAVED_MODEL, Content.STATE_FILE}:
        with open_checkpoint(path, salvage=salvage) as opened:
            yield source_of(opened)
    elif content is Content.NPZ:
        from ckptd_client.npz import open_npz  # noqa: PLC0415

        yield open_npz(ReaderDirectory(head).map(base).view, path)
    elif content is Content.SAFETENSORS:
        from ckptd_client.safetensors_file import open_safetensors  # noqa: PLC0415

        yield open_safetensors(path, ReaderDirectory(head).map(base).view)
    elif content is Content.FROZEN_GRAPH:
        yield _constants(read_file(path), path)
    else:
        raise NoSuchTensorError(f"{printable(path)}: a {content.value} holds no tensors")


def _constants(data: bytes, path: str) -> TensorSource:
    from ckptd.formats.freezing import constants_of  # noqa: PLC0415
    from ckptd.formats.graph_file import read_graph  # noqa: PLC0415
    from ckptd_client.exchange import source_of_arrays  # noqa: PLC0415

    try:
        return source_of_arrays(constants_of(read_graph(data).message))
    except FormatError as error:
        raise CorruptGraphError(f"{printable(path)}: {error}") from error
