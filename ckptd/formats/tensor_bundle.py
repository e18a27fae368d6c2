"""The tensor bundle (V2): an index and the data files, or shards, that it describes.

The index is `ckptd.formats.bundle_index`'s. A shard holds the tensors' bytes in C order; nothing says
that they touch, or that the file ends with the last of them. Checksums are those of the bytes as
stored, masked.
"""

import math
import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ckptd.errors import CorruptIndexError, FormatError
from ckptd.formats.bundle_index import read_index, row_name
from ckptd.formats.checksum import masked_crc32c
from ckptd.formats.dtypes import data_type
from ckptd.formats.messages import BundleHeader

_DTYPES: Final = {
    number: np.dtype(code)
    for number, code in {
        1: "<f4",
        2: "<f8",
        3: "<i4",
        4: "u1",
        5: "<i2",
        6: "i1",
        8: "<c8",
        9: "<i8",
        10: "?",
        17: "<u2",
        18: "<c16",
        19: "<f2",
        22: "<u4",
        23: "<u8",
    }.items()
}
"""TensorFlow's data types that numpy has too: the dtype as a little-endian shard stores it."""


def read_tensors(index: bytes, shards: Callable[[int], bytes]) -> dict[str, npt.NDArray[Any]]:
    """Return every tensor of a bundle by name, each as an array of its own.

    `shards(shard_id)` returns the whole of one data file; it is asked once for each shard in use.
    Raises `CorruptIndexError` for what is wrong with the index, and `FormatError` where a shard
    is not what the index promises, or holds what numpy has no dtype for. Partitioned tensors are
    not supported yet.
    """
    header, entries = read_index(index)
    files: dict[int, memoryview] = {}
    tensors = {}
    for key, entry in entries:
        where = f"tensor {row_name(key)}"
        if entry.slices or key.startswith(b"\0"):
            raise FormatError(f"{where}: stored in slices, not supported yet")
        try:
            name = key.decode()
        except UnicodeDecodeError:
            raise FormatError(f"{where}: its name is not UTF-8") from None
        dtype, shape = _array_type(entry, where)
        if entry.shard_id not in files:
            files[entry.shard_id] = memoryview(shards(entry.shard_id))
        shard = files[entry.shard_id]
        end = entry.offset + entry.size
        if end > len(shard):
            raise FormatError(
                f"{where}: ends at byte {end} of shard {entry.shard_id}, "
                f"which has {len(shard)} bytes"
            )
        data = shard[entry.offset : end]
        if masked_crc32c(data) != entry.crc32c:
            raise FormatError(f"{where}: checksum of its data does not match")
        stored = dtype.newbyteorder(">") if header.endianness == BundleHeader.BIG else dtype
        native = dtype.newbyteorder("=")
        tensors[name] = np.frombuffer(data, stored).astype(native).reshape(shape)
    return tensors


def _array_type(entry: Any, where: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    dtype = _DTYPES.get(entry.dtype)
    if dtype is None:
        raise FormatError(f"{where}: {data_type(entry.dtype).enum_name} is not supported yet")
    shape = tuple(dim.size for dim in entry.shape.dim)
    if entry.shape.unknown_rank or any(size < 0 for size in shape):
        raise CorruptIndexError(f"{where}: its shape is not known")
    expected = math.prod(shape) * dtype.itemsize
    if entry.size != expected or max(shape, default=0) > sys.maxsize:
        raise CorruptIndexError(
            f"{where}: stored in {entry.size} bytes, its type and shape take {expected}"
        )
    return dtype, shape
