"""Which tensor of a checkpoint belongs to which variable of a graph.

The graph itself says: what restores it reads tensors by name (`RestoreV2`, whose constant inputs
are the names and the parts) and assigns them to variables. The names need not be the variables'
own: a Saver that was given a dict, or a moving average's mapping, restores under others. A
TensorFlow 2 SavedModel keeps this in a function that the restoring operation calls.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple

from ckptd.errors import FormatError, printable
from ckptd.formats.dtypes import STRING
from ckptd.formats.graph_shapes import output_index
from ckptd.formats.graph_walk import Body, attribute_of, is_control, node_of
from ckptd.formats.messages import PARSE_ERRORS, VariableDef
from ckptd.formats.saved_tensors import read_shape_and_slice
from ckptd.formats.tensor_proto import LARGEST_RANK, decode_tensor
from ckptd.formats.tensors import Extent, Region

VARIABLES: Final = frozenset({"Variable", "VariableV2", "VarHandleOp"})
"""Operations that stand for a variable: two hand out a reference to it, the last one a handle."""

_CALLS: Final = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_RESTORES: Final = frozenset({"RestoreV2", "Restore", "RestoreSlice"})
_ASSIGNMENTS: Final = frozenset({"Assign", "AssignVariableOp"})
_HANDS_ON: Final = frozenset({"Identity", "Reshape", "Enter", "StopGradient"})
_LONGEST_WAY: Final = 16  # operations between what restores a tensor and what assigns it
_VARIABLE_COLLECTIONS: Final = ("variables", "model_variables", "local_variables")


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a checkpoint has a variable: a tensor's name, and which part of it (None: all)."""

    name: str
    region: Region | None = None
    shape: tuple[int, ...] | None = None
    """Of the whole tensor, as the graph expects it in the checkpoint; None if it does not say."""
    reshaped: bool = False
    """Whether the graph gives it the variable's shape, whatever its own (`Saver(reshape=True)`)."""


@dataclass(slots=True)
class Wiring:
    """What restores each variable of a graph."""

    saver: dict["_State", list[Stored]] = field(default_factory=dict)
    """By the saver that the meta graph names."""
    others: dict["_State", list[Stored]] = field(default_factory=dict)
    """By other savers in the graph."""
    computed: dict["_State", str] = field(default_factory=dict)
    """What the meta graph's saver assigns after a computation: the node that assigns it."""
    parts: dict[str, Stored] = field(default_factory=dict)
    """What the graph's collections say of parts of a larger variable, by its node."""

    def candidates(self, variable: Any) -> list[Stored]:
        """Return where the value of a variable (a node) may be stored, the likeliest first.

        What the meta graph's saver restores is told by it alone; else the name counts, and then
        what another saver would read. Raises `FormatError` for a variable that the meta graph's
        saver does not assign as it is stored.
        """
        state = _state_of(variable)
        told = self.saver.get(state)
        if told:
            return told
        if state in self.computed:
            raise FormatError(
                f"variable {printable(variable.name)!r}: node {printable(self.computed[state])!r} "
                "computes it from what the checkpoint holds, and only what is restored as it is "
                "stored can be frozen"
            )
        found = [self.parts[variable.name]] if variable.name in self.parts else []
        found.append(Stored(variable.name))
        shared = attribute_of(variable, "shared_name").s.decode("utf-8", "replace")
        if shared:
            found.append(Stored(shared))
        found += self.others.get(state, [])
        return list(dict.fromkeys(found))


def read_wiring(meta_graph: Any) -> Wiring:
    """Return how a `MetaGraphDef` restores its variables. Raises `CorruptGraphError`."""
    graph = _Restoring(Body(meta_graph.graph_def.node))
    functions = {each.signature.name: each for each in meta_graph.graph_def.library.function}
    wiring = Wiring(parts=_parts(meta_graph))
    restore = node_of(meta_graph.saver_def.restore_op_name)
    by_saver = graph.body.reached([restore]) if restore in graph.body.places else {}
    looked_into = set()
    for node in graph.body.nodes:
        found: Iterable[tuple[str, Stored | None]] = ()
        if node.op in _ASSIGNMENTS:
            found = graph.assigned(node)
        elif node.op in _CALLS and (name := attribute_of(node, "f").func.name) not in looked_into:
            looked_into.add(name)
            if name in functions:
                found = _restored_by_call(node, functions[name])
        is_savers = node.name in by_saver
        told = wiring.saver if is_savers else wiring.others
        for target, stored in found:
            origin = graph.origin(target)
            variable = None if origin is None else graph.body.of(origin.name)
            if variable is None or variable.op not in VARIABLES:
                continue
            state = _state_of(variable)
            if stored is not None:
                told.setdefault(state, []).append(stored)
            elif is_savers:
                wiring.computed.setdefault(state, node.name)
    return wiring


class _State(NamedTuple):
    """What a variable's node stands for: nodes of one shared name stand for the same variable."""

    is_resource: bool
    container: bytes
    name: bytes


