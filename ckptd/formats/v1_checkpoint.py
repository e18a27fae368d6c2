"""The tensors of a V1 checkpoint, read.

`ckptd.formats.v1_table` says how a shard is built. Every tensor is stored in slices, one of them for
most, and each slice as a `TensorProto` without dtype and shape: only the list of its values, whole
numbers as varints. Values therefore have to be decoded, and nothing of them can be mapped.
"""

import math
import sys
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from ckptd.errors import (
    CorruptIndexError,
    CorruptTensorError,
    FormatError,
    NoSuchTensorError,
    printable,
)
from ckptd.formats.arrays import Array, numpy_dtype
from ckptd.formats.checksum import BytesLike
from ckptd.formats.dtypes import DataType, data_type
from ckptd.formats.messages import PARSE_ERRORS, SavedTensorSlices
from ckptd.formats.near_names import hint
from ckptd.formats.regions import (
    Flaw,
    Gap,
    elements_in,
    find_flaw,
    is_inside,
    meet,
    whole,
    written,
)
from ckptd.formats.slices import region_of, slice_key
from ckptd.formats.sorted_table import read_block_index, read_data_block
from ckptd.formats.stitching import flaw_text, stitch
from ckptd.formats.tensor_proto import (
    LARGEST_RANK,
    count_values,
    decode_values,
)
from ckptd.formats.tensors import Region, StoredTensor
from ckptd.formats.v1_table import read_v1_header

_KEPT_BLOCK: Final = 1 << 20
"""Bytes for each row of a block up to which its rows stay in memory for the next look: a block of a
million small slices, which TensorFlow does not write, would else be taken apart a million times. A
large slice has a block of its own."""

_NAMED: Final = 6
"""Slices that a message names."""


@dataclass(frozen=True, slots=True)
class _Slice:
    """One slice of a tensor, and where it is stored."""

    region: Region
    key: bytes
    shard: str


class V1Checkpoint:
    """A V1 checkpoint open for reading: a `TensorSource` over its shards.

    Opening reads the headers; a tensor's values are looked up and decoded when it is read. A shard
    does not say which tensors the others hold: of one that is missing, only slices can be missed
    whose tensor has others.
    """

    def __init__(self, shards: Mapping[str, BytesLike], *, missing: Sequence[str] = ()) -> None:
        """Take the bytes of each shard by the bare name of its file, and the names of those not there.

        Raises `CorruptIndexError` for a shard that is none, whose header contradicts itself, or
        whose tensors are of another shape or type than in another shard.
        """
        self._missing = tuple(sorted(missing))
        self._shards = {name: _Rows(shards[name]) for name in sorted(shards)}
        found: dict[str, tuple[DataType, tuple[int, ...], list[_Slice]]] = {}
        for name in self._shards:
            for tensor in _read_header(shards[name], name).tensor:
                kind, shape, slices = _parse_tensor(tensor, name)
                known = found.setdefault(tensor.name, (kind, shape, []))
                if known[:2] != (kind, shape):
                    raise CorruptIndexError(
                        f"{printable(name)}: tensor {_shown(tensor.name)} is listed as "
                        f"{kind.name} {list(shape)} and as {known[0].name} {list(known[1])}"
                    )
                known[2].extend(slices)
        numbers = {name: number for number, name in enumerate(sorted({*shards, *missing}))}
        self._slices = {name: slices for name, (_, _, slices) in found.items()}
        self._tensors = {
            name: _stored(name, kind, shape, slices, numbers)
            for name, (kind, shape, slices) in sorted(found.items())
        }

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """Every tensor that a header lists, by name, in order of the names' bytes.

        `shards` of each are positions among all shards' names, the missing ones too; `nbytes` is
        what its stored elements take as an array: V1 does not say how long their messages are,
        and of strings it says nothing (0).
        """
        return self._tensors

    @property
    def missing(self) -> Sequence[str]:
        """The names of the shards that are not there."""
        return self._missing

    def read(self, name: str, *, region: Region | None = None, verify: bool = False) -> Array:  # noqa: ARG002
        """Return a tensor, or a part of it, decoded anew.

        The checksum of every block that is read is checked, with `verify` or without. Raises
        `NoSuchTensorError`, `CorruptTensorError`, and `ValueError` for a region that is not inside
        the tensor.
        """
        stored = self._tensors.get(name)
        if stored is None:
            raise self._no_such_tensor(name)
        wanted = whole(stored.shape) if region is None else region
        if not is_inside(wanted, stored.shape):
            raise ValueError(
                f"tensor {_shown(name)}: {wanted} is no part of shape {list(stored.shape)}"
            )
        slices = self._slices[name]
        regions = [each.region for each in slices]
        flaw = find_flaw(regions, wanted)
        if flaw is not None:
            problem = flaw_text(flaw, regions, stored.shape)
            raise CorruptTensorError(name, problem + self._what_is_there(flaw, stored, regions))
        try:
            dtype = numpy_dtype(stored.data_type)
        except FormatError as error:
            raise CorruptTensorError(name, str(error)) from None
        # All are decoded before anything is put together: what is allocated then is no larger than
        # what the file holds. In order of their keys, so that no block is looked into twice.
        decoded = {
            n: self._decode(stored, each)
            for n, each in sorted(enumerate(slices), key=lambda numbered: numbered[1].key)
            if meet(each.region, wanted) is not None
        }
        if not decoded:
            return np.empty([extent.length for extent in wanted], dtype)
        return stitch(wanted, regions, decoded.__getitem__, dtype)

    def _what_is_there(self, flaw: Flaw, stored: StoredTensor, regions: Sequence[Region]) -> str:
        if not isinstance(flaw, Gap):
            return ""
        listed = [written(region, stored.shape) for region in regions[:_NAMED]]
        listed += ["..."] * (len(regions) > _NAMED)
        return f"; there are: {' '.join(listed) or 'none'}{self._what_is_missing()}"

    def _what_is_missing(self) -> str:
        if not self._missing:
            return ""
        return f"; missing shards: {', '.join(map(printable, self._missing))}"

    def _decode(self, stored: StoredTensor, part: _Slice) -> Array:
        """Return the values of one slice, in its shape."""
        where = f"slice {written(part.region, stored.shape)}" if part.region else "its value"

        def broken(problem: str) -> CorruptTensorError:
            return CorruptTensorError(stored.name, f"{where}: {problem}", file=part.shard)

        try:
            row = self._shards[part.shard].get(part.key)
        except CorruptIndexError as error:
            raise broken(str(error)) from None
        if row is None:
            raise broken("it is listed, but not there")
        try:
            message = SavedTensorSlices.FromString(row).data.data
        except PARSE_ERRORS:
            raise broken("its row does not parse") from None
        tensor = f"tensor {_shown(stored.name)}"
        expected = elements_in(part.region)
        count = count_values(message, stored.data_type, tensor)
        if count != expected:
            raise broken(f"its row has {count} values, its shape asks for {expected}")
        values = decode_values(message, stored.data_type, count, tensor)
        return values.reshape([length for _, length in part.region])

    def _no_such_tensor(self, name: str) -> NoSuchTensorError:
        return NoSuchTensorError(
            f"no tensor {_shown(name)} in the checkpoint"
            f"{hint(name, self._tensors)}{self._what_is_missing()}"
        )


