"""What becomes of operations that use a variable when its value takes the variable's place.

A variable is handed on in two ways: as a reference, which any operation may read, and as a handle
(a resource), which `ReadVariableOp` and a few others read. Both may pass through loops, conditions
and calls of functions before they are read. Where they go, a plain value goes instead: what read it
hands it on, what only passed it changes its type, and a function that was given it is made anew
for a value in that argument. What writes to a variable has no counterpart, and is refused.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from ckptd.errors import CorruptGraphError, FormatError, printable
from ckptd.formats.dtypes import data_type
from ckptd.formats.graph_walk import Body, attribute_of, is_control, node_of
from ckptd.formats.messages import NodeDef
from ckptd.formats.restore_wiring import VARIABLES

_DEEPEST: Final = 64
"""Calls inside calls; what a person writes has a tenth of it, and Python's own stack has an end."""

_GROWTH: Final = 8
_SMALL_GROWTH: Final = 2**20
"""How much may be made of a library: so many times its bytes, and so many more. Functions that call
each other with their arguments exchanged could have as many variants as orders."""

_REFERENCE_FREE: Final = {
    "RefIdentity": "Identity",
    "RefSwitch": "Switch",
    "RefMerge": "Merge",
    "RefEnter": "Enter",
    "RefExit": "Exit",
    "RefNextIteration": "NextIteration",
}
_TAKES_A_REFERENCE: Final = re.compile(
    r"(Sparse)?Apply[A-Z]|Assign(Add|Sub)?$|(Scatter|ScatterNd)(Add|Div|Max|Min|Mul|Sub|Update)$|"
    r"(CountUpTo|DestroyTemporaryVariable|NegTrain|RefSelect|SdcaShrinkL1|StridedSliceAssign)$"
)
_WRITES_BY_HANDLE: Final = re.compile(
    r"Assign(Add|Sub)?VariableOp$|Resource(Sparse)?Apply|ResourceCountUpTo$|DestroyResourceOp$|"
    r"Resource(Scatter|StridedSliceAssign)"
)
_OUTPUTS: Final = {
    "Switch": ("output_false", "output_true"),
    **dict.fromkeys(
        ("Identity", "Enter", "Exit", "NextIteration", "StopGradient", "Merge"), ("output",)
    ),
}
"""Operations that hand on what they are given, and on which of their outputs."""
_MERGES: Final = frozenset({"Merge", "RefMerge"})

_TABLE: Final = "a lookup table, and what it holds is not in the graph"
_QUEUE: Final = "a queue, which something outside the graph fills"
_PIPELINE: Final = "an input pipeline, which something outside the graph starts"
_STATE: Final = {
    **dict.fromkeys(
        (
            *("HashTable", "HashTableV2", "MutableHashTable", "MutableHashTableV2"),
            *("MutableHashTableOfTensors", "MutableHashTableOfTensorsV2"),
            *("MutableDenseHashTable", "MutableDenseHashTableV2"),
        ),
        _TABLE,
    ),
    **dict.fromkeys(
        (
            *("Barrier", "FakeQueue", "FIFOQueue", "FIFOQueueV2"),
            *("PaddingFIFOQueue", "PaddingFIFOQueueV2", "PriorityQueue", "PriorityQueueV2"),
            *("RandomShuffleQueue", "RandomShuffleQueueV2"),
        ),
        _QUEUE,
    ),
    **dict.fromkeys(
        ("Iterator", "IteratorV2", "MultiDeviceIterator", "IteratorFromStringHandleV2"), _PIPELINE
    ),
    "BoostedTreesEnsembleResourceHandleOp": "a boosted ensemble, whose trees are not in the graph",
}
"""Operations that stand for state which is not in the graph, and which no constant can replace."""


@dataclass(frozen=True, slots=True)
class Value:
    """What stands where a variable's reference or handle stood."""

    data_type: int
    shape: tuple[int, ...] | None
    """None where values of different shapes meet."""
    variable: str = field(compare=False)
    """The variable's node, for messages."""
    is_reference: bool = field(default=False, compare=False)


