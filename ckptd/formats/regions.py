"""Rectangular parts of a tensor: how they are written, where they meet, and whether they tile it.

A partitioned tensor is stored as such parts. Nothing forces a file to hold parts that fit, so
whoever puts a tensor together asks `find_flaw` first. Without numpy, which the daemon spares.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

_WORK_LIMIT: Final = 64
"""How often `find_flaw` may look at each region. A tensor cut along its axes, as every partitioner
cuts, takes log2 of the count, 17 for 100,000 slices; only what was made to hurt takes more."""


class Extent(NamedTuple):
    """A part of one dimension: elements `start` up to `start + length`, spelled out."""

    start: int
    length: int

    @property
    def stop(self) -> int:
        """The first element behind it."""
        return self.start + self.length


Region: TypeAlias = tuple[Extent, ...]
"""A rectangular part of a tensor: an extent for each dimension."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A part of what is wanted that no region covers."""

    region: Region


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two regions, by their positions in the list, that share elements."""

    first: int
    second: int


@dataclass(frozen=True, slots=True)
class Tangle:
    """Regions that lie so irregularly that whether they fit was not found out in bounded time."""


Flaw: TypeAlias = Gap | Overlap | Tangle


def whole(shape: Iterable[int]) -> Region:
    """Return the region that is all of a tensor.

    >>> whole([2, 3])
    (Extent(start=0, length=2), Extent(start=0, length=3))
    """
    return tuple(Extent(0, size) for size in shape)


def elements_in(region: Region) -> int:
    """Return how many elements a region has; a scalar's has one.

    >>> elements_in(whole([2, 3])), elements_in(())
    (6, 1)
    """
    return math.prod(extent.length for extent in region)


def is_inside(region: Region, shape: Sequence[int]) -> bool:
    """Say whether `region` is a part of a tensor of that shape; an empty part is one.

    >>> is_inside((Extent(1, 2),), [3]), is_inside((Extent(2, 2),), [3]), is_inside((), [3])
    (True, False, False)
    """
    return len(region) == len(shape) and all(
        start >= 0 and 0 <= length <= size - start
        for (start, length), size in zip(region, shape, strict=True)
    )


def meet(one: Region, other: Region) -> Region | None:
    """Return the elements that two regions of one tensor share; None if there are none.

    >>> meet((Extent(0, 3),), (Extent(2, 4),))
    (Extent(start=2, length=1),)
    """
    shared = []
    for (start, length), (other_start, other_length) in zip(one, other, strict=True):
        first = max(start, other_start)
        last = min(start + length, other_start + other_length)
        if first >= last:
            return None
        shared.append(Extent(first, last - first))
    return tuple(shared)


def written(region: Region, shape: Sequence[int]) -> str:
    """Return `region` as TensorFlow writes it: start and length of each dimension, or ``-`` for all.

    >>> written((Extent(0, 2), Extent(0, 3)), [4, 3])
    '0,2:-'
    """
    return ":".join(
        "-" if (start, length) == (0, size) else f"{start},{length}"
        for (start, length), size in zip(region, shape, strict=True)
    )


def find_flaw(regions: Sequence[Region], wanted: Region) -> Flaw | None:
    """Return why `regions` do not cover each element of `wanted` once; None: they do.

    Regions that do not meet `wanted` are passed over. Takes n log n time for n regions that were
    cut along the axes, and at most a fixed multiple of that for any others.
    """
    if not elements_in(wanted):
        return None
    meeting = [n for n, region in enumerate(regions) if meet(region, wanted) is not None]
    budget = _WORK_LIMIT * (len(meeting) + _WORK_LIMIT)
    # What is wanted is cut in two along an edge of a region until every region that is left in a
    # piece covers all of it.
    pieces = [(wanted, meeting)]
    while pieces:
        piece, inside = pieces.pop()
        budget -= len(inside)
        if budget < 0:
            return Tangle()
        cut = _edge_inside(piece, [regions[n] for n in inside])
        if cut is not None:
            axis, at = cut
            (start, length) = piece[axis]
            lower = _with(piece, axis, Extent(start, at - start))
            upper = _with(piece, axis, Extent(at, start + length - at))
            pieces.append((upper, [n for n in inside if regions[n][axis].stop > at]))
            pieces.append((lower, [n for n in inside if regions[n][axis].start < at]))
        elif not inside:
            return Gap(piece)
        elif len(inside) > 1:
            return Overlap(inside[0], inside[1])
    return None


def _edge_inside(piece: Region, regions: Sequence[Region]) -> tuple[int, int] | None:
    """Return axis and place of an edge of `regions` in the midst of those that run through `piece`."""
    most: list[int] = []
    axis = 0
    for candidate, (first, length) in enumerate(piece):
        last = first + length
        edges = []
        for region in regions:
            start, size = region[candidate]
            if first < start < last:
                edges.append(start)
            if first < start + size < last:
                edges.append(start + size)
        if len(edges) > len(most):
            most, axis = edges, candidate
    if not most:
        return None
    most.sort()
    return axis, most[len(most) // 2]


def _with(region: Region, axis: int, extent: Extent) -> Region:
    return (*region[:axis], extent, *region[axis + 1 :])
