"""The meta graph: the serialized `MetaGraphDef` in a ``.meta`` file, no container, no checksum.

Only what a numpy program needs to write one that TensorFlow imports: operations by name, without
attributes. Equal operations give equal bytes, so that many checkpoints can share one file.
"""

from collections.abc import Iterable
from typing import NamedTuple

from ckptd.formats import messages

_PRODUCER = 27
"""The version of graphs that we write: the oldest that TensorFlow 2 makes no exceptions for."""


class Node(NamedTuple):
    """One operation of a graph; `inputs` are names of other nodes."""

    name: str
    op: str
    inputs: tuple[str, ...] = ()


def encode_meta_graph(nodes: Iterable[Node]) -> bytes:
    """Return the bytes of a ``.meta`` file with these operations."""
    meta_graph = messages.MetaGraphDef()
    meta_graph.graph_def.versions.producer = _PRODUCER
    for node in nodes:
        meta_graph.graph_def.node.add(name=node.name, op=node.op, input=node.inputs)
    data: bytes = meta_graph.SerializeToString(deterministic=True)
    return data
