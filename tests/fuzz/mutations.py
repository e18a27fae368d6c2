"""Ways to damage a file. Each takes its bytes and a source of chance, and returns other bytes.

`BYTES` know nothing of what they damage. `MESSAGES` damage a field of a message, at any depth, and
make every length around it right again; `TABLES` do so to rows and blocks of a table, and seal it:
what is wrong then lies behind the checksums, where only the reader's own care is left.
"""

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final, TypeAlias

from fuzz.wire import (
    BYTES as WIRE_BYTES,
)
from fuzz.wire import (
    FIXED32,
    FIXED64,
    FOOTER_SIZE,
    MAGIC,
    VARINT,
    Field,
    blocks_of,
    encode_message,
    parse_message,
    parse_varint,
    rows_of,
    sealed,
    split_at_magic,
    table_of,
    varint,
)

from ckptd.formats.checksum import masked_crc32c

Mutation: TypeAlias = Callable[[bytes, Random], bytes]

LARGEST: Final = 64 << 10
"""Bytes that a file may grow to."""

_NUMBERS: Final = (
    *(0, 1, 2, 3, 7, 8, 21, 100, 101, 127, 128, 255, 256, 16_383, 16_384, 65_535, 65_536),
    *(2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
    *(-1, -2, -(2**31), -(2**63)),
)
_DEEP: Final = (20, 99, 101, 400, 3000)


# Whatever it is.


def flip_bits(data: bytes, random: Random) -> bytes:
    """Flip one to eight bits."""
    if not data:
        return data
    changed = bytearray(data)
    for _ in range(random.randint(1, 8)):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def set_bytes(data: bytes, random: Random) -> bytes:
    """Write a few bytes over others."""
    start, end = _part(data, random, 8)
    pattern = random.choice((b"\0", b"\xff", b"\x7f", b"\x80", random.randbytes(1)))
    return data[:start] + pattern * (end - start) + data[end:]


def set_number(data: bytes, random: Random) -> bytes:
    """Write an extreme number over what is there, or in between."""
    number = random.choice(_NUMBERS)
    forms = (varint(number), struct.pack("<q", _signed(number)), struct.pack("<I", number % 2**32))
    form = random.choice(forms)
    at = random.randint(0, len(data))
    return data[:at] + form + data[at + random.choice((0, 1, len(form))) :]


def truncate(data: bytes, random: Random) -> bytes:
    """Cut it short."""
    return data[: random.randint(0, len(data))]


def cut_out(data: bytes, random: Random) -> bytes:
    """Take a part out."""
    start, end = _part(data, random, len(data))
    return data[:start] + data[end:]


def duplicate(data: bytes, random: Random) -> bytes:
    """Repeat a part, a few times or many."""
    start, end = _part(data, random, 256)
    times = random.choice((1, 2, 3, 50, 2000))
    return data[:end] + data[start:end] * _affordable(times, end - start) + data[end:]


def splice(data: bytes, random: Random) -> bytes:
    """Copy a part of it to another place."""
    start, end = _part(data, random, 256)
    at = random.randint(0, len(data))
    return data[:at] + data[start:end] + data[at + random.choice((0, end - start)) :]


def insert(data: bytes, random: Random) -> bytes:
    """Put chance in."""
    at = random.randint(0, len(data))
    return data[:at] + random.randbytes(random.randint(1, 16)) + data[at:]


def set_digits(data: bytes, random: Random) -> bytes:
    """Write another number in decimal digits."""
    places = [found.span() for found in re.finditer(rb"[0-9]+", data)]
    start, end = random.choice(places) if places else (len(data), len(data))
    digits = random.choice((b"0", b"1", b"3", b"99", b"-1", b"9" * 9, b"9" * 19, b"9" * 5000))
    return data[:start] + digits + data[end:]


BYTES: Final[Sequence[Mutation]] = (
    *(flip_bits, set_bytes, set_number, set_digits, truncate),
    *(cut_out, duplicate, splice, insert),
)


# Messages.


def mutate_message(data: bytes, random: Random) -> bytes:
    """Damage one field of a message, at any depth."""
    try:
        fields = parse_message(data)
    except ValueError:
        return random.choice(BYTES)(data, random)
    if not fields:
        return data + random.choice(_ADDITIONS)([], random)
    place = random.randrange(len(fields))
    field = fields[place]
    if isinstance(field.value, bytes) and field.value and random.random() < 0.7:
        fields[place] = field._replace(value=mutate_message(field.value, random))
        return encode_message(fields)
    return random.choice(_FIELD_MUTATIONS)(fields, place, random)


def _drop(fields: list[Field], place: int, random: Random) -> bytes:
    del fields[place : place + random.choice((1, 1, 1, 100))]
    return encode_message(fields)


def _repeat(fields: list[Field], place: int, random: Random) -> bytes:
    size = len(encode_message([fields[place]]))
    times = _affordable(random.choice((1, 2, 10, 300, 20_000)), size)
    return encode_message([*fields[:place], *[fields[place]] * times, *fields[place:]])


def _renumber(fields: list[Field], place: int, random: Random) -> bytes:
    fields[place] = fields[place]._replace(number=random.randint(1, 20))
    return encode_message(fields)


def _revalue(fields: list[Field], place: int, random: Random) -> bytes:
    field = fields[place]
    number = random.choice(_NUMBERS)
    if field.wire_type == VARINT:
        fields[place] = field._replace(value=number)
    elif field.wire_type == FIXED64:
        fields[place] = field._replace(value=struct.pack("<q", _signed(number)))
    elif field.wire_type == FIXED32:
        fields[place] = field._replace(value=struct.pack("<I", number % 2**32))
    else:
        # Numbers in a packed list, or another string.
        fields[place] = field._replace(value=varint(number) * random.choice((1, 2, 300)))
    return encode_message(fields)


def _retype(fields: list[Field], place: int, random: Random) -> bytes:
    number = fields[place].number
    fields[place] = random.choice(
        (
            Field(number, VARINT, random.choice(_NUMBERS)),
            Field(number, WIRE_BYTES, random.randbytes(random.randint(0, 8))),
            Field(number, FIXED32, random.randbytes(4)),
            Field(number, FIXED64, random.randbytes(8)),
        )
    )
    return encode_message(fields)


def _exchange(fields: list[Field], place: int, random: Random) -> bytes:
    other = random.randrange(len(fields))
    one, two = fields[place], fields[other]
    if random.random() < 0.5:
        fields[place], fields[other] = two, one
    else:  # the value alone
        fields[place] = Field(one.number, two.wire_type, two.value)
    return encode_message(fields)


def _deepen(fields: list[Field], place: int, random: Random) -> bytes:
    number = random.choice((fields[place].number, random.randint(1, 20)))
    inside = encode_message(fields)
    for _ in range(random.choice(_DEEP)):
        inside = encode_message([Field(number, WIRE_BYTES, inside)])
        if len(inside) > LARGEST:
            break
    return inside


def _borrow(fields: list[Field], place: int, random: Random) -> bytes:
    """Give a string that is another's: a node the name of another, an input of it, an operation."""
    texts = [field.value for field in fields if isinstance(field.value, bytes)]
    if texts:
        fields[place] = Field(fields[place].number, WIRE_BYTES, random.choice(texts))
    return encode_message(fields)


def _lie(fields: list[Field], place: int, random: Random) -> bytes:
    before, behind = encode_message(fields[:place]), encode_message(fields[place:])
    return (
        before
        + varint(fields[place].number << 3 | WIRE_BYTES)
        + varint(random.choice(_NUMBERS))
        + behind
    )


def _add(fields: list[Field], place: int, random: Random) -> bytes:
    added = random.choice(_ADDITIONS)(fields, random)
    return encode_message(fields[:place]) + added + encode_message(fields[place:])


def _added_number(fields: list[Field], random: Random) -> bytes:
    return encode_message([Field(random.randint(1, 20), VARINT, random.choice(_NUMBERS))])


def _added_bytes(fields: list[Field], random: Random) -> bytes:
    value = random.choice((b"", b"\0", random.randbytes(random.randint(1, 9)), b"\x08\x01"))
    return encode_message([Field(random.randint(1, 20), WIRE_BYTES, value)])


def _added_shape(fields: list[Field], random: Random) -> bytes:
    """Field 2 of an entry or a tensor is its shape: as many dimensions as one likes."""
    rank = random.choice((1, 2, 5, 33, 65, 255, 2000))
    sizes = random.choice((random.choices(_NUMBERS, k=rank), [random.choice(_NUMBERS)] * rank))
    dims = [Field(2, WIRE_BYTES, encode_message([Field(1, VARINT, size)])) for size in sizes]
    return encode_message([Field(random.choice((2, 3)), WIRE_BYTES, encode_message(dims))])


_ADDITIONS: Final = (_added_number, _added_bytes, _added_shape)
_FIELD_MUTATIONS: Final = (
    *(_drop, _repeat, _renumber, _revalue, _revalue, _retype),
    *(_exchange, _borrow, _deepen, _lie, _add),
)

MESSAGES: Final[Sequence[Mutation]] = (mutate_message,)


# Text.

_TOKEN: Final = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*|-?[0-9.]+|\"[^\"\n]*\"|\s+|.", re.DOTALL)
_TEXTS: Final = (
    *(b"{", b"}", b"<", b">", b"[", b"]", b":", b";", b",", b'"', b"'", b"#", b"\n", b"\\", b"-"),
    *(b"\\x", b"\\777", b"\\ud800", b"\\U00110000", b"\\q", b"\0", b"\xff", b"\xed\xa0\x80"),
    *(
        b"1e999",
        b"nan",
        b"inf",
        b"-0",
        b"0x10",
        b"077",
        b"9" * 40,
        b"1" * 5000,
        b"true",
        b"DT_INT32",
    ),
    *(b"[type.googleapis.com/tensorflow.SaverDef] {", b"[a.b]: 1", b"[x/]: 1", b'""' * 200),
    *(b"node {", b"a: {" * 300, b"#" * 40, b"# " * 40, b"\n" * 100, b'attr { key: "x" value {'),
)


