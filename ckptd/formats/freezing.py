"""Freezing: a graph cut back to what its outputs need, with its variables made constants.

The result is one `GraphDef` that computes what the graph did with the checkpoint restored, for
`import_graph_def` and every program that takes frozen graphs. Nodes keep their names and order.
Functions stay functions: one that was given a variable is given its value.

The reverse, a checkpoint's tensors out of a frozen graph's constants, is `constants_of`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from ckptd.errors import CorruptGraphError, FormatError, NoSuchTensorError, printable
from ckptd.formats.arrays import Array, numpy_dtype
from ckptd.formats.dtypes import VARIANT, base_number, data_type
from ckptd.formats.graph import Graph
from ckptd.formats.graph_walk import Body, attribute_of, node_of
from ckptd.formats.messages import PARSE_ERRORS, GraphDef, TrackableObjectGraph
from ckptd.formats.object_graph import OBJECT_GRAPH_KEY
from ckptd.formats.regions import is_inside
from ckptd.formats.restore_wiring import Stored, read_wiring
from ckptd.formats.stitching import part_of
from ckptd.formats.tensor_proto import LARGEST_FILL, LARGEST_RANK, decode_tensor, encode_tensor
from ckptd.formats.variable_uses import CALLS, Conversion, Value, data_inputs, functions_in

LARGEST_MESSAGE: Final = 2**31 - 1
"""Bytes of the largest message that protobuf writes and reads."""

_WAYS: Final = frozenset({"Identity", "Enter", "Switch"})
"""Operations that a variable's value passes on its way to what reads it."""
_SMALLEST_VALUE: Final = 8
"""Bytes in memory that a byte of a message can stand for without being filled up: a number of eight
as a varint, a pointer to an empty string."""
_LONGEST_STORY: Final = 3  # nodes named between an output and what it needs


Read: TypeAlias = Callable[[str], Array]
"""Returns a tensor of the checkpoint; raises `NoSuchTensorError` where there is none of that name."""


def freeze(
    meta_graph: Any, read: Read, outputs: Sequence[str], *, keep_devices: bool = False
) -> Any:
    """Return the `GraphDef` that computes `outputs` of a `MetaGraphDef`, without variables.

    `outputs` are nodes or tensors (``add``, ``add:0``), at least one. Devices are cleared, as
    TensorFlow's ``freeze_graph`` does, unless `keep_devices`: they name the machines of the training.

    Raises `NoSuchTensorError` for an output that the graph, or a variable that the checkpoint does
    not have, `CorruptGraphError` for a graph that contradicts itself or the checkpoint,
    `FormatError` for what cannot be frozen (an operation that writes to a variable, a lookup
    table, 2 GiB or more), and what `read` raises.
    """
    if not outputs:
        raise ValueError("no outputs are given")
    graph = meta_graph.graph_def
    operations = meta_graph.meta_info_def.stripped_op_list.op
    described = Graph(graph, operations)
    wanted = [_wanted(described, output) for output in outputs]
    needed_by = Body(graph.node).reached(wanted)
    variables = _Variables(meta_graph, read)
    conversion = Conversion(
        graph.library,
        {each.name: each for each in operations},
        variables.value_of,
        lambda name: _story(name, needed_by),
    )
    converted = conversion.convert(Body([n for n in graph.node if n.name in needed_by]))
    frozen = GraphDef()
    constants: list[tuple[Any, Array, Any]] = []
    kept = Body(converted.nodes).reached(wanted)  # what only asked if it is initialized needs less
    for node in converted.nodes:
        if node.name in kept:
            new = frozen.node.add()
            new.CopyFrom(node)
            _without_strays(new, kept)
            if node.name in converted.constants:
                constants.append((new, *variables.found["graph", node.name]))
    _add_library(frozen, graph.library, conversion, variables, constants)
    for node in (*frozen.node, *(n for f in frozen.library.function for n in f.node_def)):
        node.ClearField("experimental_debug_info")
        if not keep_devices:
            node.ClearField("device")
    frozen.versions.CopyFrom(graph.versions)
    _fill_in(frozen, constants)
    return frozen


def constants_of(graph_def: Any, *, all: bool = False) -> dict[str, Array]:  # noqa: A002 - what it gives
    """Return the weights of a frozen graph by name, in the order of its nodes.

    A weight is a constant that was a variable: one that an operation reads which is named as only
    the reading of variables is (``NAME/read``, ``.../ReadVariableOp``, also by way of loops,
    conditions and functions), or a table in which `GatherV2` looks rows up. With `all`, every
    constant outside of functions. Raises `CorruptGraphError`, or `FormatError` for a constant that
    cannot be read.
    """
    weights = None if all else _variables_before(graph_def)
    found = {}
    filled = 0
    for node in graph_def.node:
        if node.op != "Const" or (weights is not None and node.name not in weights):
            continue
        where = f"node {printable(node.name)!r}"
        message = node.attr["value"].tensor
        array = found[node.name] = decode_tensor(message, where)
        if any(array.strides):  # else one value stands for all, and takes no memory
            filled += max(0, array.nbytes - message.ByteSize() * _SMALLEST_VALUE)
        if filled > LARGEST_FILL:
            raise FormatError(
                f"{where}: a few values stand for many, in this constant and those before it; "
                f"no more than {LARGEST_FILL >> 20} MiB are filled up"
            )
    return found


