"""The sorted table: the container of every index of a tensor bundle and of every V1 checkpoint.

    table    = data block*, metaindex block, index block, footer
    block    = contents, type: 1 byte (0 plain, 1 snappy), masked CRC32C of both: uint32
    contents = row*, offset of each restart point: uint32*, their count: uint32
    row      = shared: varint32, unshared: varint32, size: varint32,
               the key's last `unshared` bytes, `size` bytes of value
    footer   = handle of the metaindex block, handle of the index block, zeros up to 40 bytes,
               magic 57 fb 80 8b 24 75 47 db
    handle   = offset: varint64, size of the contents: varint64

Numbers are little-endian. A key takes its first `shared` bytes from the key before it; at a
restart point it takes none. Keys are in strictly increasing order of their bytes. A row of the
index block holds the handle of one data block under a separator: a key not below the last of that
block and below the first of the next. The metaindex block is empty.

Readers take blocks of any size. TensorFlow's writer, which this one equals byte for byte, never
compresses, ends a block at 256 KiB, and restarts every 16 rows, in the index block at every row.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias

from ckptd.errors import CorruptIndexError
from ckptd.formats.checksum import masked_crc32c

Row: TypeAlias = tuple[bytes, bytes]
"""Key and value."""

FOOTER_SIZE: Final = 48
_HANDLES_SIZE: Final = 40
_MAGIC: Final = bytes.fromhex("57fb808b247547db")
_TRAILER_SIZE: Final = 5
_PLAIN: Final = 0
_SNAPPY: Final = 1

_BLOCK_SIZE: Final = 256 << 10
_RESTART_INTERVAL: Final = 16

_LARGEST_PARTIAL_READ: Final = 64 << 20
"""Bytes of one block that `read_first_block` takes into memory: a hundred times what is usual."""

_SHARED_LIMIT: Final = 64
"""How many times its own size a block may unfold to by shared keys; a writer that restarts every
16 rows cannot pass 16. Without a bound a few megabytes could be made to fill any memory."""

_VARINT32: Final = 5
_VARINT64: Final = 10


class _Handle(NamedTuple):
    """Where a block's contents lie, in bytes."""

    offset: int
    size: int


def read_table(data: bytes) -> Iterator[Row]:
    """Yield every row of the table `data`, in order of keys.

    Raises `CorruptIndexError` as soon as something is met that TensorFlow's writer would not have
    written and its reader would not read: footer, any checksum, order of keys, truncation.
    """

    def read(offset: int, size: int) -> bytes:
        return data[offset : offset + size]

    separator: bytes | None = None
    for next_separator, handle in _read_index(read, len(data)):
        where = f"data block at {handle.offset}"
        rows = _rows(_read_block(read, handle, where), where)
        if rows:
            if separator is not None and rows[0][0] <= separator:
                raise CorruptIndexError(f"{where}: keys out of order with the block before")
            if rows[-1][0] > next_separator:
                raise CorruptIndexError(f"{where}: keys out of order with the index block")
        separator = next_separator
        yield from rows


def read_first_block(read: Callable[[int, int], bytes], size: int) -> list[Row]:
    """Return the rows of the first data block of a table of `size` bytes, without reading the rest.

    `read(offset, size)` returns that many bytes of the file. The footer, the index block and the
    metaindex block are checked as `read_table` does, and that every block lies in the file.
    """
    index = _read_index(read, size, limit=_LARGEST_PARTIAL_READ)
    if not index:
        return []
    handle = index[0][1]
    where = f"data block at {handle.offset}"
    return _rows(_read_block(read, handle, where, limit=_LARGEST_PARTIAL_READ), where)