class Converted(NamedTuple):
    """A graph or function without variables."""

    nodes: list[Any]
    values: dict[str, Value]
    """By endpoint: what is a value now and was a reference or a handle before."""
    renamed: dict[str, str]
    """Endpoints of a function that have another name now."""
    constants: dict[str, Any]
    """By name: the nodes that are `Const` now, without a value yet, and what they were."""


class Function(NamedTuple):
    """A function of the new library."""

    definition: Any
    results: tuple[Value | None, ...]
    constants: dict[str, Any]


class Call(NamedTuple):
    """How an operation calls functions."""

    first: int
    """The input that is the function's first argument."""
    given: str
    """The attribute with the types of the arguments."""
    returned: str
    functions: tuple[str, ...]


CALLS: Final = {
    **dict.fromkeys(("PartitionedCall", "StatefulPartitionedCall"), Call(0, "Tin", "Tout", ("f",))),
    **dict.fromkeys(("If", "StatelessIf"), Call(1, "Tin", "Tout", ("then_branch", "else_branch"))),
    **dict.fromkeys(("Case", "StatelessCase"), Call(1, "Tin", "Tout", ("branches",))),
    **dict.fromkeys(("While", "StatelessWhile"), Call(0, "T", "T", ("cond", "body"))),
}


class Conversion:
    """Takes the variables out of one graph and of the functions that it calls.

    `value_of(node, where)` tells the value of a variable; `why(name)` says, for a message, what
    needs a node of the graph; `operations` are the definitions that the graph brings along.
    """

    def __init__(
        self,
        library: Any,
        operations: Mapping[str, Any],
        value_of: Callable[[Any, str], Value],
        why: Callable[[str], str],
    ) -> None:
        self.value_of = value_of
        self.functions: dict[str, Function] = {}
        """The new library, by new name."""
        self.versions: dict[str, list[str]] = {}
        """By a function's name: the names of what was made of it."""
        self.library = {each.signature.name: each for each in library.function}
        self._operations = operations
        self._why = why
        self._made: dict[tuple[Any, ...], str | None] = {}
        self._path: list[str] = []
        self._allowance = _GROWTH * library.ByteSize() + _SMALL_GROWTH

    def convert(self, body: Body, arguments: Mapping[str, Value] | None = None) -> Converted:
        """Return a body without variables. Raises `FormatError` for what cannot be frozen."""
        return _Walk(self, body, dict(arguments or {})).run()

    def function(self, caller: Any, name: str, given: Sequence[Value | None] | None) -> Function:
        """Return the function `name` for these arguments (None: as they were)."""
        definition = self.library.get(name)
        what = f"node {printable(caller.name)!r} calls {printable(name)!r}"
        if definition is None:
            raise CorruptGraphError(f"{what}, and the graph has no such function")
        arguments = definition.signature.input_arg
        if given is not None and len(given) != len(arguments):
            raise CorruptGraphError(
                f"{what} with {len(given)} inputs; the function takes {len(arguments)}"
            )
        if given is None or not any(given):
            key: tuple[Any, ...] = (name,)  # may be mentioned as often as it has arguments
        else:
            key = (name, *((each.data_type, each.shape) if each else None for each in given))
        if key not in self._made:
            self._allowance -= definition.ByteSize()
            if self._allowance < 0:
                raise FormatError(f"{what}: too many variants of functions come of it")
            if len(self._path) >= _DEEPEST:
                raise FormatError(f"{what}: {_DEEPEST} calls inside each other are too deep")
            self._made[key] = None
            self._path.append(caller.name)
            made = self._make(definition, given or [None] * len(arguments))
            self._path.pop()
            self._made[key] = made.definition.signature.name
        found = self._made[key]
        if found is None:
            raise FormatError(f"{what}, which is on its way to call it: it never ends")
        return self.functions[found]

    def _make(self, definition: Any, given: Sequence[Value | None]) -> Function:
        body = Body(definition.node_def, function=definition)
        arguments = dict(zip(body.arguments, given, strict=True))
        converted = self.convert(body, {name: each for name, each in arguments.items() if each})
        new = type(definition)()
        new.CopyFrom(definition)
        del new.node_def[:]
        new.node_def.extend(converted.nodes)
        for place, value in enumerate(given):
            if value is not None:
                _set_type(new.signature.input_arg[place], value)
                new.resource_arg_unique_id.pop(place, None)
                if place in new.arg_attr:
                    new.arg_attr[place].attr.pop("_output_shapes", None)  # a handle is a scalar
        results = []
        for result in new.signature.output_arg:
            endpoint = new.ret.get(result.name, "")
            value = converted.values.get(endpoint)
            results.append(value)
            if endpoint in converted.renamed:
                new.ret[result.name] = converted.renamed[endpoint]
            if value is not None:
                _set_type(result, value)
        if any(given) or any(results):
            # What they say of arguments, and of functions that do the same, is no longer true.
            for name in ("_input_shapes", "api_implements"):
                new.attr.pop(name, None)
        new.signature.name = self._new_name(definition.signature.name)
        made = Function(new, tuple(results), converted.constants)
        self.functions[new.signature.name] = made
        return made

    def _new_name(self, name: str) -> str:
        versions = self.versions.setdefault(name, [])
        new, number = name, len(versions)
        while new in self.functions or (versions and new in self.library):
            new, number = f"{name}_frozen_{number}", number + 1
        versions.append(new)
        return new

    def cannot(self, body: Body, node: Any, problem: str) -> FormatError:
        """Return the error for a node that cannot be frozen."""
        top = self._path[0] if self._path else node.name
        inside = "" if body.function is None else f" in {body.where}"
        called = f" (called by {printable(top)!r})" if self._path else ""
        return FormatError(
            f"cannot freeze node {printable(node.name)!r} ({printable(node.op)}){inside}{called}: "
            f"{problem}{self._why(top)}"
        )

    def takes_reference(self, node: Any, place: int) -> bool:
        """Say whether an operation takes the variable itself in that input, not its value."""
        definition = self._operations.get(node.op)
        if definition is None:
            return bool(_TAKES_A_REFERENCE.match(node.op))
        arguments = definition.input_arg
        if any(each.number_attr or each.type_list_attr for each in arguments):
            return any(each.is_ref for each in arguments)
        return place < len(arguments) and arguments[place].is_ref


