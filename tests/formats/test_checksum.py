"""Masked checksums are TensorFlow's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptd.formats.checksum import mask, masked_crc32c, unmask


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_the_checksum_is_castagnolis(data, crc):
    assert unmask(masked_crc32c(data)) == crc


@given(st.integers(0, 2**32 - 1))
def test_unmask_undoes_mask(crc):
    assert unmask(mask(crc)) == crc
    assert 0 <= mask(crc) < 2**32


@given(st.lists(st.binary()))
def test_several_buffers_are_one_run_of_bytes(buffers):
    assert masked_crc32c(*buffers) == masked_crc32c(b"".join(buffers))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_taken(kind):
    assert masked_crc32c(kind(b"123456789")) == mask(0xE3069283)
