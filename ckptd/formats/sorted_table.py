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

Readers take blocks of any size, restarts at any interval, and blocks compressed with snappy, for
which they need a library (`ckptd[snappy]`). TensorFlow's writer, which this one equals byte for
byte, never compresses, ends a block at 256 KiB, and restarts every 16 rows, in the index block at
every row.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias

from crc32c import crc32c

from ckptd.errors import CorruptIndexError, MissingLibraryError
from ckptd.formats.checksum import BytesLike, mask, masked_crc32c
from ckptd.formats.varint import encode_varint

Row: TypeAlias = tuple[bytes, bytes]
"""Key and value."""

FOOTER_SIZE: Final = 48
_HANDLES_SIZE: Final = 40
_MAGIC: Final = bytes.fromhex("57fb808b247547db")
_TRAILER_SIZE: Final = 5
_PLAIN: Final = 0
_SNAPPY: Final = 1

BLOCK_SIZE: Final = 256 << 10
"""Bytes from which on TensorFlow's writer ends a data block."""
RESTART_INTERVAL: Final = 16
"""Rows from one restart point of a data block to the next, as TensorFlow's writer sets them."""

_LARGEST_PARTIAL_READ: Final = 64 << 20
"""Bytes of one block that `read_first_block` takes into memory: a hundred times what is usual."""

_SHARED_LIMIT: Final = 64
"""How many times its own size a block may unfold to by shared keys; a writer that restarts every
16 rows cannot pass 16. Without a bound a few megabytes could be made to fill any memory."""

_SNAPPY_COPY: Final = 64
_SNAPPY_COPY_TAG: Final = 3
"""The best that snappy can do: a tag of 3 bytes that copies 64 bytes from before. No block unfolds
to more than 64/3 times its size, so that a length beyond it is wrong before anything is unfolded."""

_VARINT32: Final = 5
_VARINT64: Final = 10


class Handle(NamedTuple):
    """Where a block's contents lie, in bytes."""

    offset: int
    size: int


class LostBlock(NamedTuple):
    """A data block that cannot be read, and which rows were in it."""

    problem: str
    after: bytes | None
    """Every key of it is above this one; None: it is the first block."""
    up_to: bytes
    """No key of it is above this one. Both are separators, which need not be keys themselves."""


def read_table(
    data: BytesLike, *, on_lost: Callable[[LostBlock], None] | None = None
) -> Iterator[Row]:
    """Yield every row of the table `data`, in order of keys.

    Raises `CorruptIndexError` as soon as something is met that TensorFlow's writer would not have
    written and its reader would not read: footer, any checksum, order of keys, truncation. With
    `on_lost`, a data block that is damaged is reported to it instead, and the blocks behind it are
    still read; the footer, the metaindex block and the index block must be sound.

    Raises `MissingLibraryError` for a block that is compressed if the library for it is missing.
    """
    view = memoryview(data)

    def read(offset: int, size: int) -> bytes:
        return bytes(view[offset : offset + size])

    after: bytes | None = None
    for up_to, handle in read_block_index(read, len(view)):
        try:
            rows = read_data_block(read, handle, after, up_to)
        except CorruptIndexError as error:
            if on_lost is None:
                raise
            on_lost(LostBlock(str(error), after, up_to))
        else:
            yield from rows
        after = up_to


def read_data_block(
    read: Callable[[int, int], bytes], handle: Handle, after: bytes | None, up_to: bytes
) -> list[Row]:
    """Return the rows of one data block; their keys are above `after` and not above `up_to`.

    `read(offset, size)` returns that many bytes of the file. Raises `CorruptIndexError` and
    `MissingLibraryError` as `read_table` does.
    """
    where = f"data block at {handle.offset}"
    rows = _read_rows(read, handle, where)
    if rows:
        if after is not None and rows[0][0] <= after:
            raise CorruptIndexError(f"{where}: keys out of order with the block before")
        if rows[-1][0] > up_to:
            raise CorruptIndexError(f"{where}: keys out of order with the index block")
    return rows


def read_first_block(read: Callable[[int, int], bytes], size: int) -> list[Row]:
    """Return the rows of the first data block of a table of `size` bytes, without reading the rest.

    `read(offset, size)` returns that many bytes of the file. The footer, the index block and the
    metaindex block are checked as `read_table` does, and that every block lies in the file.
    """
    index = read_block_index(read, size, limit=_LARGEST_PARTIAL_READ)
    if not index:
        return []
    handle = index[0][1]
    where = f"data block at {handle.offset}"
    return _read_rows(read, handle, where, limit=_LARGEST_PARTIAL_READ)