class _Walk:
    """One pass through a graph or function, each node after what it needs."""

    def __init__(self, conversion: Conversion, body: Body, values: dict[str, Value]) -> None:
        self._conversion = conversion
        self._body = body
        self._values = values
        self._renamed: dict[str, str] = {}
        self._constants: dict[str, Any] = {}

    def run(self) -> Converted:
        made: list[list[Any]] = [[] for _ in self._body.nodes]
        for place in self._body.in_order():
            made[place] = self._convert(self._body.nodes[place])
        for node in self._body.nodes:
            if node.op in _MERGES:
                self._check_merge(node)
        nodes = [each for group in made for each in group]
        if self._renamed:
            nodes = [self._with_new_names(node) for node in nodes]
        return Converted(nodes, self._values, self._renamed, self._constants)

    def _convert(self, node: Any) -> list[Any]:
        if node.op in VARIABLES:
            return [self._variable(node)]
        if node.op in _STATE:
            raise self._conversion.cannot(self._body, node, f"it is {_STATE[node.op]}")
        given = {
            place: value
            for place, text in enumerate(data_inputs(node))
            if (value := self._values.get(self._body.endpoint(text)))
        }
        references = {place: value for place, value in given.items() if value.is_reference}
        handles = {place: value for place, value in given.items() if not value.is_reference}
        if references:
            new = self._with_references(node, references)
            if new is not node:
                return [new]
        call = CALLS.get(node.op)
        if call is not None:
            return [self._call(node, call, handles)]
        if node.op in self._conversion.library:
            return [self._direct_call(node, handles)]
        if not handles:
            return [self._with_functions(node)]
        if node.op in _OUTPUTS:
            return [self._hand_on(node, handles)]
        convert = _USES.get(node.op)
        if convert is None:
            raise self._cannot_use(node, next(iter(handles.values())))
        return convert(self, node, handles.get(0), next(iter(handles.values())))

    def _cannot_use(self, node: Any, value: Value) -> FormatError:
        name = printable(value.variable)
        writes = _WRITES_BY_HANDLE.match(node.op) or value.is_reference
        problem = (
            f"it writes to variable {name!r}, and a constant does not change"
            if writes
            else f"it uses variable {name!r} in a way that a constant has no counterpart for"
        )
        return self._conversion.cannot(self._body, node, problem)

    def _variable(self, node: Any) -> Any:
        is_reference = node.op != "VarHandleOp"
        value = self._conversion.value_of(node, self._body.where)
        new = NodeDef(name=node.name, op="Const")
        new.attr["dtype"].type = value.data_type
        self._constants[node.name] = node
        output = "ref" if is_reference else "resource"
        self._values[self._body.output(node.name, output, 0, 0)] = Value(
            value.data_type, value.shape, node.name, is_reference
        )
        self._rename(node, output)
        return new

    def _rename(self, node: Any, output: str) -> None:
        """Note that the first output, in a function, is now called as most operations call theirs."""
        if self._body.function is not None and output != "output":
            self._renamed[f"{node.name}:{output}:0"] = f"{node.name}:output:0"

    def _with_new_names(self, node: Any) -> Any:
        if not any(text in self._renamed for text in node.input):
            return node
        new = _copy(node)
        new.input[:] = [self._renamed.get(text, text) for text in node.input]
        return new

    def _with_references(self, node: Any, references: Mapping[int, Value]) -> Any:
        if node.op == "IsVariableInitialized":
            return self._true(node, "is_initialized")
        value = next(iter(references.values()))
        if node.op in _REFERENCE_FREE:
            new = _copy(node)
            new.op = _REFERENCE_FREE[node.op]
            self._mark(node, _OUTPUTS[new.op], value)
            return new
        for place in references:
            if self._conversion.takes_reference(node, place):
                raise self._cannot_use(node, value)
        return node

    def _mark(self, node: Any, outputs: Sequence[str], value: Value) -> None:
        for flat, name in enumerate(outputs):
            self._values[self._body.output(node.name, name, 0, flat)] = value

    def _hand_on(self, node: Any, handles: Mapping[int, Value]) -> Any:
        value = next(iter(handles.values()))
        # What comes round a loop is not known yet when its entry is looked at.
        every = len(handles) == len(data_inputs(node)) or node.op not in _MERGES
        value = replace(value, shape=_shape_of_any(handles.values()) if every else None)
        new = _copy(node)
        new.attr["T"].type = value.data_type
        new.attr.pop("_output_shapes", None)
        self._mark(node, _OUTPUTS[node.op], value)
        return new

    def _check_merge(self, node: Any) -> None:
        """Raise where a variable and something else come together; a `Merge` reads references."""
        kinds = {
            None if value is None or value.is_reference else value.data_type
            for text in data_inputs(node)
            for value in [self._values.get(self._body.endpoint(text))]
        }
        if len(kinds) > 1:
            problem = "a variable and something else come together in it"
            raise self._conversion.cannot(self._body, node, problem)

    def _call(self, node: Any, call: Call, handles: Mapping[int, Value]) -> Any:
        count = len(data_inputs(node))
        if any(place < call.first for place in handles):
            raise self._cannot_use(node, next(iter(handles.values())))
        given = [handles.get(place) for place in range(call.first, count)]
        new = _copy(node)
        results: list[tuple[Value | None, ...]] = []
        for attribute in call.functions:
            asked: dict[str, Function] = {}  # many branches may be one function
            for function in functions_in(attribute_of(new, attribute)):
                made = asked.get(function.name)
                if made is None:
                    made = self._conversion.function(node, function.name, given)
                    asked[function.name] = made
                    if attribute != "cond":
                        results.append(made.results)
                function.name = made.definition.signature.name
        returned = self._returned(node, results)
        if call.given == call.returned and any(returned) | any(given):
            self._check_loop(node, given, returned)
        for attribute, values in ((call.given, given), (call.returned, returned)):
            types = attribute_of(new, attribute).list.type
            if any(values) and len(types) != len(values):
                raise CorruptGraphError(
                    f"{self._body.where}: node {printable(node.name)!r} says of {len(types)} "
                    f"values what type they are, and has {len(values)}"
                )
            for place, value in enumerate(values):
                if value is not None:
                    types[place] = value.data_type
        for place, value in enumerate(returned):
            if value is not None:
                self._values[self._body.output(node.name, "output", place, place)] = value
                shapes = attribute_of(new, "output_shapes").list.shape
                if place < len(shapes):
                    _set_shape(shapes[place], value.shape)
        if any(given) or any(returned):
            new.attr.pop("_read_only_resource_inputs", None)
            new.attr.pop("_output_shapes", None)
        return new

    def _returned(
        self, node: Any, results: Sequence[tuple[Value | None, ...]]
    ) -> tuple[Value | None, ...]:
        """Return what the node's outputs are, whichever of its functions is called."""
        if not results:
            return ()
        first = results[0]
        for other in results[1:]:
            kinds = [[each and each.data_type for each in one] for one in (first, other)]
            if kinds[0] != kinds[1]:
                problem = "its branches return different variables"
                raise self._conversion.cannot(self._body, node, problem)
        return tuple(
            value and replace(value, shape=_shape_of_any(each for each in ways if each))
            for value, ways in zip(first, zip(*results, strict=True), strict=True)
        )

    def _check_loop(
        self, node: Any, given: Sequence[Value | None], returned: Sequence[Value | None]
    ) -> None:
        if list(given) != list(returned):
            problem = "a variable that goes into the loop does not come out as it went in"
            raise self._conversion.cannot(self._body, node, problem)

    def _direct_call(self, node: Any, handles: Mapping[int, Value]) -> Any:
        """Convert a node whose operation is a function's name, as TensorFlow 1 has them."""
        given = [handles.get(place) for place in range(len(data_inputs(node)))]
        made = self._conversion.function(node, node.op, given)
        if any(made.results):
            problem = "it returns a variable"
            raise self._conversion.cannot(self._body, node, problem)
        new = _copy(node)
        new.op = made.definition.signature.name
        return new

    def _with_functions(self, node: Any) -> Any:
        """Convert the functions that a node calls in a way of its own, and hands no variable."""
        new = node
        for name in [name for name, attr in node.attr.items() if functions_in(attr)]:
            for place, function in enumerate(functions_in(node.attr[name])):
                made = self._conversion.function(node, function.name, None)
                if made.definition.signature.name != function.name:
                    new = _copy(node) if new is node else new
                    functions_in(new.attr[name])[place].name = made.definition.signature.name
        return new

    def _true(self, node: Any, output: str) -> Any:
        """Say of a variable that it is initialized: what is in a checkpoint is."""
        new = NodeDef(name=node.name, op="Const")
        new.attr["dtype"].type = _BOOL
        tensor = new.attr["value"].tensor
        tensor.dtype = _BOOL
        tensor.tensor_shape.SetInParent()
        tensor.bool_val.append(True)
        new.input.extend(self._in_time(node))
        self._rename(node, output)
        return new

    def _in_time(self, node: Any) -> list[str]:
        """Return control inputs that have a constant computed in the loop or branch of `node`."""
        controls = [text for text in node.input if is_control(text)]
        source = self._body.of(node.input[0])
        if source is not None and source.op not in VARIABLES:
            controls.append(f"^{source.name}")
        return list(dict.fromkeys(controls))

    def read(self, node: Any, value: Value | None, any_value: Value) -> list[Any]:
        if value is None:
            raise self._cannot_use(node, any_value)
        self._check_type(node, value)
        new = _plain(node, "Identity", node.input)
        new.attr["T"].type = value.data_type
        self._rename(node, "value")
        return [new]

    def gather(self, node: Any, value: Value | None, any_value: Value) -> list[Any]:
        if value is None or len(data_inputs(node)) < 2:  # noqa: PLR2004 - the table and the indices
            raise self._cannot_use(node, any_value)
        self._check_type(node, value)
        indices = attribute_of(node, "Tindices").type
        dimensions = attribute_of(node, "batch_dims").i
        axis = NodeDef(name=self._new_name(f"{node.name}/axis"), op="Const")
        axis.attr["dtype"].type = _INT32
        tensor = axis.attr["value"].tensor
        tensor.dtype = _INT32
        tensor.tensor_shape.SetInParent()
        tensor.int_val.append(dimensions)
        if self._body.of(node.input[1]) is not None:  # in the loop or branch of the indices
            axis.input.append(f"^{node_of(node.input[1])}")
        taken = axis.name if self._body.function is None else f"{axis.name}:output:0"
        controls = [text for text in node.input if is_control(text)]
        new = _plain(node, "GatherV2", [*data_inputs(node)[:2], taken, *controls])
        new.attr["Tparams"].type = value.data_type
        new.attr["Tindices"].type = indices
        new.attr["Taxis"].type = _INT32
        new.attr["batch_dims"].i = dimensions
        return [axis, new]

    def gather_nd(self, node: Any, value: Value | None, any_value: Value) -> list[Any]:
        if value is None:
            raise self._cannot_use(node, any_value)
        self._check_type(node, value)
        new = _plain(node, "GatherNd", node.input)
        new.attr["Tparams"].type = value.data_type
        new.attr["Tindices"].CopyFrom(attribute_of(node, "Tindices"))
        return [new]

    def shape(self, node: Any, value: Value | None, any_value: Value) -> list[Any]:
        if value is None:
            raise self._cannot_use(node, any_value)
        new = _plain(node, "Shape", node.input)
        new.attr["T"].type = value.data_type
        if "out_type" in node.attr:
            new.attr["out_type"].CopyFrom(node.attr["out_type"])
        return [new]

    def initialized(self, node: Any, value: Value | None, any_value: Value) -> list[Any]:
        del value, any_value
        return [self._true(node, "is_initialized")]

    def nothing(self, node: Any, value: Value | None, any_value: Value) -> list[Any]:
        del value, any_value
        return [_plain(node, "NoOp", self._in_time(node))]

    def _check_type(self, node: Any, value: Value) -> None:
        told = attribute_of(node, "dtype").type
        if told != value.data_type:
            raise CorruptGraphError(
                f"{self._body.where}: node {printable(node.name)!r} reads variable "
                f"{printable(value.variable)!r} as {data_type(told).name}, "
                f"and it is {data_type(value.data_type).name}"
            )

    def _new_name(self, name: str) -> str:
        new, number = name, 0
        while new in self._body.places:
            new, number = f"{name}_{number}", number + 1
        return new


