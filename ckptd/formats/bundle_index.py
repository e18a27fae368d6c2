"""The index of a tensor bundle (V2): what it promises, without a look at the data.

The index is a sorted table:

    ""    -> BundleHeader: how many shards there are, their endianness, the format's version
    name  -> BundleEntry: data type, shape, and where the bytes lie: shard, offset, size, checksum

A partitioned tensor has a row under its name that lists its slices and promises no bytes, and one
row for each slice, under the key that `ckptd.formats.slices` makes. Such a row that no tensor lists
is a tensor of its own, by the name of its key; so TensorFlow has it.

`parse_index` takes all of it apart and notes what is wrong with single tensors; `read_promise` and
`read_pieces` want all of it sound. No numpy here: the daemon judges a thousand directories without
it.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, NamedTuple

from ckptd.errors import CorruptIndexError, FormatError, MissingLibraryError, printable
from ckptd.formats.checksum import BytesLike
from ckptd.formats.dtypes import MOST_DIMENSIONS, MOST_ELEMENTS, DataType, data_type
from ckptd.formats.messages import PARSE_ERRORS, BundleEntry, BundleHeader, SavedTensorSlices
from ckptd.formats.regions import Region, written
from ckptd.formats.slices import key_end, key_start, region_of
from ckptd.formats.sorted_table import LostBlock, Row, read_table
from ckptd.formats.versions import require_readable

LARGEST_INDEX: Final = 2**30
"""Bytes of an index that is read: ten million tensors take that many."""

_MOST_SHARDS: Final = 2**31


@dataclass(frozen=True, slots=True)
class IndexPromise:
    """What an index says must be there for the checkpoint to be complete."""

    num_shards: int
    """How many data files the checkpoint's names are made for."""
    shard_sizes: Mapping[int, int]
    """The least size, in bytes, of each shard that a tensor lies in; a longer file is fine."""
    tensors: int
    """How many tensors there are; the slices of a partitioned one count as one."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One run of bytes in a shard: a tensor, or a slice of one."""

    name: str
    """The tensor's, also of a slice; bytes that are not UTF-8 as `os.fsdecode` hands them over."""
    region: Region | None
    """Which part of the tensor it is; None: all of it."""
    data_type: DataType
    elements: int
    shard: int
    offset: int
    size: int
    crc32c: int
    """Of the bytes as stored, masked."""
    big_endian: bool = False


class Kind(NamedTuple):
    """What a tensor is, wherever its bytes lie. Many tensors of a checkpoint have theirs in common."""

    data_type: DataType
    shape: tuple[int, ...]
    elements: int
    size: int | None
    """Bytes that such a tensor takes; None where its elements differ in size."""


class Entry(NamedTuple):
    """One row of the index, sound in itself."""

    kind: Kind
    shard: int
    offset: int
    size: int
    crc32c: int
    """Of the bytes as stored, masked."""
    slices: Any = ()
    """The `TensorSlice` messages that it lists; none unless the tensor is partitioned."""


@dataclass(frozen=True, slots=True)
class Part:
    """One slice of a partitioned tensor, as the tensor's row lists it."""

    region: Region
    entry: Entry | None
    """None if it has no row of its own, or one that is wrong; `problem` says what."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class BundleIndex:
    """All that an index says. Keys are the names' bytes, in their order."""

    num_shards: int
    big_endian: bool
    entries: Mapping[bytes, Entry]
    """Every tensor; the rows of slices that belong to one are not among them."""
    parts: Mapping[bytes, tuple[Part, ...]]
    """The slices of each tensor that is partitioned."""
    wrong: Mapping[bytes, str]
    """What is wrong with each row that cannot be used."""
    lost: tuple[str, ...]
    """Sentences on blocks that could not be read, and which rows were in them."""


def read_promise(data: BytesLike) -> IndexPromise:
    """Return what the index `data` promises.

    Raises `CorruptIndexError` unless every row is sound: a checkpoint of TensorFlow's that can be
    restored always passes. Raises `FormatError` where that cannot be said, for want of a library.
    """
    try:
        index = parse_index(data)
    except MissingLibraryError as error:
        raise FormatError(f"the index cannot be judged: {error}") from error
    _require_sound(index)
    shard_sizes: dict[int, int] = {}
    for _, _, entry in _stored(index):
        end = entry.offset + entry.size
        if end > shard_sizes.get(entry.shard, -1):
            shard_sizes[entry.shard] = end
    return IndexPromise(index.num_shards, shard_sizes, len(index.entries))


def read_pieces(data: BytesLike) -> list[Piece]:
    """Return every run of bytes that the index `data` describes, by tensor, in order of names.

    Raises `CorruptIndexError` unless every row is sound, `MissingLibraryError` where the index is
    compressed and the library for it is missing.
    """
    index = parse_index(data)
    _require_sound(index)
    return [
        Piece(
            name=name_of(key),
            region=region,
            data_type=entry.kind.data_type,
            elements=entry.kind.elements,
            shard=entry.shard,
            offset=entry.offset,
            size=entry.size,
            crc32c=entry.crc32c,
            big_endian=index.big_endian,
        )
        for key, region, entry in _stored(index)
    ]


