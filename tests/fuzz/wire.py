"""Messages and tables taken apart and put together again, whatever is in them.

The readers under test check all that they read. What damages their files must not: it builds rows out
of order, lengths that lie, and fields that no message has, under checksums that are right.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from ckptd.formats.checksum import masked_crc32c

MAGIC: Final = bytes.fromhex("57fb808b247547db")
FOOTER_SIZE: Final = 48
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_TRAILER_SIZE: Final = 5


class Field(NamedTuple):
    """A field of a message; `value` is a number for a varint, else bytes."""

    number: int
    wire_type: int
    value: int | bytes


def varint(value: int) -> bytes:
    """Return a varint; a negative number is written as protobuf does, in ten bytes."""
    value &= 2**64 - 1
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def parse_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a varint and where it ends; raise `ValueError` where there is none."""
    value = 0
    for index, byte in enumerate(data[position : position + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise ValueError("not a varint")


def parse_message(data: bytes) -> list[Field]:
    """Return the fields of a message; raise `ValueError` where it is none."""
    fields = []
    position = 0
    while position < len(data):
        key, position = parse_varint(data, position)
        number, wire_type = key >> 3, key & 7
        value: int | bytes
        if wire_type == VARINT:
            value, position = parse_varint(data, position)
        else:
            if wire_type == BYTES:
                size, position = parse_varint(data, position)
            else:
                size = {FIXED64: 8, FIXED32: 4}.get(wire_type, -1)
            if not number or size < 0 or position + size > len(data):
                raise ValueError("not a message")
            value = data[position : position + size]
            position += size
        fields.append(Field(number, wire_type, value))
    return fields


def encode_message(fields: Iterable[Field]) -> bytes:
    """Return the message of these fields."""
    return b"".join(map(encode_field, fields))


def encode_field(field: Field) -> bytes:
    """Return one field."""
    key = varint(field.number << 3 | field.wire_type)
    if isinstance(field.value, int):
        return key + varint(field.value)
    size = varint(len(field.value)) if field.wire_type == BYTES else b""
    return key + size + field.value


def rows_of(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the rows of a table, as many as can be told, whatever its checksums say."""
    return [row for offset, size in blocks_of(data) for row in _rows(data[offset : offset + size])]


def blocks_of(data: bytes) -> list[tuple[int, int]]:
    """Return where the contents of the data blocks lie, as far as the index block tells."""
    try:
        offset, size = _handles(data)[1]
        found = [_handle(value, 0)[0] for _, value in _rows(data[offset : offset + size])]
    except ValueError:
        return []
    return [(at, size) for at, size in found if at + size + _TRAILER_SIZE <= len(data)]


def sealed(data: bytes) -> bytes:
    """Return a table with every checksum right that can be found."""
    try:
        handles = _handles(data)
    except ValueError:
        return data
    table = bytearray(data)
    for offset, size in [*blocks_of(data), *handles]:
        end = offset + size + 1
        if end + 4 <= len(table):
            table[end : end + 4] = masked_crc32c(table[offset:end]).to_bytes(4, "little")
    return bytes(table)


def table_of(
    rows: Sequence[tuple[bytes, bytes]], *, rows_per_block: int = 1000, compress: bool = False
) -> bytes:
    """Return a table of these rows, in whatever order, with so many in a block."""
    table = bytearray()
    index = []
    for at in range(0, len(rows), rows_per_block):
        part = rows[at : at + rows_per_block]
        index.append((part[-1][0], _append(table, _contents(part), compress=compress)))
    handles = _append(table, _contents([])) + _append(table, _contents(index))
    return bytes(table) + handles.ljust(FOOTER_SIZE - len(MAGIC), b"\0") + MAGIC


def split_at_magic(data: bytes) -> list[bytes]:
    """Return the tables that lie one behind the other, and what is behind the last."""
    parts = data.split(MAGIC)
    return [part + MAGIC for part in parts[:-1]] + [parts[-1]]


def _handles(data: bytes) -> tuple[tuple[int, int], tuple[int, int]]:
    footer = data[-FOOTER_SIZE:]
    if len(footer) < FOOTER_SIZE:
        raise ValueError("no footer")
    metaindex, position = _handle(footer, 0)
    return metaindex, _handle(footer, position)[0]


def _handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    offset, position = parse_varint(data, position)
    size, position = parse_varint(data, position)
    return (offset, size), position


def _rows(contents: bytes) -> Iterator[tuple[bytes, bytes]]:
    end = len(contents) - 4 - 4 * int.from_bytes(contents[-4:], "little")
    previous = b""
    position = 0
    while position < end:
        try:
            shared, position = parse_varint(contents, position)
            unshared, position = parse_varint(contents, position)
            size, position = parse_varint(contents, position)
        except ValueError:
            return
        previous = previous[:shared] + contents[position : position + unshared]
        position += unshared
        yield previous, contents[position : position + size]
        position += size


def _contents(rows: Sequence[tuple[bytes, bytes]]) -> bytes:
    data = b"".join(
        varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in rows
    )
    return data + bytes(4) + (1).to_bytes(4, "little")


def _append(table: bytearray, contents: bytes, *, compress: bool = False) -> bytes:
    kind = b"\0"
    if compress:
        import cramjam

        contents, kind = bytes(cramjam.snappy.compress_raw(contents)), b"\1"
    handle = varint(len(table)) + varint(len(contents))
    table += contents + kind + masked_crc32c(contents, kind).to_bytes(4, "little")
    return handle
