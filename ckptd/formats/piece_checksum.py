"""The checksum of one stored piece, worked out as its bytes pass by.

A piece may be larger than memory; its bytes are read once, in order, in parts of any size, and none
of them is kept. What is summed up is in `ckptd.formats.string_tensor` for strings and variants, which
has the same for a tensor in memory; for all else it is the bytes as they are stored.
"""

import struct
from collections.abc import Sequence
from typing import Final, Protocol

from crc32c import crc32c

from ckptd.errors import FormatError
from ckptd.formats.checksum import BytesLike, mask
from ckptd.formats.dtypes import STRING, VARIANT, DataType

_CHECKSUM_SIZE: Final = 4
_LONGEST_VARINT: Final = 10
_LONG_LENGTH: Final = 2**32
_CONTINUES: Final = 0x80
_AT_A_TIME: Final = 64 << 10  # bytes; a length becomes an object of many times its size


class PieceChecksum(Protocol):
    """Takes the stored bytes of one piece and returns the checksum that its entry should have."""

    def update(self, part: BytesLike) -> None:
        """Take the next bytes. Raises `FormatError` as soon as they cannot be right."""

    def finish(self) -> int:
        """Return the masked checksum. Raises `FormatError` where bytes are missing."""


def piece_checksum(
    data_type: DataType, elements: int, size: int, *, big_endian: bool = False
) -> PieceChecksum:
    """Return a fresh checksum for a piece of so many elements, stored in `size` bytes.

    Raises `FormatError` where that many elements cannot be stored in `size` bytes.
    """
    if data_type == STRING:
        return _Strings(elements, size, ">" if big_endian else "<")
    if data_type == VARIANT:
        return _Variants(elements, size)
    if data_type.itemsize is not None and size != elements * data_type.itemsize:
        raise FormatError(
            f"{elements:,} elements of {data_type.name} take {elements * data_type.itemsize:,} "
            f"bytes, {size:,} are stored"
        )
    return _Numbers()


class _Numbers:
    def __init__(self) -> None:
        self._crc = 0

    def update(self, part: BytesLike) -> None:
        self._crc = crc32c(part, self._crc)

    def finish(self) -> int:
        return mask(self._crc)


class _Strings:
    """Lengths, their checksum, bytes: each is done with before the next begins."""

    def __init__(self, elements: int, size: int, order: str) -> None:
        self._order = order
        if size < elements + _CHECKSUM_SIZE:
            raise FormatError(
                f"{elements:,} strings take {elements + _CHECKSUM_SIZE:,} bytes at least, "
                f"{size:,} are stored"
            )
        self._crc = 0
        self._lengths_left = elements
        self._size_left = size - _CHECKSUM_SIZE  # for lengths and strings that are yet to come
        self._varint = bytearray()
        self._checksum = bytearray()

    def update(self, part: BytesLike) -> None:
        view = memoryview(part)
        while self._lengths_left and view:
            view = view[self._take_lengths(view[:_AT_A_TIME]) :]
        if not self._lengths_left and len(self._checksum) < _CHECKSUM_SIZE:
            view = view[self._take_checksum(view) :]
        self._crc = crc32c(view, self._crc)

    def finish(self) -> int:
        if self._lengths_left or len(self._checksum) < _CHECKSUM_SIZE:
            raise FormatError(f"it ends before the last {self._lengths_left:,} lengths")
        return mask(self._crc)

    def _take_lengths(self, view: memoryview) -> int:
        """Take lengths from the start of `view`; return how many bytes they take."""
        if not self._varint:
            short = bytes(view[: self._lengths_left])
            if max(short, default=0) < _CONTINUES:  # most are: each byte is a length
                self._take_all(short, len(short))
                return len(short)
        lengths: list[int] = []
        used = 0
        for byte in view:
            used += 1
            self._varint.append(byte)
            if byte < _CONTINUES:
                lengths.append(_varint(self._varint))
                self._varint.clear()
                if len(lengths) == self._lengths_left:
                    break
            elif len(self._varint) == _LONGEST_VARINT:
                raise FormatError("the length of a string does not parse")
        self._take_all(lengths, used)
        return used

    def _take_all(self, lengths: Sequence[int], used: int) -> None:
        self._lengths_left -= len(lengths)
        self._size_left -= used + sum(lengths)
        if self._size_left < 0:
            raise FormatError(
                f"the lengths of its strings add up to {-self._size_left:,} bytes more than are stored"
            )
        if max(lengths, default=0) < _LONG_LENGTH:
            numbers = struct.pack(f"{self._order}{len(lengths)}I", *lengths)
            self._crc = crc32c(numbers, self._crc)
            return
        for length in lengths:
            code = "I" if length < _LONG_LENGTH else "Q"
            self._crc = crc32c(struct.pack(self._order + code, length), self._crc)

    def _take_checksum(self, view: memoryview) -> int:
        used = min(len(view), _CHECKSUM_SIZE - len(self._checksum))
        self._checksum += view[:used]
        if len(self._checksum) == _CHECKSUM_SIZE:
            if self._size_left:
                raise FormatError(
                    f"the lengths of its strings add up to {self._size_left:,} bytes less than are "
                    "stored"
                )
            stored = int.from_bytes(self._checksum, "big" if self._order == ">" else "little")
            _require(stored, self._crc, "the lengths of its strings")
            self._crc = crc32c(self._checksum, self._crc)
        return used


