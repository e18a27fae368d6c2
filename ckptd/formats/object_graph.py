"""The object graph of a TF2 checkpoint: which object each of its tensors belongs to.

`tf.train.Checkpoint` stores, besides the variables, the graph of the Python objects that held them:
nodes, and edges named as the attribute, dictionary key or position through which one object holds
another. Node 0 is the object that was saved. A variable is a node with an attribute
``VARIABLE_VALUE``, stored under a key made of the first path to it, breadth first:

    model/layer_with..dot/kernel/.ATTRIBUTES/VARIABLE_VALUE

where a name's ``.`` is written ``..`` and its ``/`` is written ``.S``. Slot variables of TF1's and of
Keras' older optimizers hang on no edge; their keys are

    model/kernel/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE

The graph may have cycles, and one object may be held in many places. What is made of it here grows
with the size of its message, whatever the message says.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ckptd.errors import CorruptGraphError, printable
from ckptd.formats.messages import PARSE_ERRORS, TrackableObjectGraph

OBJECT_GRAPH_KEY: Final = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""The key of the graph in a checkpoint: a scalar string."""

STEP_PATHS: Final = (
    "step",
    "global_step",
    "optimizer/iter",
    "optimizer/iterations",
    "optimizer/_iterations",
    "model/optimizer/iter",
    "model/optimizer/_iterations",
)
"""Where people and Keras keep the training step; the first that is there counts. There is no rule."""

_VALUE: Final = "VARIABLE_VALUE"
_CONFIGURATION: Final = "OBJECT_CONFIG_JSON"
_SAVE_COUNTER: Final = "save_counter"
_ATTRIBUTES: Final = "/.ATTRIBUTES/"
_SLOT: Final = "/.OPTIMIZER_SLOT/"
_ITERATIONS: Final = frozenset({"_iterations", "iterations", "_trainable_variables"})
"""Edges of a Keras optimizer, one of which it always has besides `_variables`."""

_PATH_ALLOWANCE: Final = 64
"""How many times the message's size all paths of variables may take. Each variable's own path is in
its key, so that a graph that TensorFlow wrote needs little more than once; a chain of a million
variables without keys would need a terabyte."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """Something of an object that is stored."""

    name: str
    full_name: str
    """The variable's name in its program, as TF1 would store it; not unique, may be empty."""
    checkpoint_key: str
    """The key of its tensor; of some objects, as tables, what the keys of theirs begin with."""

    @property
    def is_variable(self) -> bool:
        """Whether it is the value of a variable."""
        return self.name == _VALUE

    @property
    def is_configuration(self) -> bool:
        """Whether it describes the object, as JSON, rather than what it has learned."""
        return self.name == _CONFIGURATION


class Edge(NamedTuple):
    """One object held by another."""

    name: str
    node: int


class SlotReference(NamedTuple):
    """What an optimizer says of one of its slot variables, by positions of nodes."""

    variable: int
    name: str
    slot_variable: int


@dataclass(frozen=True, slots=True)
class ObjectNode:
    """One object."""

    children: tuple[Edge, ...]
    attributes: tuple[Attribute, ...]
    slots: tuple[SlotReference, ...]
    registered_saver: str
    """The name under which a saver of the program's own was registered; mostly empty."""


@dataclass(frozen=True, slots=True)
class Slot:
    """What an optimizer keeps for one variable, such as a momentum."""

    optimizer: str
    """The optimizer's path; empty for the root."""
    name: str
    """``m``, ``v`` ...; of Keras 3's optimizers, the name of their list: ``momentums``."""
    variable: str
    """The path of the variable for which it is kept."""


@dataclass(frozen=True, slots=True)
class ObjectVariable:
    """A variable in the graph."""

    path: str
    """The names on the first way to it, breadth first, joined by slashes, nothing escaped.

    A slot variable that hangs on no edge is named by its key; and a path that another variable
    has already, which takes names with a slash in them, stays escaped.
    """
    checkpoint_key: str
    full_name: str
    node: int
    aliases: tuple[str, ...]
    """Other paths to it: one for each further edge, along the first way to where that begins."""
    slot: Slot | None
    """Set for an optimizer's slot variable."""


