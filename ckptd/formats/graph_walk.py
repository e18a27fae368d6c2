"""Walking over the operations of a graph or of a function: inputs, what is reached, in which order.

In a graph an input is ``node``, ``node:1`` or ``^node`` (a control input: order, no value). In a
function it is an argument's name, ``node:output:0`` (the output's name in the operation's
definition, and the place among those of that name) or ``^node``.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Any

from ckptd.errors import CorruptGraphError, printable
from ckptd.formats.messages import AttrValue


def is_control(text: str) -> bool:
    """Say whether an input only orders.

    >>> is_control("^init"), is_control("init:0")
    (True, False)
    """
    return text.startswith("^")


def node_of(text: str) -> str:
    """Return the name of the node (or of the argument) that an input comes from.

    >>> [node_of(text) for text in ("a/b", "a/b:1", "^a/b", "a/b:output:0")]
    ['a/b', 'a/b', 'a/b', 'a/b']
    """
    return text.removeprefix("^").partition(":")[0]


def attribute_of(node: Any, name: str) -> Any:
    """Return an attribute (`AttrValue`) to be read; an empty one where the node does not have it.

    Protobuf would make the one that is missing, in the graph itself.
    """
    found = node.attr.get(name)
    return AttrValue() if found is None else found


class Body:
    """The nodes of a graph, or of the function `function`, by name.

    Raises `CorruptGraphError` where two have one name, or an input comes from nowhere.
    """

    def __init__(self, nodes: Sequence[Any], *, function: Any = None) -> None:
        self.nodes = nodes
        self.function = function
        self.places = {node.name: place for place, node in enumerate(nodes)}
        arguments = () if function is None else function.signature.input_arg
        self.arguments = {each.name: place for place, each in enumerate(arguments)}
        counts = Counter([*(node.name for node in nodes), *(each.name for each in arguments)])
        for name, count in counts.most_common(1):
            if count > 1:
                raise CorruptGraphError(
                    f"{self.where}: {count} nodes or arguments are named {printable(name)!r}"
                )

    @property
    def where(self) -> str:
        """This graph or function, as messages name it."""
        return (
            "graph"
            if self.function is None
            else f"function {printable(self.function.signature.name)!r}"
        )

    def endpoint(self, text: str) -> str:
        """Return the one spelling of a data input: of two texts that mean one output, the longer."""
        return text if self.function is not None or ":" in text else f"{text}:0"

    def output(self, node: str, name: str, place: int, flat: int) -> str:
        """Return the endpoint of an output: `place` of `name`, `flat` among all of the node."""
        return f"{node}:{flat}" if self.function is None else f"{node}:{name}:{place}"

    def of(self, text: str) -> Any:
        """Return the node that an input comes from; None for an argument of the function."""
        place = self.places.get(node_of(text))
        return None if place is None else self.nodes[place]

    def reached(self, names: Iterable[str]) -> dict[str, str | None]:
        """Return all nodes that these need, each with the node that needs it (None: asked for)."""
        needed_by: dict[str, str | None] = dict.fromkeys(names)
        waiting = deque(needed_by)
        while waiting:
            name = waiting.popleft()
            for text in self.nodes[self.places[name]].input:
                source = node_of(text)
                if source in needed_by:
                    continue
                if source in self.places:
                    needed_by[source] = name
                    waiting.append(source)
                elif source not in self.arguments:
                    raise self._from_nowhere(name, text)
        return needed_by

    def in_order(self) -> list[int]:
        """Return the places of all nodes, each after what it needs; loops run from their entry.

        Raises `CorruptGraphError` for a circle that is no loop.
        """
        wanting = [0] * len(self.nodes)
        feeds: list[list[int]] = [[] for _ in self.nodes]
        for place, node in enumerate(self.nodes):
            for text in node.input:
                source = self.places.get(node_of(text))
                if source is None:
                    if node_of(text) not in self.arguments:
                        raise self._from_nowhere(node.name, text)
                elif not _goes_round(self.nodes[source], node):
                    wanting[place] += 1
                    feeds[source].append(place)
        ready = deque(place for place, count in enumerate(wanting) if not count)
        order = []
        while ready:
            place = ready.popleft()
            order.append(place)
            for fed in feeds[place]:
                wanting[fed] -= 1
                if not wanting[fed]:
                    ready.append(fed)
        if len(order) < len(self.nodes):
            stuck = next(n.name for n, count in zip(self.nodes, wanting, strict=True) if count)
            raise CorruptGraphError(f"{self.where}: node {printable(stuck)!r} needs itself")
        return order

    def _from_nowhere(self, name: str, text: str) -> CorruptGraphError:
        return CorruptGraphError(
            f"{self.where}: node {printable(name)!r} takes {printable(text)!r}, "
            f"and there is no {printable(node_of(text))!r}"
        )


def _goes_round(source: Any, node: Any) -> bool:
    return source.op in {"NextIteration", "RefNextIteration"} and node.op in {"Merge", "RefMerge"}