def read_block_index(
    read: Callable[[int, int], bytes], size: int, *, limit: int | None = None
) -> list[tuple[bytes, Handle]]:
    """Return separator and handle of each data block, checked to lie in the file one by one.

    `read(offset, size)` returns that many bytes of a file of `size` bytes. No key of a block is above
    its separator, every key of the next one is. A block larger than `limit` is refused unread.
    """
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
    for separator, value in _read_rows(read, index, where, limit=limit):
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


def _require_inside(handle: Handle, where: str, end: int) -> None:
    block_end = handle.offset + handle.size + _TRAILER_SIZE
    if block_end > end:
        raise CorruptIndexError(
            f"{where}: truncated: it ends at byte {block_end}, the file's blocks at {end}"
        )


def _read_rows(
    read: Callable[[int, int], bytes], handle: Handle, where: str, *, limit: int | None = None
) -> list[Row]:
    contents = _read_block(read, handle, where, limit=limit)
    return _rows(contents, where, allowance=_SHARED_LIMIT * handle.size)


def _read_block(
    read: Callable[[int, int], bytes], handle: Handle, where: str, *, limit: int | None
) -> bytes:
    _require_below(limit, handle.size, where)
    block = read(handle.offset, handle.size + _TRAILER_SIZE)
    if len(block) < handle.size + _TRAILER_SIZE:
        raise CorruptIndexError(f"{where}: truncated: {len(block)} bytes are left of it")
    checked = memoryview(block)[: handle.size + 1]
    stored, found = int.from_bytes(block[-4:], "little"), masked_crc32c(checked)
    if stored != found:
        raise CorruptIndexError(
            f"{where}: checksum does not match: expected {stored:#010x}, found {found:#010x}"
        )
    kind = block[handle.size]
    if kind == _SNAPPY:
        return _unfold(block[: handle.size], where, limit)
    if kind != _PLAIN:
        raise CorruptIndexError(f"{where}: compressed in an unknown way: type {kind}")
    return block[: handle.size]


def _require_below(limit: int | None, size: int, where: str) -> None:
    if limit is not None and size > limit:
        raise CorruptIndexError(f"{where}: takes {size} bytes, more than {limit} are not supported")


def _unfold(compressed: bytes, where: str, limit: int | None) -> bytes:
    """Return what snappy made `compressed` of: the length as varint32, then tags."""
    try:
        size, _ = _parse_varint(compressed, 0, _VARINT32)
    except ValueError:
        raise CorruptIndexError(f"{where}: compressed with snappy: no length") from None
    most = len(compressed) * _SNAPPY_COPY // _SNAPPY_COPY_TAG
    if size > most:
        raise CorruptIndexError(
            f"{where}: compressed with snappy: {len(compressed)} bytes cannot unfold to {size}"
        )
    _require_below(limit, size, where)
    try:
        import cramjam  # noqa: PLC0415 (optional; nearly no table is compressed)
    except ImportError:
        raise MissingLibraryError(
            f"{where}: compressed with snappy; to read it: pip install 'ckptd[snappy]'"
        ) from None
    try:
        contents = bytes(cramjam.snappy.decompress_raw(compressed))
    except cramjam.DecompressionError as error:
        reason = str(error).removeprefix("snappy: ")
        raise CorruptIndexError(f"{where}: compressed with snappy: {reason}") from None
    return contents


def _rows(contents: bytes, where: str, *, allowance: int) -> list[Row]:
    """Return the rows of a block; its keys may share `allowance` bytes with those before them."""
    restarts = int.from_bytes(contents[-4:], "little")
    end = len(contents) - 4 - 4 * restarts
    if restarts == 0 or end < 0:
        raise CorruptIndexError(f"{where}: restart points do not parse")
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


def _parse_handle(data: bytes, position: int) -> tuple[Handle, int]:
    offset, position = _parse_varint(data, position, _VARINT64)
    size, position = _parse_varint(data, position, _VARINT64)
    return Handle(offset, size), position


