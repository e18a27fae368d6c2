"""Statistics of tensors: exact, in pieces, for every data type."""

import math
import tracemalloc
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensor_files import save_bundle

from ckptd.errors import CorruptTensorError
from ckptd.formats.partitions import Partitioned
from ckptd_client.exchange import source_of_arrays
from ckptd_client.opening import open_checkpoint
from ckptd_client.statistics import Measure, Statistics, tensor_statistics

NAN, INF = math.nan, math.inf
LARGE = 75 * 2.0**122  # more than a float32 holds


def statistics_of(array) -> Statistics:
    source = source_of_arrays({"x": array})
    return tensor_statistics(source, source.tensors["x"])


def told(found: Statistics) -> tuple[object, ...]:
    counts = found.nans, found.infinities, found.zeros
    return found.minimum, found.maximum, found.mean, *counts


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([1, 2, 6], np.float32), (1, 6, 3, 0, 0, 0)),
        (np.array([NAN, 0, INF, -INF, -4], np.float64), (-4, 0, -2, 1, 2, 1)),
        (np.array([NAN, NAN], np.float32), (None, None, None, 2, 0, 0)),
        (np.array([], np.float32), (None, None, None, 0, 0, 0)),
        (np.float32(7).reshape(()), (7, 7, 7, 0, 0, 0)),
        (np.array([-0.0, 0.0]), (0, 0, 0, 0, 0, 2)),
        (np.array([65504, 65504, 65504], np.float16), (65504, 65504, 65504, 0, 0, 0)),
        (np.array([1.7e308, 1.7e308]), (1.7e308, 1.7e308, 1.7e308, 0, 0, 0)),
        (np.array([1.7e308, -1.7e308, NAN]), (-1.7e308, 1.7e308, 0, 1, 0, 0)),
        (np.array([2**63 - 1, -(2**63)]), (-(2**63), 2**63 - 1, 0, 0, 0, 0)),
        (np.array([2**64 - 1, 0], np.uint64), (0, 2**64 - 1, 2.0**63, 0, 0, 1)),
        (np.array([-128, 127, 0], np.int8), (-128, 127, -1 / 3, 0, 0, 1)),
        (np.array([True, False, True, True]), (0, 1, 0.75, 0, 0, 1)),
        (np.array([3 + 4j, 0, complex(NAN, 1)]), (0, 5, 2.5, 1, 0, 1)),
        (
            np.array([3 + 4j], np.complex64) * np.float32(15 * 2**122),
            (LARGE, LARGE, LARGE, 0, 0, 0),
        ),
        (np.array([1.5, NAN, INF], ml_dtypes.bfloat16), (1.5, 1.5, 1.5, 1, 1, 0)),
        (np.array([-448, NAN], ml_dtypes.float8_e4m3fn), (-448, -448, -448, 1, 0, 0)),
        (np.array([INF, 2], ml_dtypes.float8_e5m2), (2, 2, 2, 0, 1, 0)),
        (np.array([-8, 7, 0], ml_dtypes.int4), (-8, 7, -1 / 3, 0, 0, 1)),
        (np.array([b"", b"abc"], object), (0, 3, 1.5, 0, 0, 1)),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")),
)
def test_what_elements_are_like(array, expected):
    found = statistics_of(array)

    assert told(found) == pytest.approx(expected)
    assert found.elements == array.size


def test_what_is_measured_is_said():
    assert statistics_of(np.zeros(1)).measure is Measure.VALUES
    assert statistics_of(np.zeros(1, complex)).measure is Measure.MAGNITUDES
    assert statistics_of(np.array([b""], object)).measure is Measure.LENGTHS


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.uint8]),
        hnp.array_shapes(max_side=9, min_side=0, min_dims=0),
    )
)
def test_they_agree_with_numpy(array):
    finite = array[np.isfinite(array)]
    found = statistics_of(array)

    if finite.size:
        assert found.minimum == finite.min()
        assert found.maximum == finite.max()
        scale = float(np.abs(finite.astype(float)).max())
        mean = float(sum(map(Fraction, finite.astype(float).reshape(-1).tolist())) / finite.size)
        assert found.mean == pytest.approx(mean, rel=1e-12, abs=1e-13 * scale)
    assert found.nans == np.isnan(array).sum()
    assert found.infinities == np.isinf(array).sum()
    assert found.zeros == (array == 0).sum()


@pytest.mark.parametrize("parts", [1, 300])
def test_many_pieces_and_slices_agree_with_one(tmp_path, parts):
    array = np.random.default_rng(7).normal(size=(600, 2500)).astype(np.float32)
    value = array if parts == 1 else Partitioned(array, (parts, 1))
    prefix = save_bundle(tmp_path / "m", {"x": value})

    with open_checkpoint(prefix) as opened:
        found = tensor_statistics(opened.source, opened.source.tensors["x"])

    assert found.elements == array.size
    assert (found.minimum, found.maximum) == (array.min(), array.max())
    assert found.mean == pytest.approx(float(array.astype(np.float64).mean()), rel=1e-9)


def test_memory_is_bounded_whatever_the_size(tmp_path):
    size = 2**24  # float32: 64 MiB
    prefix = save_bundle(tmp_path / "m", {"x": np.zeros(size, np.float32)})

    with open_checkpoint(prefix) as opened:
        tracemalloc.start()
        found = tensor_statistics(opened.source, opened.source.tensors["x"])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert found.zeros == size
    assert peak < 16 * 2**20


def test_a_damaged_tensor_has_no_statistics(tmp_path):
    prefix = save_bundle(tmp_path / "m", {"x": np.ones(9)})
    data = tmp_path / "m.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1] + b"\7")

    with open_checkpoint(prefix) as opened, pytest.raises(CorruptTensorError, match="checksum"):
        tensor_statistics(opened.source, opened.source.tensors["x"])
