"""The header of a V1 checkpoint: one sorted table per shard, that holds the tensors themselves.

    ""            -> SavedTensorSlices with `meta`: names, shapes, types and slices of the tensors
    key of slice  -> SavedTensorSlices with `data`: the values of that slice

The file is named as the prefix, without an extension, so that only its content tells what it is.
A shard says nothing of the others; each lists the tensors that it holds. No numpy here: the daemon
judges completeness without it; `ckptd.formats.v1_checkpoint` reads and writes the values.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ckptd.errors import CorruptIndexError
from ckptd.formats.messages import PARSE_ERRORS, BundleHeader, SavedTensorSlices
from ckptd.formats.sorted_table import read_first_block
from ckptd.formats.versions import require_readable


@dataclass(frozen=True, slots=True)
class V1Promise:
    """What the header of one V1 shard says of it."""

    tensors: int
    """How many tensors have a slice in this shard."""


def read_v1_promise(read: Callable[[int, int], bytes], size: int) -> V1Promise:
    """Return what one V1 shard of `size` bytes promises, without reading all of it.

    `read(offset, size)` returns that many bytes of the file, fewer only where it ends. A table is
    finished by its footer, and its index block says where every block lies; with both sound and
    every block inside the file, the shard is complete. The values are not read: their checksums
    are for a deep verification.

    Raises `CorruptIndexError` for anything else, the index of a tensor bundle included.
    """
    return V1Promise(tensors=len(read_v1_header(read, size).tensor))


def read_v1_header(read: Callable[[int, int], bytes], size: int) -> Any:
    """Return the header of one V1 shard, a `SavedTensorSliceMeta`; otherwise as `read_v1_promise`."""
    rows = read_first_block(read, size)
    if not rows or rows[0][0] != b"":
        raise CorruptIndexError("no header: not a V1 checkpoint")
    value = rows[0][1]
    try:
        header = SavedTensorSlices.FromString(value)
    except PARSE_ERRORS:
        raise CorruptIndexError("header does not parse") from None
    if not header.HasField("meta"):
        if _is_bundle_header(value):
            raise CorruptIndexError("the index of a tensor bundle, not a V1 checkpoint")
        raise CorruptIndexError("header does not list the tensors: not a V1 checkpoint")
    require_readable(header.meta.versions)
    return header.meta


def _is_bundle_header(value: bytes) -> bool:
    try:
        return bool(BundleHeader.FromString(value).num_shards)
    except PARSE_ERRORS:
        return False
