"""Strings and variants are stored and read as TensorFlow does; each corruption is named."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptd.errors import FormatError
from ckptd.formats.checksum import mask, masked_crc32c
from ckptd.formats.messages import BundleEntry, BundleHeader
from ckptd.formats.sorted_table import read_table, write_table
from ckptd.formats.string_tensor import (
    decode_strings,
    decode_variants,
    encode_strings,
    encode_variants,
    size_of_strings,
    size_of_variants,
    stored_crc32c_of_strings,
    stored_crc32c_of_variants,
    strings_in_pieces,
    variants_in_pieces,
)

# What TensorFlow 2.21 writes for ["hello", "", "wor\0ld"].
VALUES = [b"hello", b"", b"wor\0ld"]
GOLDEN = bytes.fromhex("050006 fe2141ea 68656c6c6f 776f72006c64")
GOLDEN_CRC = 3332478609

VARIANTS, VARIANTS_CRC = encode_variants([b"one", b"", b"x" * 200])

CODECS = {
    "strings": (encode_strings, decode_strings, stored_crc32c_of_strings, size_of_strings),
    "variants": (encode_variants, decode_variants, stored_crc32c_of_variants, size_of_variants),
}

elements = st.lists(st.one_of(st.binary(max_size=9), st.binary(min_size=126, max_size=300)))


def test_the_golden_bytes_are_written_and_read():
    assert encode_strings(VALUES) == (GOLDEN, GOLDEN_CRC)
    assert decode_strings(GOLDEN, 3) == VALUES
    assert stored_crc32c_of_strings(GOLDEN, 3) == GOLDEN_CRC


def test_no_strings_take_four_bytes_and_no_variants_none():
    assert encode_strings([]) == (bytes.fromhex("d8ea82a2"), masked_crc32c(b"\xd8\xea\x82\xa2"))
    assert encode_variants([]) == (b"", mask(0))


@pytest.mark.parametrize("codec", CODECS)
@given(values=elements, view=st.booleans())
def test_what_is_encoded_is_decoded(codec, values, view):
    encode, decode, stored_crc32c, size = CODECS[codec]
    encoded, crc = encode(values)
    data = memoryview(bytearray(encoded)) if view else encoded

    assert decode(data, len(values)) == values
    assert stored_crc32c(data, len(values)) == crc
    assert size(values) == len(data)


def test_strings_in_another_byte_order_are_read():
    lengths, crc = bytes([5, 0, 6]), masked_crc32c(b"\0\0\0\5\0\0\0\0\0\0\0\6")
    data = lengths + crc.to_bytes(4, "big") + b"hellowor\0ld"

    assert decode_strings(data, 3, big_endian=True) == VALUES
    with pytest.raises(FormatError, match="checksum of the elements' lengths"):
        decode_strings(data, 3)


@pytest.mark.parametrize("pieces", [strings_in_pieces, variants_in_pieces])
def test_pieces_stay_small_and_a_large_element_is_not_copied(pieces):
    large = bytes(3 << 20)
    values = [b"x" * 1000] * 5000 + [large] + [b"y"]

    found = list(pieces(values))

    assert any(piece is large for piece in found)
    assert max(len(piece) for piece in found if piece is not large) < (1 << 20) + 2000
    encode = encode_strings if pieces is strings_in_pieces else encode_variants
    assert b"".join(found) == encode(values)[0]


@pytest.mark.parametrize(
    ("data", "count", "problem"),
    [
        (b"", 0, "0 strings and the checksum of their lengths take at least 4 bytes, stored are 0"),
        (GOLDEN, 2**62, "take at least 4611686018427387908 bytes, stored are 18"),
        (b"\x80" * 18, 3, "the length of element 0 of 3 does not parse"),
        (b"\1" + b"\x80" * 9, 2, "the length of element 1 of 2 does not parse"),
        (b"\5\0\x40" + GOLDEN[3:], 3, "element 2 of 3 is 64 bytes long .* stored are 18"),
        (b"\xff" * 9 + b"\1" * 9, 1, "element 0 of 1 is 18446744073709551615 bytes long"),
        (GOLDEN[:-1], 3, "its 3 elements take 18 bytes by their lengths, stored are 17"),
        (GOLDEN + b"\0", 3, "its 3 elements take 18 bytes by their lengths, stored are 19"),
        (
            b"\6\0\5" + GOLDEN[3:],
            3,
            "checksum of the elements' lengths does not match: stored 0xea4121fe, calculated 0x",
        ),
    ],
)
def test_each_corruption_of_strings_is_named(data, count, problem):
    for read in (decode_strings, stored_crc32c_of_strings):
        with pytest.raises(FormatError, match=problem):
            read(data, count)


@pytest.mark.parametrize(
    ("data", "count", "problem"),
    [
        (VARIANTS, 2**62, "variants take at least 23058430092136939520 bytes, stored are 219"),
        (b"\x80" * 10, 2, "the length of element 0 of 2 does not parse"),
        (
            b"\x7f" + VARIANTS[1:50],
            3,
            "element 0 of 3 is 127 bytes long by its length, left of what is stored are 49",
        ),
        (VARIANTS + b"\0", 3, "its 3 elements take 219 bytes, stored are 220"),
        (VARIANTS[:-1], 3, "element 2 of 3 is 200 bytes long"),
        (
            b"\3two" + VARIANTS[4:],
            3,
            "checksum of element 0 of 3 does not match: stored 0x.*, calculated 0x",
        ),
        (VARIANTS[:-1] + b"\0", 3, "checksum of element 2 of 3 does not match"),
    ],
)
def test_each_corruption_of_variants_is_named(data, count, problem):
    for read in (decode_variants, stored_crc32c_of_variants):
        with pytest.raises(FormatError, match=problem):
            read(data, count)


@pytest.mark.parametrize("codec", CODECS)
def test_every_flipped_bit_is_noticed(codec):
    encode, _, stored_crc32c, _ = CODECS[codec]
    data, crc = encode([b"hello", b"", b"wor\0ld"])
    for position in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[position] ^= 1 << bit
            try:
                found = stored_crc32c(bytes(broken), 3)
            except FormatError:
                continue
            assert found != crc


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.binary(max_size=60), count=st.integers(0, 2**63))
def test_arbitrary_bytes_are_elements_or_corrupt(codec, data, count):
    _, decode, _, _ = CODECS[codec]
    with contextlib.suppress(FormatError):
        assert len(decode(data, count)) == count


def bundle(path, data, crc, *, dtype, count, big_endian=False):
    entry = BundleEntry(dtype=dtype, shape={"dim": [{"size": count}]}, size=len(data), crc32c=crc)
    header = BundleHeader(num_shards=1, endianness=int(big_endian), version={"producer": 1})
    rows = [(b"", header.SerializeToString()), (b"x", entry.SerializeToString())]
    (path / "m.index").write_bytes(write_table(rows))
    (path / "m.data-00000-of-00001").write_bytes(data)
    return str(path / "m")


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("values", [VALUES, [], [b""], [b"x" * 127, b"y" * 128, b"z" * 40_000]])
def test_strings_are_byte_for_byte_tensorflows(tf, tmp_path, values):
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "t"),
        tensor_names=["x"],
        shape_and_slices=[""],
        tensors=[tf.constant(values, tf.string)],
    )
    entry = BundleEntry.FromString(dict(read_table((tmp_path / "t.index").read_bytes()))[b"x"])
    data = (tmp_path / "t.data-00000-of-00001").read_bytes()

    assert encode_strings(values) == (data, entry.crc32c)
    assert decode_strings(data, len(values)) == values


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_variants_are_byte_for_byte_tensorflows(tf, tmp_path):
    lists = [
        tf.raw_ops.TensorListFromTensor(tensor=tf.range(n), element_shape=tf.constant([], tf.int32))
        for n in (2, 0, 300)
    ]
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "t"),
        tensor_names=["x"],
        shape_and_slices=[""],
        tensors=[tf.stack(lists)],
    )
    entry = BundleEntry.FromString(dict(read_table((tmp_path / "t.index").read_bytes()))[b"x"])
    data = (tmp_path / "t.data-00000-of-00001").read_bytes()

    values = decode_variants(data, 3)

    assert all(b"tensorflow::TensorList" in value for value in values)
    assert encode_variants(values) == (data, entry.crc32c)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_tensorflow_reads_strings_of_the_other_byte_order_alike(tf, tmp_path):
    lengths, length_crc = bytes([5, 0, 6]), masked_crc32c(b"\0\0\0\5\0\0\0\0\0\0\0\6")
    data = lengths + length_crc.to_bytes(4, "big") + b"hellowor\0ld"
    crc = stored_crc32c_of_strings(data, 3, big_endian=True)
    prefix = bundle(tmp_path, data, crc, dtype=7, count=3, big_endian=True)

    assert list(tf.train.load_checkpoint(prefix).get_tensor("x")) == VALUES
