r"""numpy's ``.npz``: a zip of ``.npy`` files, written and read tensor by tensor.

What numpy has no dtype for goes in as raw bits. The comment of a member (which numpy ignores) then
names the data type, and also the tensor's name where a zip cannot hold that; it is a JSON object::

    {"dtype": "bfloat16", "name": "a\u0000b"}

Nothing is ever pickled or unpickled.
"""

import io
import json
import math
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from tokenize import TokenError
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.lib import format as npy

from ckptd.errors import CorruptTensorError, FormatError, printable
from ckptd.formats.arrays import Array, data_type_of, numpy_dtype
from ckptd.formats.dtypes import BY_NAME, STRING, DataType
from ckptd.formats.tensors import StoredTensor, TensorSource
from ckptd_client.exchange import Member, MemberSource, UnsupportedTensorError
from ckptd_client.pieces import read_pieces

_SUFFIX: Final = ".npy"
_LONGEST_NAME: Final = 2**16 - 1 - len(_SUFFIX) - 8  # a zip's limit, and room for a number
_LONGEST_COMMENT: Final = 2**16 - 1
_MOST_AXES: Final = 64  # of numpy's arrays
_LARGEST_HEADER: Final = 2**14  # numpy itself refuses more than 10,000 characters
_MOST_OF_ONE_BYTE: Final = 1040  # what deflate can make of one
_MOST_PADDING: Final = 2**28
_RAW: Final = -zlib.MAX_WBITS  # deflate without a header of its own
_BITS: Final = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}
_OF_A_LIBRARY: Final = 2  # `isbuiltin` of a dtype that is not numpy's own


def why_not_npz(tensor: StoredTensor) -> str:
    """Return why a tensor cannot be in an ``.npz`` file; the empty text where it can."""
    if tensor.data_type.itemsize is None and tensor.data_type != STRING:
        return f"numpy has nothing for {tensor.data_type.name}"
    shown, remark = tensor.name, b""
    if not _fits(tensor.name):
        shown = printable(tensor.name)
        remark = _comment({"dtype": tensor.data_type.name, "name": tensor.name})
    too_long = len(shown.encode()) > _LONGEST_NAME or len(remark) > _LONGEST_COMMENT
    return "its name is too long for a zip file" if too_long else ""


