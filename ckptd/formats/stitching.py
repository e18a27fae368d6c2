"""Puts a part of a partitioned tensor together from the slices that it lies in."""

from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

import numpy as np

from ckptd.formats.arrays import Array
from ckptd.formats.regions import Flaw, Gap, Overlap, Region, meet, whole, written


def stitch(
    wanted: Region, slices: Sequence[Region], read: Callable[[int], Array], dtype: np.dtype[Any]
) -> Array:
    """Return the part `wanted`, which is not empty, of a tensor that is stored as `slices`.

    They must cover it once, as `find_flaw` says. `read(n)` returns the array of the n-th; only those
    that meet `wanted` are read. What lies in one slice is a view of its array.
    """
    meeting = [
        (n, shared)
        for n, region in enumerate(slices)
        if (shared := meet(region, wanted)) is not None
    ]
    if len(meeting) == 1:
        ((n, shared),) = meeting
        return read(n)[_within(slices[n], shared)]
    stitched = np.empty([extent.length for extent in wanted], dtype)
    for n, shared in meeting:
        stitched[_within(wanted, shared)] = read(n)[_within(slices[n], shared)]
    return stitched


def part_of(array: Array, region: Region) -> Array:
    """Return the part `region` of an array, as a view."""
    return array[_within(whole(array.shape), region)]


def flaw_text(flaw: Flaw, slices: Sequence[Region], shape: Sequence[int]) -> str:
    """Return what is wrong with the slices of a tensor of that `shape`."""
    if isinstance(flaw, Gap):
        return f"no slice of it holds {written(flaw.region, shape)}"
    if isinstance(flaw, Overlap):
        first, second = (written(slices[n], shape) for n in (flaw.first, flaw.second))
        return f"its slices {first} and {second} overlap"
    return f"its {len(slices)} slices lie too irregularly to be put together"


def _within(outer: Region, inner: Region) -> tuple[slice | EllipsisType, ...]:
    """Return the index of `inner` in an array that holds `outer`."""
    where = (
        slice(start - base, start - base + length)
        for (start, length), (base, _) in zip(inner, outer, strict=True)
    )
    return (*where, ...)  # with the dots, what is taken of a scalar is an array too
