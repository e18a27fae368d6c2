"""TensorProto: a tensor inside a message, as a graph's constants and V1's slices hold it.

The values are either in `tensor_content`, as their bytes in C order, or in the list of their type
(`float_val` ...), which may be shorter than the tensor: the last value then stands for all that
follow, and no value at all for zeros. A list that is longer than the tensor is cut.

What is written is what `tf.make_tensor_proto` writes; what is read is what `tf.io.parse_tensor` takes.
"""

import math
import sys
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ckptd.errors import CorruptGraphError, FormatError, printable
from ckptd.formats.arrays import Array, data_type_of, numpy_dtype
from ckptd.formats.dtypes import DataType, data_type
from ckptd.formats.messages import TensorProto
from ckptd.formats.varint import field_header

LARGEST_RANK: Final = 32
"""Dimensions that an array of every supported numpy can have; TensorFlow stops at 254."""

LARGEST_FILL: Final = 256 << 20
"""Bytes that a list of several values is filled up to. One value for all is not copied, however many
it stands for; only a constant that ends in so many equal values meets this bound."""

_CONTENT_LIMIT: Final = 1 << 31
"""Bytes of values that no message can hold: protobuf counts them in 31 bits."""

_FLOATS: Final = {
    "float32": "float_val",
    "float64": "double_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
}
"""Lists whose packed bytes are those of an array; complex numbers lie as real, imaginary."""
_WIDTHS: Final = {
    "float_val": 4,
    "double_val": 8,
    "scomplex_val": 4,
    "dcomplex_val": 8,
    "bool_val": 1,
}
"""Bytes of one value in the packed form of a list."""
_SMALL_INTEGERS: Final = (
    *("int32", "uint8", "int16", "int8", "uint16"),
    *("qint8", "quint8", "qint32", "qint16", "quint16"),
    *("int4", "uint4", "int2", "uint2"),
)
_FLOAT8: Final = (
    *("float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz"),
    *("float8_e5m2fnuz", "float4_e2m1fn"),
)
_WITHOUT_NUMPY: Final = frozenset({*_FLOAT8, "bfloat16", "int4", "uint4", "int2", "uint2"})
"""Types that numpy has no dtype for, so that their raw bits may stand for them."""
_LISTS: Final = {
    **_FLOATS,
    **dict.fromkeys(_SMALL_INTEGERS, "int_val"),
    **dict.fromkeys(_FLOAT8, "float8_val"),
    "float16": "half_val",
    "bfloat16": "half_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "string": "string_val",
    "variant": "variant_val",
}

_ALWAYS_LISTED: Final = frozenset(
    {"bool", "string", "complex64", "complex128", "uint16", "int4", "uint4", "int2", "uint2"}
)
"""Types that TensorFlow's Python never writes as `tensor_content`."""
_NEVER_LISTED: Final = frozenset({"float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2fnuz"})
"""Types whose list TensorFlow's C++ reads and its Python does not; both read the content."""


def decode_tensor(proto: Any, where: str) -> Array:
    """Return the tensor of a `TensorProto`, as an array to be read, not written.

    A constant filled with one value takes the memory of that value. `where` begins the message of
    an error: `CorruptGraphError` where the message contradicts itself, `FormatError` for a type
    whose values cannot be read, or a tensor larger than an array can be.
    """
    kind = data_type(proto.dtype)
    _list_of(kind, where)
    dtype = numpy_dtype(kind)
    shape = _declared_shape(proto.tensor_shape, dtype.itemsize, where)
    count = math.prod(shape)
    if count == 0:
        return np.empty(shape, dtype)
    if proto.tensor_content:
        return _decode_content(proto.tensor_content, kind, count, where).reshape(shape)
    values = _fill(_listed(proto, kind, where), count, where)
    if values.strides == (0,):
        return np.broadcast_to(values[0:1].reshape(()), shape)
    return values.reshape(shape)


def decode_values(proto: Any, data_type: DataType, count: int, where: str) -> Array:
    """Return `count` values of `data_type` from the list of that type in `proto`, in one dimension.

    The dtype and shape that `proto` may have are not looked at: V1's have none. Raises
    `FormatError` for a type without a list, and where several values stand for far more.
    """
    return _fill(_listed(proto, data_type, where), count, where)


def count_values(proto: Any, data_type: DataType, where: str) -> int:
    """Return how many values of `data_type` the list of that type in `proto` has.

    Raises `FormatError` for a type without a list.
    """
    listed = len(getattr(proto, _list_of(data_type, where)))
    return listed // 2 if data_type.name in {"complex64", "complex128"} else listed


