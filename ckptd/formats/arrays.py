"""Which numpy dtype stands for each of TensorFlow's data types.

numpy has no bfloat16, float8 or int4. Where `ml_dtypes` is installed, its dtypes stand for them, the
same that TensorFlow and JAX use; else the raw bits are handed out, as unsigned integers of the same
size. The quantized types have no dtype of their own: their integers stand for them.
"""

import functools
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ckptd.errors import FormatError
from ckptd.formats.dtypes import BY_NAME, BY_NUMBER, STRING, DataType

Array = npt.NDArray[Any]

_NUMPY: Final = {
    "float32": "f4",
    "float64": "f8",
    "int32": "i4",
    "uint8": "u1",
    "int16": "i2",
    "int8": "i1",
    "complex64": "c8",
    "int64": "i8",
    "bool": "?",
    "qint8": "i1",
    "quint8": "u1",
    "qint32": "i4",
    "qint16": "i2",
    "quint16": "u2",
    "uint16": "u2",
    "complex128": "c16",
    "float16": "f2",
    "uint32": "u4",
    "uint64": "u8",
}
_QUANTIZED: Final = frozenset({"qint8", "quint8", "qint32", "qint16", "quint16"})
_RAW: Final = {1: "u1", 2: "u2"}


@functools.cache
def numpy_dtype(data_type: DataType) -> np.dtype[Any]:
    """Return the dtype, in native byte order, of arrays that hold `data_type`.

    Strings and variants are arrays of Python's `bytes` (dtype object). Raises `FormatError` for a
    type that no checkpoint stores.
    """
    if data_type.itemsize is None:
        if data_type.name in {"string", "variant"}:
            return np.dtype(object)
        raise FormatError(f"{data_type.name}: tensors of this type are not stored in checkpoints")
    code = _NUMPY.get(data_type.name)
    if code is not None:
        return np.dtype(code)
    try:
        import ml_dtypes  # noqa: PLC0415 (optional, and 20 ms)

        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, data_type.name))
    except (ImportError, AttributeError):
        return np.dtype(_RAW[data_type.itemsize])
    return dtype


def data_type_of(dtype: npt.DTypeLike, where: str) -> DataType:
    """Return the data type that stores arrays of `dtype`; `where` begins the message of an error.

    Objects (of `bytes` or `str`), ``S`` and ``U`` are strings. Raises `TypeError` for what
    TensorFlow has no type for.
    """
    wanted = np.dtype(dtype)
    if wanted.kind in "OSU":
        return STRING
    found = _by_dtype().get(wanted.newbyteorder("="))
    if found is None:
        found = BY_NAME.get(wanted.name)  # a dtype of ml_dtypes, whose kind says little
    if found is None:
        raise TypeError(f"{where}: a checkpoint cannot hold dtype {wanted}")
    return found


@functools.cache
def _by_dtype() -> dict[np.dtype[Any], DataType]:
    return {
        np.dtype(_NUMPY[data_type.name]): data_type
        for data_type in BY_NUMBER.values()
        if data_type.name in _NUMPY and data_type.name not in _QUANTIZED
    }
