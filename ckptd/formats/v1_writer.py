"""The tensors of a V1 checkpoint, written: byte for byte as TensorFlow's Saver does.

Each slice is one value of the table, up to 2 GiB of it, and begins with its own length. It is made
twice, therefore, in pieces: once to know how long it is, and once to be written. No more than a
piece is in memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from ckptd.errors import FormatError, printable
from ckptd.formats.arrays import Array, numpy_dtype
from ckptd.formats.checksum import BytesLike
from ckptd.formats.dtypes import DataType
from ckptd.formats.messages import SavedSlice, SavedTensorSlices, TensorSlice
from ckptd.formats.regions import Region, elements_in, is_inside, written
from ckptd.formats.slices import region_of, slice_key
from ckptd.formats.sorted_table import LongValue, table_pieces
from ckptd.formats.stitching import part_of
from ckptd.formats.tensor_proto import array_to_write, encode_values
from ckptd.formats.varint import field_header, field_header_size
from ckptd.formats.versions import CONSUMER

_BYTES_PER_ELEMENT: Final = {
    "float32": 4,
    "float64": 8,
    "int32": 10,
    "uint8": 2,
    "int16": 10,
    "int8": 10,
    "string": 10,
    "complex64": 8,
    "int64": 10,
    "bool": 1,
    "qint8": 10,
    "quint8": 2,
    "qint32": 10,
    "uint16": 3,
    "complex128": 16,
    "float16": 3,
}
"""How many bytes TensorFlow reckons with for an element in a message, for each type that V1 has."""
V1_TYPES: Final = frozenset(_BYTES_PER_ELEMENT)
"""The names of the data types that V1 has."""
_HEADER_BYTES: Final = 1 << 10
_MESSAGE_LIMIT: Final = 1 << 31
"""TensorFlow's estimate of a slice's message: these bytes, its own, and those of its elements."""


_PIECE: Final = 1 << 18
"""Elements of a slice that are encoded at a time: some megabytes, as Python's numbers."""


class _Part(NamedTuple):
    """One slice to be written."""

    name: str
    values: Array
    kind: DataType
    tensor_slice: Any


def encode_v1(
    tensors: Mapping[str, Any],
    *,
    slices: Mapping[str, Sequence[Region]] | None = None,
    data_types: Mapping[str, DataType] | None = None,
) -> bytes:
    """Return one V1 shard: what `v1_pieces` yields."""
    return b"".join(v1_pieces(tensors, slices=slices, data_types=data_types))


def v1_pieces(
    tensors: Mapping[str, Any],
    *,
    slices: Mapping[str, Sequence[Region]] | None = None,
    data_types: Mapping[str, DataType] | None = None,
) -> Iterator[BytesLike]:
    """Return the bytes of one V1 shard, in pieces that are made as they are taken.

    `tensors` are whole, also where `slices` names the parts of one that this shard holds; a name
    that is not in `slices` is stored whole. `data_types` tells types apart that share a dtype
    (quantized integers). Tensors lie in order of their names.

    Raises `TypeError` for a type that V1 does not have, `ValueError` for slices that no tensor
    could have, and `FormatError` for a slice beyond the 2 GiB that its message can take.
    """
    meta: list[dict[str, Any]] = []
    parts: dict[bytes, _Part] = {}
    for name in sorted(tensors):
        where = _where(name)
        array, kind = array_to_write(tensors[name], (data_types or {}).get(name), where)
        if kind.name not in V1_TYPES:
            raise TypeError(
                f"{where}: the V1 format has no {kind.name}; save a V2 checkpoint, or another dtype"
            )
        regions = None if slices is None else slices.get(name)
        specified = [_slice_of(region, array.shape, where) for region in regions or ()]
        if regions is None:
            specified = [TensorSlice(extent=[{}] * array.ndim)]
        for tensor_slice in specified:
            key = slice_key(name.encode(), tensor_slice)
            if key in parts:
                raise ValueError(f"{where}: slice {_spelled(tensor_slice, array)} is given twice")
            region = region_of(tensor_slice, array.shape)
            values = part_of(array, region)
            _require_writable(values, kind, where)
            parts[key] = _Part(name, values, kind, tensor_slice)
        meta.append(
            {
                "name": name,
                "shape": {"dim": [{"size": size} for size in array.shape]},
                "type": kind.number,
                "slice": specified,
            }
        )
    header = SavedTensorSlices(meta={"tensor": meta, "versions": {"producer": CONSUMER}})
    return table_pieces(_rows_of(header, parts))


