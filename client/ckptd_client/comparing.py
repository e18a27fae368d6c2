"""Two checkpoints side by side: which tensors came, went or changed, and by how much.

Reckoned piece by piece: memory is bounded, whatever the tensors' size.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np

from ckptd.errors import CkptdError
from ckptd.formats.arrays import Array
from ckptd.formats.tensors import StoredTensor, TensorSource
from ckptd_client.pieces import check, numbers, read_pieces


class Change(Enum):
    """What became of a tensor from one checkpoint to the other."""

    SAME = "same"
    VALUES = "values"
    SHAPE = "shape"
    DTYPE = "dtype"
    APPEARED = "appeared"
    VANISHED = "vanished"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What became of one tensor.

    Amounts are for `Change.VALUES` only. NaN equals NaN here, and 0.0 equals -0.0; where a number
    became infinite or NaN, or was, the amounts are infinite.
    """

    name: str
    change: Change
    before: StoredTensor | None
    after: StoredTensor | None
    changed: int = 0
    """Elements that differ."""
    largest: float | None = None
    """The largest absolute difference of two elements; None for strings."""
    relative: float | None = None
    """Euclidean norm of the difference, divided by that of `before`; None for strings."""
    problem: str = ""
    """Why it could not be compared, for `Change.UNREADABLE`."""


def compare(
    before: TensorSource, after: TensorSource, wanted: Callable[[str], bool] = lambda _: True
) -> Iterator[Difference]:
    """Yield what became of every tensor whose name is `wanted`, in order of the names.

    Checksums are checked on both sides; a tensor that cannot be read is `Change.UNREADABLE`, with
    the reason, and the rest is still compared.
    """
    for name in sorted({*before.tensors, *after.tensors}):
        if wanted(name):
            yield _difference(name, before, after)


def _difference(name: str, before: TensorSource, after: TensorSource) -> Difference:
    old, new = before.tensors.get(name), after.tensors.get(name)

    def became(change: Change, problem: str = "") -> Difference:
        return Difference(name=name, change=change, before=old, after=new, problem=problem)

    if old is None:
        return became(Change.APPEARED)
    if new is None:
        return became(Change.VANISHED)
    if old.data_type != new.data_type:
        return became(Change.DTYPE)
    if old.shape != new.shape:
        return became(Change.SHAPE)
    try:
        check(before, old)
        check(after, new)
        pairs = zip(read_pieces(before, old), read_pieces(after, new), strict=True)
        if old.data_type.itemsize is None:
            changed = sum(int(np.count_nonzero(one != other)) for one, other in pairs)
            kind = Change.VALUES if changed else Change.SAME
            return Difference(name=name, change=kind, before=old, after=new, changed=changed)
        tally = _Tally()
        for one, other in pairs:
            tally.add(numbers(one, old.data_type), numbers(other, old.data_type))
    except CkptdError as error:
        return became(Change.UNREADABLE, str(error))
    if not tally.changed:
        return became(Change.SAME)
    return Difference(
        name=name,
        change=Change.VALUES,
        before=old,
        after=new,
        changed=tally.changed,
        largest=tally.largest,
        relative=tally.relative(),
    )


class _Tally:
    """What is known of the pieces so far."""

    def __init__(self) -> None:
        self.changed = 0
        self.largest = 0.0
        self._differences: list[float] = []
        self._norms: list[float] = []

    def add(self, one: Array, other: Array) -> None:
        magnitudes = np.abs(_wide(one))
        self._norms.append(_norm(magnitudes[np.isfinite(magnitudes)]))
        if np.array_equal(one.view(np.uint8), other.view(np.uint8)):
            return
        distance = _distance(one, other)
        changed = int(np.count_nonzero(distance))
        if changed:
            self.changed += changed
            self.largest = max(self.largest, float(distance.max()))
            self._differences.append(_norm(distance))

    def relative(self) -> float:
        difference, norm = math.hypot(*self._differences), math.hypot(*self._norms)
        return difference / norm if norm and difference < math.inf else math.inf


def _distance(one: Array, other: Array) -> Array:
    """Return the absolute differences as float64, infinite where either is no finite number."""
    if one.dtype.kind in "iu":
        # Wraps to the right difference, which may need all 64 bits.
        greater, less = np.maximum(one, other), np.minimum(one, other)
        return (greater.astype(np.uint64) - less.astype(np.uint64)).astype(np.float64)
    one, other = _wide(one), _wide(other)
    with np.errstate(invalid="ignore", over="ignore"):
        distance: Array = np.abs(other - one)
        distance[np.isnan(distance)] = np.inf
        distance[(one == other) | ((one != one) & (other != other))] = 0.0  # noqa: PLR0124 - NaN
    return distance


def _wide(piece: Array) -> Array:
    return piece.astype(np.complex128 if piece.dtype.kind == "c" else np.float64)


def _norm(magnitudes: Array) -> float:
    """Return the Euclidean norm; squares are taken of what neither overflows nor vanishes."""
    largest = float(magnitudes.max(initial=0.0))
    if largest == 0 or math.isinf(largest):
        return largest
    scaled = magnitudes / largest
    return largest * math.sqrt(float(np.dot(scaled, scaled)))
