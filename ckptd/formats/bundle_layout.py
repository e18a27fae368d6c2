"""Which bytes of a tensor bundle (V2) go where, decided before any of them is looked at.

A part is what has a row of its own in the index and lies in one piece in one shard: a whole tensor,
or one slice of a partitioned one. In a shard parts touch, in order of the names' bytes and the
slices' order, as TensorFlow's Saver writes them. Who knows the layout can copy arrays to where they
belong in a file of the final size; the index follows from it and the checksums of the parts.
"""

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, NamedTuple

from ckptd.errors import printable
from ckptd.formats.dtypes import DataType
from ckptd.formats.messages import BundleEntry, BundleHeader, TensorSlice
from ckptd.formats.regions import Region, elements_in
from ckptd.formats.slices import slice_key
from ckptd.formats.sorted_table import write_table
from ckptd.formats.versions import CONSUMER

MOST_SHARDS: Final = 99_999
"""Five digits number them in the names of the data files."""

_INT64_MAX: Final = 2**63 - 1
_WHOLE: Final = (None,)


class TensorSpec(NamedTuple):
    """A tensor that is to be stored, all but its data."""

    name: str
    data_type: DataType
    shape: tuple[int, ...]
    regions: tuple[Region, ...] = ()
    """The slices in which it is stored; none or one: it is stored whole."""
    sizes: tuple[int, ...] = ()
    """Bytes of each slice (of the whole if there are none), where elements differ in size."""


class Part(NamedTuple):
    """A run of bytes in a shard, and what they are."""

    key: bytes
    """Of its row in the index."""
    name: str
    """Of the tensor."""
    region: Region | None
    """The slice of the tensor; None where it is all of it."""
    data_type: DataType
    shape: tuple[int, ...]
    """Of the slice."""
    size: int
    """Bytes."""
    offset: int
    """Where they begin in the shard."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything goes. `shards` has the parts of each shard, as they lie there."""

    shards: tuple[tuple[Part, ...], ...]
    shapes: Mapping[str, tuple[int, ...]]
    """Of the tensors that are stored in slices."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of each data file."""
        return tuple(parts[-1].offset + parts[-1].size if parts else 0 for parts in self.shards)


def lay_out(
    specs: Iterable[TensorSpec],
    *,
    num_shards: int = 1,
    shards: Mapping[str, int | Sequence[int]] | None = None,
) -> Layout:
    """Say where the bytes of each tensor go.

    `shards` gives for each name its shard, or one for each of its slices; without it the parts are
    spread so that the shards hold about the same number of bytes (see `balanced`). A shard may stay
    empty. Raises `ValueError` for what makes no bundle: no tensors, an empty name, one that has no
    UTF-8 form, one that would be taken for the key of a slice, two that are the same bytes.
    """
    if not 1 <= num_shards <= MOST_SHARDS:
        raise ValueError(f"a bundle has 1 to {MOST_SHARDS:,} shards, not {num_shards:,}")
    given = list(specs)
    if not given:
        raise ValueError("a bundle holds at least one tensor, got none")
    keys = [key_of(spec.name) for spec in given]
    order = sorted(range(len(given)), key=keys.__getitem__)
    for one, other in pairwise(order):
        if keys[one] == keys[other]:
            raise ValueError(
                f"tensors {printable(given[one].name)!r} and {printable(given[other].name)!r} "
                "have the same name in the index"
            )
    sizes = [size for n in order for size in _sizes(given[n])]
    if shards is None:
        chosen = balanced(sizes, num_shards)
    else:
        chosen = _chosen(shards, [given[n] for n in order], num_shards)
    filled: list[list[Part]] = [[] for _ in range(num_shards)]
    ends = [0] * num_shards
    places = zip(sizes, chosen, strict=True)
    for n in order:
        name, data_type, shape, regions, _ = given[n]
        for region in regions if len(regions) > 1 else _WHOLE:
            size, shard = next(places)
            key = keys[n]
            if region is not None:
                key = slice_key(key, _slice(region))
                shape = tuple(extent.length for extent in region)
            offset = ends[shard]
            ends[shard] = offset + size
            filled[shard].append(Part(key, name, region, data_type, shape, size, offset))
    if max(ends) > _INT64_MAX:
        raise ValueError(f"a shard would take {max(ends):,} bytes, more than a file can have")
    sliced = {spec.name: spec.shape for spec in given if len(spec.regions) > 1}
    return Layout(tuple(map(tuple, filled)), sliced)


