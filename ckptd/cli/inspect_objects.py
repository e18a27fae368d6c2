"""The objects that `tf.train.Checkpoint` saved, as `ckptd inspect` tells of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from ckptd.cli.inspect_sections import shape_text
from ckptd.cli.sections import Column, Section
from ckptd.cli.tensor_view import Readable
from ckptd.errors import CkptdError
from ckptd.formats.object_graph import ObjectGraph, ObjectNode, TreeLine
from ckptd.formats.tensors import TensorSource

_GLOBAL_STEP: Final = "global_step"
_INTEGERS: Final = frozenset({"int32", "int64", "uint32", "uint64"})
_DEEPEST: Final = 32  # levels that are indented; a deeper one would leave no room for its name


def counters(source: TensorSource, graph: ObjectGraph | None) -> dict[str, int]:
    """Return the steps and saves that a checkpoint counts, by their usual names."""
    keys = {_GLOBAL_STEP: _GLOBAL_STEP}
    if graph is not None:
        found = {"step": graph.step, "save_counter": graph.save_counter}
        keys = {each.path: each.checkpoint_key for each in found.values() if each is not None}
    counted = {}
    for name, key in keys.items():
        tensor = source.tensors.get(key)
        if tensor is not None and not tensor.shape and tensor.data_type.name in _INTEGERS:
            with suppress(CkptdError):  # its damage is told with the tensor
                counted[name] = int(source.read(key, verify=True)[()])
    return counted


def readable_names(graph: ObjectGraph | None) -> dict[str, Readable]:
    """Return what the graph says of each key."""
    if graph is None:
        return {}
    return {
        key: Readable(
            path=variable.path,
            slot_name=variable.slot.name if variable.slot else "",
            slot_of=variable.slot.variable if variable.slot else "",
            aliases=variable.aliases,
        )
        for key, variable in graph.by_key.items()
    }


def tree_section(graph: ObjectGraph, source: TensorSource) -> Section:
    """Return the objects, each below the one that holds it, less those that lead to no tensor."""
    every = list(graph.tree())
    shown = _stored(every, graph)
    left = len(every) - len(shown)
    return Section(
        title="OBJECTS",
        word="object",
        note=f"less {left:,} that hold nothing stored" if left else "",
        columns=(Column("object", folds=True),),
        rows=[(text,) for text in _lines(shown, graph, source)],
    )


def _stored(lines: Sequence[TreeLine], graph: ObjectGraph) -> list[TreeLine]:
    """Return the lines of objects that have something stored, or lead to one that has."""
    having: set[int] = {0}
    for line in _leading(lines, lambda line: not line.is_alias and _has_stored(graph, line.node)):
        having.add(line.node)
    chosen = _leading(
        lines,
        lambda line: line.node in having if line.is_alias else _has_stored(graph, line.node),
    )
    return list(chosen)[::-1]


def _leading(
    lines: Sequence[TreeLine], is_wanted: Callable[[TreeLine], bool]
) -> Iterator[TreeLine]:
    """Yield the wanted lines and those above them, the last first."""
    below: set[int] = set()  # depths at which one was yielded, below a line that is yet to come
    for line in reversed(lines):
        if is_wanted(line) or line.depth + 1 in below or not line.depth:
            below.add(line.depth)
            yield line
        below.discard(line.depth + 1)


def _has_stored(graph: ObjectGraph, node: int) -> bool:
    found = graph.nodes[node]
    return bool(found.attributes or found.slots or found.registered_saver)


def _lines(lines: Iterable[TreeLine], graph: ObjectGraph, source: TensorSource) -> Iterator[str]:
    for line in lines:
        text = "  " * min(line.depth, _DEEPEST) + (line.name or "(root)")
        if line.is_alias:
            yield f"{text} -> {graph.path(line.node) or '(root)'}"
            continue
        node = graph.nodes[line.node]
        stored = [source.tensors.get(key) for key in _keys(node)]
        told = [f"{t.data_type.name} {shape_text(t.shape)}" for t in stored if t is not None]
        told += [f"saved by {node.registered_saver}"] if node.registered_saver else []
        yield "  ".join([text, *told])


def _keys(node: ObjectNode) -> list[str]:
    return [attribute.checkpoint_key for attribute in node.attributes]


def objects_entry(graph: ObjectGraph) -> list[dict[str, Any]]:
    """Return the tree as lines for JSON: how deep, the edge's name, the node and what it stores."""
    return [
        {
            "depth": line.depth,
            "name": line.name,
            "node": line.node,
            "alias": line.is_alias,
            "keys": [] if line.is_alias else _keys(graph.nodes[line.node]),
        }
        for line in graph.tree()
    ]