class TreeLine(NamedTuple):
    """One line of `ObjectGraph.tree`."""

    depth: int
    name: str
    """The name of the edge; empty for the root."""
    node: int
    is_alias: bool
    """Whether the node's own line, with what is below it, is elsewhere."""


@dataclass(frozen=True, slots=True)
class ObjectGraph:
    """The objects behind a checkpoint."""

    nodes: tuple[ObjectNode, ...]
    variables: Mapping[str, ObjectVariable]
    """By path, in order of the nodes."""
    by_key: Mapping[str, ObjectVariable]
    """By checkpoint key."""
    save_counter: ObjectVariable | None
    """Counts the saves; the number that `tf.train.CheckpointManager` puts in a checkpoint's name."""
    step: ObjectVariable | None
    """The training step, where `STEP_PATHS` has it."""
    configuration_keys: frozenset[str]
    """The keys that hold a description of an object rather than what it has learned."""
    _by_alias: Mapping[str, ObjectVariable] = field(repr=False)
    _ways: "_Ways" = field(repr=False, compare=False)

    def find(self, path: str) -> ObjectVariable | None:
        """Return the variable with that path or alias; a path comes before an alias."""
        return self.variables.get(path) or self._by_alias.get(path)

    def path(self, node: int) -> str | None:
        """Return the path of any node; None if no edge leads to it. The root's is empty."""
        return self._ways.path(node) if self._ways.leads_to(node) else None

    def tree(self) -> Iterator[TreeLine]:
        """Yield each edge, from the root down, and what is below a node where its path leads to it."""
        yield TreeLine(0, "", 0, is_alias=False)
        stack = [(0, iter(self.nodes[0].children))]
        while stack:
            above, edges = stack[-1]
            edge = next(edges, None)
            if edge is None:
                stack.pop()
                continue
            is_alias = not self._ways.is_first(above, edge)
            yield TreeLine(len(stack), edge.name, edge.node, is_alias)
            if not is_alias:
                stack.append((edge.node, iter(self.nodes[edge.node].children)))


def read_object_graph(data: bytes) -> ObjectGraph:
    """Return the graph that is stored under `OBJECT_GRAPH_KEY`.

    Raises `CorruptGraphError`.
    """
    nodes = _parse(data)
    ways = _Ways(nodes)
    holders = _edges_to_variables(nodes, ways)
    _require_moderate(nodes, ways, holders, len(data))
    names: dict[int, str] = {}
    keys: set[str] = set()
    taken: set[str] = set()
    values = [(n, a) for n, node in enumerate(nodes) for a in node.attributes if a.is_variable]
    for number, attribute in values:
        key = attribute.checkpoint_key
        if key in keys or number in names:
            raise CorruptGraphError(
                f"object graph: node {number}: its variable, stored as {printable(key)!r}, "
                "is there already"
            )
        keys.add(key)
        path = ways.path(number) if ways.leads_to(number) else path_of_key(key)
        if path in taken:
            path = key.partition(_ATTRIBUTES)[0]
        if path in taken:
            path = key
        names[number] = path
        taken.add(path)
    slots = _slots(nodes, ways, names, dict(values))

    variables = {}
    for number, attribute in values:
        variables[names[number]] = ObjectVariable(
            path=names[number],
            checkpoint_key=attribute.checkpoint_key,
            full_name=attribute.full_name,
            node=number,
            aliases=tuple(_joined(ways.path(above), name) for above, name in holders[number]),
            slot=slots.get(number) or _slot_of_key(attribute.checkpoint_key),
        )
    by_node = {variable.node: variable for variable in variables.values()}
    by_alias: dict[str, ObjectVariable] = {}
    for variable in variables.values():
        for alias in variable.aliases:
            by_alias.setdefault(alias, variable)
    counters = (by_node.get(e.node) for e in nodes[0].children if e.name == _SAVE_COUNTER)
    steps = (variables.get(path) or by_alias.get(path) for path in STEP_PATHS)
    return ObjectGraph(
        nodes=nodes,
        variables=variables,
        by_key={variable.checkpoint_key: variable for variable in variables.values()},
        save_counter=next(filter(None, counters), None),
        step=next(filter(None, steps), None),
        configuration_keys=frozenset(
            attribute.checkpoint_key
            for node in nodes
            for attribute in node.attributes
            if attribute.is_configuration
        ),
        _by_alias=by_alias,
        _ways=ways,
    )


