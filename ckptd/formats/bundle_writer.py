"""Writes a tensor bundle (V2), byte for byte as TensorFlow does."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptd.formats.arrays import data_type_of
from ckptd.formats.checksum import masked_crc32c
from ckptd.formats.messages import BundleEntry, BundleHeader
from ckptd.formats.sorted_table import write_table
from ckptd.formats.versions import CONSUMER


def encode_bundle(tensors: Mapping[str, npt.NDArray[Any]]) -> tuple[bytes, bytes]:
    """Return the index and the one shard of a bundle of `tensors`, as TensorFlow's Saver writes it.

    The tensors lie in the shard in order of their names. Raises `TypeError` for a dtype that is
    not a number of 8 to 128 bits, and `ValueError` for an empty name, or for no tensors at all:
    TensorFlow stores no such bundle.
    """
    if not tensors:
        raise ValueError("a bundle holds at least one tensor, got none")
    header = BundleHeader(num_shards=1, version={"producer": CONSUMER})
    rows = [(b"", header.SerializeToString())]
    parts = []
    offset = 0
    for key, name in sorted((name.encode(), name) for name in tensors):
        if not key:
            raise ValueError("a tensor has an empty name; that is the key of the bundle's header")
        array = np.asarray(tensors[name])
        data_type = data_type_of(array.dtype, f"tensor {name!r}")
        if data_type.itemsize is None:
            raise TypeError(f"tensor {name!r}: a bundle cannot hold dtype {array.dtype}")
        part = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        # Set even for a scalar, whose shape is present and empty.
        entry = BundleEntry(
            dtype=data_type.number,
            shape={"dim": [{"size": size} for size in array.shape]},
            offset=offset,
            size=len(part),
            crc32c=masked_crc32c(part),
        )
        rows.append((key, entry.SerializeToString()))
        parts.append(part)
        offset += len(part)
    return write_table(rows), b"".join(parts)
