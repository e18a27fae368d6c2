"""The checksum in every TensorFlow file: CRC32C (Castagnoli), masked.

A checksum stored beside data is itself data that others may checksum; TensorFlow therefore stores
``rotate_right(crc, 15) + 0xa282ead8`` (modulo 2**32), as little-endian uint32.
"""

from typing import Final, TypeAlias

from crc32c import crc32c

BytesLike: TypeAlias = bytes | bytearray | memoryview

_DELTA: Final = 0xA282EAD8
_UINT32: Final = 0xFFFFFFFF


def mask(crc: int) -> int:
    """Return what is stored for the checksum `crc`.

    >>> hex(mask(0))
    '0xa282ead8'
    """
    return ((crc >> 15 | crc << 17) + _DELTA) & _UINT32


def unmask(masked: int) -> int:
    """Return the checksum that is stored as `masked`.

    >>> unmask(0xA282EAD8)
    0
    """
    rotated = (masked - _DELTA) & _UINT32
    return (rotated >> 17 | rotated << 15) & _UINT32


def masked_crc32c(*buffers: BytesLike) -> int:
    """Return the masked checksum of `buffers`, taken as one run of bytes.

    >>> masked_crc32c(b"1234", b"56789") == masked_crc32c(b"123456789") == mask(0xE3069283)
    True
    """
    crc = 0
    for buffer in buffers:
        crc = crc32c(buffer, crc)
    return mask(crc)