def path_of_key(key: str) -> str:
    """Return the path that a checkpoint key was made of.

    >>> path_of_key("d/x.Sy/p..q/.ATTRIBUTES/VARIABLE_VALUE")
    'd/x/y/p.q'
    """
    path = key.rpartition(_ATTRIBUTES)[0] or key
    return _SLOT.join("/".join(map(unescape, part.split("/"))) for part in path.split(_SLOT))


def unescape(name: str) -> str:
    """Return a name as the program has it, from its part of a key.

    >>> unescape("x.Sy"), unescape("p..q"), unescape("..S")
    ('x/y', 'p.q', '.S')
    """
    return _ESCAPE.sub(lambda found: "/" if found[1] == "S" else ".", name)


_ESCAPE: Final = re.compile(r"\.([.S])")


def _parse(data: bytes) -> tuple[ObjectNode, ...]:
    try:
        message = TrackableObjectGraph.FromString(data)
    except PARSE_ERRORS:
        raise CorruptGraphError("object graph: does not parse") from None
    count = len(message.nodes)
    if not count:
        raise CorruptGraphError("object graph: has no nodes, not even the root")
    return tuple(_parse_node(node, number, count) for number, node in enumerate(message.nodes))


def _parse_node(node: Any, number: int, count: int) -> ObjectNode:
    def known(other: int, what: str) -> int:
        if not 0 <= other < count:
            raise CorruptGraphError(
                f"object graph: node {number}: {what} is node {other}, and there are {count} nodes"
            )
        return other

    return ObjectNode(
        children=tuple(
            Edge(each.local_name, known(each.node_id, f"{printable(each.local_name)!r} of it"))
            for each in node.children
        ),
        attributes=tuple(
            Attribute(each.name, each.full_name, each.checkpoint_key) for each in node.attributes
        ),
        slots=tuple(
            SlotReference(
                known(each.original_variable_node_id, "the variable of a slot"),
                each.slot_name,
                known(each.slot_variable_node_id, "a slot variable"),
            )
            for each in node.slot_variables
        ),
        registered_saver=node.registered_saver.name,
    )


class _Ways:
    """The first way from the root to each node, breadth first."""

    def __init__(self, nodes: Sequence[ObjectNode]) -> None:
        self._first: list[tuple[int, Edge] | None] = [None] * len(nodes)
        self._lengths = [0] * len(nodes)
        reached = [0]
        for number in reached:
            for edge in nodes[number].children:
                if edge.node and self._first[edge.node] is None:
                    self._first[edge.node] = (number, edge)
                    self._lengths[edge.node] = self._lengths[number] + 1 + len(edge.name)
                    reached.append(edge.node)

    def leads_to(self, number: int) -> bool:
        """Say whether any way leads to a node."""
        return not number or self._first[number] is not None

    def is_first(self, above: int, edge: Edge) -> bool:
        """Say whether the first way to its node ends with this very edge."""
        first = self._first[edge.node]
        return first is not None and first[0] == above and first[1] is edge

    def length(self, number: int) -> int:
        """Return how long the path of a node is, without making it."""
        return self._lengths[number]

    def path(self, number: int) -> str:
        """Return the names on the way to a node, joined by slashes."""
        names = []
        while (first := self._first[number]) is not None:
            number, edge = first
            names.append(edge.name)
        return "/".join(reversed(names))


def _edges_to_variables(
    nodes: Sequence[ObjectNode], ways: _Ways
) -> dict[int, list[tuple[int, str]]]:
    """Return, for each variable's node, from where and by which names it is held besides."""
    holders: dict[int, list[tuple[int, str]]] = {
        number: []
        for number, node in enumerate(nodes)
        if any(attribute.is_variable for attribute in node.attributes)
    }
    for number, node in enumerate(nodes):
        if ways.leads_to(number):
            for edge in node.children:
                if edge.node in holders and not ways.is_first(number, edge):
                    holders[edge.node].append((number, edge.name))
    return holders