def array_to_write(array: Any, kind: DataType | None, where: str) -> tuple[Array, DataType]:
    """Return `array` in native byte order, and the type of its values: `kind`, or that of its dtype.

    Raises `TypeError`, whose text begins with `where`, for an array that does not hold that type.
    """
    if isinstance(array, bytes | str):
        array = _objects([array]).reshape(())  # numpy would drop the zeros at its end
    values = np.asarray(array)
    if kind is None:
        kind = data_type_of(values.dtype, where)
    if kind.name not in _LISTS or kind.name == "variant":
        raise TypeError(f"{where}: a message cannot be made of values of type {kind.name}")
    expected = numpy_dtype(kind)
    found = values.dtype.newbyteorder("=")
    if found == expected or (kind.name == "string" and found.kind in "SU"):
        return values.astype(found, copy=False), kind
    is_raw = found.kind == "u" and found.itemsize == expected.itemsize
    if is_raw and kind.name in _WITHOUT_NUMPY:
        return values.astype(found, order="C", copy=False).view(expected), kind
    raise TypeError(f"{where}: an array of dtype {found} does not hold {kind.name}")


def encode_tensor(array: Any, data_type: DataType | None = None, *, where: str = "tensor") -> Any:
    """Return the `TensorProto` of `array`, as `tf.make_tensor_proto` writes it.

    `data_type` tells types apart that share a dtype (quantized integers, raw bits of a bfloat16).
    `where` begins the message of an error: `TypeError` for an array that TensorFlow has no type
    for, `FormatError` for 2 GiB of values or more.
    """
    array, kind = array_to_write(array, data_type, where)
    if array.size * array.itemsize >= _CONTENT_LIMIT:
        raise FormatError(
            f"{where}: takes {array.size * array.itemsize} bytes; "
            "a tensor inside a graph must take less than 2 GiB"
        )
    listed = kind.name in _ALWAYS_LISTED or array.size <= 1
    if listed and kind.name not in _NEVER_LISTED:
        proto = encode_values(array, kind, where=where)
    else:
        proto = TensorProto(tensor_content=_little_endian(array))
    proto.dtype = kind.number
    proto.tensor_shape.SetInParent()
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


def encode_values(array: Any, data_type: DataType | None = None, *, where: str = "tensor") -> Any:
    """Return a `TensorProto` with the values of `array` in the list of their type, and no more.

    Raises as `encode_tensor` does.
    """
    array, kind = array_to_write(array, data_type, where)
    proto = TensorProto()
    field = _LISTS[kind.name]
    if field in _WIDTHS:
        data = _little_endian(array)
        if data:
            # A list of fixed size is its own packed form; extending it number by number is slow.
            number = TensorProto.DESCRIPTOR.fields_by_name[field].number
            proto.MergeFromString(field_header(number, len(data)) + data)
    elif field == "half_val":
        proto.half_val.extend(array.view("u2").ravel().tolist())
    elif field == "float8_val":
        proto.float8_val = array.tobytes()
    elif kind.name == "string":
        values = [_bytes_of(value, where) for value in array.ravel().tolist()]
        if sum(map(len, values)) >= _CONTENT_LIMIT:
            raise FormatError(f"{where}: its strings take 2 GiB or more; a message holds less")
        proto.string_val.extend(values)
    elif field == "int_val":
        proto.int_val.extend(array.ravel().astype(np.int32).tolist())
    else:
        getattr(proto, field).extend(array.ravel().tolist())
    return proto


def _declared_shape(shape: Any, itemsize: int, where: str) -> tuple[int, ...]:
    sizes = tuple(dim.size for dim in shape.dim)
    if any(size < 0 for size in sizes):
        raise CorruptGraphError(f"{where}: its shape has a negative size: {_brief(sizes)}")
    if len(sizes) > LARGEST_RANK:
        raise FormatError(
            f"{where}: it has {len(sizes)} dimensions, an array can have {LARGEST_RANK}"
        )
    # A size of zero makes no array larger, but numpy counts the others even so.
    if math.prod(size for size in sizes if size) * itemsize > sys.maxsize:
        raise CorruptGraphError(f"{where}: its shape is beyond all memory: {_brief(sizes)}")
    return sizes


