"""Tensors in pieces: nothing left out, nothing twice, nothing large."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensor_files import data_file, flip, save_bundle

from ckptd.errors import CorruptTensorError, MissingLibraryError
from ckptd.formats.dtypes import BY_NAME
from ckptd.formats.partitions import Partitioned
from ckptd.formats.regions import Extent
from ckptd.formats.tensors import StoredTensor
from ckptd_client.opening import open_checkpoint
from ckptd_client.pieces import check, numbers, read_pieces, regions, touch


@given(st.lists(st.integers(0, 7), max_size=5), st.integers(1, 30))
def test_regions_make_up_a_shape_in_c_order(shape, limit):
    array = np.arange(math.prod(shape)).reshape(shape)

    parts = [
        array[tuple(slice(e.start, e.stop) for e in region)].reshape(-1)
        for region in regions(tuple(shape), limit)
    ]

    assert all(0 < part.size <= limit for part in parts)
    assert np.array_equal(np.concatenate([*parts, []]), array.reshape(-1))
    assert len(parts) <= 4 * array.size / limit + 1


def test_a_huge_shape_is_parted_without_memory():
    first = next(iter(regions((2**40, 3, 2**20), 2**19)))

    assert math.prod(extent.length for extent in first) <= 2**19


@pytest.fixture
def checkpoint(tmp_path):
    """A whole, a partitioned and a string tensor."""
    array = np.arange(60, dtype=np.float32).reshape(12, 5)
    tensors = {
        "parts": Partitioned(array, (4, 1)),
        "strings": np.array([b"a", b"", b"ccc"], object),
        "whole": array,
    }
    return save_bundle(tmp_path / "m", tensors)


@pytest.mark.parametrize("name", ["whole", "parts"])
def test_pieces_are_the_tensor(checkpoint, name):
    with open_checkpoint(checkpoint) as opened:
        source = opened.source
        pieces = list(read_pieces(source, source.tensors[name], verify=True, limit=7))

    assert max(piece.size for piece in pieces) == 7
    assert np.array_equal(np.concatenate(pieces), np.arange(60))


@pytest.mark.parametrize("name", ["whole", "parts", "strings"])
def test_a_check_finds_a_flipped_byte_and_a_touch_does_not_read(checkpoint, name):
    with open_checkpoint(checkpoint) as opened:
        check(opened.source, opened.source.tensors[name])
    at = {"parts": 100, "strings": 245, "whole": -1}[name]
    flip(data_file(checkpoint), at)

    with open_checkpoint(checkpoint) as opened:
        source = opened.source
        with pytest.raises(CorruptTensorError, match="checksum"):
            check(source, source.tensors[name])
        if name != "strings":
            touch(source, source.tensors[name])


@pytest.mark.parametrize(
    ("name", "bits", "expected"),
    [
        ("bfloat16", np.array([0x3FC0, 0xFF80, 0x8000], np.uint16), [1.5, -math.inf, -0.0]),
        ("quint8", np.array([200], np.uint8), [200]),
        ("float16", np.array([0.5], np.float16), [0.5]),
    ],
)
def test_raw_bits_become_numbers_without_a_library(name, bits, expected):
    assert numbers(bits, BY_NAME[name]).tolist() == expected


@pytest.mark.parametrize("name", ["float8_e4m3fn", "int4", "float4_e2m1fn"])
def test_raw_bits_that_only_a_library_knows_are_refused(name):
    with pytest.raises(MissingLibraryError, match=r"ckptd\[ml-dtypes\]"):
        numbers(np.zeros(2, np.uint8), BY_NAME[name])


def test_the_dtypes_of_the_library_are_widened():
    import ml_dtypes

    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn", "int4", "uint2"):
        array = np.array([0, 1, 2], getattr(ml_dtypes, name))
        assert numbers(array, BY_NAME[name]).tolist() == [0, 1, 2]


def test_slices_give_the_same_pieces_as_a_whole_tensor(tmp_path):
    array = np.arange(3000 * 1000, dtype=np.int32).reshape(3000, 1000)
    tensors = {"parts": Partitioned(array, (7, 2)), "whole": array}

    with open_checkpoint(save_bundle(tmp_path / "m", tensors)) as opened:
        parts, whole = (
            list(read_pieces(opened.source, opened.source.tensors[name])) for name in tensors
        )

    assert [piece.size for piece in parts] == [piece.size for piece in whole]
    assert np.array_equal(np.concatenate(parts), array.reshape(-1))


class Counting:
    """A source of one tensor in `count` slices, which counts how many of them are read."""

    def __init__(self, count):
        slices = tuple((Extent(n, 1),) for n in range(count))
        self.tensor = StoredTensor("x", BY_NAME["int8"], (count,), count, (0,), slices)
        self.tensors = {"x": self.tensor}
        self.read_regions = []

    def read(self, name, *, region=None, verify=False):
        del name, verify
        self.read_regions.append(region)


@pytest.mark.parametrize(
    ("count", "most"), [(2, 2), (256, 256), (300, 151), (60_000, 2), (10**6, 2)]
)
def test_a_look_at_many_slices_takes_no_quadratic_time(count, most):
    source = Counting(count)

    touch(source, source.tensor)

    assert most - 1 <= len(source.read_regions) <= most
    assert source.read_regions[0] == (Extent(0, 1),)
    assert source.read_regions[-1] == (Extent(count - 1, 1),)
