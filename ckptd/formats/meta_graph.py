"""The meta graph: the serialized `MetaGraphDef` in a ``.meta`` file, no container, no checksum.

A graph with what is needed to go on with it: how it is saved and restored, its collections and
signatures, the definitions of its operations, and which TensorFlow wrote it. The text form
(`export_meta_graph(as_text=True)`) holds the same. Equal meta graphs give equal bytes, so that many
checkpoints can share one file.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from ckptd.errors import printable
from ckptd.formats import messages
from ckptd.formats.dtypes import DataType, base_number, data_type
from ckptd.formats.graph import Graph, GraphTensor, Node, graph_of, serialized
from ckptd.formats.graph_collections import (
    Member,
    Saver,
    read_collections,
    read_saver,
    savers_in,
)
from ckptd.formats.graph_file import GraphKind, parse
from ckptd.formats.graph_shapes import Shape, shape_of
from ckptd.formats.message_text import to_json, to_text
from ckptd.formats.saved_tensors import SavedTensor, saved_tensors

__all__ = [
    "MetaGraph",
    "Node",
    "Signature",
    "SignatureTensor",
    "encode_meta_graph",
    "read_meta_graph",
]

_PRODUCER: Final = 27
"""The version of graphs that we write: the oldest that TensorFlow 2 makes no exceptions for."""


class SignatureTensor(NamedTuple):
    """One input or output of a signature (`TensorInfo`)."""

    kind: Literal["tensor", "sparse", "composite", "none"]
    names: tuple[str, ...]
    """The graph's tensors: one; values, indices and dense shape; or those that make it up."""
    data_type: DataType
    shape: Shape


class Signature(NamedTuple):
    """One way to call a model (`SignatureDef`)."""

    method: str
    """As in ``tensorflow/serving/predict``."""
    inputs: Mapping[str, SignatureTensor]
    outputs: Mapping[str, SignatureTensor]


@dataclass(frozen=True, repr=False)
class MetaGraph:
    """A `MetaGraphDef`; each part is read when it is asked for.

    What contradicts itself raises `CorruptGraphError` then, and the other parts stay readable.
    """

    message: Any
    """The `MetaGraphDef` itself; whoever changes it makes a new `MetaGraph`."""

    def __repr__(self) -> str:
        nodes = f"{len(self.message.graph_def.node):,} nodes"
        return (
            f"<MetaGraph of {nodes}, TensorFlow {printable(self.tensorflow_version) or 'unknown'}>"
        )

    @functools.cached_property
    def graph(self) -> Graph:
        """The graph."""
        return Graph(self.message.graph_def, self.message.meta_info_def.stripped_op_list.op)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The graph's operations, in the file's order; not those inside functions."""
        return self.graph.nodes

    @property
    def functions(self) -> tuple[str, ...]:
        """The names of the functions in the graph's library."""
        return self.graph.functions

    @property
    def producer(self) -> int:
        """The version of graphs that its writer was at (`graph_def.versions.producer`)."""
        return self.graph.producer

    @property
    def tensorflow_version(self) -> str:
        """The TensorFlow that wrote it, as in ``2.21.0``; "" where it does not say."""
        return str(self.message.meta_info_def.tensorflow_version)

    @property
    def tags(self) -> tuple[str, ...]:
        """What a SavedModel finds it by, as in ``serve``."""
        return tuple(self.message.meta_info_def.tags)

    @functools.cached_property
    def stripped_ops(self) -> tuple[str, ...]:
        """The kinds of operations in the graph, whose definitions the file has."""
        return tuple(each.name for each in self.message.meta_info_def.stripped_op_list.op)

    @functools.cached_property
    def collections(self) -> Mapping[str, tuple[Member, ...]]:
        """The collections by name, sorted (`ckptd.formats.graph_collections`)."""
        return read_collections(self.message.collection_def)

    @property
    def saver(self) -> Saver | None:
        """How the graph is saved and restored; None where the file has no saver."""
        return read_saver(self.message.saver_def) if self.message.HasField("saver_def") else None

    @functools.cached_property
    def savers(self) -> tuple[Saver, ...]:
        """`saver`, and the others in the collection of savers, each once."""
        return tuple(self._saver_defs)

    @functools.cached_property
    def saved_tensors(self) -> tuple[SavedTensor, ...]:
        """What `saver` writes: the tensors of the checkpoints beside this file. Empty without one."""
        if not self.message.HasField("saver_def"):
            return ()
        return saved_tensors(self.graph, self.message.saver_def)

    def saved_tensors_of(self, saver: Saver) -> tuple[SavedTensor, ...]:
        """Return what one of `savers` writes; empty for a saver of another graph."""
        saver_def = self._saver_defs.get(saver)
        return () if saver_def is None else saved_tensors(self.graph, saver_def)

    @functools.cached_property
    def signatures(self) -> Mapping[str, Signature]:
        """The signatures by key, sorted."""
        signature_def = self.message.signature_def
        return {key: _signature(signature_def[key]) for key in sorted(signature_def)}

    def get_tensor_by_name(self, name: str) -> GraphTensor:
        """Return a tensor by its name, ``op_to_restore:0`` (`Graph.get_tensor_by_name`)."""
        return self.graph.get_tensor_by_name(name)

    def to_text(self) -> str:
        """Return the text form, byte for byte what `export_meta_graph(as_text=True)` writes."""
        return to_text(self.message)

    def to_json(self) -> str:
        """Return protobuf's JSON form, keys sorted (`ckptd.formats.message_text`)."""
        return to_json(self.message)

    def to_bytes(self) -> bytes:
        """Return the binary form: for a ``.meta`` of a current TensorFlow, the same bytes.

        Before it wrote deterministically, the entries of its maps were in any order; here they are sorted.
        """
        return serialized(self.message)

    @functools.cached_property
    def _saver_defs(self) -> Mapping[Saver, Any]:
        first = [self.message.saver_def] if self.message.HasField("saver_def") else []
        found: dict[Saver, Any] = {}
        for saver_def in first + savers_in(self.message.collection_def):
            found.setdefault(read_saver(saver_def), saver_def)
        return found


