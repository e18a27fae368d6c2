"""The tensor bundle (V2): an index and the data files, or shards, that it describes, read when asked.

The index is `ckptd.formats.bundle_index`'s. A shard holds the tensors' bytes in C order; nothing says
that they touch, or that the file ends with the last of them. Strings and variants are
`ckptd.formats.string_tensor`'s. Checksums are those of the bytes as stored, masked.

A bundle may be damaged in parts: what is wrong with one tensor is said when that one is read, and
the others are not the worse for it.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from ckptd.errors import CorruptTensorError, FormatError, NoSuchTensorError, printable
from ckptd.formats.arrays import Array, numpy_dtype
from ckptd.formats.bundle_index import Entry, Kind, Part, key_of, name_of, parse_index
from ckptd.formats.checksum import BytesLike, masked_crc32c
from ckptd.formats.collection import collection_paused
from ckptd.formats.dtypes import STRING
from ckptd.formats.near_names import hint
from ckptd.formats.regions import Region, elements_in, find_flaw, is_inside, meet, whole
from ckptd.formats.stitching import flaw_text, part_of, stitch
from ckptd.formats.string_tensor import (
    decode_strings,
    decode_variants,
    stored_crc32c_of_strings,
    stored_crc32c_of_variants,
)
from ckptd.formats.tensors import StoredTensor

_BYTES_PER_ROW: Final = 64
"""What a row of an index takes, about."""


class Bundle:
    """A tensor bundle open for reading: a `TensorSource`."""

    def __init__(
        self,
        index: BytesLike,
        shard: Callable[[int], BytesLike],
        *,
        salvage: bool = False,
        num_shards: int | None = None,
    ) -> None:
        """Read the index. `shard(n)` returns data file n, mapped; it is asked once, when first needed.

        Raises `CorruptIndexError` for what makes the whole index unusable, `MissingLibraryError` if
        it is compressed and the library for that is missing. With `salvage`, damaged blocks of
        the index are passed over: `lost` says which. `num_shards` is what the names of the data
        files say, for an index that has lost its header.
        """
        with collection_paused(len(index) // _BYTES_PER_ROW):
            self._index = parse_index(index, salvage=salvage, num_shards=num_shards)
        self._shard = shard
        self._opened: dict[int, memoryview] = {}

    @cached_property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """Every tensor whose row is sound, by name, in order of the names' bytes.

        A partitioned tensor is one of them, its slices are not.
        """
        names: dict[str, StoredTensor] = {}
        shards: dict[int, tuple[int]] = {}
        entries = self._index.entries
        with collection_paused(len(entries)):
            for key, (kind, number, _, size, _, slices) in entries.items():
                name = key.decode("utf-8", "surrogateescape")
                if slices:
                    names[name] = _partitioned(name, kind, self._index.parts[key])
                else:
                    there = shards.setdefault(number, (number,))
                    names[name] = StoredTensor(name, kind.data_type, kind.shape, size, there)
        return MappingProxyType(names)

    @property
    def num_shards(self) -> int:
        """How many data files the checkpoint's names are made for."""
        return self._index.num_shards

    @property
    def big_endian(self) -> bool:
        """Whether a machine of that byte order wrote it."""
        return self._index.big_endian

    @property
    def lost(self) -> tuple[str, ...]:
        """Sentences on what could not be read of the index, and which names were in it."""
        return self._index.lost

    @cached_property
    def damaged(self) -> Mapping[str, CorruptTensorError]:
        """Why a tensor cannot be read whole, by name, as far as the index alone tells.

        Those with a wrong row are not among `tensors`; those with missing or ill-fitting slices are,
        and can be read in the parts that are there. No data is looked at.
        """
        problems = dict(self._index.wrong)
        for key, parts in self._index.parts.items():
            kind = self._index.entries[key].kind
            if problem := _problem_of(kind, parts, whole(kind.shape)):
                problems[key] = problem
        return MappingProxyType(
            {
                name_of(key): CorruptTensorError(name_of(key), problem)
                for key, problem in sorted(problems.items())
            }
        )

    def read(self, name: str, *, region: Region | None = None, verify: bool = False) -> Array:
        """Return a tensor, or the part `region` of it.

        Numbers that are stored in one piece are a read-only array over the shard, in the byte order of
        the bundle, and nothing is touched before it is used. What lies in several slices is put
        together in a new array, from those that `region` meets. Strings and variants (serialized
        `VariantTensorDataProto`) are arrays of `bytes`, always verified; of numbers, `verify` has
        the stored checksums of all that is looked at checked first.

        Raises `NoSuchTensorError` for a name that is not there, `CorruptTensorError` where the data
        is not what the index promises or is of a type that cannot be read, what `shard` raises
        where a file is missing, and `ValueError` for a region that is not inside the tensor.
        """
        key = key_of(name)
        if key in self._index.wrong:
            raise CorruptTensorError(name, self._index.wrong[key])
        entry = self._index.entries.get(key)
        if entry is None:
            raise self._no_such_tensor(name)
        shape = entry.kind.shape
        if region is not None and not is_inside(region, shape):
            raise ValueError(f"tensor {printable(name)!r} has no {region}: shape {list(shape)}")
        if entry.slices:
            wanted = whole(shape) if region is None else region
            parts = self._index.parts[key]
            return self._stitched(name, entry.kind, parts, wanted, verify=verify)
        array = self._array(name, entry, verify=verify)
        return array if region is None else part_of(array, region)

    def _stitched(
        self, name: str, kind: Kind, parts: Sequence[Part], wanted: Region, *, verify: bool
    ) -> Array:
        problem = _problem_of(kind, parts, wanted)
        if problem:
            raise CorruptTensorError(name, problem)
        try:
            dtype = numpy_dtype(kind.data_type)
            if not elements_in(wanted):
                return _numpy(np.empty, [extent.length for extent in wanted], dtype)
            _numpy(np.empty, [0 for _ in wanted])  # is the rank too high?
        except FormatError as error:
            raise CorruptTensorError(name, str(error)) from None
        meeting = [
            part.entry
            for part in parts
            if part.entry is not None and meet(part.region, wanted) is not None
        ]
        self._require_bytes_of_their_own(name, meeting)

        def read(n: int) -> Array:
            entry = parts[n].entry
            assert entry is not None  # `_problem_of` has looked
            return self._array(name, entry, verify=verify)

        return stitch(wanted, [part.region for part in parts], read, dtype)

    def _require_bytes_of_their_own(self, name: str, entries: Iterable[Entry]) -> None:
        """Refuse slices that share bytes: with them a small file could be made to fill any memory."""
        taken: Counter[int] = Counter()
        for entry in entries:
            # A string, be it empty, takes a byte: no array of them is made for fewer bytes.
            taken[entry.shard] += max(entry.size, entry.kind.elements)
        for number, size in taken.items():
            there = len(self._mapped(number))
            if size > there:
                problem = f"its slices take {size} bytes, the file has {there}"
                raise CorruptTensorError(name, problem, file=self._file(number))

    def _array(self, name: str, entry: Entry, *, verify: bool) -> Array:
        """Return a tensor, or a slice, that is stored in one piece."""
        kind, number, offset, size, stored, _ = entry
        file = self._file(number)
        data = memoryview(b"")
        if size:
            shard = self._mapped(number)
            if offset + size > len(shard):
                problem = f"ends at byte {offset + size} of the file, which has {len(shard)}"
                raise CorruptTensorError(name, problem, file=file, offset=offset)
            data = shard[offset : offset + size]
        try:
            dtype = numpy_dtype(kind.data_type)
            if dtype.hasobject:
                return self._objects(kind, data, stored)
            if verify:
                _require_checksum(stored, masked_crc32c(data))
            return self._numbers(kind, data, dtype)
        except FormatError as error:
            raise CorruptTensorError(name, str(error), file=file, offset=offset) from None

    def _objects(self, kind: Kind, data: memoryview, stored: int) -> Array:
        count = kind.elements
        if kind.data_type == STRING:
            values = decode_strings(data, count, big_endian=self._index.big_endian)
            found = stored_crc32c_of_strings(data, count, big_endian=self._index.big_endian)
        elif self._index.big_endian:
            raise FormatError("variants of a big-endian bundle cannot be read")
        else:
            values = decode_variants(data, count)
            found = stored_crc32c_of_variants(data, count)
        _require_checksum(stored, found)
        array = np.empty(count, object)
        array[:] = values
        return _numpy(array.reshape, kind.shape)

    def _numbers(self, kind: Kind, data: memoryview, dtype: np.dtype[Any]) -> Array:
        order = "big" if self._index.big_endian else "little"
        if dtype.itemsize == 1 or order == sys.byteorder:
            return _numpy(np.ndarray, kind.shape, dtype, data)
        if dtype.isbuiltin == 1:
            return _numpy(np.ndarray, kind.shape, dtype.newbyteorder("S"), data)
        # The dtypes of ml_dtypes have no other byte order.
        bits = np.dtype(f"u{dtype.itemsize}")
        swapped = _numpy(np.ndarray, kind.shape, bits.newbyteorder("S"), data)
        return swapped.astype(bits).view(dtype)

    def _mapped(self, number: int) -> memoryview:
        shard = self._opened.get(number)
        if shard is None:
            shard = self._opened[number] = memoryview(self._shard(number)).toreadonly()
        return shard

    def _file(self, number: int) -> str:
        return f"shard {number} of {self._index.num_shards}"

    def _no_such_tensor(self, name: str) -> NoSuchTensorError:
        near = hint(name, self.tensors)
        return NoSuchTensorError(f"no tensor {printable(name)!r} in the checkpoint{near}")