def _wanted(graph: Graph, output: str) -> str:
    """Return the node of an output; raise `NoSuchTensorError`, which names those that come near."""
    return graph.get_tensor_by_name(output).node if ":" in output else graph.node(output).name


def _story(name: str, needed_by: Mapping[str, str | None]) -> str:
    """Say which output needs a node, and by way of what."""
    way = [name]
    while (consumer := needed_by.get(way[-1])) is not None:
        way.append(consumer)
    if len(way) == 1:
        return ""
    between = [repr(printable(each)) for each in way[1:-1]][:_LONGEST_STORY]
    by = f" by way of {', '.join(between)}" if between else ""
    return f"; output {printable(way[-1])!r} needs it{by}"


def _without_strays(node: Any, kept: Mapping[str, Any]) -> None:
    """Drop wishes to be placed beside nodes that are gone: TensorFlow would look for them."""
    classes = node.attr["_class"].list.s if "_class" in node.attr else ()
    stay = [
        each
        for each in classes
        if not each.startswith(b"loc:@") or each[5:].decode("utf-8", "replace") in kept
    ]
    if len(stay) < len(classes):
        del node.attr["_class"].list.s[:]
        node.attr["_class"].list.s.extend(stay)
        if not stay:
            del node.attr["_class"]


def _add_library(
    frozen: Any,
    library: Any,
    conversion: Conversion,
    variables: "_Variables",
    constants: list[tuple[Any, Array, Any]],
) -> None:
    for definition in library.function:
        for name in conversion.versions.get(definition.signature.name, ()):
            made = conversion.functions[name]
            new = frozen.library.function.add()
            new.CopyFrom(made.definition)
            where = Body(definition.node_def, function=definition).where
            constants += [
                (node, *variables.found[where, node.name])
                for node in new.node_def
                if node.name in made.constants
            ]
    for gradient in library.gradient:
        names = {gradient.function_name, gradient.gradient_func}
        if names <= conversion.functions.keys():
            frozen.library.gradient.add().CopyFrom(gradient)


def _fill_in(frozen: Any, constants: list[tuple[Any, Array, Any]]) -> None:
    """Put the values into the constants, if a message can hold them all."""
    sizes = [bytes_of_values(array) for _, array, _ in constants]
    total = sum(sizes) + frozen.ByteSize()
    if total > LARGEST_MESSAGE:
        largest, node = max(zip(sizes, (node.name for node, _, _ in constants), strict=True))
        raise FormatError(
            f"the frozen graph would take {total} bytes, and protobuf stops at 2 GiB; the largest "
            f"of its {len(constants)} variables is {printable(node)!r} with {largest} bytes"
        )
    for node, array, kind in constants:
        where = f"variable {printable(node.name)!r}"
        node.attr["value"].tensor.CopyFrom(encode_tensor(array, kind, where=where))
    if frozen.ByteSize() > LARGEST_MESSAGE:
        raise FormatError(
            f"the frozen graph takes {frozen.ByteSize()} bytes, and protobuf stops at 2 GiB"
        )


def bytes_of_values(array: Array) -> int:
    """Return how many bytes the values of an array take, those of its strings for strings."""
    if array.dtype.hasobject:
        return sum(map(len, array.ravel().tolist()))
    return array.size * array.itemsize


