"""The checksum of a piece that passes by is that of the piece in memory, however it is cut."""

import struct

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from ckptd.errors import FormatError
from ckptd.formats.checksum import mask, masked_crc32c
from ckptd.formats.dtypes import FLOAT32, STRING, VARIANT
from ckptd.formats.piece_checksum import piece_checksum
from ckptd.formats.string_tensor import (
    encode_strings,
    encode_variants,
    stored_crc32c_of_strings,
)

VALUES = st.lists(st.binary(max_size=20) | st.binary(min_size=120, max_size=140), max_size=8)


def summed(data_type, elements, stored, cuts=(), **options):
    """Return the checksum of `stored`, which passes by in parts that end at `cuts`."""
    checksum = piece_checksum(data_type, elements, len(stored), **options)
    ends = sorted({*(cut % (len(stored) + 1) for cut in cuts), len(stored)})
    start = 0
    for end in ends:
        checksum.update(memoryview(stored)[start:end])
        start = end
    return checksum.finish()


@given(VALUES, st.lists(st.integers(0, 2000)))
def test_strings_in_any_parts(values, cuts):
    stored, expected = encode_strings(values)

    assert summed(STRING, len(values), stored, cuts) == expected


@given(VALUES, st.lists(st.integers(0, 2000)))
def test_variants_in_any_parts(values, cuts):
    stored, expected = encode_variants(values)

    assert summed(VARIANT, len(values), stored, cuts) == expected


@given(st.binary(max_size=100), st.lists(st.integers(0, 100)))
def test_numbers_in_any_parts(stored, cuts):
    stored = stored[: len(stored) // 4 * 4]

    assert summed(FLOAT32, len(stored) // 4, stored, cuts) == masked_crc32c(stored)


@given(st.binary(max_size=40), st.integers(0, 6), st.lists(st.integers(0, 40)))
@pytest.mark.parametrize("data_type", [STRING, VARIANT])
def test_any_bytes_are_summed_up_or_refused(data_type, stored, elements, cuts):
    try:
        found = summed(data_type, elements, stored, cuts)
    except FormatError:
        with pytest.raises(FormatError):  # the cuts decide nothing
            summed(data_type, elements, stored)
    else:
        assert found == summed(data_type, elements, stored)


def test_lengths_of_a_big_endian_bundle_are_big_endian():
    lengths = crc32c(struct.pack(">2I", 1, 2))
    stored = b"\1\2" + mask(lengths).to_bytes(4, "big") + b"abb"

    found = summed(STRING, 2, stored, big_endian=True)

    assert found == stored_crc32c_of_strings(stored, 2, big_endian=True)
    with pytest.raises(FormatError, match="checksum of the lengths of its strings does not match"):
        summed(STRING, 2, stored)


def test_lengths_of_more_than_four_gib_are_summed_up_in_eight_bytes():
    length, lengths = 2**32 + 5, bytes([0x85, 0x80, 0x80, 0x80, 0x10])
    checksum = piece_checksum(STRING, 1, len(lengths) + 4 + length)
    right = mask(crc32c(struct.pack("<Q", length)))

    checksum.update(lengths)
    checksum.update(right.to_bytes(4, "little"))  # raises unless it is the right one


@pytest.mark.parametrize(
    ("data_type", "elements", "size", "text"),
    [
        (FLOAT32, 3, 8, "3 elements of float32 take 12 bytes, 8 are stored"),
        (STRING, 2**62, 8, "strings take .* bytes at least, 8 are stored"),
        (VARIANT, 2**62, 8, "variants take .* bytes at least, 8 are stored"),
    ],
)
def test_what_cannot_be_is_refused_before_a_byte_is_read(data_type, elements, size, text):
    with pytest.raises(FormatError, match=text):
        piece_checksum(data_type, elements, size)


@pytest.mark.parametrize("data_type", [STRING, VARIANT])
def test_what_ends_too_early_is_refused(data_type):
    checksum = piece_checksum(data_type, 1, 20)
    checksum.update(b"\3")
    with pytest.raises(FormatError, match="it ends"):
        checksum.finish()
