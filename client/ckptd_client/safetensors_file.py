"""The ``.safetensors`` format, by the library of that name, which is loaded when it is needed.

The library writes, and judges what is read: its header says which bytes are which tensor's, and no
byte is nobody's. The arrays then lie in the mapped file, for the data types too that the library has
no numpy dtype for. The format has no checksums.
"""

import json
import math
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, Final

import numpy as np

from ckptd.errors import FormatError, MissingLibraryError, StorageError, printable
from ckptd.formats.arrays import Array, numpy_dtype
from ckptd.formats.dtypes import BY_NAME
from ckptd.formats.tensors import StoredTensor, TensorSource
from ckptd_client.exchange import Member, MemberSource, UnsupportedTensorError
from ckptd_client.pieces import check

_CODES: Final = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "C64": "complex64",
}
"""The format's codes, and the data types that they are."""

_RESERVED: Final = "__metadata__"
_BEGIN: Final = 8  # bytes that hold the header's length


def why_not_safetensors(tensor: StoredTensor) -> str:
    """Return why a tensor cannot be in a ``.safetensors`` file; the empty text where it can."""
    if tensor.data_type.name not in _CODES.values():
        return f"safetensors has nothing for {tensor.data_type.name}"
    if tensor.name == _RESERVED:
        return "safetensors keeps that name for itself"
    if any("\ud800" <= c <= "\udfff" for c in tensor.name):
        return "its name is not UTF-8, as safetensors asks for"
    return ""


def write_safetensors(
    path: str,
    source: TensorSource,
    progress: Callable[[int], None] = lambda _: None,
    *,
    called: str = "",
) -> None:
    """Write every tensor of `source` to a file at `path`, each one's checksums checked.

    Errors speak of the file as `called`, which it may be only when it is whole; else as `path`.
    What lies in one piece on disk goes straight from there; what was stored in slices takes its
    own size in memory. Raises `UnsupportedTensorError` for what has no place there,
    `MissingLibraryError`, `StorageError` where the file cannot be written, and what `source.read`
    raises.
    """
    library, in_numpy = _library("safetensors"), _library("safetensors.numpy")
    called = called or path
    arrays: dict[str, Array] = {}
    for name, tensor in source.tensors.items():
        reason = why_not_safetensors(tensor)
        if reason:
            raise UnsupportedTensorError(name, reason)
        if numpy_dtype(tensor.data_type).name != tensor.data_type.name:
            raise MissingLibraryError(
                f"cannot write {tensor.data_type.name} to {printable(called)}: it needs ml_dtypes: "
                "pip install 'ckptd[ml-dtypes]'"
            )
        check(source, tensor)
        arrays[name] = np.require(source.read(name), requirements="C")
        progress(tensor.nbytes)
    try:
        in_numpy.save_file(arrays, path)
    except OSError as error:
        raise StorageError("write", called, str(error), number=error.errno) from error
    except library.SafetensorError as error:
        raise StorageError("write", called, printable(str(error))) from error


def open_safetensors(path: str, view: memoryview) -> MemberSource:
    """Return the tensors of the file at `path`, whose mapped bytes are `view`.

    Raises `FormatError` for what the library refuses, or what TensorFlow has no data type for, and
    `MissingLibraryError`.
    """
    library = _library("safetensors")
    shown = printable(path)
    try:
        with library.safe_open(path, framework="numpy"):
            pass
        length = int.from_bytes(view[:_BEGIN], "little")
        header = json.loads(bytes(view[_BEGIN : _BEGIN + length]))
    except (OSError, ValueError, library.SafetensorError) as error:
        raise FormatError(f"{shown}: not a sound safetensors file: {error}") from None
    header.pop(_RESERVED, None)
    data = view[_BEGIN + length :]
    return MemberSource(_member(name, said, data, shown) for name, said in header.items())


def _member(name: str, said: dict[str, Any], data: memoryview, shown: str) -> Member:
    data_type = BY_NAME.get(_CODES.get(said["dtype"], ""))
    if data_type is None:
        code = printable(str(said["dtype"]))
        raise FormatError(f"{shown}: tensor {printable(name)!r}: TensorFlow has nothing for {code}")
    begin, end = said["data_offsets"]
    shape, itemsize = tuple(said["shape"]), data_type.itemsize or 0
    # The library has seen to it; but it and we may read an odd header differently.
    if not 0 <= begin <= end <= len(data) or end - begin != math.prod(shape) * itemsize:
        raise FormatError(f"{shown}: tensor {printable(name)!r}: not the bytes of its shape")
    tensor = StoredTensor(name, data_type, shape, end - begin, ())

    def load(_: bool) -> Array:  # noqa: FBT001 - Member's signature
        dtype = numpy_dtype(data_type)
        return np.frombuffer(data[begin:end], dtype).reshape(shape)

    return Member(tensor, load)


def _library(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingLibraryError(
            "files of safetensors need its library: pip install 'ckptd[safetensors]'"
        ) from error