def _read_index(
    read: Callable[[int, int], bytes], size: int, *, limit: int | None = None
) -> list[tuple[bytes, _Handle]]:
    """Return separator and handle of each data block, checked to lie in the file one by one."""
    if size < FOOTER_SIZE:
        raise CorruptIndexError(
            f"too short to be a table: {size} bytes, a footer alone takes {FOOTER_SIZE}"
        )
    footer = read(size - FOOTER_SIZE, FOOTER_SIZE)
    if not footer.endswith(_MAGIC):
        raise CorruptIndexError("bad magic number: not a table, or truncated")
    try:
        metaindex, position = _parse_handle(footer[:_HANDLES_SIZE], 0)
        index, _ = _parse_handle(footer[:_HANDLES_SIZE], position)
    except ValueError:
        raise CorruptIndexError("footer: handles do not parse") from None

    for handle, where in ((metaindex, "metaindex block"), (index, "index block")):
        _require_inside(handle, f"{where} at {handle.offset}", size - FOOTER_SIZE)
    _read_block(read, metaindex, f"metaindex block at {metaindex.offset}", limit=limit)
    where = f"index block at {index.offset}"

    blocks = []
    end = 0
    for separator, value in _rows(_read_block(read, index, where, limit=limit), where):
        try:
            handle, _ = _parse_handle(value, 0)
        except ValueError:
            raise CorruptIndexError(f"{where}: the handle of a block does not parse") from None
        if handle.offset < end:
            raise CorruptIndexError(f"data block at {handle.offset}: overlaps the one before")
        _require_inside(handle, f"data block at {handle.offset}", size - FOOTER_SIZE)
        end = handle.offset + handle.size + _TRAILER_SIZE
        blocks.append((separator, handle))
    return blocks


def _require_inside(handle: _Handle, where: str, end: int) -> None:
    block_end = handle.offset + handle.size + _TRAILER_SIZE
    if block_end > end:
        raise CorruptIndexError(
            f"{where}: truncated: it ends at byte {block_end}, the file's blocks at {end}"
        )


def _read_block(
    read: Callable[[int, int], bytes], handle: _Handle, where: str, *, limit: int | None = None
) -> bytes:
    if limit is not None and handle.size > limit:
        raise CorruptIndexError(
            f"{where}: takes {handle.size} bytes, more than {limit} are not supported"
        )
    block = read(handle.offset, handle.size + _TRAILER_SIZE)
    if len(block) < handle.size + _TRAILER_SIZE:
        raise CorruptIndexError(f"{where}: truncated: {len(block)} bytes are left of it")
    checked = memoryview(block)[: handle.size + 1]
    if masked_crc32c(checked) != int.from_bytes(block[-4:], "little"):
        raise CorruptIndexError(f"{where}: checksum does not match")
    kind = block[handle.size]
    if kind == _SNAPPY:
        raise CorruptIndexError(f"{where}: compressed with snappy, not supported yet")
    if kind != _PLAIN:
        raise CorruptIndexError(f"{where}: compressed in an unknown way: type {kind}")
    return block[: handle.size]


def _rows(contents: bytes, where: str) -> list[Row]:
    restarts = int.from_bytes(contents[-4:], "little")
    end = len(contents) - 4 - 4 * restarts
    if restarts == 0 or end < 0:
        raise CorruptIndexError(f"{where}: restart points do not parse")
    allowance = _SHARED_LIMIT * len(contents)
    rows: list[Row] = []
    append = rows.append
    previous = b""
    position = 0
    while position < end:
        # The restart points behind the rows keep these three in range. Lengths below 128 are
        # their own varint, and nearly all are.
        shared = contents[position]
        unshared = contents[position + 1]
        size = contents[position + 2]
        if (shared | unshared | size) < 0x80:  # noqa: PLR2004 - a varint's continuation bit
            position += 3
        else:
            try:
                shared, position = _parse_varint(contents, position, _VARINT32)
                unshared, position = _parse_varint(contents, position, _VARINT32)
                size, position = _parse_varint(contents, position, _VARINT32)
            except ValueError:
                raise CorruptIndexError(f"{where}: row {len(rows)} does not parse") from None
        value_at = position + unshared
        key = previous[:shared] + contents[position:value_at]
        position = value_at + size
        allowance -= shared
        if shared > len(previous) or position > end or allowance < 0:
            raise CorruptIndexError(f"{where}: row {len(rows)} does not parse")
        if key <= previous and rows:
            raise CorruptIndexError(f"{where}: row {len(rows)}: keys out of order")
        append((key, contents[value_at:position]))
        previous = key
    return rows


