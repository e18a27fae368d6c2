"""The index of a tensor bundle (V2): what it promises, without a look at the data.

The index is a sorted table:

    ""    -> BundleHeader: how many shards there are, their endianness, the format's version
    name  -> BundleEntry: data type, shape, and where the bytes lie: shard, offset, size, checksum

A partitioned tensor has a row under its name that lists its slices and promises no bytes, and one
row for each slice, under the key that `ckptd.formats.slices` makes. No numpy here: the daemon
judges a thousand directories without it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ckptd.errors import CorruptIndexError, printable
from ckptd.formats.messages import PARSE_ERRORS, BundleEntry, BundleHeader, SavedTensorSlices
from ckptd.formats.slices import slice_key
from ckptd.formats.sorted_table import Row, read_table
from ckptd.formats.versions import require_readable


@dataclass(frozen=True, slots=True)
class IndexPromise:
    """What an index says must be there for the checkpoint to be complete."""

    num_shards: int
    """How many data files the checkpoint's names are made for."""
    shard_sizes: Mapping[int, int]
    """The least size, in bytes, of each shard that a tensor lies in; a longer file is fine."""
    tensors: int
    """How many tensors there are; the slices of a partitioned one count as one."""


def read_promise(data: bytes) -> IndexPromise:
    """Return what the index `data` promises.

    Raises `CorruptIndexError` unless every row is sound: a checkpoint of TensorFlow's that can be
    restored always passes.
    """
    header, entries = read_index(data)
    num_shards = header.num_shards
    shard_sizes: dict[int, int] = {}
    partitioned: list[tuple[bytes, Any]] = []
    slice_rows: set[bytes] = set()
    tensors = 0
    for key, entry in entries:
        tensors += 1
        if key.startswith(b"\0"):
            slice_rows.add(key)
        if entry.slices:
            partitioned.append((key, entry))
            continue
        end = entry.offset + entry.size
        shard_id = entry.shard_id
        if end > shard_sizes.get(shard_id, -1):
            shard_sizes[shard_id] = end

    keys = set()
    for name, entry in partitioned:
        for tensor_slice in entry.slices:
            key = slice_key(name, tensor_slice)
            if key not in slice_rows:
                raise CorruptIndexError(
                    f"tensor {row_name(name)}: one of its {len(entry.slices)} slices has no row"
                )
            keys.add(key)
    return IndexPromise(num_shards, shard_sizes, tensors - len(keys))


def read_index(data: bytes) -> tuple[Any, Iterator[tuple[bytes, Any]]]:
    """Return the header and, one by one, the rows behind it; raise `CorruptIndexError`."""
    rows = read_table(data)
    header = _parse_header(next(rows, None))
    return header, _parse_entries(rows, header.num_shards)


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


def _parse_entries(rows: Iterator[Row], num_shards: int) -> Iterator[tuple[bytes, Any]]:
    parse = BundleEntry.FromString
    for key, value in rows:
        try:
            entry = parse(value)
        except PARSE_ERRORS:
            raise CorruptIndexError(f"tensor {row_name(key)}: entry does not parse") from None
        if not 0 <= entry.shard_id < num_shards:
            raise CorruptIndexError(
                f"tensor {row_name(key)}: lies in shard {entry.shard_id} of {num_shards}"
            )
        if entry.offset < 0 or entry.size < 0:
            raise CorruptIndexError(
                f"tensor {row_name(key)}: negative offset or size: {entry.offset}, {entry.size}"
            )
        yield key, entry


def row_name(key: bytes) -> str:
    """Return the key of a row for a message."""
    return repr(printable(key.decode("utf-8", "surrogateescape")))
