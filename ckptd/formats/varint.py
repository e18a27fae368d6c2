"""Whole numbers as protobuf and the sorted table write them: seven bits a byte, the lowest first."""

_MORE = 0x80
"""Set in every byte but the last."""


def encode_varint(value: int) -> bytes:
    """Return `value`, 0 or more, as a varint.

    >>> encode_varint(1).hex(), encode_varint(300).hex()
    ('01', 'ac02')
    """
    if value < _MORE:
        return _SINGLE[value]
    encoded = bytearray()
    while value >= _MORE:
        encoded.append(value & 0x7F | _MORE)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_SINGLE = [bytes([value]) for value in range(_MORE)]


def field_header(number: int, size: int) -> bytes:
    """Return what stands before a message's field of `size` bytes: its number, and the size.

    >>> field_header(2, 300).hex()
    '12ac02'
    """
    return encode_varint(number << 3 | 2) + encode_varint(size)


def field_header_size(data: bytes) -> int:
    """Return how many bytes of `data` are the header of the field that it begins with."""
    at = 0
    for _ in range(2):
        while data[at] & _MORE:
            at += 1
        at += 1
    return at
