"""Writes a tensor bundle (V2), byte for byte as TensorFlow does, a few megabytes at a time.

    taken = take_tensors({"w": array})
    writer = BundleWriter(taken, lay_out(taken.specs, num_shards=2))
    for shard in range(2):
        for piece in writer.shard(shard):
            ...                            # its bytes go to a data file
    writer.index()                         # once every shard has been walked through

An array that lies in memory as it will in the file is handed on as it is, in views; any other is
converted piece by piece. So writing takes the arrays and some megabytes, whatever their size. They
must not change meanwhile: what was written would not be what its checksum says.
"""

from collections.abc import Generator, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import numpy as np
from crc32c import crc32c

from ckptd.formats.arrays import Array
from ckptd.formats.bundle_layout import Layout, Part, encode_index, lay_out
from ckptd.formats.checksum import BytesLike, mask, masked_crc32c
from ckptd.formats.collection import collection_paused
from ckptd.formats.dtypes import STRING
from ckptd.formats.string_tensor import strings_in_pieces, variants_in_pieces
from ckptd.formats.tensor_values import Elements, TensorsToStore, cut, take_tensors

_PIECE: Final = 4 << 20
"""Bytes handed on at a time: few enough that checksum and copy find them in the processor's cache."""

_SMALL: Final = 64 << 10
"""Bytes of a piece that is gathered with its neighbours rather than handed on alone."""


class BundleWriter:
    """Tensors on their way into a bundle, each to where `layout` says."""

    def __init__(self, taken: TensorsToStore, layout: Layout) -> None:
        self._arrays: Final = taken.arrays
        self.layout: Final = layout
        self._checksums: list[list[int] | None] = [None] * len(layout.shards)

    def shard(self, shard: int) -> Iterator[BytesLike]:
        """Yield the bytes of one data file, in pieces of some megabytes or one element.

        A piece may be a view of an array. The checksums are known when the last one was taken.
        """
        return _gathered(self._pieces_of_shard(shard))

    def index(self) -> bytes:
        """Return the index; raise `ValueError` while there is a shard that was not walked through."""
        checksums = [crcs for crcs in self._checksums if crcs is not None]
        if len(checksums) < len(self._checksums):
            missing = self._checksums.index(None)
            raise ValueError(
                f"shard {missing} has not been written, so its checksums are not known"
            )
        with collection_paused(sum(map(len, self.layout.shards))):
            return encode_index(self.layout, checksums)

    def _pieces_of_shard(self, shard: int) -> Iterator[BytesLike]:
        checksums = []
        for part in self.layout.shards[shard]:
            crc = yield from self.pieces(part)
            checksums.append(crc)
        self._checksums[shard] = checksums

    def pieces(self, part: Part) -> Generator[BytesLike, None, int]:
        """Yield the bytes of one part of the layout; return their masked checksum."""
        array = cut(self._arrays[part.name], part.region)
        if part.data_type.itemsize is None:
            elements = Elements(part.name, array)
            encode = strings_in_pieces if part.data_type == STRING else variants_in_pieces
            return (yield from encode(elements))
        stored = _as_stored(array.dtype)
        if part.size <= _SMALL:
            data = (array if array.dtype is stored else array.astype(stored)).tobytes()
            yield data
            return masked_crc32c(data)
        crc = 0
        for piece in _little_endian(array, stored):
            crc = crc32c(piece, crc)
            yield piece
        return mask(crc)


def encode_bundle(tensors: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return the index and the one shard of a bundle of `tensors`, as TensorFlow's Saver writes it.

    All of it is in memory. Raises as `take_tensors` and `lay_out` do.
    """
    taken = take_tensors(tensors)
    writer = BundleWriter(taken, lay_out(taken.specs))
    data = b"".join(writer.shard(0))
    return writer.index(), data


@lru_cache(maxsize=64)  # a model repeats a few dtypes a hundred thousand times
def _as_stored(dtype: np.dtype[Any]) -> np.dtype[Any]:
    stored = dtype.newbyteorder("<")
    return dtype if stored == dtype else stored


def _little_endian(array: Array, stored: np.dtype[Any]) -> Iterator[BytesLike]:
    """Yield the array's bytes in C order, as views where they lie so already."""
    if array.dtype == stored and array.flags.c_contiguous:
        data = array.reshape(-1).view(np.uint8).data
        for start in range(0, len(data), _PIECE):
            yield data[start : start + _PIECE]
        return
    pieces = np.nditer(
        array,
        flags=["external_loop", "buffered"],
        op_flags=["readonly"],
        op_dtypes=stored,
        casting="equiv",
        order="C",
        buffersize=_PIECE // array.itemsize,
    )
    with pieces:
        for piece in pieces:
            # A copy: the buffer is filled anew for the next one.
            yield np.asarray(piece).tobytes()


def _gathered(pieces: Iterator[BytesLike]) -> Iterator[BytesLike]:
    """Yield the same bytes, small pieces joined: a hundred thousand scalars are no such many writes."""
    small = bytearray()
    for piece in pieces:
        if len(piece) <= _SMALL:
            small += piece
            if len(small) >= _PIECE:
                yield bytes(small)
                small.clear()
            continue
        if small:
            yield bytes(small)
            small.clear()
        yield piece
    if small:
        yield bytes(small)