def _state_of(variable: Any) -> _State:
    return _State(
        variable.op == "VarHandleOp",
        attribute_of(variable, "container").s,
        attribute_of(variable, "shared_name").s or variable.name.encode(),
    )


def _restored_by_call(call: Any, function: Any) -> Iterator[tuple[str, Stored | None]]:
    """Yield what a called function restores into variables that it is handed; None: computed."""
    if not any(node.op in _RESTORES for node in function.node_def):
        return
    body = _Restoring(Body(function.node_def, function=function))
    given = [text for text in call.input if not is_control(text)]
    for node in function.node_def:
        for target, stored in body.assigned(node) if node.op in _ASSIGNMENTS else ():
            origin = body.origin(target)
            place = None if origin is None else body.body.arguments.get(origin.name)
            if place is not None and place < len(given):
                yield given[place], stored


class _Origin(NamedTuple):
    """Where a value is made: a node or an argument, and which of its outputs."""

    name: str
    output: int
    reshaped: bool


class _Restoring:
    """The assignments of restored tensors in one graph or function."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self._read: dict[str, list[bytes] | None] = {}

    def assigned(self, node: Any) -> Iterator[tuple[str, Stored | None]]:
        """Yield the target of an assignment (an input) and what is restored into it, if it is.

        None stands for what is computed from something restored.
        """
        inputs = [text for text in node.input if not is_control(text)]
        origin = self.origin(inputs[1]) if len(inputs) > 1 else None
        source = None if origin is None else self.body.of(origin.name)
        if origin is None or source is None or source.op not in _RESTORES:
            if len(inputs) > 1 and node_of(inputs[1]) in self._from_restored:
                yield inputs[0], None
            return
        names = self._strings(source, 1)
        slices = self._strings(source, 2) if source.op != "Restore" else [b""] * len(names or ())
        if names is None or slices is None or origin.output >= min(len(names), len(slices)):
            return  # computed as the graph runs
        name = names[origin.output].decode("utf-8", "surrogateescape")
        where = f"{self.body.where}: node {printable(source.name)!r}"
        shape, region = read_shape_and_slice(slices[origin.output], where)
        yield inputs[0], Stored(name, region, shape, origin.reshaped)

    @cached_property
    def _from_restored(self) -> set[str]:
        """The nodes whose values are computed from what is restored."""
        fed: dict[str, list[str]] = {}
        for node in self.body.nodes:
            for text in node.input:
                if not is_control(text):
                    fed.setdefault(node_of(text), []).append(node.name)
        found: set[str] = set()
        waiting = [node.name for node in self.body.nodes if node.op in _RESTORES]
        while waiting:
            for name in fed.get(waiting.pop(), ()):
                if name not in found:
                    found.add(name)
                    waiting.append(name)
        return found

    def origin(self, text: str) -> _Origin | None:
        """Follow an input to where it is made, through what only hands values on."""
        reshaped = False
        for _ in range(_LONGEST_WAY):
            node = self.body.of(text)
            if node is None or node.op not in _HANDS_ON or not node.input:
                return _Origin(node_of(text), output_index(text), reshaped)
            reshaped |= node.op == "Reshape"
            text = node.input[0]
        return None

    def _strings(self, node: Any, place: int) -> list[bytes] | None:
        source = self.body.of(node.input[place]) if len(node.input) > place else None
        if source is None or source.op != "Const":
            return None
        if source.name not in self._read:
            count = len(attribute_of(node, "dtypes").list.type) if node.op == "RestoreV2" else 1
            self._read[source.name] = _constant_strings(self.body, source, count)
        return self._read[source.name]


def _constant_strings(body: Body, node: Any, count: int) -> list[bytes] | None:
    tensor = attribute_of(node, "value").tensor
    if tensor.dtype != STRING.number:
        return None
    # The shape is only declared: a small message can promise any number of strings.
    if math.prod(dim.size for dim in tensor.tensor_shape.dim[:LARGEST_RANK]) != count:
        return None
    values = decode_tensor(tensor, f"{body.where}: node {printable(node.name)!r}")
    return list(values.ravel())


def _parts(meta_graph: Any) -> dict[str, Stored]:
    return {
        node_of(variable.variable_name): Stored(
            info.full_name, region, tuple(info.full_shape) or None
        )
        for variable in _listed_variables(meta_graph.collection_def)
        if (info := variable.save_slice_info_def).full_name
        and (region := tuple(map(Extent, info.var_offset, info.var_shape)))
    }


def _listed_variables(collections: Mapping[str, Any]) -> Iterator[Any]:
    names: Iterable[str] = (name for name in _VARIABLE_COLLECTIONS if name in collections)
    for name in names:
        for data in collections[name].bytes_list.value:
            try:
                variable = VariableDef.FromString(data)
            except PARSE_ERRORS:
                break  # a collection of that name may hold anything
            yield variable