def _partitioned(name: str, kind: Kind, parts: Sequence[Part]) -> StoredTensor:
    entries = [part.entry for part in parts if part.entry is not None]
    return StoredTensor(
        name,
        kind.data_type,
        kind.shape,
        sum(entry.size for entry in entries),
        tuple(sorted({entry.shard for entry in entries})),
        tuple(part.region for part in parts),
    )


def _problem_of(kind: Kind, parts: Sequence[Part], wanted: Region) -> str:
    """Return why `wanted` cannot be put together from slices, as far as the index tells; or nothing."""
    for part in parts:
        if part.entry is None and meet(part.region, wanted) is not None:
            return part.problem
    regions = [part.region for part in parts]
    flaw = find_flaw(regions, wanted)
    return "" if flaw is None else flaw_text(flaw, regions, kind.shape)


def _require_checksum(stored: int, found: int) -> None:
    if stored != found:
        raise FormatError(
            f"checksum of its data does not match: stored {stored:#010x}, calculated {found:#010x}"
        )


def _numpy(make: Callable[..., Array], *arguments: object) -> Array:
    """Return the array that `make` makes; what numpy has no shape for is a `FormatError`."""
    try:
        return make(*arguments)
    except ValueError as error:  # rank above 64, or empty and still too large
        raise FormatError(f"numpy cannot hold its shape: {error}") from None