def balanced(sizes: Sequence[int], num_shards: int) -> list[int]:
    """Return the shard of each part, so that the shards hold about the same number of bytes.

    The largest parts go first, each into the shard that holds least so far, the first of equals; so
    the fullest shard holds at most a third more than it must. The same sizes give the same shards.

    >>> balanced([4, 1, 2, 3], 2)
    [0, 0, 1, 1]
    """
    if num_shards == 1:
        return [0] * len(sizes)
    chosen = [0] * len(sizes)
    loads = [(0, shard) for shard in range(num_shards)]
    for part in sorted(range(len(sizes)), key=lambda part: -sizes[part]):
        load, shard = loads[0]
        chosen[part] = shard
        heapq.heapreplace(loads, (load + sizes[part], shard))
    return chosen


def encode_index(layout: Layout, checksums: Sequence[Sequence[int]]) -> bytes:
    """Return the index of a bundle, byte for byte TensorFlow's.

    `checksums` are the masked checksums of the parts, in the order of `layout.shards`.
    """
    header = BundleHeader(num_shards=len(layout.shards), version={"producer": CONSUMER})
    rows = [(b"", header.SerializeToString())]
    slices: dict[str, tuple[DataType, list[Any]]] = {}
    for shard, (parts, crcs) in enumerate(zip(layout.shards, checksums, strict=True)):
        for part, crc in zip(parts, crcs, strict=True):
            # Two halves of one message, in the order of its fields: the first is often the same.
            place = BundleEntry(shard_id=shard, offset=part.offset, size=part.size, crc32c=crc)
            value = _what(part.data_type.number, part.shape) + place.SerializeToString()
            rows.append((part.key, value))
            if part.region is not None:
                _, found = slices.setdefault(part.name, (part.data_type, []))
                found.append(_slice(part.region))
    for name, (data_type, found) in slices.items():
        entry = _what(data_type.number, layout.shapes[name])
        rows.append((key_of(name), entry + BundleEntry(slices=found).SerializeToString()))
    rows.sort()
    return write_table(rows)


def key_of(name: str) -> bytes:
    r"""Return the key of a tensor's row; raise `ValueError` where it cannot have one.

    Bytes that are not UTF-8, as `os.fsdecode` hands them over, are written as they were:

    >>> key_of("size\udcff")
    b'size\xff'
    """
    try:
        key = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(f"tensor {printable(name)!r}: its name has no UTF-8 form") from None
    if not key:
        raise ValueError("a tensor has an empty name; that is the key of the bundle's header")
    if key[0] == 0 and b"\0\1" in key[1:]:
        raise ValueError(
            f"tensor {printable(name)!r}: its name would be taken for the key of a slice"
        )
    return key


def _sizes(spec: TensorSpec) -> Sequence[int]:
    itemsize = spec.data_type.itemsize
    if itemsize is None:
        return spec.sizes
    if len(spec.regions) > 1:
        return [elements_in(region) * itemsize for region in spec.regions]
    return (math.prod(spec.shape) * itemsize,)


def _slice(region: Region) -> Any:
    return TensorSlice(extent=[{"start": start, "length": length} for start, length in region])


def _chosen(
    shards: Mapping[str, int | Sequence[int]],
    specs: Sequence[TensorSpec],
    num_shards: int,
) -> list[int]:
    chosen: list[int] = []
    for spec in specs:
        where = f"tensor {printable(spec.name)!r}"
        count = max(1, len(spec.regions))
        if spec.name not in shards:
            raise ValueError(f"{where}: no shard is given for it")
        given = shards[spec.name]
        each = [given] * count if isinstance(given, int) else list(given)
        if len(each) != count:
            raise ValueError(f"{where}: {len(each)} shards are given for its {count} slices")
        for shard in each:
            if not 0 <= shard < num_shards:
                raise ValueError(f"{where}: shard {shard} is none of 0 to {num_shards - 1}")
        chosen += each
    if len(shards) > len(specs):
        there = {spec.name for spec in specs}
        stray = next(name for name in shards if name not in there)
        raise ValueError(f"a shard is given for {printable(stray)!r}, which is no tensor")
    return chosen


@lru_cache(maxsize=4096)  # a model repeats a few shapes
def _what(data_type: int, shape: tuple[int, ...]) -> bytes:
    """Return the first fields of an entry. The shape is there even for a scalar, and empty then."""
    shape_fields = {"dim": [{"size": size} for size in shape]}
    encoded: bytes = BundleEntry(dtype=data_type, shape=shape_fields).SerializeToString()
    return encoded
