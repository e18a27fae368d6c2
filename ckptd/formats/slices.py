"""Keys of the slices of a partitioned tensor, in the order-preserving code of TensorFlow.

    key      = number(0), string(name), number(rank), (signed(start), signed(length)) per dimension
    number   = count of bytes: 1 byte, the bytes, big-endian, without leading zeros
    string   = bytes, with 00 written as 00 ff and ff as ff 00, then 00 01
    signed   = n bytes for -2**(7n-1) to 2**(7n-1)-1: two's complement, big-endian, with its
               leading n bits flipped

A dimension taken whole has start 0 and length -1. Slices whose extents are spelled differently
have different keys, even where they mean the same part.
"""

from collections.abc import Sequence
from typing import Any, Final

from ckptd.errors import FormatError
from ckptd.formats.regions import Extent, Region, is_inside, written

_WHOLE: Final = (0, -1)


def slice_key(name: bytes, tensor_slice: Any) -> bytes:
    r"""Return the key of one slice (a `TensorSlice`) of the tensor `name`.

    >>> from ckptd.formats.messages import TensorSlice
    >>> slice_key(b"w", TensorSlice(extent=[{"start": 0, "length": 1}, {}])).hex(" ")
    '00 77 00 01 01 02 80 81 80 7f'
    """
    return key_start(name) + key_end(tensor_slice)


def key_start(name: bytes) -> bytes:
    """Return what the keys of all slices of `name` begin with, and no other slice's key does."""
    return encode_number(0) + encode_string(name)


def key_end(tensor_slice: Any) -> bytes:
    """Return what follows `key_start` in the key of one slice (a `TensorSlice`)."""
    numbers = [number for extent in tensor_slice.extent for number in _spelled(extent)]
    return encode_number(len(numbers) // 2) + b"".join(map(encode_signed, numbers))


def region_of(tensor_slice: Any, shape: Sequence[int]) -> Region:
    """Return the part of a tensor of that shape that a `TensorSlice` means.

    Raises `FormatError` with what is wrong where there is no such part.
    """
    if len(tensor_slice.extent) != len(shape):
        raise FormatError(
            f"a slice has {len(tensor_slice.extent)} dimensions, the tensor has {len(shape)}"
        )
    extents = [
        (0, size) if spelled == _WHOLE else spelled
        for spelled, size in zip(map(_spelled, tensor_slice.extent), shape, strict=True)
    ]
    if not is_inside(region := tuple(Extent(*extent) for extent in extents), shape):
        raise FormatError(f"slice {written(region, shape)} is not inside its shape {list(shape)}")
    return region


def _spelled(extent: Any) -> tuple[int, int]:
    return (extent.start, extent.length) if extent.WhichOneof("has_length") else _WHOLE


def encode_number(value: int) -> bytes:
    """Return the code of `value`, 0 or more.

    >>> encode_number(0).hex(), encode_number(2).hex(" ")
    ('00', '01 02')
    """
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size, "big")


def encode_string(value: bytes) -> bytes:
    """Return the code of `value`, which no other string's code is a prefix of.

    >>> encode_string(bytes.fromhex("61 00 ff")).hex(" ")
    '61 00 ff ff 00 00 01'
    """
    parts = (part.replace(b"\0", b"\0\xff") for part in value.split(b"\xff"))
    return b"\xff\0".join(parts) + b"\0\1"


def encode_signed(value: int) -> bytes:
    """Return the code of `value`, an int64.

    >>> encode_signed(63).hex(), encode_signed(64).hex(" "), encode_signed(-1).hex()
    ('bf', 'c0 40', '7f')
    """
    magnitude = ~value if value < 0 else value
    size = magnitude.bit_length() // 7 + 1
    header = ((1 << size) - 1) << (8 * size - size)
    return ((value ^ header) & ((1 << (8 * size)) - 1)).to_bytes(size, "big")
