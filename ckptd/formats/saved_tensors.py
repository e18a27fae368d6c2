"""Which tensors a graph's saver writes into a checkpoint: names, shapes, and parts of larger ones.

The saving operations hang on the one that `SaverDef.save_tensor_name` names, the restoring ones on
`restore_op_name`. Their names and slices are constants:

    SaveV2, SaveSlices    tensor_names, shape_and_slices ("" is all of it, "10 3 0,4:-" a part)
    Save                  tensor_names
    RestoreV2             tensor_names, shape_and_slices
    Restore, RestoreSlice tensor_name (and shape_and_slice)

A sharded saver has one of each for every device.
"""

import math
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, TypeAlias

from ckptd.errors import CorruptGraphError, FormatError, printable
from ckptd.formats.dtypes import STRING, DataType, base_number, data_type
from ckptd.formats.graph import Graph
from ckptd.formats.graph_shapes import Shape, output_index
from ckptd.formats.graph_walk import is_control, node_of
from ckptd.formats.tensor_proto import LARGEST_RANK, decode_tensor
from ckptd.formats.tensors import Extent, Region


class SavedTensor(NamedTuple):
    """One tensor, or one part of it, that a saver writes or restores."""

    name: str
    """In the checkpoint; bytes that are not UTF-8 as `os.fsdecode` would hand them over."""
    data_type: DataType
    shape: Shape
    """Of the whole tensor; None where the graph does not say."""
    region: Region | None
    """The part of it; None for all."""
    source: str
    """The graph's tensor that is saved, as in ``w/read:0``; "" where only a restoring one is known."""


class _Kind(NamedTuple):
    """Where an operation has what it saves or restores."""

    slices: int | None
    """The input with the slices; the names are always input 1."""
    tensors: int | None
    """The first input that is saved; None for an operation that restores."""
    types: str
    """The attribute with the data types."""


_KINDS: Final = {
    "SaveV2": _Kind(2, 3, "dtypes"),
    "SaveSlices": _Kind(2, 3, "T"),
    "Save": _Kind(None, 2, "T"),
    "RestoreV2": _Kind(2, None, "dtypes"),
    "RestoreSlice": _Kind(2, None, "dt"),
    "Restore": _Kind(None, None, "dt"),
}
_Spec: TypeAlias = tuple[tuple[int, ...], Region | None]
_PAIR: Final = 2  # start and length


def saved_tensors(graph: Graph, saver_def: Any) -> tuple[SavedTensor, ...]:
    """Return what a saver (`SaverDef`) of this graph writes, in the order of its operations.

    Where the graph has lost the saving operations, the restoring ones tell. Empty where neither is
    there, or their names are computed as the graph runs; a TensorFlow 2 SavedModel has them inside a
    function. Raises `CorruptGraphError` where they contradict themselves.
    """
    saving = _Saving(graph)
    for end, saves in ((saver_def.save_tensor_name, True), (saver_def.restore_op_name, False)):
        nodes = saving.reached(node_of(end), saves=saves)
        found = tuple(each for node in nodes for each in saving.tensors(node))
        if found:
            return found
    return ()


