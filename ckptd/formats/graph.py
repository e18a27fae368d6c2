"""A graph: its operations, what they put out, and tensors by name.

`Graph` reads a `GraphDef`, alone (a frozen graph) or from a meta graph. Nothing is taken apart before
it is asked for, so that a graph of a hundred thousand operations is open at once.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ckptd.errors import CorruptGraphError, NoSuchTensorError, printable
from ckptd.formats import messages
from ckptd.formats.dtypes import DataType, base_number, data_type
from ckptd.formats.graph_shapes import Shape, Shapes, shape_of
from ckptd.formats.message_text import to_json, to_text
from ckptd.formats.near_names import hint
from ckptd.formats.op_outputs import outputs_of

PLACEHOLDERS: Final = frozenset({"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"})
"""The operations that are fed when a graph is run."""

_TENSOR_NAME: Final = re.compile(r"([^:]+):([0-9]{1,9})")


class FunctionCall(NamedTuple):
    """An attribute that names a function of the graph's library."""

    name: str
    attributes: "Attributes"


class Attributes(Mapping[str, Any]):
    """A node's attributes as Python values, each made when it is looked at.

    ``type`` is a `DataType`, ``shape`` a `Shape`, ``s`` bytes, ``func`` a `FunctionCall`, ``tensor``
    the `TensorProto` itself (`ckptd.formats.tensor_proto.decode_tensor` makes an array of it), a
    list a tuple of these. An attribute that says nothing is None.
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        """Take the `AttrValue` messages by name."""
        self.messages: Final = {} if values is None else values

    def __getitem__(self, name: str) -> Any:
        if name not in self.messages:  # protobuf's map would make it
            raise KeyError(name)
        return _attribute(self.messages[name])

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.messages))

    def __len__(self) -> int:
        return len(self.messages)

    def __repr__(self) -> str:
        return f"Attributes({', '.join(self)})"


_NO_ATTRIBUTES: Final = Attributes()


class Node(NamedTuple):
    """One operation of a graph; `inputs` are ``node``, ``node:1`` or, for order only, ``^node``."""

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    device: str = ""
    attributes: Attributes = _NO_ATTRIBUTES


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """A tensor of a graph, by what the graph says of it."""

    name: str
    """As in ``add:0``."""
    node: str
    op: str
    index: int
    """Which output of the node it is."""
    data_type: DataType | None
    """Of the value, also where the operation hands out a reference to a variable.

    None where nothing says what an operation of that kind puts out.
    """
    shape: Shape
    """None where even the number of dimensions is not known."""


@dataclass(frozen=True)
class Graph:
    """A `GraphDef`, and the definitions of its operations where the file has them."""

    message: Any = field(repr=False)
    """The `GraphDef` itself; whoever changes it makes a new `Graph`."""
    op_defs: Sequence[Any] = field(default=(), repr=False)
    """The `OpDef` messages that came with it."""

    @functools.cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The operations, in the file's order; not those inside functions."""
        return tuple(map(_node, self.message.node))

    @functools.cached_property
    def functions(self) -> tuple[str, ...]:
        """The names of the functions in the graph's library."""
        return tuple(each.signature.name for each in self.message.library.function)

    @property
    def producer(self) -> int:
        """The version of graphs that its writer was at (`versions.producer`)."""
        return int(self.message.versions.producer)

    def node(self, name: str) -> Node:
        """Return an operation; raise `NoSuchTensorError`, which names those that come near."""
        place = self._places.get(name)
        if place is None:
            near = hint(name, self._places)
            raise NoSuchTensorError(f"the graph has no operation {printable(name)!r}{near}")
        return _node(self.message.node[place])

    def get_tensor_by_name(self, name: str) -> GraphTensor:
        """Return the tensor ``op:index``, as `tf.Graph.get_tensor_by_name` finds it.

        The shape is what the graph itself says; TensorFlow may know more of it. Operations inside
        functions are not looked up: their tensors exist only in a call.

        Raises `NoSuchTensorError` for a name that is none, an operation that is not in the graph,
        and an output that it does not have; `CorruptGraphError` where the graph contradicts itself.
        """
        matched = _TENSOR_NAME.fullmatch(name)
        if matched is None:
            raise NoSuchTensorError(self._no_tensor_name(name))
        op_name, index = matched[1], int(matched[2])
        place = self._places.get(op_name)
        if place is None:
            near = hint(op_name, self._places)
            raise NoSuchTensorError(
                f"no tensor {printable(name)!r}: "
                f"the graph has no operation {printable(op_name)!r}{near}"
            )
        node = self.message.node[place]
        kind = self._output_type(node, name, index)
        return GraphTensor(
            f"{op_name}:{index}", op_name, node.op, index, kind, self.shape(op_name, index)
        )

    def shape(self, op_name: str, index: int) -> Shape:
        """Return the shape of an operation's output; None also for one that is not there."""
        return self._shapes.of(op_name, index)

    def to_text(self) -> str:
        """Return the text form, byte for byte as `tf.io.write_graph` writes it."""
        return to_text(self.message)

    def to_json(self) -> str:
        """Return protobuf's JSON form, keys sorted (`ckptd.formats.message_text`)."""
        return to_json(self.message)

    def to_bytes(self) -> bytes:
        """Return the binary form; equal graphs have equal bytes."""
        return serialized(self.message)

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        places = {node.name: place for place, node in enumerate(self.message.node)}
        if len(places) < len(self.message.node):
            seen = set()
            for node in self.message.node:
                if node.name in seen:
                    raise CorruptGraphError(f"two operations are named {printable(node.name)!r}")
                seen.add(node.name)
        return places

    @functools.cached_property
    def _op_defs(self) -> dict[str, Any]:
        """The definitions by name, those of functions that are called as operations included."""
        functions = {each.signature.name: each.signature for each in self.message.library.function}
        return functions | {each.name: each for each in self.op_defs}

    @functools.cached_property
    def _shapes(self) -> Shapes:
        return Shapes(self._find, self.producer)

    def _find(self, name: str) -> Any | None:
        place = self._places.get(name)
        return None if place is None else self.message.node[place]

    def _output_type(self, node: Any, name: str, index: int) -> DataType | None:
        outputs = outputs_of(node, self._op_defs.get(node.op))
        count = None if outputs is None else outputs.count
        if count is None and "_output_shapes" in node.attr:
            count = len(node.attr["_output_shapes"].list.shape)
        if count is not None and index >= count:
            has = {0: "no outputs", 1: "one output, :0"}.get(count, f"{count} outputs")
            raise NoSuchTensorError(
                f"no tensor {printable(name)!r}: operation {printable(node.name)!r} "
                f"({printable(node.op)}) has {has}"
            )
        return None if outputs is None else outputs.data_type(index)

    def _no_tensor_name(self, name: str) -> str:
        shown = printable(name)
        if name in self._places:
            return f"{shown!r} refers to an operation, not a tensor; did you mean '{shown}:0'?"
        if name.startswith("^"):
            return f"{shown!r} is a control input: it stands for an operation, not a tensor"
        form = "a tensor's name is OPERATION:OUTPUT, as in 'add:0'"
        near = "" if ":" in name else hint(name, self._places)
        return f"{shown!r} is not the name of a tensor ({form}){near}"


def serialized(message: Any) -> bytes:
    """Return the binary form with map entries in order, as TensorFlow writes its files."""
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def graph_of(nodes: Iterable[Node], *, producer: int) -> Any:
    """Return the `GraphDef` with these operations."""
    graph = messages.GraphDef()
    graph.versions.producer = producer
    for node in nodes:
        added = graph.node.add(name=node.name, op=node.op, input=node.inputs, device=node.device)
        for name, value in node.attributes.messages.items():
            added.attr[name].CopyFrom(value)
    return graph


def _node(message: Any) -> Node:
    return Node(
        message.name, message.op, tuple(message.input), message.device, Attributes(message.attr)
    )


def _attribute(message: Any) -> Any:
    kind = message.WhichOneof("value")
    if kind is None:
        return None
    value = getattr(message, kind)
    if kind != "list":
        return _read(kind, value)
    for found, values in value.ListFields():
        return tuple(_read(found.name, each) for each in values)
    return ()


def _read(kind: str, value: Any) -> Any:
    if kind == "type":
        return data_type(base_number(value))
    if kind == "shape":
        return shape_of(value)
    if kind == "func":
        return FunctionCall(value.name, Attributes(value.attr))
    return value