def _require_moderate(
    nodes: Sequence[ObjectNode],
    ways: _Ways,
    holders: Mapping[int, Sequence[tuple[int, str]]],
    size: int,
) -> None:
    """Raise `CorruptGraphError` before paths are made that would fill the memory."""
    total = sum(map(ways.length, holders))
    total += sum(ways.length(above) for edges in holders.values() for above, _ in edges)
    total += sum(ways.length(number) for number, node in enumerate(nodes) if _is_optimizer(node))
    if total > _PATH_ALLOWANCE * (size + _PATH_ALLOWANCE):
        raise CorruptGraphError(
            f"object graph: {size} bytes, and the paths of its variables take {total}"
        )


def _is_optimizer(node: ObjectNode) -> bool:
    if node.slots:
        return True
    names = {edge.name for edge in node.children}
    return "_variables" in names and not _ITERATIONS.isdisjoint(names)


def _slots(
    nodes: Sequence[ObjectNode],
    ways: _Ways,
    names: Mapping[int, str],
    values: Mapping[int, Attribute],
) -> dict[int, Slot]:
    """Return what is known of slot variables, by node, from all that is said or can be recognised."""
    slots: dict[int, Slot] = {}
    by_full_name: dict[str, int | None] = {}
    for number, attribute in values.items():
        # Of two variables of one name neither can be meant.
        by_full_name[attribute.full_name] = None if attribute.full_name in by_full_name else number
    lists_seen: set[int] = set()
    for number, node in enumerate(nodes):
        if not _is_optimizer(node):
            continue
        optimizer = ways.path(number) if ways.leads_to(number) else ""
        for variable, name, slot_variable in node.slots:
            if variable in names:
                slots.setdefault(slot_variable, Slot(optimizer, name, names[variable]))
        held = {edge.name: edge.node for edge in node.children}
        if "_variables" not in held or held["_variables"] in lists_seen:
            continue
        own = {edge.node for edge in nodes[held["_variables"]].children}
        found = _keras_slots(nodes, held, own, lists_seen) or _named_slots(
            own, values, by_full_name
        )
        for slot_variable, name, variable in found:
            if variable in names and variable != slot_variable:
                slots.setdefault(slot_variable, Slot(optimizer, name, names[variable]))
    return slots


def _keras_slots(
    nodes: Sequence[ObjectNode], held: Mapping[str, int], own: set[int], lists_seen: set[int]
) -> list[tuple[int, str, int]]:
    """Return slot variable, name and variable by the lists of a Keras 3 optimizer.

    Each list has an entry for each variable that is trained, in the order of these. A list is looked
    at once, whoever claims it.
    """
    lists_seen.add(held["_variables"])
    trained = held.get("_trainable_variables")
    if trained is None or trained in lists_seen:
        return []
    lists_seen.add(trained)
    variables = {edge.name: edge.node for edge in nodes[trained].children}
    found = []
    for list_name, number in held.items():
        if number in lists_seen:
            continue
        lists_seen.add(number)
        found += [
            (edge.node, list_name.lstrip("_"), variables[edge.name])
            for edge in nodes[number].children
            if edge.node in own and edge.name in variables
        ]
    return found


def _named_slots(
    own: set[int], values: Mapping[int, Attribute], by_full_name: Mapping[str, int | None]
) -> list[tuple[int, str, int]]:
    """Return the same by names, for Keras 2.11 to 2.15: ``Adam/m/dense/kernel``."""
    found = []
    for number in sorted(own & values.keys()):
        _, _, rest = values[number].full_name.partition("/")
        name, _, variable_name = rest.partition("/")
        variable = by_full_name.get(variable_name)
        if variable is not None:
            found.append((number, name, variable))
    return found


def _slot_of_key(key: str) -> Slot | None:
    variable, marker, rest = key.rpartition(_ATTRIBUTES)[0].partition(_SLOT)
    if not marker:
        return None
    optimizer, _, name = rest.rpartition("/")
    return Slot(path_of_key(optimizer), unescape(name), path_of_key(variable))


def _joined(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name
