r"""Tensors whose elements are runs of bytes, as a bundle's data file stores them.

    strings  = length: varint64 for each element,
               masked CRC32C of the lengths: uint32,
               the bytes of all elements, one after the other
    variants = for each element: length: varint64, the bytes,
               masked CRC32C of all up to here: uint32

Both have two kinds of checksum: the ones among the data, and the entry's in the index, which goes on
from the former. Neither is taken of the bytes as they are stored: a length enters as uint32
(uint64 from 4 GiB on) for strings, as uint64 for variants, not as the varint that stands for it.

    strings    crc = lengths, the 4 bytes of the checksum, the bytes of all elements
    variants   crc = for each element: length, its bytes, the 4 bytes of the checksum

What is in a variant's bytes (a `VariantTensorDataProto`) is not looked at. The length checksum of
strings, and the lengths as they enter it, are in the byte order of the machine that wrote them;
TensorFlow reads no variants of the other order.
"""

import struct
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import Final

from crc32c import crc32c

from ckptd.errors import FormatError
from ckptd.formats.checksum import BytesLike, mask
from ckptd.formats.varint import encode_varint

_PIECE: Final = 1 << 20
"""Bytes that are gathered before they are handed on."""

_CHECKSUM_SIZE: Final = 4
_UINT32_MAX: Final = 0xFFFFFFFF
_VARINT64: Final = 10
_LENGTHS_AT_A_TIME: Final = 1 << 16
_LEAST_VARIANT: Final = 1 + _CHECKSUM_SIZE
"""Bytes that an empty variant takes."""


def encode_strings(values: Iterable[bytes]) -> tuple[bytes, int]:
    """Return the stored bytes of a string tensor, and the masked checksum of its entry.

    `values` is walked twice.

    >>> data, crc = encode_strings([b"hello", b"", b"wor"])
    >>> data.hex(" "), crc
    ('05 00 03 c1 66 ac 13 68 65 6c 6c 6f 77 6f 72', 3036245834)
    """
    return _joined(strings_in_pieces(values))


def strings_in_pieces(values: Iterable[bytes]) -> Generator[bytes, None, int]:
    """Yield the stored bytes of a string tensor, piece by piece; return what its entry has as CRC.

    A piece is a megabyte or one element. `values` is walked twice.
    """
    crc = 0
    gathered = bytearray()
    for lengths in _batches(len(value) for value in values):
        crc = _crc_of_lengths(lengths, crc, "<")
        small = max(lengths) < 0x80  # noqa: PLR2004 - then each is its own varint
        gathered += bytes(lengths) if small else b"".join(map(encode_varint, lengths))
        if len(gathered) >= _PIECE:
            yield bytes(gathered)
            gathered.clear()
    checksum = mask(crc).to_bytes(_CHECKSUM_SIZE, "little")
    crc = crc32c(checksum, crc)
    gathered += checksum
    for value in values:
        crc = crc32c(value, crc)
        yield from _gather(gathered, value)
    if gathered:
        yield bytes(gathered)
    return mask(crc)


def size_of_strings(values: Iterable[bytes]) -> int:
    """Return how many bytes a string tensor takes in the data file.

    >>> size_of_strings([b"hello", b"", b"wor"])
    15
    """
    return _CHECKSUM_SIZE + sum(_varint_size(len(value)) + len(value) for value in values)


def decode_strings(data: BytesLike, count: int, *, big_endian: bool = False) -> list[bytes]:
    """Return the `count` elements of a string tensor that is stored as `data`.

    The checksum of the lengths is checked, that of the elements is the entry's and is not:
    see `stored_crc32c_of_strings`. Raises `FormatError`, with the problem alone as its text.
    """
    lengths, position, _ = _parse_lengths(data, count, big_endian=big_endian)
    values = []
    for length in lengths:
        values.append(bytes(data[position : position + length]))
        position += length
    return values


def stored_crc32c_of_strings(data: BytesLike, count: int, *, big_endian: bool = False) -> int:
    """Return the masked checksum that the entry of a string tensor stored as `data` must have.

    Raises `FormatError` where lengths and data do not fit, as `decode_strings` does.
    """
    _, position, crc = _parse_lengths(data, count, big_endian=big_endian)
    return mask(crc32c(memoryview(data)[position:], crc))


def encode_variants(values: Iterable[bytes]) -> tuple[bytes, int]:
    """Return the stored bytes of a variant tensor, and the masked checksum of its entry.

    Each element is a serialized `VariantTensorDataProto`, passed through as it is.

    >>> encode_variants([])
    (b'', 2726488792)
    """
    return _joined(variants_in_pieces(values))


def variants_in_pieces(values: Iterable[bytes]) -> Generator[bytes, None, int]:
    """Yield the stored bytes of a variant tensor, piece by piece; return what its entry has as CRC."""
    crc = 0
    gathered = bytearray()
    for value in values:
        gathered += encode_varint(len(value))
        crc = crc32c(value, crc32c(len(value).to_bytes(8, "little"), crc))
        yield from _gather(gathered, value)
        checksum = mask(crc).to_bytes(_CHECKSUM_SIZE, "little")
        crc = crc32c(checksum, crc)
        gathered += checksum
    if gathered:
        yield bytes(gathered)
    return mask(crc)


