"""A tensor in pieces small enough to be worked on at once, and its elements as numbers.

Whoever reckons with all elements of a tensor asks for them here, so that a tensor of any size costs
the memory of one piece.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np

from ckptd.errors import CorruptTensorError, MissingLibraryError
from ckptd.formats.arrays import Array
from ckptd.formats.dtypes import DataType
from ckptd.formats.regions import Extent, Region, find_flaw, whole
from ckptd.formats.stitching import flaw_text
from ckptd.formats.tensors import StoredTensor, TensorSource

PIECE: Final = 2**19
"""Elements of a piece: 4 MiB as float64, which is what most of the work is done in."""

_STITCHED: Final = 2**21
"""Elements that are put together from slices at once: each time, all slices are looked at."""

_FEW: Final = 256
"""Slices that are read one by one."""

_LOOKS: Final = _FEW**2
"""How often `touch` has one slice of a tensor looked at."""

_SMALL_INTEGERS: Final = frozenset({"int4", "uint4", "int2", "uint2"})


def regions(shape: tuple[int, ...], limit: int = PIECE) -> Iterator[Region]:
    """Yield regions of at most `limit` elements that make up `shape`, in C order without a gap.

    A region is one run of a tensor in C order: dimensions in front of length 1, one taken in part,
    the rest whole.

    >>> [tuple(region) for region in regions((2, 3), 2)]
    ... # doctest: +NORMALIZE_WHITESPACE
    [(Extent(start=0, length=1), Extent(start=0, length=2)),
     (Extent(start=0, length=1), Extent(start=2, length=1)),
     (Extent(start=1, length=1), Extent(start=0, length=2)),
     (Extent(start=1, length=1), Extent(start=2, length=1))]
    """
    if 0 in shape:
        return
    place, inner = len(shape), 1  # the dimension that is parted, and the elements behind it
    while place and inner * shape[place - 1] <= limit:
        place -= 1
        inner *= shape[place]
    inside = whole(shape[place:])
    if not place:
        yield inside
        return
    outer, length = shape[: place - 1], shape[place - 1]
    step = max(1, limit // inner)
    for number in range(math.prod(outer)):
        front = _position(number, outer)
        for start in range(0, length, step):
            yield (*front, Extent(start, min(step, length - start)), *inside)


def _position(number: int, shape: tuple[int, ...]) -> Region:
    position = []
    for size in reversed(shape):
        number, index = divmod(number, size)
        position.append(Extent(index, 1))
    return tuple(reversed(position))


def read_pieces(
    source: TensorSource, tensor: StoredTensor, *, verify: bool = False, limit: int = PIECE
) -> Iterator[Array]:
    """Yield all elements of a tensor in C order, as flat arrays of `limit` each, the last of fewer.

    So the pieces of two tensors of one shape go together, however each of them is stored.

    With `verify`, all checksums of the tensor are checked before the first piece. A tensor that is
    stored whole is read once, which costs nothing until it is used; one that is stored in slices is
    put together part by part. Strings have no size of their own and are read at once.
    """
    if verify:
        check(source, tensor)
    parts: Iterable[Region | None] = (None,)
    if _is_cut(tensor):
        parts = regions(tensor.shape, max(limit, _STITCHED))
    rest: Array | None = None
    for region in parts:
        flat = source.read(tensor.name, region=region).reshape(-1)
        if rest is not None and rest.size:
            flat = np.concatenate([rest, flat])
        whole_pieces = flat.size - flat.size % limit
        for start in range(0, whole_pieces, limit):
            yield flat[start : start + limit]
        rest = flat[whole_pieces:]
    if rest is not None and rest.size:
        yield rest


def check(source: TensorSource, tensor: StoredTensor) -> None:
    """Check the checksums of a tensor; raises what `TensorSource.read` does.

    Slices are looked at one by one: put together they would need the memory of the whole tensor.
    """
    if not _is_cut(tensor):
        source.read(tensor.name, verify=True)
        return
    if len(tensor.slices) > _FEW:  # each read looks at all of them
        for region in regions(tensor.shape, _STITCHED):
            source.read(tensor.name, region=region, verify=True)
        return
    for region in tensor.slices:
        source.read(tensor.name, region=region, verify=True)
    flaw = find_flaw(tensor.slices, whole(tensor.shape))
    if flaw is not None:
        raise CorruptTensorError(tensor.name, flaw_text(flaw, tensor.slices, tensor.shape))


def touch(source: TensorSource, tensor: StoredTensor) -> None:
    """Find out whether a tensor's bytes are there, without a look at them where that is possible.

    Of more slices than a few only some are tried, the first and the last among them: to read one,
    all are looked at. Raises what `TensorSource.read` does.
    """
    if not _is_cut(tensor):
        source.read(tensor.name)
        return
    *slices, last = tensor.slices
    tries = max(1, min(_FEW, _LOOKS // len(tensor.slices)))
    for region in (*slices[:: max(1, math.ceil(len(slices) / tries))], last):
        source.read(tensor.name, region=region)


def _is_cut(tensor: StoredTensor) -> bool:
    return bool(tensor.slices) and tensor.data_type.itemsize is not None


def numbers(array: Array, data_type: DataType) -> Array:
    """Return elements as numbers of numpy's own: what numpy lacks is widened, without loss.

    Raises `MissingLibraryError` for raw bits that only `ml_dtypes` can tell the meaning of.

    >>> from ckptd.formats.dtypes import BY_NAME
    >>> numbers(np.array([0x3FC0], np.uint16), BY_NAME["bfloat16"]).tolist()
    [1.5]
    """
    name = data_type.name
    small = name in _SMALL_INTEGERS
    if not small and name != "bfloat16" and not name.startswith(("float8", "float4")):
        return array
    if array.dtype.name == name:  # a dtype of ml_dtypes
        widened: Array = array.astype(np.int8 if small else np.float32)
        return widened
    if name == "bfloat16":
        bits: np.ndarray[Any, np.dtype[np.uint32]] = array.astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32)
    raise MissingLibraryError(
        f"cannot reckon with {name}: it needs ml_dtypes: pip install 'ckptd[ml-dtypes]'"
    )