def _decode_content(content: bytes, kind: DataType, count: int, where: str) -> Array:
    if kind.itemsize is None:
        return _decode_string_list(content, count, where)
    if len(content) != count * kind.itemsize:
        raise CorruptGraphError(
            f"{where}: its content takes {len(content)} bytes, "
            f"its type and shape {count * kind.itemsize}"
        )
    values = _from_little_endian(content, numpy_dtype(kind))
    if kind.name == "bool" and values.view(np.uint8).max() > 1:
        raise CorruptGraphError(f"{where}: its content has bytes that are neither true nor false")
    return values


def _decode_string_list(content: bytes, count: int, where: str) -> Array:
    """Return strings (or variants) that are stored as all their lengths, then all their bytes."""
    lengths = []
    position = 0
    if count > len(content):
        raise CorruptGraphError(
            f"{where}: its content takes {len(content)} bytes, too few for {count} strings"
        )
    for _ in range(count):
        length, position = _parse_varint(content, position, where)
        lengths.append(length)
    if position + sum(lengths) != len(content):
        raise CorruptGraphError(
            f"{where}: its content takes {len(content)} bytes, "
            f"the lengths of its strings ask for {position + sum(lengths)}"
        )
    values = []
    for length in lengths:
        values.append(content[position : position + length])
        position += length
    return _objects(values)


def _parse_varint(data: bytes, position: int, where: str) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[position : position + 5]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004 - a varint's continuation bit
            return value, position + index + 1
    raise CorruptGraphError(f"{where}: its content does not parse: the length of a string")


def _list_of(kind: DataType, where: str) -> str:
    """Return the name of the field that lists values of that type."""
    if kind.name not in _LISTS:
        raise FormatError(f"{where}: {kind.enum_name} is not a type whose values can be read")
    return _LISTS[kind.name]


def _listed(proto: Any, kind: DataType, where: str) -> Array:
    """Return the values in the list of that type, as they are."""
    field = _list_of(kind, where)
    values = getattr(proto, field)
    dtype = numpy_dtype(kind)
    if field == "string_val":
        return _objects(list(values))
    if field == "variant_val":
        return _objects([value.SerializeToString(deterministic=True) for value in values])
    if field == "float8_val":
        return np.frombuffer(values, np.uint8).view(dtype)
    if field == "half_val":
        return np.fromiter(values, np.int32, len(values)).astype(np.uint16).view(dtype)
    if field == "int_val":
        return np.fromiter(values, np.int32, len(values)).astype(dtype)
    if field in _WIDTHS:
        return _packed(values, field, dtype)
    return np.fromiter(values, dtype, len(values))


def _packed(values: Any, field: str, dtype: np.dtype[Any]) -> Array:
    """Return a list whose packed form is an array's bytes: a hundred times faster than one by one."""
    alone = TensorProto()
    getattr(alone, field).MergeFrom(values)
    data = alone.SerializeToString()
    start = len(data) - len(values) * _WIDTHS[field]
    count = (len(data) - start) // dtype.itemsize  # half a complex number counts for nothing
    return _from_little_endian(data[start : start + count * dtype.itemsize], dtype)


def _fill(values: Array, count: int, where: str) -> Array:
    given = len(values)
    if given >= count:
        return values[:count]
    if given == 0:
        zero = np.array([b""], object) if values.dtype.hasobject else np.zeros(1, values.dtype)
        return np.broadcast_to(zero, (count,))
    if given == 1:
        return np.broadcast_to(values, (count,))
    if count * values.itemsize > LARGEST_FILL:
        raise FormatError(
            f"{where}: {given} values stand for {count}; "
            f"no more than {LARGEST_FILL >> 20} MiB are filled up"
        )
    filled = np.empty(count, values.dtype)
    filled[:given] = values
    filled[given:] = values[-1]
    return filled


def _objects(values: Sequence[bytes | str]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _bytes_of(value: object, where: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    raise TypeError(f"{where}: holds {printable(repr(value)[:60])}, neither bytes nor str")


def _little_endian(array: Array) -> bytes:
    return (array if sys.byteorder == "little" else array.byteswap()).tobytes()


def _from_little_endian(data: bytes, dtype: np.dtype[Any]) -> Array:
    values = np.frombuffer(data, dtype)
    return values if sys.byteorder == "little" else values.byteswap()


def _brief(sizes: tuple[int, ...]) -> str:
    """Return a shape for a message, which a hostile one must not fill."""
    text = ", ".join(map(str, sizes[:8]))
    return f"[{text}, ...]" if len(sizes) > 8 else f"[{text}]"  # noqa: PLR2004
