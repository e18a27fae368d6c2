"""Two checkpoints side by side."""

import math
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from tensor_files import data_file, flip, save_bundle

from ckptd.formats.partitions import Partitioned
from ckptd_client.comparing import Change, Difference, compare
from ckptd_client.exchange import source_of_arrays
from ckptd_client.opening import open_checkpoint

NAN, INF = math.nan, math.inf
I64 = np.iinfo(np.int64)


def difference(one, other) -> Difference:
    (found,) = compare(source_of_arrays({"x": one}), source_of_arrays({"x": other}))
    return found


@pytest.mark.parametrize(
    ("one", "other", "changed", "largest", "relative"),
    [
        (np.array([3.0, 4.0]), np.array([3.0, 4.5]), 1, 0.5, 0.1),
        (np.array([0.0]), np.array([2.0]), 1, 2, INF),
        (np.array([1.0, NAN]), np.array([2.0, NAN]), 1, 1, 1),
        (np.array([1.0, 1.0]), np.array([1.0, NAN]), 1, INF, INF),
        (np.array([INF, 1.0]), np.array([INF, 2.0]), 1, 1, 1),
        (np.array([INF]), np.array([-INF]), 1, INF, INF),
        (np.array([1e300, 1e300]), np.array([1e300, -1e300]), 1, 2e300, math.sqrt(2)),
        (np.array([I64.min]), np.array([I64.max]), 1, 2.0**64, 2.0),
        (np.array([0, 255], np.uint8), np.array([255, 0], np.uint8), 2, 255, math.sqrt(2)),
        (np.array([2**64 - 1], np.uint64), np.array([0], np.uint64), 1, 2.0**64, 1),
        (np.array([True, True]), np.array([True, False]), 1, 1, math.sqrt(0.5)),
        (np.array([3 + 4j]), np.array([3 + 0j]), 1, 4, 0.8),
        (
            np.array([1, 2], ml_dtypes.bfloat16),
            np.array([1, 4], ml_dtypes.bfloat16),
            1,
            2,
            2 / 5**0.5,
        ),
        (np.array([1, 2], np.float16), np.array([1, 4], np.float16), 1, 2, 2 / 5**0.5),
        (np.array([b"a", b"b"], object), np.array([b"a", b"c"], object), 1, None, None),
    ],
    ids=str,
)
def test_how_much_changed(one, other, changed, largest, relative):
    found = difference(one, other)

    assert found.change is Change.VALUES
    assert found.changed == changed
    assert found.largest == pytest.approx(largest)
    assert found.relative == pytest.approx(relative)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.array([1.0, NAN]), np.array([1.0, -NAN])),
        (np.array([0.0]), np.array([-0.0])),
        (np.array([]), np.array([])),
        (np.array([b"a"], object), np.array([b"a"], object)),
        (np.array(5), np.array(5)),
    ],
    ids=str,
)
def test_what_is_the_same(one, other):
    assert difference(one, other).change is Change.SAME


def test_what_came_went_and_is_of_another_kind():
    before = {"gone": np.zeros(1), "shape": np.zeros(2), "type": np.zeros(2), "same": np.ones(1)}
    after = {
        "new": np.zeros(1),
        "shape": np.zeros((2, 1)),
        "type": np.zeros(2, int),
        "same": np.ones(1),
    }

    found = list(compare(source_of_arrays(before), source_of_arrays(after)))

    assert {each.name: each.change for each in found} == {
        "gone": Change.VANISHED,
        "new": Change.APPEARED,
        "same": Change.SAME,
        "shape": Change.SHAPE,
        "type": Change.DTYPE,
    }
    assert [each.name for each in found] == sorted(each.name for each in found)


def test_only_what_is_wanted_is_compared():
    source = source_of_arrays({"a": np.zeros(1), "b": np.zeros(1)})

    assert [d.name for d in compare(source, source, lambda name: name == "b")] == ["b"]


@pytest.mark.parametrize("parts", [(3, 1), (5, 7)])
def test_slices_are_compared_by_what_they_hold(tmp_path, parts):
    array = np.arange(700, dtype=np.int32).reshape(70, 10)
    changed = array.copy()
    changed[69, 9] += 5
    prefixes = [
        save_bundle(tmp_path / f"m-{n}", {"x": Partitioned(value, (count, 1))})
        for n, (value, count) in enumerate(zip((array, changed), parts, strict=True))
    ]

    with open_checkpoint(prefixes[0]) as one, open_checkpoint(prefixes[1]) as other:
        (found,) = compare(one.source, other.source)

    assert (found.changed, found.largest) == (1, 5)


def test_a_damaged_tensor_is_told_and_the_rest_compared(tmp_path):
    tensors = {"a": np.zeros(4), "b": np.zeros(4)}
    one = save_bundle(tmp_path / "m-1", tensors)
    other = save_bundle(tmp_path / "m-2", tensors)
    flip(data_file(other), 3)

    with open_checkpoint(one) as before, open_checkpoint(other) as after:
        found = list(compare(before.source, after.source))

    assert [each.change for each in found] == [Change.UNREADABLE, Change.SAME]
    assert "checksum" in found[0].problem


def test_memory_is_bounded_whatever_the_size(tmp_path):
    size = 2**25
    array = np.zeros(size, np.float32)
    one = save_bundle(tmp_path / "m-1", {"x": array})
    array[-1] = 1
    other = save_bundle(tmp_path / "m-2", {"x": array})
    del array

    with open_checkpoint(one) as before, open_checkpoint(other) as after:
        tracemalloc.start()
        (found,) = compare(before.source, after.source)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert found.changed == 1
    assert peak < 48 * 2**20


def test_a_tensor_in_slices_is_compared_with_a_whole_one(tmp_path):
    before = np.zeros((3000, 1000), np.uint8)  # no multiple of a piece
    after = before.copy()
    after[2999, 999] = 4
    save_bundle(tmp_path / "m-1", {"x": before})
    save_bundle(tmp_path / "m-2", {"x": Partitioned(after, (3, 1))})

    with open_checkpoint(tmp_path / "m-1") as one, open_checkpoint(tmp_path / "m-2") as other:
        (found,) = compare(one.source, other.source)

    assert (found.change, found.changed, found.largest) == (Change.VALUES, 1, 4.0)