def _parse_handle(data: bytes, position: int) -> tuple[_Handle, int]:
    offset, position = _parse_varint(data, position, _VARINT64)
    size, position = _parse_varint(data, position, _VARINT64)
    return _Handle(offset, size), position


def _parse_varint(data: bytes, position: int, longest: int) -> tuple[int, int]:
    """Return a varint of at most `longest` bytes and where it ends; ValueError if there is none."""
    value = 0
    for index, byte in enumerate(data[position : position + longest]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004 - a varint's continuation bit
            return value, position + index + 1
    raise ValueError("not a varint")


def write_table(rows: Iterable[Row]) -> bytes:
    """Return the table of `rows`, byte for byte TensorFlow's.

    Raises `ValueError` unless the keys of `rows` are in strictly increasing order.
    """
    table = bytearray()
    data = _Block(_RESTART_INTERVAL)
    index = _Block(1)
    previous: bytes | None = None
    pending: _Handle | None = None  # a block that waits for the next key, to choose its separator

    for key, value in rows:
        if previous is not None and key <= previous:
            raise ValueError(f"rows out of order: {key!r} after {previous!r}")
        if data and len(key) + len(value) >= 2 * _BLOCK_SIZE:
            pending = _append_block(table, data.finish())
        if previous is not None and pending is not None:
            index.add(_separator(previous, key), _handle_bytes(pending))
            pending = None
        data.add(key, value)
        previous = key
        if data.size >= _BLOCK_SIZE:
            pending = _append_block(table, data.finish())

    if data:
        pending = _append_block(table, data.finish())
    metaindex = _append_block(table, _Block(_RESTART_INTERVAL).finish())
    if previous is not None and pending is not None:
        index.add(_successor(previous), _handle_bytes(pending))
    footer = _handle_bytes(metaindex) + _handle_bytes(_append_block(table, index.finish()))
    table += footer.ljust(_HANDLES_SIZE, b"\0") + _MAGIC
    return bytes(table)


class _Block:
    """The contents of one block in the making."""

    def __init__(self, restart_interval: int) -> None:
        self._restart_interval = restart_interval
        self._start()

    def _start(self) -> None:
        self._rows = bytearray()
        self._restarts = [0]
        self._since_restart = 0
        self._previous = b""

    def __bool__(self) -> bool:
        return bool(self._rows)

    @property
    def size(self) -> int:
        """Bytes it takes if finished now."""
        return len(self._rows) + 4 * len(self._restarts) + 4

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self._since_restart < self._restart_interval:
            shared = _shared(self._previous, key)
        else:
            self._restarts.append(len(self._rows))
            self._since_restart = 0
        self._rows += _varint(shared) + _varint(len(key) - shared) + _varint(len(value))
        self._rows += key[shared:]
        self._rows += value
        self._previous = key
        self._since_restart += 1

    def finish(self) -> bytes:
        """Return the contents, and begin anew."""
        numbers = (*self._restarts, len(self._restarts))
        contents = bytes(self._rows) + b"".join(n.to_bytes(4, "little") for n in numbers)
        self._start()
        return contents


def _append_block(table: bytearray, contents: bytes) -> _Handle:
    handle = _Handle(len(table), len(contents))
    kind = bytes([_PLAIN])
    table += contents + kind + masked_crc32c(contents, kind).to_bytes(4, "little")
    return handle


def _separator(last: bytes, following: bytes) -> bytes:
    """Return a short key not below `last` and below `following`."""
    at = _shared(last, following)
    if at < min(len(last), len(following)) and last[at] + 1 < following[at]:
        return last[:at] + bytes([last[at] + 1])
    return last


def _successor(last: bytes) -> bytes:
    """Return a short key not below `last`."""
    for at, byte in enumerate(last):
        if byte != 0xFF:  # noqa: PLR2004 - the byte that cannot be counted up
            return last[:at] + bytes([byte + 1])
    return last


def _shared(one: bytes, other: bytes) -> int:
    """Return how many bytes `one` and `other` begin with in common."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    return next(at for at in range(length) if one[at] != other[at])


def _handle_bytes(handle: _Handle) -> bytes:
    return _varint(handle.offset) + _varint(handle.size)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:  # noqa: PLR2004 - a varint's continuation bit
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