_USES: Final[Mapping[str, Callable[[_Walk, Any, Value | None, Value], list[Any]]]] = {
    "ReadVariableOp": _Walk.read,
    "ResourceGather": _Walk.gather,
    "ResourceGatherNd": _Walk.gather_nd,
    "VariableShape": _Walk.shape,
    "VarIsInitializedOp": _Walk.initialized,
    "DisableCopyOnRead": _Walk.nothing,
}
_BOOL: Final = 10
_INT32: Final = 3


def data_inputs(node: Any) -> list[str]:
    """Return the inputs that are values."""
    return [text for text in node.input if not is_control(text)]


def _copy(node: Any) -> Any:
    new = NodeDef()
    new.CopyFrom(node)
    return new


def _plain(node: Any, op: str, inputs: Sequence[str]) -> Any:
    """Return a node of the same name that does something else."""
    new = NodeDef(name=node.name, op=op, input=inputs, device=node.device)
    if "_class" in node.attr:
        new.attr["_class"].CopyFrom(node.attr["_class"])
    return new


def functions_in(attribute: Any) -> list[Any]:
    """Return the functions that an attribute names, as messages that can be changed."""
    kind = attribute.WhichOneof("value")
    if kind == "func":
        return [attribute.func]
    return list(attribute.list.func) if kind == "list" else []


def _shape_of_any(values: Iterable[Value]) -> tuple[int, ...] | None:
    """Return the shape that all have, None if they differ."""
    shapes = {each.shape for each in values}
    return shapes.pop() if len(shapes) == 1 else None


def _set_type(argument: Any, value: Value) -> None:
    argument.type = value.data_type
    argument.ClearField("handle_data")
    argument.ClearField("experimental_full_type")


def _set_shape(message: Any, shape: tuple[int, ...] | None) -> None:
    message.Clear()
    if shape is None:
        message.unknown_rank = True
        return
    message.SetInParent()
    for size in shape:
        message.dim.add(size=size)