class _Variables:
    """The values of a graph's variables, found in the checkpoint when they are asked for."""

    def __init__(self, meta_graph: Any, read: Read) -> None:
        self.found: dict[tuple[str, str], tuple[Array, Any]] = {}
        """By graph or function, and node: the value and its data type."""
        self._wiring = read_wiring(meta_graph)
        self._read = read
        self._whole: dict[str, Array] = {}
        """By name: tensors of which the graph has parts, read once for all of them."""
        self._full_names: dict[str, str] | None = None

    def value_of(self, node: Any, where: str) -> Value:
        """Return what stands for a variable. Raises as `freeze` does."""
        kind = data_type(base_number(attribute_of(node, "dtype").type))
        what = f"variable {printable(node.name)!r}"
        if kind == VARIANT:
            raise FormatError(f"{what} is of type variant, and no constant can hold that")
        array, stored = self._locate(node)
        declared = attribute_of(node, "shape").shape
        sizes = None if declared.unknown_rank else [dim.size for dim in declared.dim]
        if stored.reshaped and sizes is not None and _holds(array, sizes):
            array = array.reshape(sizes)
        fits = sizes is None or (
            len(sizes) == array.ndim
            and all(size in {-1, have} for size, have in zip(sizes, array.shape, strict=True))
        )
        if not fits or array.dtype != numpy_dtype(kind):
            raise CorruptGraphError(
                f"{what} is {kind.name} {_shape_text(sizes)} in the graph; tensor "
                f"{printable(stored.name)!r} of the checkpoint is {array.dtype} "
                f"{_shape_text(array.shape)}"
            )
        self.found[where, node.name] = (array, kind)
        return Value(kind.number, array.shape, node.name)

    def _locate(self, node: Any) -> tuple[Array, Stored]:
        missing: NoSuchTensorError | None = None
        for stored in self._wiring.candidates(node):
            array, error = self._tried(stored)
            if array is not None:
                return array, stored
            missing = missing or error
        for name in (node.name, attribute_of(node, "shared_name").s.decode("utf-8", "replace")):
            key = self._by_full_name().get(name)
            if key is not None:
                return self._read(key), Stored(key)
        raise NoSuchTensorError(f"variable {printable(node.name)!r}: {missing}") from missing

    def _tried(self, stored: Stored) -> tuple[Array | None, NoSuchTensorError | None]:
        try:
            whole = self._whole_or_read(stored)
        except NoSuchTensorError as error:
            return None, error
        expected, region = stored.shape, stored.region
        misfit = expected is not None and expected != whole.shape
        if misfit or (region is not None and not is_inside(region, whole.shape)):
            what = "" if region is None else "a part of "
            raise CorruptGraphError(
                f"the graph restores {what}{_shape_text(expected)} from tensor "
                f"{printable(stored.name)!r}; in the checkpoint it is {_shape_text(whole.shape)}"
            )
        return whole if region is None else part_of(whole, region), None

    def _whole_or_read(self, stored: Stored) -> Array:
        if stored.region is None:
            return self._read(stored.name)
        if stored.name not in self._whole:
            self._whole[stored.name] = self._read(stored.name)
        return self._whole[stored.name]

    def _by_full_name(self) -> dict[str, str]:
        """Return the keys of an object-based checkpoint by the variables' names, where unique."""
        if self._full_names is None:
            self._full_names = {}
            try:
                (data,) = self._read(OBJECT_GRAPH_KEY).ravel().tolist()
                objects = TrackableObjectGraph.FromString(data)
            except (NoSuchTensorError, TypeError, *PARSE_ERRORS):
                return self._full_names
            twice = set()
            for attribute in (each for node in objects.nodes for each in node.attributes):
                if attribute.full_name in self._full_names:
                    twice.add(attribute.full_name)
                self._full_names[attribute.full_name] = attribute.checkpoint_key
            for name in twice | {""}:
                self._full_names.pop(name, None)
        return self._full_names


def _holds(array: Array, sizes: Sequence[int]) -> bool:
    if len(sizes) > LARGEST_RANK or min(sizes, default=0) < 0:
        return False
    return math.prod(sizes) == array.size


def _shape_text(sizes: Sequence[int] | None) -> str:
    if sizes is None:
        return "of any shape"
    return f"[{', '.join('?' if size < 0 else str(size) for size in sizes)}]"


def _variables_before(graph_def: Any) -> set[str]:
    """Return the nodes of a graph whose values are read as only those of variables are."""
    bodies = {"": Body(graph_def.node)}
    for each in graph_def.library.function:
        bodies[each.signature.name] = Body(each.node_def, function=each)
    handed: dict[str, list[tuple[str, Sequence[str]]]] = {}
    waiting = []
    for where, body in bodies.items():
        for node in body.nodes:
            waiting += [(where, text) for text in _read_by(node)]
            if node.op in CALLS:
                call = CALLS[node.op]
                arguments = data_inputs(node)[call.first :]
                for function in (
                    f for name in call.functions for f in functions_in(attribute_of(node, name))
                ):
                    handed.setdefault(function.name, []).append((where, arguments))
    for calls in handed.values():
        calls.sort(key=lambda call: -len(call[1]))  # those that hand an argument come first
    found: set[tuple[str, str]] = set()
    while waiting:
        where, text = waiting.pop()
        if (where, node_of(text)) in found:
            continue
        found.add((where, node_of(text)))
        body = bodies[where]
        node = body.of(text)
        if node is not None:
            if node.op in _WAYS:
                waiting += [(where, each) for each in data_inputs(node)[:1]]
        elif text in body.arguments:
            place = body.arguments[text]
            for by, given in handed.get(where, ()):
                if place >= len(given):
                    break
                waiting.append((by, given[place]))
    return {name for where, name in found if not where}


def _read_by(node: Any) -> Sequence[str]:
    """Return the inputs of a node that are variables' values, if its name or operation says so."""
    inputs = data_inputs(node)
    last = node.name.rpartition("/")[2]
    if node.op == "Identity" and inputs:
        was_read = node.name == f"{node_of(inputs[0])}/read" or last.startswith("ReadVariableOp")
        return inputs if was_read else ()
    return inputs[:1] if node.op == "GatherV2" else ()