def write_npz(
    stream: BinaryIO,
    source: TensorSource,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Write every tensor of `source`, its checksums checked, with the memory of a few pieces.

    Strings become numpy's ``S``, which needs the longest one's length for each. Raises
    `UnsupportedTensorError` for what has no place there (`why_not_npz`, and strings that end with
    a NUL, which numpy drops), and what `source.read` raises.
    """
    names = _member_names(source.tensors)
    with zipfile.ZipFile(stream, "w", allowZip64=True) as archive:
        for tensor in source.tensors.values():
            reason = why_not_npz(tensor)
            if reason:
                raise UnsupportedTensorError(tensor.name, reason)
            name = names[tensor.name]
            dtype, remark, pieces = _encoded(source, tensor)
            if name != tensor.name:
                remark["name"] = tensor.name
            info = zipfile.ZipInfo(name + _SUFFIX)  # its date is that of all: equal files are equal
            info.comment = _comment(remark) if remark else b""
            header = {
                "descr": npy.dtype_to_descr(dtype),
                "fortran_order": False,
                "shape": tensor.shape,
            }
            with archive.open(info, "w", force_zip64=True) as member:
                npy.write_array_header_1_0(member, header)
                for piece in pieces:
                    member.write(np.ascontiguousarray(piece).view(np.uint8).data)
                    progress(piece.nbytes)


def _comment(remark: Mapping[str, str]) -> bytes:
    return json.dumps(remark).encode()


def _encoded(
    source: TensorSource, tensor: StoredTensor
) -> tuple[np.dtype[Any], dict[str, str], Iterator[Array]]:
    """Return the dtype in the file, what the comment says, and the elements."""
    if tensor.data_type == STRING:
        return _encoded_strings(source, tensor)
    dtype = numpy_dtype(tensor.data_type)
    pieces = read_pieces(source, tensor, verify=True)
    # The first piece is asked for here: a damaged tensor must not leave the head of a member.
    pieces = _begun(pieces)
    if dtype.isbuiltin != _OF_A_LIBRARY:
        stored = dtype.newbyteorder("<")
        plain = data_type_of(dtype, "") == tensor.data_type
        remark = {} if plain else {"dtype": tensor.data_type.name}
        return stored, remark, (piece.astype(stored, copy=False) for piece in pieces)
    stored = np.dtype(_BITS[dtype.itemsize])
    return stored, {"dtype": tensor.data_type.name}, (piece.view(stored) for piece in pieces)


def _encoded_strings(
    source: TensorSource, tensor: StoredTensor
) -> tuple[np.dtype[Any], dict[str, str], Iterator[Array]]:
    values = np.concatenate([*read_pieces(source, tensor, verify=True), np.empty(0, object)])
    if any(value.endswith(b"\0") for value in values):
        reason = "a string in it ends with a NUL byte, which numpy's strings lose"
        raise UnsupportedTensorError(tensor.name, reason)
    width = max(map(len, values), default=0) or 1
    if width * values.size > max(_MOST_PADDING, 4 * tensor.nbytes):
        reason = f"numpy's strings are all as long as the longest, here {width:,} bytes"
        raise UnsupportedTensorError(tensor.name, f"{reason} each of {values.size:,}")
    dtype = np.dtype(f"S{width}")
    step = max(1, 2**22 // width)
    return (
        dtype,
        {},
        (values[at : at + step].astype(dtype) for at in range(0, values.size, step)),
    )


def _begun(pieces: Iterator[Array]) -> Iterator[Array]:
    first = next(pieces, None)

    def all_of_them() -> Iterator[Array]:
        if first is not None:
            yield first
        yield from pieces

    return all_of_them()


def _member_names(tensors: Mapping[str, StoredTensor]) -> dict[str, str]:
    """Return a name that a zip can hold for each tensor: its own wherever that is possible."""
    plain = {name for name in tensors if _fits(name)}
    names = {name: name for name in plain}
    taken = set(plain)
    for name in tensors:
        if name not in plain:
            shown, number = printable(name), 1
            while shown in taken:
                number += 1
                shown = f"{printable(name)}~{number}"
            taken.add(shown)
            names[name] = shown
    return names


def _fits(name: str) -> bool:
    return "\0" not in name and not any("\ud800" <= c <= "\udfff" for c in name)


def open_npz(view: memoryview, file: str) -> MemberSource:
    """Return the tensors of an ``.npz`` file; `file` is its name, for messages.

    Members that are stored as they are, as numpy does it, cost no memory until they are used.
    Raises `FormatError` for what is no such file, holds pickled objects, or declares more than is
    there.
    """
    with _told(file):
        archive = zipfile.ZipFile(_Bytes(view))
        infos = archive.infolist()
        if len({info.filename for info in infos}) < len(infos):
            raise FormatError("two members have the same name")
        members = [
            _member(archive, info, view, file)
            for info in infos
            if not info.is_dir() and info.filename.endswith(_SUFFIX)
        ]
        if len({member.tensor.name for member in members}) < len(members):
            raise FormatError("two members hold a tensor of the same name")
        return MemberSource(members)


@dataclass(frozen=True, slots=True)
class _Header:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    size: int
    """Bytes of the header itself."""


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, view: memoryview, file: str) -> Member:
    shown = printable(info.filename)
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        raise FormatError(f"{shown}: stored as it is, and yet in another number of bytes")
    if info.compress_size > len(view) or info.file_size > info.compress_size * _MOST_OF_ONE_BYTE:
        raise FormatError(f"{shown}: it declares more bytes than the file can hold")
    header = _header(_start(archive, info, view), shown)
    expected = math.prod(header.shape) * header.dtype.itemsize
    if header.size + expected != info.file_size:
        raise FormatError(
            f"{shown}: its shape and dtype take {expected:,} bytes, it has "
            f"{info.file_size - header.size:,}"
        )
    remark = _remark(info.comment)
    data_type = _data_type(header.dtype, remark.get("dtype"), shown)
    name = remark.get("name") or info.filename.removesuffix(_SUFFIX)
    tensor = StoredTensor(name, data_type, header.shape, expected, ())

    def load(verify: bool) -> Array:  # noqa: FBT001 - Member's signature
        with _told(file):
            if info.compress_type == zipfile.ZIP_STORED:
                whole = _stored(info, view)
                if verify and zlib.crc32(whole) != info.CRC:
                    raise CorruptTensorError(name, "its checksum does not match", file=file)
            else:
                whole = memoryview(archive.read(info))  # which checks it
            return _decoded(whole[header.size :], header, data_type)

    return Member(tensor, load)


def _header(start: bytes, shown: str) -> _Header:
    stream = io.BytesIO(start)
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, TokenError) as error:
        raise FormatError(f"{shown}: not an array of numpy's: {_first_line(error)}") from None
    if dtype.hasobject:
        raise FormatError(f"{shown}: it holds pickled Python objects, which are never loaded")
    if not _is_shape(shape, dtype.itemsize):
        raise FormatError(f"{shown}: no array has the shape {shape}")
    return _Header(dtype, shape, fortran, stream.tell())


def _is_shape(shape: tuple[int, ...], itemsize: int) -> bool:
    """Say whether numpy has arrays of that shape; their strides must be numbers even without elements."""
    if len(shape) > _MOST_AXES or any(isinstance(n, bool) or n < 0 for n in shape):
        return False
    return math.prod(n for n in shape if n) * max(itemsize, 1) <= sys.maxsize


def _remark(comment: bytes) -> dict[str, str]:
    try:
        said = json.loads(comment) if comment else {}
    except (ValueError, RecursionError):
        return {}  # somebody else's comment
    if not isinstance(said, dict):
        return {}
    return {key: value for key, value in said.items() if isinstance(value, str)}


def _data_type(dtype: np.dtype[Any], told: str | None, shown: str) -> DataType:
    named = BY_NAME.get(told or "")
    if named is not None and named.itemsize == dtype.itemsize and dtype.kind in "iu":
        return named
    try:
        return data_type_of(dtype, shown)
    except TypeError as error:
        raise FormatError(str(error)) from None


def _start(archive: zipfile.ZipFile, info: zipfile.ZipInfo, view: memoryview) -> bytes:
    """Return how a member begins, whatever its checksum says: one that is damaged harms no other."""
    if info.compress_type == zipfile.ZIP_STORED:
        return bytes(_stored(info, view)[:_LARGEST_HEADER])
    if info.compress_type == zipfile.ZIP_DEFLATED:
        return zlib.decompressobj(_RAW).decompress(_stored(info, view), _LARGEST_HEADER)
    with archive.open(info) as opened:
        return opened.read(_LARGEST_HEADER)


def _stored(info: zipfile.ZipInfo, view: memoryview) -> memoryview:
    """Return a member's bytes where they lie: behind its own header, name and extra field."""
    start = info.header_offset
    lengths = view[start + 26 : start + 30]
    start += 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    whole = view[start : start + info.compress_size]
    if len(whole) < info.compress_size:
        raise FormatError(f"{printable(info.filename)}: it ends behind the end of the file")
    return whole


def _decoded(data: memoryview, header: _Header, data_type: DataType) -> Array:
    array: Array = np.frombuffer(data, header.dtype)
    if data_type == STRING:
        text = header.dtype.kind == "U"
        values = array.tolist()
        array = np.empty(len(values), object)
        array[:] = [value.encode() for value in values] if text else values
    elif data_type_of(header.dtype, "") != data_type:
        array = array.view(numpy_dtype(data_type))
    elif not header.dtype.isnative:
        array = array.astype(header.dtype.newbyteorder("="))
    return array.reshape(header.shape, order="F" if header.fortran else "C")


class _Bytes(io.RawIOBase):
    """A view as a file for `zipfile`, which wants to seek."""

    def __init__(self, view: memoryview) -> None:
        super().__init__()
        self._view = view
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        at = offset + (0, self._at, len(self._view))[whence]
        if at < 0:
            raise OSError(22, "seek before the start")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        piece = self._view[self._at : self._at + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


@contextmanager
def _told(file: str) -> Iterator[None]:
    """Turn what the zip library raises on bad bytes into a `FormatError` on `file`."""
    try:
        yield
    except CorruptTensorError:
        raise
    except FormatError as error:
        raise FormatError(f"{printable(file)}: {error}") from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        EOFError,
        ValueError,
        NotImplementedError,
        RuntimeError,
        IndexError,
    ) as error:
        text = f"{printable(file)}: not a sound zip file: {_first_line(error)}"
        raise FormatError(text) from None


def _first_line(error: BaseException) -> str:
    return printable(str(error).split("\n", 1)[0])
