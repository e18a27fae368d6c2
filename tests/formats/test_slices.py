"""Keys of slices are TensorFlow's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptd.errors import FormatError
from ckptd.formats.messages import BundleEntry, TensorSlice
from ckptd.formats.regions import Extent
from ckptd.formats.slices import (
    encode_number,
    encode_signed,
    encode_string,
    key_end,
    key_start,
    region_of,
    slice_key,
)
from ckptd.formats.sorted_table import read_table

int64 = st.integers(-(2**63), 2**63 - 1)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "80"),
        (1, "81"),
        (63, "bf"),
        (64, "c040"),
        (127, "c07f"),
        (128, "c080"),
        (8191, "dfff"),
        (8192, "e02000"),
        (2**31, "f880000000"),
        (2**55, "ff8080000000000000"),
        (2**62, "ffc04000000000000000"),
        (-1, "7f"),
        (-64, "40"),
        (-65, "3fbf"),
    ],
)
def test_signed_numbers(value, encoded):
    assert encode_signed(value).hex() == encoded


@given(int64, int64)
def test_signed_numbers_keep_their_order(one, other):
    assert (one < other) == (encode_signed(one) < encode_signed(other))


@given(st.binary(), st.binary())
def test_strings_keep_their_order_whatever_follows(one, other):
    if one != other:
        assert (one < other) == (encode_string(one) + b"\xff" < encode_string(other))


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (b"", "0001"),
        (b"w", "770001"),
        (b"\0", "00ff0001"),
        (b"\xff", "ff000001"),
        (b"\0\xff\xfe", "00ffff00fe0001"),
    ],
)
def test_strings(value, encoded):
    assert encode_string(value).hex() == encoded


@pytest.mark.parametrize(
    ("value", "encoded"), [(0, "00"), (2, "0102"), (255, "01ff"), (256, "020100")]
)
def test_numbers(value, encoded):
    assert encode_number(value).hex() == encoded


@given(st.binary(), st.binary())
def test_keys_of_slices_begin_as_those_of_no_other_tensor(name, other):
    part = TensorSlice(extent=[{}])

    assert slice_key(name, part) == key_start(name) + key_end(part)
    assert slice_key(other, part).startswith(key_start(name)) == (name == other)


@pytest.mark.parametrize(
    ("extents", "region"),
    [
        ([{}, {}], (Extent(0, 4), Extent(0, 3))),
        ([{"start": 1, "length": 2}, {"length": 3}], (Extent(1, 2), Extent(0, 3))),
        ([{"length": -1}, {"start": 5}], (Extent(0, 4), Extent(0, 3))),
        ([{"start": 4, "length": 0}, {}], (Extent(4, 0), Extent(0, 3))),
    ],
)
def test_the_region_of_a_slice(extents, region):
    assert region_of(TensorSlice(extent=extents), [4, 3]) == region


@pytest.mark.parametrize(
    ("extents", "reason"),
    [
        ([{}], "a slice has 1 dimensions, the tensor has 2"),
        ([{"start": 3, "length": 2}, {}], r"slice 3,2:- is not inside its shape \[4, 3\]"),
        ([{"start": -1, "length": 2}, {}], "slice -1,2:- is not inside"),
        ([{"length": -2}, {}], "slice 0,-2:- is not inside"),
        ([{"start": 2**63 - 1, "length": 2**63 - 1}, {}], "is not inside"),
    ],
)
def test_slices_that_the_tensor_does_not_have(extents, reason):
    with pytest.raises(FormatError, match=reason):
        region_of(TensorSlice(extent=extents), [4, 3])


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [b"w", b"a/b", b"w\0\xff\xfe\xff\0"])
def test_every_slice_that_tensorflow_writes_is_found(tf, tmp_path, name):
    value = tf.zeros([300, 4])
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "m"),
        tensor_names=[name] * 3,
        shape_and_slices=["300 4 0,1:-", "300 4 1,199:-", "300 4 200,100:0,4"],
        tensors=[value[:1], value[1:200], value[200:]],
    )
    rows = dict(read_table((tmp_path / "m.index").read_bytes()))

    entry = BundleEntry.FromString(rows.pop(name))

    assert {slice_key(name, part) for part in entry.slices} == rows.keys() - {b""}
    assert len(entry.slices) == 3