class _Rows:
    """The rows of one shard by key: a look reads one block of the table."""

    def __init__(self, data: BytesLike) -> None:
        self._data = memoryview(data)
        self._kept: tuple[int, dict[bytes, bytes]] = (-1, {})

    @cached_property
    def _blocks(self) -> list[tuple[bytes, Any]]:
        """The separator behind each data block, and where it lies."""
        return read_block_index(self._read, len(self._data))

    def get(self, key: bytes) -> bytes | None:
        """Return the value under `key`; raise `CorruptIndexError` if its block is damaged."""
        at = bisect_left(self._blocks, key, key=lambda block: block[0])
        if at == len(self._blocks):
            return None
        if self._kept[0] == at:
            return self._kept[1].get(key)
        up_to, handle = self._blocks[at]
        after = self._blocks[at - 1][0] if at else None
        rows = dict(read_data_block(self._read, handle, after, up_to))
        if handle.size <= _KEPT_BLOCK * len(rows):
            self._kept = (at, rows)
        return rows.get(key)

    def _read(self, offset: int, size: int) -> bytes:
        return bytes(self._data[offset : offset + size])


def _read_header(data: BytesLike, name: str) -> Any:
    view = memoryview(data)
    try:
        return read_v1_header(lambda at, size: bytes(view[at : at + size]), len(view))
    except CorruptIndexError as error:
        raise CorruptIndexError(f"{printable(name)}: {error}") from None


def _parse_tensor(tensor: Any, shard: str) -> tuple[DataType, tuple[int, ...], list[_Slice]]:
    where = f"{printable(shard)}: tensor {_shown(tensor.name)}"
    shape = tuple(dim.size for dim in tensor.shape.dim)
    if tensor.shape.unknown_rank or any(size < 0 for size in shape):
        raise CorruptIndexError(f"{where}: its shape is not known")
    if len(shape) > LARGEST_RANK:
        raise CorruptIndexError(
            f"{where}: it has {len(shape)} dimensions, an array can have {LARGEST_RANK}"
        )
    kind = data_type(tensor.type)
    if math.prod(size for size in shape if size) * (kind.itemsize or 8) > sys.maxsize:
        raise CorruptIndexError(f"{where}: its shape is beyond all memory: {list(shape)}")
    try:
        slices = [
            _Slice(region_of(each, shape), slice_key(tensor.name.encode(), each), shard)
            for each in tensor.slice
        ]
    except FormatError as error:
        raise CorruptIndexError(f"{where}: {error}") from None
    return kind, shape, slices


def _stored(
    name: str,
    kind: DataType,
    shape: tuple[int, ...],
    slices: Sequence[_Slice],
    numbers: Mapping[str, int],
) -> StoredTensor:
    regions = tuple(each.region for each in slices)
    return StoredTensor(
        name=name,
        data_type=kind,
        shape=shape,
        nbytes=(kind.itemsize or 0) * sum(map(elements_in, regions)),
        shards=tuple(sorted({numbers[each.shard] for each in slices})),
        slices=() if regions == (whole(shape),) else regions,
    )


def _shown(name: str) -> str:
    return repr(printable(name))
