"""Meta graphs from and to files, with the names of `tf.compat.v1.train`.

What comes back is a description, not a graph that runs: its operations, the tensors that its saver
writes, collections, signatures, and `get_tensor_by_name`.
"""

import os
from typing import Final

from ckptd.errors import CorruptGraphError, printable
from ckptd.formats.meta_graph import MetaGraph, read_meta_graph
from ckptd.storage.atomic import write_atomically
from ckptd.storage.disk import open_model_directory
from ckptd.storage.reading import ReaderDirectory

_SUFFIX: Final = ".meta"
_LARGEST: Final = 1 << 32
"""Bytes: a message has at most 2 GiB, its text form is some times longer."""


def import_meta_graph(meta_graph_file: str | os.PathLike[str]) -> MetaGraph:
    """Return the meta graph in a ``.meta`` file, binary or text; a checkpoint's prefix is as good.

    Raises `CorruptGraphError` for what is no meta graph, which says what is wrong, where, and what
    the file is instead if it is another kind of graph; `StorageError` for a file that cannot be read.
    """
    head, name = os.path.split(os.fspath(meta_graph_file))
    directory = ReaderDirectory(head)
    if not name.endswith(_SUFFIX) and directory.entry(name + _SUFFIX) is not None:
        name += _SUFFIX
    data = directory.read(name, limit=_LARGEST)
    try:
        return read_meta_graph(data)
    except CorruptGraphError as error:
        raise CorruptGraphError(f"{printable(directory.path_of(name))}: {error}") from None


def export_meta_graph(
    filename: str | os.PathLike[str], meta_graph: MetaGraph, *, as_text: bool = False
) -> None:
    """Write a meta graph as TensorFlow does, to the byte: there is the whole file, durably, or none.

    An existing file is replaced. Raises `StorageError`, and `NoSuchDirectoryError` where there is no
    directory to write it to.
    """
    data = meta_graph.to_text().encode() if as_text else meta_graph.to_bytes()
    head, name = os.path.split(os.fspath(filename))
    directory = open_model_directory(head or ".")
    try:
        write_atomically(directory, name, data)
    finally:
        directory.close()