class _Saving:
    """The operations of one graph, asked for what they save."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._nodes = {node.name: node for node in graph.message.node}
        self._constants: dict[str, list[bytes]] = {}  # several operations may share one

    def reached(self, end: str, *, saves: bool) -> list[Any]:
        """Return the operations that save (or restore) and that `end` hangs on, in the file's order."""
        found = set()
        seen = {end}
        waiting = [end]
        while waiting:
            node = self._nodes.get(waiting.pop())
            if node is None:
                continue
            kind = _KINDS.get(node.op)
            if kind is not None and (kind.tensors is not None) == saves:
                found.add(node.name)
                continue  # what is saved is the model itself: no saver is behind it
            for text in node.input:
                name = node_of(text)
                if name not in seen:
                    seen.add(name)
                    waiting.append(name)
        return [node for name, node in self._nodes.items() if name in found]

    def tensors(self, node: Any) -> Iterator[SavedTensor]:
        """Yield what one operation saves or restores."""
        kind = _KINDS[node.op]
        where = f"operation {printable(node.name)!r} ({node.op})"
        inputs = [text for text in node.input if not is_control(text)]
        types = _types(node, kind)
        names = self._strings(inputs, 1, len(types), where)
        specs: list[bytes] | None = [b""] * len(types)
        if kind.slices is not None:
            specs = self._strings(inputs, kind.slices, len(types), where)
        if names is None or specs is None:
            return
        sources = [""] * len(types) if kind.tensors is None else inputs[kind.tensors :]
        if len(sources) != len(types):
            raise CorruptGraphError(f"{where}: {len(types)} types, but {len(sources)} tensors")
        for encoded, spec, number, source in zip(names, specs, types, sources, strict=True):
            name = encoded.decode("utf-8", "surrogateescape")
            shape: Shape
            shape, region = read_shape_and_slice(spec, where)
            if source and not spec:
                shape = self._graph.shape(node_of(source), output_index(source))
            tensor = source if not source or ":" in source else f"{source}:0"
            yield SavedTensor(name, data_type(base_number(number)), shape, region, tensor)

    def _strings(
        self, inputs: list[str], place: int, expected: int, where: str
    ) -> list[bytes] | None:
        """Return the strings of a constant input; None where it is no constant."""
        node = self._nodes.get(node_of(inputs[place])) if place < len(inputs) else None
        value = None if node is None or node.op != "Const" else node.attr.get("value")
        if node is None or value is None or value.tensor.dtype != STRING.number:
            return None
        count = math.prod(dim.size for dim in value.tensor.tensor_shape.dim[:LARGEST_RANK])
        if count != expected:
            raise CorruptGraphError(
                f"{where}: {expected} types, but {count} strings in {printable(node.name)!r}"
            )
        if node.name not in self._constants:
            try:
                values = decode_tensor(value.tensor, f"operation {printable(node.name)!r}")
            except CorruptGraphError:
                raise
            except FormatError as error:
                raise CorruptGraphError(str(error)) from None
            self._constants[node.name] = list(values.ravel())
        return self._constants[node.name]


def _types(node: Any, kind: _Kind) -> list[int]:
    value = node.attr.get(kind.types)
    if value is None:
        return []
    return [value.type] if value.WhichOneof("value") == "type" else list(value.list.type)


def read_shape_and_slice(spec: bytes, where: str) -> tuple[tuple[int, ...] | None, Region | None]:
    """Return what an operation says of one tensor: the whole shape, and the part of it (None: all).

    The shape is None where it says nothing. Raises `CorruptGraphError`, whose message begins with
    `where`.
    """
    if not spec:
        return None, None
    try:
        return parse_shape_and_slice(spec.decode("ascii"))
    except ValueError:
        shown = printable(spec.decode("utf-8", "surrogateescape"))
        raise CorruptGraphError(f"{where}: {shown!r} is not a shape and a slice of it") from None


def parse_shape_and_slice(spec: str) -> _Spec:
    """Return the whole shape and the part of it (None: all) that TensorFlow's notation means.

    >>> parse_shape_and_slice("10 3 0,4:-")
    ((10, 3), (Extent(start=0, length=4), Extent(start=0, length=3)))
    >>> parse_shape_and_slice("10 3 -:-")
    ((10, 3), None)

    Raises `ValueError` for anything else, a part that is not inside the shape included.
    """
    *sizes, parts = spec.split(" ")
    shape = tuple(_size(each) for each in sizes)
    extents = parts.split(":") if parts else []
    region = tuple(
        Extent(0, size) if part == "-" else _extent(part, size)
        for size, part in zip(shape, extents, strict=True)
    )
    if all(extent == (0, size) for extent, size in zip(region, shape, strict=True)):
        return shape, None
    return shape, region


def _extent(part: str, size: int) -> Extent:
    numbers = [_size(each) for each in part.split(",")]
    if len(numbers) != _PAIR or sum(numbers) > size:
        raise ValueError(part)
    return Extent(*numbers)


def _size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):  # noqa: PLR2004 - an int64's digits
        raise ValueError(text)
    return int(text)
