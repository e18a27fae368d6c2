"""What a program hands over to be stored: arrays, whatever numpy makes one of, and their types."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from ckptd.errors import printable
from ckptd.formats.arrays import Array, data_type_of, numpy_dtype
from ckptd.formats.bundle_layout import TensorSpec
from ckptd.formats.dtypes import BY_NAME, STRING, VARIANT, DataType
from ckptd.formats.partitions import Partitioned
from ckptd.formats.regions import Region
from ckptd.formats.stitching import part_of
from ckptd.formats.string_tensor import size_of_strings, size_of_variants

_NOT_AN_ARRAY: Final = (TypeError, ValueError, RuntimeError, AttributeError, OverflowError)
"""What other libraries raise where they will not make an array; each says why."""


@dataclass(frozen=True, slots=True)
class TensorsToStore:
    """What is to be stored: `specs` say all but the data, which `arrays` has by name."""

    arrays: Mapping[str, Array]
    specs: Sequence[TensorSpec]


def take_tensors(
    tensors: Mapping[str, Any], data_types: Mapping[str, str | DataType] | None = None
) -> TensorsToStore:
    """Look at what is to be stored; nothing is copied that is an array already.

    A value is an array, whatever numpy makes one of, or `Partitioned`. `data_types` names the type
    (``"qint8"``) where the array's dtype does not say it: of quantized integers, of raw bits
    (unsigned integers) for types that numpy lacks, and ``"variant"`` for objects of `bytes`.

    Raises `TypeError` for what TensorFlow has no type for, `ValueError` for parts that do not fit.
    """
    if not isinstance(tensors, Mapping):
        raise TypeError(
            f"tensors are given by name in a mapping, not in a {type(tensors).__name__}"
        )
    given = data_types or {}
    for name in given:
        if name not in tensors:
            raise ValueError(f"a data type is given for {printable(name)!r}, which is no tensor")
    arrays: dict[str, Array] = {}
    specs = []
    for name, value in tensors.items():
        if not isinstance(name, str):
            raise TypeError(f"the name of a tensor is text, not {printable(repr(name))}")
        regions: tuple[Region, ...] = ()
        if isinstance(value, Partitioned):
            array = as_array(name, value.array)
            regions = value.regions_in(array.shape, name)
        else:
            array = as_array(name, value)
        data_type = data_type_for(name, array, given.get(name))
        sizes = _sizes(name, array, data_type, regions) if data_type.itemsize is None else ()
        arrays[name] = array
        specs.append(TensorSpec(name, data_type, array.shape, regions, sizes))
    return TensorsToStore(arrays, specs)


def cut(array: Array, region: Region | None) -> Array:
    """Return a part of an array, not copied; None means all of it."""
    return array if region is None else part_of(array, region)


def as_array(name: str, value: Any) -> Array:
    """Return `value` as an array, not copied where it need not be; `name` is for messages.

    Text and bytes become objects: numpy's own types for them drop the zeros at their ends. Raises
    `TypeError` for what numpy makes no array of.
    """
    if isinstance(value, np.ndarray):
        # A subclass may slice otherwise: np.matrix has no scalars, a masked array hides some.
        return value if type(value) is np.ndarray else value.view(np.ndarray)
    if isinstance(value, (bytes, str)):
        return _objects(value)
    try:
        array = np.asarray(value)
        if array.dtype.kind in "SU" and not isinstance(value, np.generic):
            array = np.asarray(value, dtype=object)
    except _NOT_AN_ARRAY as error:
        raise TypeError(
            f"{_where(name)}: a {type(value).__name__} cannot be stored: {printable(str(error))}"
        ) from error
    return array


def data_type_for(name: str, array: Array, given: str | DataType | None) -> DataType:
    """Return the type under which `array` is stored: `given`, by its name, or that of its dtype.

    Raises `TypeError` where TensorFlow has no such type, or the array does not hold it.
    """
    if given is None:
        found = _type_of(array.dtype) or data_type_of(array.dtype, _where(name))
        if found == STRING and array.dtype.kind == "O":
            _require_elements(name, array, (bytes, str))
        return found
    where = _where(name)
    wanted = BY_NAME.get(given) if isinstance(given, str) else given
    if wanted is None:
        raise TypeError(f"{where}: TensorFlow has no data type {printable(str(given))!r}")
    if wanted == VARIANT and array.dtype.kind == "O":
        _require_elements(name, array, (bytes,))
    elif wanted == STRING and array.dtype.kind == "O":
        _require_elements(name, array, (bytes, str))
    elif not _holds(array.dtype, wanted):
        raise TypeError(f"{where}: an array of dtype {array.dtype} does not hold {wanted.name}")
    return wanted


class Elements:
    """The elements of an array of strings or variants, row by row, as `bytes`; text as UTF-8.

    They can be walked more than once.
    """

    __slots__ = ("_array", "_name")

    def __init__(self, name: str, array: Array) -> None:
        self._name = name
        self._array = array

    def __iter__(self) -> Iterator[bytes]:
        for position, element in enumerate(self._array.flat):
            if isinstance(element, bytes):
                yield element
                continue
            try:
                yield element.encode()
            except UnicodeEncodeError:
                raise ValueError(
                    f"{_where(self._name)}: its element {position} has no UTF-8 form"
                ) from None


def _sizes(
    name: str, array: Array, data_type: DataType, regions: Sequence[Region]
) -> tuple[int, ...]:
    size_of = size_of_strings if data_type == STRING else size_of_variants
    return tuple(size_of(Elements(name, cut(array, region))) for region in (regions or (None,)))


@lru_cache(maxsize=64)  # a model repeats a few dtypes a hundred thousand times
def _type_of(dtype: np.dtype[Any]) -> DataType | None:
    try:
        return data_type_of(dtype, "")
    except TypeError:
        return None


def _holds(dtype: np.dtype[Any], data_type: DataType) -> bool:
    if data_type == STRING:
        return dtype.kind in "SU"
    if data_type.itemsize is None:
        return False
    native = dtype.newbyteorder("=")
    is_raw = dtype.kind == "u" and dtype.itemsize == data_type.itemsize
    return native == numpy_dtype(data_type) or is_raw


def _require_elements(name: str, array: Array, kinds: tuple[type, ...]) -> None:
    for element in array.flat:
        if not isinstance(element, kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise TypeError(
                f"{_where(name)}: a checkpoint cannot hold dtype {array.dtype} with a "
                f"{type(element).__name__} in it, only {wanted}"
            )


def _objects(value: bytes | str) -> Array:
    array = np.empty((), object)
    array[()] = value
    return array


def _where(name: str) -> str:
    return f"tensor {printable(name)!r}"