def mutate_text(data: bytes, random: Random) -> bytes:
    """Damage a few tokens of a text."""
    tokens = _TOKEN.findall(data[:LARGEST])
    for _ in range(random.randint(1, 4)):
        at = random.randint(0, len(tokens))
        way = random.randrange(5)
        if way == 0:
            tokens[at:at] = [random.choice(_TEXTS)]
        elif way == 1:
            tokens[at : at + 1] = [random.choice(_TEXTS)]
        elif way == 2:
            tokens[at : at + random.choice((1, 1, 5, 50))] = []
        elif tokens:
            start = random.randrange(len(tokens))
            part = tokens[start : start + random.choice((1, 5, 50))]
            times = _affordable(random.choice((1, 1, 2, 100)), sum(map(len, part)))
            tokens[at : at + (way == 3)] = part * times
    return b"".join(tokens)


TEXTS: Final[Sequence[Mutation]] = (mutate_text, mutate_text, *BYTES)


# Tables.


def mutate_row(data: bytes, random: Random) -> bytes:
    """Damage the message, or the key, of one row, and build the table anew."""
    rows = rows_of(data)
    if not rows:
        return data
    place = random.randrange(len(rows))
    key, value = rows[place]
    way = random.random()
    if way < 0.7:
        rows[place] = key, mutate_message(value, random)
    elif way < 0.85:
        rows[place] = random.choice(BYTES)(key, random), value
    else:
        rows[place] = key, rows[random.randrange(len(rows))][1]
    return _rebuilt(rows, random)