def _rows_of(
    header: Any, parts: Mapping[bytes, _Part]
) -> Iterator[tuple[bytes, bytes | LongValue]]:
    yield b"", header.SerializeToString()
    for key in sorted(parts):
        yield key, _value_of(parts[key])


def _value_of(part: _Part) -> bytes | LongValue:
    """Return a `SavedTensorSlices` with the values of one slice."""
    if part.values.size <= _PIECE:
        data = encode_values(part.values, part.kind, where=_where(part.name))
        saved = {"name": part.name, "slice": part.tensor_slice, "data": data}
        message: bytes = SavedTensorSlices(data=saved).SerializeToString()
        return message
    # The same message, put together from outside to inside: each length comes before what it is of.
    size = sum(len(piece) for piece in _list_pieces(part))
    before = b""
    field = _packed_field(part.kind)
    if field is not None:
        before = field_header(field, size)
    before = field_header(_DATA_OF_SLICE, len(before) + size) + before
    name: bytes = SavedSlice(name=part.name, slice=part.tensor_slice).SerializeToString()
    before = name + before
    before = field_header(_DATA, len(before) + size) + before
    return LongValue(len(before) + size, partial(_with_header, before, part))


def _with_header(before: bytes, part: _Part) -> Iterator[BytesLike]:
    yield before
    yield from _list_pieces(part)


def _list_pieces(part: _Part) -> Iterator[bytes]:
    """Yield the list of values as a `TensorProto` has it, without the header of a packed one."""
    packed = _packed_field(part.kind) is not None
    for start in range(0, part.values.size, _PIECE):
        values = part.values.flat[start : start + _PIECE]
        data: bytes = encode_values(values, part.kind, where=_where(part.name)).SerializeToString()
        yield data[field_header_size(data) :] if packed else data


def _packed_field(kind: DataType) -> int | None:
    """Return the number of the list that values of that type are in; None for strings."""
    if kind.name == "string":
        return None
    ((field, _),) = encode_values(np.zeros(1, numpy_dtype(kind)), kind).ListFields()
    number: int = field.number
    return number


_DATA: Final = SavedTensorSlices.DESCRIPTOR.fields_by_name["data"].number
_DATA_OF_SLICE: Final = SavedSlice.DESCRIPTOR.fields_by_name["data"].number


def _slice_of(region: Region, shape: tuple[int, ...], where: str) -> Any:
    if not is_inside(region, shape) or not elements_in(region):
        raise ValueError(f"{where}: {region} is no slice of shape {list(shape)}")
    return TensorSlice(extent=[{"start": start, "length": length} for start, length in region])


def _spelled(tensor_slice: Any, array: Array) -> str:
    return written(region_of(tensor_slice, array.shape), array.shape)


def _require_writable(values: Array, kind: DataType, where: str) -> None:
    estimate = _HEADER_BYTES + values.size * _BYTES_PER_ELEMENT[kind.name]
    if kind.name == "string" and estimate <= _MESSAGE_LIMIT:
        estimate += sum(map(len, values.ravel().tolist()))
    if estimate > _MESSAGE_LIMIT:
        raise FormatError(
            f"{where}: a slice of it may take {estimate} bytes as a message, which holds 2 GiB; "
            "save it in smaller slices, or a V2 checkpoint"
        )


def _where(name: str) -> str:
    return f"tensor {printable(name)!r}"