def _stored(index: BundleIndex) -> Iterator[tuple[bytes, Region | None, Entry]]:
    """Yield whatever has bytes: the tensor's key, the part that it is, its own entry."""
    partitioned = index.parts
    for key, entry in index.entries.items():
        if key not in partitioned:
            yield key, None, entry
            continue
        for part in partitioned[key]:
            if part.entry is not None:
                yield key, part.region, part.entry


def _require_sound(index: BundleIndex) -> None:
    for key, problem in index.wrong.items():
        raise CorruptIndexError(f"tensor {row_name(key)}: {problem}")
    for key, parts in index.parts.items():
        for part in parts:
            if part.entry is None:
                raise CorruptIndexError(f"tensor {row_name(key)}: {part.problem}")


def parse_index(
    data: BytesLike, *, salvage: bool = False, num_shards: int | None = None
) -> BundleIndex:
    """Take the index `data` apart.

    What is wrong with one tensor is noted in the result. Raises `CorruptIndexError` for what makes
    the table or its header unusable, and `MissingLibraryError` where it is compressed and the
    library for it is missing.

    With `salvage`, blocks of the table that are damaged are passed over and noted. The header is in
    the first block: without it the data is taken for little-endian, in `num_shards` shards, as the
    names of the data files say; if that is not given, in as many as the rows that are left mention.
    """
    blocks: list[LostBlock] = []
    rows = read_table(data, on_lost=blocks.append if salvage else None)
    first = next(rows, None)
    lost_header = bool(blocks) and blocks[0].after is None
    if lost_header:
        if first is None:
            raise CorruptIndexError(blocks[0].problem)
        rows = chain([first], rows)
        big_endian = False
        shards = num_shards or _MOST_SHARDS
    else:
        header = _parse_header(first)
        big_endian = header.endianness == BundleHeader.BIG
        shards = header.num_shards

    found = _parse_entries(rows, shards)
    lost = [_sentence(block) for block in blocks]
    if lost_header:
        if num_shards is None:
            shards = 1 + max((entry.shard for entry in found.entries.values()), default=0)
        lost.append(f"the header is lost: taken for little-endian, in {shards} shards")
    parts = _gather_slices(found)
    return BundleIndex(shards, big_endian, found.entries, parts, found.wrong, tuple(lost))


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of an index, by key, in order."""

    entries: dict[bytes, Entry]
    wrong: dict[bytes, str]
    partitioned: list[bytes]
    """Keys of entries that list slices."""
    slices: list[bytes]
    """Keys that could be those of slices, sound or not."""


def _sentence(block: LostBlock) -> str:
    above = "" if block.after is None else f"above {row_name(block.after)} and "
    return f"{block.problem}; lost with it: every name {above}not above {row_name(block.up_to)}"


def _parse_header(row: Row | None) -> Any:
    if row is None:
        raise CorruptIndexError("no header: the table is empty")
    key, value = row
    if key != b"":
        raise CorruptIndexError(f"no header: the first row is {row_name(key)}")
    try:
        header = BundleHeader.FromString(value)
    except PARSE_ERRORS:
        raise CorruptIndexError("header does not parse") from None
    if header.num_shards < 1:
        if _is_v1_header(value):
            raise CorruptIndexError("a V1 checkpoint, not an index")
        raise CorruptIndexError(f"header: num_shards must be at least 1, found {header.num_shards}")
    if header.endianness not in {BundleHeader.LITTLE, BundleHeader.BIG}:
        raise CorruptIndexError(f"header: unknown endianness {header.endianness}")
    require_readable(header.version)
    return header


def _is_v1_header(value: bytes) -> bool:
    try:
        return bool(SavedTensorSlices.FromString(value).HasField("meta"))
    except PARSE_ERRORS:
        return False


def _parse_entries(rows: Iterable[Row], num_shards: int) -> _Rows:
    # A large index has a hundred thousand rows, and this loop takes the time; half of it went into
    # shapes before it knew them again by their bytes.
    found = _Rows({}, {}, [], [])
    entries = found.entries
    kinds: dict[bytes, Kind] = {}
    for key, value in rows:
        try:
            # Writers put type and shape first: 08, the number, 12, the length of the shape, the shape.
            end = 0
            if len(value) > 3 and value[0] == 0x08 and value[2] == 0x12:  # noqa: PLR2004
                end = 4 + value[3] if (value[1] | value[3]) < 0x80 else 0  # noqa: PLR2004 - a varint
            rest = BundleEntry.FromString(value[end:])
            if end and not rest.dtype and not rest.HasField("shape"):
                head = value[:end]
                kind = kinds.get(head)
                if kind is None:
                    kind = kinds[head] = _kind_in(BundleEntry.FromString(head))
            else:
                kind = _kind_in(BundleEntry.FromString(value))
            shard = rest.shard_id
            offset = rest.offset
            size = rest.size
            slices = rest.slices
            if not 0 <= shard < num_shards:
                raise FormatError(f"lies in shard {shard} of {num_shards}")  # noqa: TRY301
            if offset < 0 or size < 0:
                raise FormatError(f"negative offset or size: {offset}, {size}")  # noqa: TRY301
            if slices:
                found.partitioned.append(key)
            elif size != kind.size and kind.size is not None:
                raise FormatError(_wrong_size(kind, size))  # noqa: TRY301
            entries[key] = Entry(kind, shard, offset, size, rest.crc32c, slices or ())
        except PARSE_ERRORS:
            found.wrong[key] = "entry does not parse"
        except FormatError as error:
            found.wrong[key] = str(error)
        if key.startswith(b"\0"):
            found.slices.append(key)
    return found


def _wrong_size(kind: Kind, size: int) -> str:
    elements = "1 element" if kind.elements == 1 else f"{kind.elements} elements"
    return f"stored in {size} bytes, {elements} of {kind.data_type.name} take {kind.size}"


def _kind_in(entry: Any) -> Kind:
    if entry.shape.unknown_rank:
        raise FormatError("its shape is not known")
    if len(entry.shape.dim) > MOST_DIMENSIONS:
        rank = len(entry.shape.dim)
        raise FormatError(f"its shape has {rank:,} dimensions, at most {MOST_DIMENSIONS} can be")
    shape = tuple([dim.size for dim in entry.shape.dim])
    if min(shape, default=0) < 0:
        raise FormatError(f"its shape has a negative dimension: {list(shape)}")
    known = data_type(entry.dtype)
    elements = math.prod(shape)
    if known.itemsize is None and elements > MOST_ELEMENTS:  # else the size says it
        raise FormatError(f"its shape has more elements than can be counted: {list(shape)}")
    size = None if known.itemsize is None else elements * known.itemsize
    return Kind(known, shape, elements, size)


def _gather_slices(found: _Rows) -> dict[bytes, tuple[Part, ...]]:
    """Take the rows of slices out of what was found, to the tensors that list them."""
    entries, wrong = found.entries, found.wrong
    parts: dict[bytes, tuple[Part, ...]] = {}
    claimed: set[bytes] = set()
    for name in found.partitioned:
        entry = entries[name]
        try:
            regions = [region_of(part, entry.kind.shape) for part in entry.slices]
        except FormatError as error:
            wrong[name] = str(error)
            del entries[name]
            continue
        rows = _rows_of(name, found.slices)
        keys = [rows.get(key_end(part)) for part in entry.slices]
        claimed.update(key for key in keys if key is not None)
        parts[name] = tuple(
            _part(entry, region, key, entries, wrong)
            for region, key in zip(regions, keys, strict=True)
        )
    for key in claimed:
        entries.pop(key, None)
        wrong.pop(key, None)
        parts.pop(key, None)
    return parts


def _rows_of(name: bytes, slice_rows: list[bytes]) -> dict[bytes, bytes]:
    """Return the keys of the slices of `name`, each under what follows the name in it.

    A name may be long and its slices many: no key is put together to look for it.
    """
    start = key_start(name)
    rows = {}
    for at in range(bisect_left(slice_rows, start), len(slice_rows)):
        key = slice_rows[at]
        if not key.startswith(start):
            break
        rows[key[len(start) :]] = key
    return rows


def _part(
    tensor: Entry,
    region: Region,
    key: bytes | None,
    entries: Mapping[bytes, Entry],
    wrong: Mapping[bytes, str],
) -> Part:
    wanted, shape, _, _ = tensor.kind
    where = f"slice {written(region, shape)}"
    entry = None if key is None else entries.get(key)
    if entry is None:
        problem = wrong.get(key, "its row is wrong") if key is not None else "it has no row"
        return Part(region, None, f"{where}: {problem}")
    if entry.slices:
        return Part(region, None, f"{where}: its row lists slices itself")
    lengths = tuple(extent.length for extent in region)
    found = entry.kind
    if (found.data_type, found.shape) != (wanted, lengths):
        problem = (
            f"its row says {found.data_type.name} {list(found.shape)}, "
            f"not {wanted.name} {list(lengths)}"
        )
        return Part(region, None, f"{where}: {problem}")
    return Part(region, entry)


def name_of(key: bytes) -> str:
    """Return the name of the tensor with that key."""
    return key.decode("utf-8", "surrogateescape")


def key_of(name: str) -> bytes:
    """Return the key of the tensor with that name; the header's where no bytes stand for it."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return b""


def row_name(key: bytes) -> str:
    """Return the key of a row for a message."""
    return repr(printable(name_of(key)))
