"""Reading the tensors of a checkpoint with the names of `tf.train`, without TensorFlow."""

import operator
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any, Final, SupportsIndex, TypeAlias

import numpy as np

from ckptd.checkpoints.inventory import Format
from ckptd.errors import FormatError, NoSuchTensorError, printable
from ckptd.formats.arrays import Array, numpy_dtype
from ckptd.formats.collection import collection_paused
from ckptd.formats.dtypes import DataType, base_number
from ckptd.formats.near_names import hint
from ckptd.formats.tensors import Extent, Region, StoredTensor
from ckptd_client.opening import OpenedCheckpoint, open_checkpoint

if TYPE_CHECKING:
    from ckptd.formats.object_graph import ObjectGraph

Index: TypeAlias = slice | SupportsIndex | EllipsisType
"""What selects a part of one dimension; an ellipsis stands for the dimensions not mentioned."""

_OUTPUT: Final = ":0"


class DType:
    """The type of a tensor's elements, as `tf.DType` names and compares it.

    >>> from ckptd.formats.dtypes import BY_NAME
    >>> kind = DType(BY_NAME["bfloat16"])
    >>> kind.name, str(kind), kind.as_datatype_enum, kind == "bfloat16"
    ('bfloat16', "<dtype: 'bfloat16'>", 14, True)

    It equals whatever means the same type: a numpy dtype or scalar type, a name, a `tf.DType`. numpy
    takes it where it takes a dtype. Hashes agree between two of these only.
    """

    __slots__ = ("data_type",)

    def __init__(self, kind: DataType) -> None:
        self.data_type: Final = kind

    @property
    def name(self) -> str:
        """TensorFlow's name: ``float32``, ``string``, ``qint8``."""
        return self.data_type.name

    @property
    def as_datatype_enum(self) -> int:
        """TensorFlow's number (``DT_FLOAT`` is 1)."""
        return self.data_type.number

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the arrays that hold it; for strings `object`, of `bytes`."""
        return numpy_dtype(self.data_type)

    @property
    def as_numpy_dtype(self) -> type[Any]:
        """The scalar type of the arrays that hold it."""
        return self.dtype.type if self.dtype.kind != "O" else object

    @property
    def size(self) -> int:
        """Bytes of an element; 1 for a string, as TensorFlow has it."""
        return self.data_type.itemsize or 1

    def __repr__(self) -> str:
        return f"ckptd_client.{self.name}"

    def __str__(self) -> str:
        return f"<dtype: {self.name!r}>"

    def __hash__(self) -> int:
        return self.data_type.number

    def __eq__(self, other: object) -> bool:
        number = getattr(other, "as_datatype_enum", None)
        if isinstance(number, int):  # one of these, or TensorFlow's
            return base_number(number) == self.data_type.number
        if isinstance(other, str) and other == self.name:
            return True
        if isinstance(other, (str, type, np.dtype)):
            try:
                return np.dtype(other) == self.dtype and not _shares_its_dtype(self.data_type)
            except (TypeError, FormatError):  # no dtype: `other`, or the type itself
                return False
        return NotImplemented


def _shares_its_dtype(kind: DataType) -> bool:
    return kind.name not in {numpy_dtype(kind).name, "string"}


class CheckpointReader(Mapping[str, Any]):
    """A checkpoint's tensors by name: the methods of `tf.train.CheckpointReader`, and a mapping.

    A tensor is an array over the file: nothing is read before it is used, nothing copied, and it
    cannot be written to (`.copy()` can). It stays valid when the reader is closed, and when the
    checkpoint is removed or saved again. Scalars are numpy scalars, string scalars `bytes`, as
    TensorFlow gives them. Names are checkpoint keys, in order of their bytes; where the checkpoint
    has an object graph, `get_tensor`, `has_tensor` and ``in`` take a variable's readable path too.

    Who truncates a data file in place, which TensorFlow never does, can end the process that uses an
    array over it (`ckptd.storage.reading` says more).
    """

    def __init__(self, opened: OpenedCheckpoint, *, verify: bool = False) -> None:
        """Take over `opened`; with `verify` every tensor's checksums are checked when it is got."""
        self._opened = opened
        self._verify = verify

    def __repr__(self) -> str:
        return f"<CheckpointReader of {self.prefix!r}>"

    @property
    def prefix(self) -> str:
        """The checkpoint's prefix."""
        return self._opened.prefix

    @property
    def format(self) -> Format:
        """V1 or V2."""
        return self._opened.format

    @property
    def object_graph(self) -> "ObjectGraph | None":
        """The objects that `tf.train.Checkpoint` saved; None where variables have names only."""
        return self._opened.object_graph

    @cached_property
    def variables(self) -> Mapping[str, str]:
        """The checkpoint keys of an object graph's variables by readable path; else of all tensors."""
        graph = self.object_graph
        if graph is None:
            return {name: name for name in self._tensors}
        return {path: variable.checkpoint_key for path, variable in graph.variables.items()}

    def get_tensor(self, tensor_str: str) -> Any:
        """Return a tensor by checkpoint key or readable path.

        Raises `NoSuchTensorError` (a `KeyError`) that names what comes near, `CorruptTensorError`
        where the data is not what the index promises, `StorageError` where its file is missing.
        """
        array = self._read(self._key(tensor_str))
        return array if array.ndim else array[()]

    def get_slice(self, name: str, part: Region | Index | tuple[Index, ...]) -> Any:
        """Return a part of a tensor; only that part is read.

        `part` is a region, or what would index the array without a step other than 1:

            reader.get_slice("embedding", np.s_[1000:2000, :64])

        As with an array, an integer takes one element and drops the dimension; where no dimension is
        left, a scalar comes back.
        """
        key = self._key(name)
        region, index = _region(part, self._tensors[key])
        return self._read(key, region)[index]

    def has_tensor(self, tensor_str: str) -> bool:
        """Say whether there is a tensor of that key, or a variable of that readable path."""
        return self._find(tensor_str) is not None

    def stored(self, name: str) -> StoredTensor | None:
        """Return what the checkpoint says of a tensor, by key or readable path; None if it has none."""
        key = self._find(name)
        return None if key is None else self._tensors[key]

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """Return the shape of every tensor by checkpoint key."""
        tensors = self._tensors
        with collection_paused(len(tensors)):
            return {name: list(stored.shape) for name, stored in tensors.items()}

    def get_variable_to_dtype_map(self) -> dict[str, DType]:
        """Return the type of every tensor by checkpoint key."""
        kinds: dict[DataType, DType] = {}
        return {
            name: kinds.setdefault(stored.data_type, DType(stored.data_type))
            for name, stored in self._tensors.items()
        }

    def debug_string(self) -> bytes:
        """Return a line for every tensor, as TensorFlow's reader does: name, type and shape.

        A partitioned tensor has one line, where that one has a line for each slice, under its key.
        """
        lines = [
            f"{name} ({stored.data_type.enum_name}) [{','.join(map(str, stored.shape))}]\n"
            for name, stored in self._tensors.items()
        ]
        return "".join(lines).encode("utf-8", "surrogateescape")

    def close(self) -> None:
        """Let go of the files; arrays that were handed out stay. Safe to call twice."""
        self._opened.close()

    def __enter__(self) -> "CheckpointReader":  # noqa: PYI034 (Self is in typing from Python 3.11 on)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __getitem__(self, name: str) -> Any:
        return self.get_tensor(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.has_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other  # arrays have no single answer

    @property
    def _tensors(self) -> Mapping[str, StoredTensor]:
        return self._opened.tensors

    def _read(self, key: str, region: Region | None = None) -> Array:
        return self._opened.read(key, region=region, verify=self._verify)

    def _find(self, name: str) -> str | None:
        if name in self._tensors:
            return name
        variable = self.object_graph.find(name) if self.object_graph is not None else None
        key = variable.checkpoint_key if variable is not None else None
        return key if key in self._tensors else None

    def _key(self, name: str) -> str:
        key = self._find(name)
        if key is not None:
            return key
        with suppress(NoSuchTensorError):
            self._opened.read(name)  # says so where there is one, whose row is damaged
        text = f"{printable(self.prefix)}: no tensor {printable(name)!r} among {len(self):,}"
        if missing := self._opened.missing:
            text += f", and {len(missing)} files are missing: {printable(', '.join(missing))}"
        bare = name.removesuffix(_OUTPUT)  # an operation's output, as a graph names it
        meant = f"; did you mean {printable(bare)!r}?" if self._find(bare) else ""
        raise NoSuchTensorError(text + (meant or hint(name, self.variables)))


def load_checkpoint(
    ckpt_dir_or_file: str | os.PathLike[str] | None, *, verify: bool = False
) -> CheckpointReader:
    """Return a reader of a checkpoint: a prefix, a directory, a SavedModel, or one of its files.

    With `verify` every tensor's checksums are checked when it is got, which reads all of it. Raises
    what `open_checkpoint` raises.
    """
    return CheckpointReader(open_checkpoint(ckpt_dir_or_file), verify=verify)


def load_variable(ckpt_dir_or_file: str | os.PathLike[str] | None, name: str) -> Any:
    """Return one tensor of a checkpoint; ``name:0`` is `name`, as for `tf.train.load_variable`."""
    with load_checkpoint(ckpt_dir_or_file) as reader:
        return reader.get_tensor(name.removesuffix(_OUTPUT))


def list_variables(ckpt_dir_or_file: str | os.PathLike[str] | None) -> list[tuple[str, list[int]]]:
    """Return (checkpoint key, shape) of every tensor, sorted by key as `tf.train.list_variables`."""
    with load_checkpoint(ckpt_dir_or_file) as reader:
        shapes = reader.get_variable_to_shape_map()
    with collection_paused(len(shapes)):
        return sorted(shapes.items())


def NewCheckpointReader(filepattern: str | os.PathLike[str] | None) -> CheckpointReader:  # noqa: N802
    """Return `load_checkpoint(filepattern)`, under TensorFlow 1's name."""
    return load_checkpoint(filepattern)


def _region(
    part: Region | Index | tuple[Index, ...], stored: StoredTensor
) -> tuple[Region, tuple[slice | int, ...]]:
    """Return the region that `part` selects, and what drops the dimensions of its integers."""
    shape = stored.shape
    where = f"tensor {printable(stored.name)!r} of shape {list(shape)}"
    parts = list(part) if isinstance(part, tuple) and not isinstance(part, Extent) else [part]
    rest = next((place for place, each in enumerate(parts) if each is ...), len(parts))
    parts[rest : rest + 1] = [slice(None)] * (len(shape) - len(parts) + (rest < len(parts)))
    if len(parts) != len(shape):
        raise IndexError(f"{where}: a part of it in {len(parts)} dimensions was asked for")
    selected = [_extent(each, size, where) for each, size in zip(parts, shape, strict=True)]
    index = tuple(slice(None) if isinstance(each, (slice, Extent)) else 0 for each in parts)
    return tuple(selected), index


def _extent(part: object, size: int, where: str) -> Extent:
    """Return what `part` selects of one dimension of `size` elements."""
    if isinstance(part, Extent):
        if not 0 <= part.start <= part.start + part.length <= size:
            raise IndexError(f"{where}: {part} is not inside a dimension of {size}")
        return part
    if isinstance(part, slice):
        start, stop, step = part.indices(size)
        if step != 1:
            raise ValueError(f"{where}: a step of {step}, but only runs of elements can be read")
        return Extent(start, max(0, stop - start))
    place = operator.index(part)  # type: ignore[arg-type]  # a TypeError says what it is
    if not -size <= place < size:
        raise IndexError(f"{where}: index {place} is not inside a dimension of {size}")
    return Extent(place % size, 1)
