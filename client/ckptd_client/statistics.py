"""What the elements of a tensor are like: least, greatest, mean, and how many are no numbers.

Reckoned piece by piece: memory is bounded, whatever the tensor's size.
"""

import math
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np

from ckptd.formats.arrays import Array
from ckptd.formats.tensors import StoredTensor, TensorSource
from ckptd_client.pieces import numbers, read_pieces


class Measure(Enum):
    """What `minimum`, `maximum` and `mean` are taken of."""

    VALUES = "values"
    MAGNITUDES = "magnitudes"
    """Absolute values: complex numbers have no order."""
    LENGTHS = "lengths"
    """Bytes of each string or variant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What one tensor's elements are like.

    `minimum`, `maximum` and `mean` are of the finite elements, None where there is none; `mean` is
    reckoned in float64. `zeros` counts elements equal to 0, false ones, and empty strings.
    """

    measure: Measure
    elements: int
    minimum: float | int | None
    maximum: float | int | None
    mean: float | None
    nans: int
    infinities: int
    zeros: int


def tensor_statistics(source: TensorSource, tensor: StoredTensor) -> Statistics:
    """Return the statistics of a tensor, its checksums checked on the way.

    Raises what `TensorSource.read` does, and `MissingLibraryError` for float8 and the like without
    `ml_dtypes`.
    """
    tally = _Tally()
    measure = Measure.VALUES
    if tensor.data_type.itemsize is None:
        measure = Measure.LENGTHS
    elif tensor.data_type.name.startswith("complex"):
        measure = Measure.MAGNITUDES
    for piece in read_pieces(source, tensor, verify=True):
        tally.add(_measured(numbers(piece, tensor.data_type), measure))
    return tally.statistics(measure)


def _measured(piece: Array, measure: Measure) -> Array:
    if measure is Measure.LENGTHS:
        return np.fromiter(map(len, piece), np.int64, piece.size)
    if measure is Measure.MAGNITUDES:
        with np.errstate(over="ignore", invalid="ignore"):
            # Of a finite complex64 the magnitude may be more than a float32 holds.
            magnitudes: Array = np.abs(piece.astype(np.complex128, copy=False))
        return magnitudes
    if piece.dtype == np.bool_:
        return piece.view(np.uint8)
    if piece.dtype == np.float16:
        return piece.astype(np.float32)  # numpy reckons with float16 one element at a time
    return piece


_DOWN: Final = 2.0**-64
"""Sums of numbers near the largest float64 are kept times this power of two, to stay finite."""

_HUGE: Final = 2.0**960
"""Of numbers below it, even the sum of a whole piece is finite."""


class _Tally:
    """What is known of the pieces so far."""

    def __init__(self) -> None:
        self._minima: list[float | int] = []
        self._maxima: list[float | int] = []
        self._sums: list[float] = []
        self._scaled_sums: list[float] = []
        self._elements = self._finite = self._nans = self._infinities = self._zeros = 0

    def add(self, piece: Array) -> None:
        self._elements += piece.size
        self._zeros += piece.size - int(np.count_nonzero(piece))
        if piece.dtype.kind == "f":
            finite = np.isfinite(piece)
            count = int(np.count_nonzero(finite))
            if count < piece.size:
                nans = int(np.count_nonzero(np.isnan(piece)))
                self._nans += nans
                self._infinities += piece.size - count - nans
                piece = piece[finite]
        if not piece.size:
            return
        self._finite += piece.size
        self._minima.append(piece.min().item())
        self._maxima.append(piece.max().item())
        if max(abs(self._minima[-1]), abs(self._maxima[-1])) < _HUGE:
            self._sums.append(float(piece.sum(dtype=np.float64)))
        else:
            self._scaled_sums.append(float((piece * _DOWN).sum(dtype=np.float64)))

    def statistics(self, measure: Measure) -> Statistics:
        return Statistics(
            measure=measure,
            elements=self._elements,
            minimum=min(self._minima, default=None),
            maximum=max(self._maxima, default=None),
            mean=self._mean(),
            nans=self._nans,
            infinities=self._infinities,
            zeros=self._zeros,
        )

    def _mean(self) -> float | None:
        if not self._finite:
            return None
        if not self._scaled_sums:
            return math.fsum(self._sums) / self._finite
        scaled = (total * _DOWN for total in self._sums)
        return math.fsum([*self._scaled_sums, *scaled]) / self._finite / _DOWN
