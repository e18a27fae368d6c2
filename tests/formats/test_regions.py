"""Whether the parts of a tensor fit is found out, and quickly."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptd.formats.regions import (
    Extent,
    Gap,
    Overlap,
    Tangle,
    elements_in,
    find_flaw,
    is_inside,
    meet,
    whole,
    written,
)


def region(*extents):
    return tuple(Extent(start, length) for start, length in extents)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (region((0, 2), (0, 3)), "0,2:-"),
        (region((0, 4), (0, 3)), "-:-"),
        (region((1, 3), (2, 1)), "1,3:2,1"),
        (region((0, 4), (0, 0)), "-:0,0"),
    ],
)
def test_regions_are_written_as_tensorflow_does(part, text):
    assert written(part, [4, 3]) == text


def test_the_only_region_of_a_scalar_is_all_of_it():
    assert written((), []) == ""
    assert is_inside((), [])
    assert meet((), ()) == ()
    assert find_flaw([()], ()) is None
    assert find_flaw([], ()) == Gap(())
    assert find_flaw([(), ()], ()) == Overlap(0, 1)


@pytest.mark.parametrize(
    "part", [region((-1, 1)), region((0, 5)), region((4, 1)), region((0, -1)), region((0, 1)) * 2]
)
def test_what_is_not_inside(part):
    assert not is_inside(part, [4])


PINWHEEL = [
    region((0, 2), (0, 1)),
    region((0, 1), (1, 2)),
    region((1, 2), (2, 1)),
    region((2, 1), (0, 2)),
    region((1, 1), (1, 1)),
]


@pytest.mark.parametrize(
    ("regions", "flaw"),
    [
        ([region((0, 3), (0, 3))], None),
        ([region((n, 1), (0, 3)) for n in (2, 0, 1)], None),
        ([region((i, 1), (j, 1)) for i in range(3) for j in range(3)], None),
        (PINWHEEL, None),
        ([region((0, 3), (0, 3)), region((1, 0), (0, 3))], None),
        ([], Gap(region((0, 3), (0, 3)))),
        (PINWHEEL[:4], Gap(region((1, 1), (1, 1)))),
        ([region((0, 1), (0, 3)), region((2, 1), (0, 3))], Gap(region((1, 1), (0, 3)))),
        ([region((0, 2), (0, 3)), region((1, 2), (0, 3))], Overlap(0, 1)),
        ([region((0, 3), (0, 3))] * 2, Overlap(0, 1)),
    ],
)
def test_gaps_and_overlaps_are_found(regions, flaw):
    assert find_flaw(regions, whole([3, 3])) == flaw


def test_only_what_is_wanted_counts():
    regions = [region((0, 2)), region((2, 2)), region((2, 2))]

    assert find_flaw(regions, region((0, 2))) is None
    assert find_flaw(regions, region((1, 2))) == Overlap(1, 2)
    assert find_flaw(regions, region((4, 1))) == Gap(region((4, 1)))
    assert find_flaw(regions, region((4, 0))) is None


extents = st.tuples(st.integers(0, 4), st.integers(0, 4)).map(lambda pair: Extent(*pair))


@given(st.lists(st.tuples(extents, extents), max_size=7), st.tuples(extents, extents))
def test_the_same_is_found_as_by_counting(regions, wanted):
    counts = np.zeros([8, 8], int)
    for rows, columns in regions:
        counts[rows.start : rows.stop, columns.start : columns.stop] += 1
    (rows, columns) = wanted
    inside = counts[rows.start : rows.stop, columns.start : columns.stop]

    flaw = find_flaw(regions, wanted)

    assert (flaw is None) == bool((inside == 1).all())
    if isinstance(flaw, Gap):
        assert elements_in(flaw.region) > 0
        for place in itertools.product(*(range(e.start, e.stop) for e in flaw.region)):
            assert counts[place] == 0
        assert meet(flaw.region, wanted) == flaw.region
    elif isinstance(flaw, Overlap):
        assert flaw.first != flaw.second
        shared = meet(regions[flaw.first], regions[flaw.second])
        assert shared is not None
        assert meet(shared, wanted) is not None


N = 20_000
HOSTILE = {
    "along one axis": [region((n, 1), (0, 1)) for n in range(N)],
    "a grid": [region((i, 1), (j, 1)) for i in range(140) for j in range(140)],
    "all the same": [region((0, N), (0, N))] * N,
    "staggered": [region((n, N), (0, 1)) for n in range(N)],
    "stairs": [region((0, n + 1), (N - n - 1, n + 1)) for n in range(N)],
    "a cross of stripes": [
        *(region((2 * n, 1), (0, N)) for n in range(N // 2)),
        *(region((0, N), (2 * n, 1)) for n in range(N // 2)),
    ],
    "in eight dimensions": [
        tuple(Extent((n * k * 7919) % 900, (n * k) % 97 + 1) for k in range(1, 9))
        for n in range(N // 4)
    ],
}


@pytest.mark.parametrize("regions", HOSTILE.values(), ids=HOSTILE)
def test_many_regions_take_bounded_time(regions):
    start = time.process_time()

    flaw = find_flaw(regions, whole([2 * N] * len(regions[0])))

    assert isinstance(flaw, Gap | Overlap | Tangle)
    assert time.process_time() - start < 5