class _Variants:
    """Each element in turn: its length, its bytes, the checksum of everything so far."""

    def __init__(self, elements: int, size: int) -> None:
        if size < elements * (1 + _CHECKSUM_SIZE):
            raise FormatError(
                f"{elements:,} variants take {elements * (1 + _CHECKSUM_SIZE):,} bytes at least, "
                f"{size:,} are stored"
            )
        self._crc = 0
        self._elements = elements
        self._done = 0
        self._size_left = size
        self._varint = bytearray()
        self._bytes_left = -1  # of the element; -1: its length is yet to come
        self._checksum = bytearray()

    def update(self, part: BytesLike) -> None:
        view = memoryview(part)
        while view:
            if self._done == self._elements:
                raise FormatError(
                    f"{self._size_left:,} bytes more than its variants take are stored"
                )
            if self._bytes_left < 0:
                used = self._take_length(view)
            elif self._bytes_left:
                used = min(len(view), self._bytes_left)
                self._crc = crc32c(view[:used], self._crc)
                self._bytes_left -= used
            else:
                used = self._take_checksum(view)
            self._size_left -= used
            view = view[used:]

    def finish(self) -> int:
        if self._done < self._elements:
            raise FormatError(f"it ends within variant {self._done:,} of {self._elements:,}")
        return mask(self._crc)

    def _take_length(self, view: memoryview) -> int:
        used = 0
        for byte in view[: _LONGEST_VARINT - len(self._varint)]:
            used += 1
            self._varint.append(byte)
            if byte < _CONTINUES:
                length = _varint(self._varint)
                self._varint.clear()
                room = self._size_left - used - _CHECKSUM_SIZE
                if length > room:
                    raise FormatError(
                        f"variant {self._done:,} of {self._elements:,} takes {length:,} bytes, "
                        f"{max(room, 0):,} are left"
                    )
                self._crc = crc32c(length.to_bytes(8, "little"), self._crc)
                self._bytes_left = length
                return used
        if len(self._varint) == _LONGEST_VARINT:
            raise FormatError(f"the length of variant {self._done:,} does not parse")
        return used

    def _take_checksum(self, view: memoryview) -> int:
        used = min(len(view), _CHECKSUM_SIZE - len(self._checksum))
        self._checksum += view[:used]
        if len(self._checksum) == _CHECKSUM_SIZE:
            stored = int.from_bytes(self._checksum, "little")
            _require(stored, self._crc, f"variant {self._done:,} of {self._elements:,}")
            self._crc = crc32c(self._checksum, self._crc)
            self._checksum.clear()
            self._bytes_left = -1
            self._done += 1
        return used


def _require(stored: int, crc: int, what: str) -> None:
    if stored != mask(crc):
        raise FormatError(
            f"the checksum of {what} does not match: expected {stored:#010x}, "
            f"found {mask(crc):#010x}"
        )


def _varint(data: bytearray) -> int:
    value = 0
    for place, byte in enumerate(data):
        value |= (byte & 0x7F) << (7 * place)
    return value & 0xFFFFFFFFFFFFFFFF