def read_meta_graph(data: bytes) -> MetaGraph:
    """Return the meta graph in a ``.meta`` file, binary or text.

    Raises `CorruptGraphError`, which says what is wrong with it as either, with the line and column
    of a text, and what the file is if it is a SavedModel or a bare graph.
    """
    return MetaGraph(parse(data, GraphKind.META_GRAPH))


def encode_meta_graph(nodes: Iterable[Node]) -> bytes:
    """Return the bytes of a ``.meta`` file with these operations."""
    meta_graph = messages.MetaGraphDef(graph_def=graph_of(nodes, producer=_PRODUCER))
    return MetaGraph(meta_graph).to_bytes()


def _signature(message: Any) -> Signature:
    return Signature(
        method=message.method_name,
        inputs={key: _signature_tensor(message.inputs[key]) for key in sorted(message.inputs)},
        outputs={key: _signature_tensor(message.outputs[key]) for key in sorted(message.outputs)},
    )


_Encoding: TypeAlias = Literal["tensor", "sparse", "composite", "none"]
_ENCODINGS: Final[Mapping[str | None, _Encoding]] = {
    "name": "tensor",
    "coo_sparse": "sparse",
    "composite_tensor": "composite",
    None: "none",
}


def _signature_tensor(message: Any) -> SignatureTensor:
    return SignatureTensor(
        _ENCODINGS[message.WhichOneof("encoding")],
        tuple(_tensor_names(message)),
        data_type(base_number(message.dtype)),
        shape_of(message.tensor_shape),
    )


def _tensor_names(message: Any) -> Iterator[str]:
    encoding = message.WhichOneof("encoding")
    if encoding == "name":
        yield message.name
    elif encoding == "coo_sparse":
        sparse = message.coo_sparse
        yield sparse.values_tensor_name
        yield sparse.indices_tensor_name
        yield sparse.dense_shape_tensor_name
    elif encoding == "composite_tensor":
        for component in message.composite_tensor.components:
            yield from _tensor_names(component)