def size_of_variants(values: Iterable[bytes]) -> int:
    """Return how many bytes a variant tensor takes in the data file."""
    return sum(_varint_size(len(value)) + len(value) + _CHECKSUM_SIZE for value in values)


def decode_variants(data: BytesLike, count: int) -> list[bytes]:
    """Return the serialized elements of a variant tensor that is stored as `data`.

    The checksum behind each element is checked. Raises `FormatError`, with the problem alone as
    its text.
    """
    return _parse_variants(data, count)[0]


def stored_crc32c_of_variants(data: BytesLike, count: int) -> int:
    """Return the masked checksum that the entry of a variant tensor stored as `data` must have.

    Raises `FormatError` where `data` is not such a tensor, as `decode_variants` does.
    """
    return mask(_parse_variants(data, count)[1])


def _parse_lengths(data: BytesLike, count: int, *, big_endian: bool) -> tuple[list[int], int, int]:
    """Return the length of each element, where the first one starts, and the CRC up to there."""
    size = len(data)
    if count > size - _CHECKSUM_SIZE:  # each length takes a byte; nothing is made for them before
        raise FormatError(
            f"{count} strings and the checksum of their lengths take at least "
            f"{count + _CHECKSUM_SIZE} bytes, stored are {size}"
        )
    lengths = []
    total = position = 0
    for index in range(count):
        length, position = _parse_length(data, position, index, count)
        total += length
        if total > size:
            raise FormatError(
                f"element {index} of {count} is {length} bytes long by its length, "
                f"all that is stored are {size}"
            )
        lengths.append(length)
    start = position + _CHECKSUM_SIZE
    if start + total != size:
        raise FormatError(
            f"its {count} elements take {start + total} bytes by their lengths, stored are {size}"
        )
    stored = bytes(data[position:start])
    found = int.from_bytes(stored, "big" if big_endian else "little")
    crc = 0
    for batch in _batches(lengths):
        crc = _crc_of_lengths(batch, crc, ">" if big_endian else "<")
    if mask(crc) != found:
        raise FormatError(
            f"checksum of the elements' lengths does not match: "
            f"stored {found:#010x}, calculated {mask(crc):#010x}"
        )
    return lengths, start, crc32c(stored, crc)


def _parse_variants(data: BytesLike, count: int) -> tuple[list[bytes], int]:
    size = len(data)
    if count * _LEAST_VARIANT > size:
        raise FormatError(
            f"{count} variants take at least {count * _LEAST_VARIANT} bytes, stored are {size}"
        )
    values = []
    position = crc = 0
    for index in range(count):
        length, position = _parse_length(data, position, index, count)
        end = position + length
        if end + _CHECKSUM_SIZE > size:
            raise FormatError(
                f"element {index} of {count} is {length} bytes long by its length, "
                f"left of what is stored are {size - position}"
            )
        value = bytes(data[position:end])
        position = end + _CHECKSUM_SIZE
        stored = bytes(data[end:position])
        crc = crc32c(value, crc32c(length.to_bytes(8, "little"), crc))
        found = int.from_bytes(stored, "little")
        if mask(crc) != found:
            raise FormatError(
                f"checksum of element {index} of {count} does not match: "
                f"stored {found:#010x}, calculated {mask(crc):#010x}"
            )
        crc = crc32c(stored, crc)
        values.append(value)
    if position != size:
        raise FormatError(f"its {count} elements take {position} bytes, stored are {size}")
    return values, crc


def _parse_length(data: BytesLike, position: int, index: int, count: int) -> tuple[int, int]:
    """Return a length and where it ends."""
    value = shift = 0
    end = min(position + _VARINT64, len(data))
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - a varint's continuation bit
            return value, position
        shift += 7
    raise FormatError(f"the length of element {index} of {count} does not parse")


def _crc_of_lengths(lengths: list[int], crc: int, order: str) -> int:
    if max(lengths) <= _UINT32_MAX:
        return crc32c(struct.pack(f"{order}{len(lengths)}I", *lengths), crc)
    for length in lengths:
        crc = crc32c(struct.pack(f"{order}{'I' if length <= _UINT32_MAX else 'Q'}", length), crc)
    return crc


def _batches(lengths: Iterable[int]) -> Iterator[list[int]]:
    walk = iter(lengths)
    while batch := list(islice(walk, _LENGTHS_AT_A_TIME)):
        yield batch


def _gather(gathered: bytearray, value: bytes) -> Generator[bytes, None, None]:
    """Add `value` to what is gathered; hand on what becomes large, and large values uncopied."""
    if len(value) < _PIECE:
        gathered += value
        if len(gathered) < _PIECE:
            return
        value = b""
    yield bytes(gathered)
    gathered.clear()
    if value:
        yield value


def _joined(pieces: Generator[bytes, None, int]) -> tuple[bytes, int]:
    crc = 0

    def walk() -> Iterator[bytes]:
        nonlocal crc
        crc = yield from pieces

    data = b"".join(walk())
    return data, crc


def _varint_size(value: int) -> int:
    return max(1, (value.bit_length() + 6) // 7)
