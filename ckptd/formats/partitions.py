"""Cutting a tensor into parts, as TensorFlow's partitioners do."""

import itertools
import math
from collections.abc import Iterable, Sequence
from operator import index
from typing import Any

from ckptd.errors import printable
from ckptd.formats.regions import (
    Extent,
    Flaw,
    Gap,
    Overlap,
    Region,
    find_flaw,
    is_inside,
    whole,
    written,
)


class Partitioned:
    """A tensor to be stored in parts, each under a key of its own.

    `partitions` counts the parts along each axis, as a partitioner of TensorFlow returns it: (4, 1)
    cuts the rows into four. Where they do not come out even, the first parts get one more, as with
    `tf.compat.v1.fixed_size_partitioner`. Or `regions` says what the parts are, in any order: each
    with an extent (start, length) for every axis, all together covering each element once.

    >>> import numpy as np
    >>> w = Partitioned(np.zeros((5, 3)), partitions=(2, 1))
    >>> [part for part in w.regions_in((5, 3), "w")][1]
    (Extent(start=3, length=2), Extent(start=0, length=3))
    """

    __slots__ = ("_regions", "array", "partitions")

    def __init__(
        self,
        array: Any,
        partitions: Sequence[int] | None = None,
        *,
        regions: Iterable[Iterable[tuple[int, int]]] | None = None,
    ) -> None:
        if (partitions is None) == (regions is None):
            raise TypeError("a partitioned tensor needs either partitions or regions")
        self.array = array
        self.partitions = None if partitions is None else tuple(map(index, partitions))
        self._regions = (
            None
            if regions is None
            else tuple(
                tuple(Extent(index(start), index(length)) for start, length in region)
                for region in regions
            )
        )

    def regions_in(self, shape: Sequence[int], name: str) -> tuple[Region, ...]:
        """Return the parts of a tensor of that shape; `name` is for messages.

        Raises `ValueError` where they do not cover it, each element once.
        """
        if self._regions is None:
            assert self.partitions is not None
            return regions_of(shape, self.partitions, name)
        _require_tiling(self._regions, shape, name)
        return self._regions


def regions_of(shape: Sequence[int], partitions: Sequence[int], name: str) -> tuple[Region, ...]:
    """Return the parts into which a tensor of that shape is cut, the last axis changing fastest.

    Raises `ValueError` unless there is a count for each axis, of one part to one for each element.

    >>> [region[0] for region in regions_of([5], [2], "w")]
    [Extent(start=0, length=3), Extent(start=3, length=2)]
    """
    where = f"tensor {printable(name)!r}"
    if len(partitions) != len(shape):
        raise ValueError(
            f"{where}: {len(partitions)} counts of partitions {tuple(partitions)} "
            f"for the {len(shape)} axes of its shape {tuple(shape)}"
        )
    for axis, (size, count) in enumerate(zip(shape, partitions, strict=True)):
        if not 1 <= count <= max(size, 1):
            raise ValueError(f"{where}: axis {axis} of {size} cannot be cut into {count} parts")
    axes = [_cut(size, count) for size, count in zip(shape, partitions, strict=True)]
    return tuple(itertools.product(*axes))


def _cut(size: int, count: int) -> list[Extent]:
    least, more = divmod(size, count)
    lengths = [least + (n < more) for n in range(count)]
    starts = itertools.accumulate(lengths, initial=0)
    return [Extent(start, length) for start, length in zip(starts, lengths, strict=False)]


def _require_tiling(regions: Sequence[Region], shape: Sequence[int], name: str) -> None:
    where = f"tensor {printable(name)!r}"
    if not regions:
        raise ValueError(f"{where}: no regions")
    for region in regions:
        if not is_inside(region, shape):
            raise ValueError(f"{where}: region {_text(region)} is not inside {tuple(shape)}")
        if not math.prod(extent.length for extent in region) and len(regions) > 1:
            raise ValueError(f"{where}: region {_text(region)} is empty")
    flaw = find_flaw(regions, whole(shape))
    if flaw is not None:
        raise ValueError(f"{where}: {_problem(flaw, regions, shape)}")


def _problem(flaw: Flaw, regions: Sequence[Region], shape: Sequence[int]) -> str:
    if isinstance(flaw, Gap):
        return f"no region covers {written(flaw.region, shape)}"
    if isinstance(flaw, Overlap):
        one, other = (written(regions[n], shape) for n in (flaw.first, flaw.second))
        return f"regions {one} and {other} overlap"
    return "its regions lie too irregularly to see that they fit"


def _text(region: Region) -> str:
    return ":".join(f"{start},{length}" for start, length in region)