def mutate_rows(data: bytes, random: Random) -> bytes:
    """Drop rows, repeat them, exchange them, or put many in."""
    rows = rows_of(data)
    if not rows:
        return data
    place = random.randrange(len(rows))
    key, value = rows[place]
    way = random.randrange(4)
    if way == 0:
        del rows[place]
    elif way == 1:
        rows.insert(random.randrange(len(rows)), rows[place])
    elif way == 2:
        times = _affordable(random.choice((1, 10, 300)), len(key) + len(value) + 8)
        rows += [(key + bytes([n // 256, n % 256]), value) for n in range(times)]
    else:
        random.shuffle(rows)
    return _rebuilt(rows, random)


def mutate_block(data: bytes, random: Random) -> bytes:
    """Damage the bytes of one block, keeping its length, and seal it."""
    blocks = blocks_of(data) or [(0, max(0, len(data) - FOOTER_SIZE))]
    offset, size = random.choice([*blocks, (0, max(0, len(data) - FOOTER_SIZE))])
    contents = random.choice((flip_bits, set_bytes))(data[offset : offset + size], random)
    return sealed(data[:offset] + contents[:size].ljust(size, b"\0") + data[offset + size :])


def mutate_footer(data: bytes, random: Random) -> bytes:
    """Write other handles into the footer, and seal what they lead to."""
    handles = b"".join(
        varint(random.choice((*_NUMBERS, random.randrange(len(data) + 1)))) for _ in range(4)
    )
    return sealed(data[:-FOOTER_SIZE] + handles[:40].ljust(40, b"\0") + MAGIC)


def shorten_under_footer(data: bytes, random: Random) -> bytes:
    """Take a part of the blocks out and keep the footer."""
    return sealed(cut_out(data[:-FOOTER_SIZE], random) + data[-FOOTER_SIZE:])


def _rebuilt(rows: Sequence[tuple[bytes, bytes]], random: Random) -> bytes:
    if random.random() < 0.8:
        rows = sorted(dict(rows).items())
    compress = random.random() < 0.1
    return table_of(rows, rows_per_block=random.choice((1, 3, 1000)), compress=compress)


TABLES: Final[Sequence[Mutation]] = (
    *(mutate_row, mutate_row, mutate_row, mutate_rows),
    *(mutate_block, mutate_footer, shorten_under_footer),
)


# Files that lie behind one another: an index and its data, or the shards of a V1 checkpoint.


def mutate_one_table(data: bytes, random: Random) -> bytes:
    """Damage one of the tables, and leave what else there is."""
    parts = split_at_magic(data)
    place = random.randrange(max(1, len(parts) - 1))
    parts[place] = random.choice((*TABLES, *TABLES, *BYTES))(parts[place], random)
    return b"".join(parts)


def mutate_data(data: bytes, random: Random) -> bytes:
    """Damage what is behind the last table, and let the entries of the index have its checksums."""
    *tables, behind = split_at_magic(data)
    behind = random.choice(BYTES)(behind, random)
    if len(tables) == 1 and random.random() < 0.7:
        rows = [
            (key, _with_checksum(value, behind) if key else value)
            for key, value in rows_of(tables[0])
        ]
        tables = [table_of(rows)]
    return b"".join((*tables, behind))


def _with_checksum(value: bytes, data: bytes) -> bytes:
    """Return an entry with the checksum of its bytes: field 4 is the offset, 5 the size, 6 the CRC."""
    try:
        fields = parse_message(value)
    except ValueError:
        return value
    numbers: Mapping[int, int] = {
        field.number: field.value for field in fields if isinstance(field.value, int)
    }
    start = numbers.get(4, 0)
    stored = data[start : start + numbers.get(5, 0)]
    crc = masked_crc32c(stored).to_bytes(4, "little")
    return encode_message(
        field._replace(value=crc) if field.number == 6 and field.wire_type == FIXED32 else field
        for field in fields
    )


FILES: Final[Sequence[Mutation]] = (mutate_one_table, mutate_one_table, mutate_data)


# Strings, as a data file has them: a flag and the count of elements lie before them here.

COUNT_SIZE: Final = 9


def mutate_count(data: bytes, random: Random) -> bytes:
    """Say another count."""
    count: int = random.choice((*range(10), *(number % 2**64 for number in _NUMBERS)))
    return data[:1] + count.to_bytes(8, "little") + data[COUNT_SIZE:]


def mutate_strings(data: bytes, random: Random) -> bytes:
    """Damage lengths or bytes of strings, and let the checksum of the lengths be right."""
    changed = random.choice(BYTES)(data[COUNT_SIZE:], random)
    count = int.from_bytes(data[1:COUNT_SIZE], "little")
    lengths = []
    position = 0
    try:
        for _ in range(min(count, len(changed))):
            length, position = parse_varint(changed, position)
            lengths.append(length)
    except ValueError:
        return data[:COUNT_SIZE] + changed
    crc = masked_crc32c(
        b"".join(n.to_bytes(4 if n < 2**32 else 16, "little")[:8] for n in lengths)
    ).to_bytes(4, "little")
    return data[:COUNT_SIZE] + changed[:position] + crc + changed[position + 4 :]


STRINGS: Final[Sequence[Mutation]] = (mutate_count, mutate_strings, mutate_strings, *BYTES)


def _part(data: bytes, random: Random, longest: int) -> tuple[int, int]:
    start = random.randint(0, len(data))
    return start, min(len(data), start + random.randint(0, max(1, longest)))


def _affordable(times: int, size: int) -> int:
    return min(times, max(1, LARGEST // max(1, size)))


def _signed(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63