def _parse_varint(data: bytes, position: int, longest: int) -> tuple[int, int]:
    """Return a varint of at most `longest` bytes and where it ends; ValueError if there is none."""
    value = 0
    for index, byte in enumerate(data[position : position + longest]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004 - a varint's continuation bit
            return value, position + index + 1
    raise ValueError("not a varint")


class LongValue(NamedTuple):
    """A value that is too large to be held: made in pieces when its turn comes."""

    size: int
    """Bytes of all pieces."""
    pieces: Callable[[], Iterable[BytesLike]]


def write_table(
    rows: Iterable[Row], *, block_size: int = BLOCK_SIZE, restart_interval: int = RESTART_INTERVAL
) -> bytes:
    """Return the table of `rows`; with the defaults, byte for byte TensorFlow's.

    A data block ends once it takes `block_size` bytes, or before a row of twice that size; it has a
    restart point every `restart_interval` rows. Raises `ValueError` unless the keys of `rows` are in
    strictly increasing order.
    """
    return b"".join(table_pieces(rows, block_size=block_size, restart_interval=restart_interval))


def table_pieces(
    rows: Iterable[tuple[bytes, bytes | LongValue]],
    *,
    block_size: int = BLOCK_SIZE,
    restart_interval: int = RESTART_INTERVAL,
) -> Iterator[BytesLike]:
    """Yield the bytes that `write_table` returns, a block or less at a time."""
    if block_size < 1 or restart_interval < 1:
        raise ValueError(f"block size {block_size}, restart interval {restart_interval}: below 1")
    end = 0
    data = _Block(restart_interval)
    index = _Block(1)
    previous: bytes | None = None
    pending: Handle | None = None  # a block that waits for the next key, to choose its separator

    for key, given in rows:
        if previous is not None and key <= previous:
            raise ValueError(f"rows out of order: {key!r} after {previous!r}")
        value = given
        large = len(key) + (given.size if isinstance(given, LongValue) else len(given))
        if large >= 2 * block_size:
            if data:
                pending = Handle(end, data.size)
                end += yield from _sealed(data.finish())
        elif isinstance(given, LongValue):
            value = b"".join(given.pieces())
        if previous is not None and pending is not None:
            index.add(_separator(previous, key), _handle_bytes(pending))
            pending = None
        data.add(key, value)
        previous = key
        if data.size >= block_size:
            pending = Handle(end, data.size)
            end += yield from _sealed(data.finish())

    if data:
        pending = Handle(end, data.size)
        end += yield from _sealed(data.finish())
    metaindex = Handle(end, _Block(restart_interval).size)
    end += yield from _sealed(_Block(restart_interval).finish())
    if previous is not None and pending is not None:
        index.add(_successor(previous), _handle_bytes(pending))
    footer = _handle_bytes(metaindex) + _handle_bytes(Handle(end, index.size))
    yield from _sealed(index.finish())
    yield footer.ljust(_HANDLES_SIZE, b"\0") + _MAGIC


def _sealed(contents: Iterable[BytesLike]) -> Generator[BytesLike, None, int]:
    """Yield a block's contents and its trailer; return how many bytes they take together."""
    crc = 0
    size = 0
    for piece in contents:
        crc = crc32c(piece, crc)
        size += len(piece)
        yield piece
    kind = bytes([_PLAIN])
    yield kind + mask(crc32c(kind, crc)).to_bytes(4, "little")
    return size + _TRAILER_SIZE


class _Block:
    """The contents of one block in the making. A long value is the last one in its block."""

    def __init__(self, restart_interval: int) -> None:
        self._restart_interval = restart_interval
        self._start()

    def _start(self) -> None:
        self._rows = bytearray()
        self._long: LongValue | None = None
        self._restarts = [0]
        self._since_restart = 0
        self._previous = b""

    def __bool__(self) -> bool:
        return bool(self._rows)

    @property
    def size(self) -> int:
        """Bytes it takes if finished now."""
        long = 0 if self._long is None else self._long.size
        return len(self._rows) + long + 4 * len(self._restarts) + 4

    def add(self, key: bytes, value: bytes | LongValue) -> None:
        shared = 0
        if self._since_restart < self._restart_interval:
            shared = _shared(self._previous, key)
        else:
            self._restarts.append(len(self._rows))
            self._since_restart = 0
        size = value.size if isinstance(value, LongValue) else len(value)
        self._rows += encode_varint(shared) + encode_varint(len(key) - shared) + encode_varint(size)
        self._rows += key[shared:]
        if isinstance(value, LongValue):
            self._long = value
        else:
            self._rows += value
        self._previous = key
        self._since_restart += 1

    def finish(self) -> Iterator[BytesLike]:
        """Return the contents, in pieces, and begin anew."""
        numbers = (*self._restarts, len(self._restarts))
        tail = b"".join(n.to_bytes(4, "little") for n in numbers)
        rows, long = self._rows, self._long
        self._start()
        if long is None:
            return iter((bytes(rows) + tail,))
        return _around(rows, long, tail)


def _around(before: BytesLike, long: LongValue, after: bytes) -> Iterator[BytesLike]:
    yield before
    left = long.size
    for piece in long.pieces():
        left -= len(piece)
        yield piece
    if left:
        raise ValueError(f"a value said to take {long.size} bytes took {long.size - left}")
    yield after


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
    # As numbers: what they differ in has as many bytes as are left from the first that differs.
    differ = int.from_bytes(one[:length], "big") ^ int.from_bytes(other[:length], "big")
    return length - (differ.bit_length() + 7) // 8


def _handle_bytes(handle: Handle) -> bytes:
    return encode_varint(handle.offset) + encode_varint(handle.size)
