"""Meta graphs, SavedModels and bare graphs, as `ckptd inspect` tells of them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from ckptd.cli.amounts import count_text, size_text
from ckptd.cli.inspect_ends import ends_of
from ckptd.cli.inspect_sections import (
    damaged_of,
    graph_shape_text,
    tensor_entry,
    tensor_sections,
    totals_text,
)
from ckptd.cli.screen import Screen
from ckptd.cli.sections import Column, Section
from ckptd.cli.tensor_view import INSPECT_SCHEMA, TensorView, Wish, selected, views, wanted_by
from ckptd.cli.verb import DONE, FAILED
from ckptd.errors import (
    CkptdError,
    CorruptGraphError,
    NoSuchCheckpointError,
    NoSuchTensorError,
    printable,
)
from ckptd.formats.graph import Graph, GraphTensor
from ckptd.formats.graph_collections import Packed, Saver, Variable
from ckptd.formats.graph_file import read_graph
from ckptd.formats.meta_graph import MetaGraph, SignatureTensor, read_meta_graph
from ckptd.formats.saved_model import read_saved_model
from ckptd.formats.saved_tensors import SavedTensor
from ckptd_client.opening import open_checkpoint
from ckptd_client.sources import Content, read_file, saved_model_file, source_of

_SHOWN_MEMBERS: Final = 3
_NAME: Final = Column("name", folds=True)


def inspect_graph(
    screen: Screen, path: str, content: Content, wish: Wish, tensor: str | None
) -> int:
    """Show what a graph's file holds, or one tensor of it; return 1 if a variable is damaged."""
    file = saved_model_file(path) if content is Content.SAVED_MODEL else path
    data = read_file(file)
    meta_graphs: Sequence[MetaGraph] = ()
    graphs: list[Graph] = []
    try:
        if content is Content.SAVED_MODEL:
            meta_graphs = read_saved_model(data).meta_graphs
        elif content is Content.META_GRAPH:
            meta_graphs = (read_meta_graph(data),)
        else:
            graphs = [read_graph(data)]
        if meta_graphs:
            graphs = [each.graph for each in meta_graphs]
        if tensor is not None:
            return _tensor(screen, path, content, graphs, tensor)
        bare = [] if meta_graphs else [(each, ends_of(each)) for each in graphs]
        parts = [_MetaGraphParts(each, wish.patterns) for each in meta_graphs]
    except CorruptGraphError as error:
        raise CorruptGraphError(f"{printable(file)}: {error}") from error
    variables = _variables(path, wish) if content is Content.SAVED_MODEL else None
    damaged = variables is not None and any(view.problem for view in variables)
    if screen.as_json:
        document = {
            "schema": INSPECT_SCHEMA,
            "path": path,
            "what": content.value,
            "graphs": [
                *(part.entry() for part in parts),
                *({**_graph_entry(graph), **ends.entry()} for graph, ends in bare),
            ],
        }
        if variables is not None:
            document["tensors"] = [tensor_entry(view) for view in variables]
        screen.document(document)
        return FAILED if damaged else DONE
    screen.heading(path, f"{content.value}: {size_text(len(data))}")
    for part in parts:
        if len(parts) > 1 or part.graph.tags:
            screen.line()
            screen.line(f"meta graph {', '.join(part.graph.tags) or 'without tags'}")
        screen.line(part.summary())
        screen.sections([*part.sections(), _operations(part.graph.graph)])
    for graph, ends in bare:
        screen.line(f"{_graph_summary(graph)}, {ends.summary()}")
        screen.sections([*ends.sections(), _operations(graph)])
    if variables is not None:
        tensors = [view.tensor for view in variables]
        screen.line()
        count = len(damaged_of(variables))
        wrong = f", {count:,} damaged" if count else ""
        screen.line(f"variables: {totals_text(tensors, len(tensors))}{wrong}")
        screen.sections(tensor_sections(variables, show_value=wish.value))
    return FAILED if damaged else DONE


def _variables(path: str, wish: Wish) -> list[TensorView] | None:
    """Look at the variables of a SavedModel; None if it has none."""
    try:
        opened = open_checkpoint(path)
    except NoSuchCheckpointError:
        return None
    from ckptd.cli.inspect_objects import readable_names  # noqa: PLC0415

    with opened:
        source, readable = source_of(opened), {}
        with suppress(CkptdError):  # its damage is told with the tensor
            readable = readable_names(opened.object_graph)
        tensors = selected(source.tensors, readable, wish.patterns)
        return list(
            views(
                source, tensors, readable, lazy=True, statistics=wish.statistics, value=wish.value
            )
        )


def _tensor(screen: Screen, path: str, content: Content, graphs: Sequence[Graph], name: str) -> int:
    found = _resolved(path, graphs, name)
    dtype = None if found.data_type is None else found.data_type.name
    if screen.as_json:
        screen.document(
            {
                "schema": INSPECT_SCHEMA,
                "path": path,
                "what": content.value,
                "tensor": {
                    "name": found.name,
                    "operation": found.node,
                    "kind": found.op,
                    "index": found.index,
                    "dtype": dtype,
                    "shape": None if found.shape is None else list(found.shape),
                },
            }
        )
        return DONE
    screen.line(
        f"{found.name}: {dtype or 'of unknown dtype'} {graph_shape_text(found.shape)}, "
        f"output {found.index} of {found.node} ({found.op})"
    )
    return DONE


def _resolved(path: str, graphs: Sequence[Graph], name: str) -> GraphTensor:
    if not graphs:
        raise NoSuchTensorError(f"{printable(path)}: a SavedModel without a meta graph")
    *others, last = graphs
    for graph in others:
        with suppress(NoSuchTensorError):
            return graph.get_tensor_by_name(name)
    try:
        return last.get_tensor_by_name(name)
    except NoSuchTensorError as error:
        raise NoSuchTensorError(f"{printable(path)}: {error}") from error


class _MetaGraphParts:
    """What is told of one meta graph."""

    def __init__(self, graph: MetaGraph, patterns: Sequence[str]) -> None:
        self.graph = graph
        wanted = wanted_by(patterns)
        self._saved = [each for each in graph.saved_tensors if wanted(each.name)]
        self._collections = graph.collections
        self._signatures = graph.signatures

    def summary(self) -> str:
        written = self.graph.tensorflow_version
        by = f"by TensorFlow {written}" if written else "by an unknown writer"
        return f"written {by}; {_graph_summary(self.graph.graph)}"

    def sections(self) -> Iterator[Section]:
        yield _saved_section(self._saved)
        yield Section(
            title="COLLECTIONS",
            word="collection",
            columns=(Column("count", right=True), _NAME, Column("members", folds=True)),
            rows=[
                (f"{len(members):,}", name, _members_text(members))
                for name, members in self._collections.items()
            ],
        )
        yield Section(
            title="SIGNATURES",
            word="signature",
            columns=(
                Column("signature", folds=True),
                Column("way"),
                Column("dtype"),
                Column("shape", folds=True),
                Column("argument: tensor", folds=True),
            ),
            rows=list(self._signature_rows()),
        )
        saver = self.graph.saver
        yield Section(
            title="SAVER",
            word="saver",
            columns=(Column("key"), Column("value", folds=True)),
            rows=[] if saver is None else [(k, str(v)) for k, v in saver._asdict().items()],
            long=True,
        )

    def _signature_rows(self) -> Iterator[tuple[str, ...]]:
        for key, signature in self._signatures.items():
            for way, tensors in (("in", signature.inputs), ("out", signature.outputs)):
                for name, tensor in tensors.items():
                    names = ", ".join(tensor.names)
                    shape = graph_shape_text(tensor.shape)
                    dtype = tensor.data_type.name if tensor.data_type.number else "-"
                    yield key, way, dtype, shape, f"{name}: {names}"

    def entry(self) -> dict[str, Any]:
        """Return it for JSON."""
        saver = self.graph.saver
        return {
            "tags": list(self.graph.tags),
            "tensorflow_version": self.graph.tensorflow_version or None,
            **_graph_entry(self.graph.graph),
            "saved_tensors": [_saved_entry(each) for each in self._saved],
            "collections": {
                name: [_member_text(member) for member in members]
                for name, members in self._collections.items()
            },
            "signatures": {
                key: {
                    "method": signature.method,
                    "inputs": _arguments(signature.inputs),
                    "outputs": _arguments(signature.outputs),
                }
                for key, signature in self._signatures.items()
            },
            "saver": None if saver is None else saver._asdict(),
        }


def _arguments(tensors: Mapping[str, SignatureTensor]) -> dict[str, Any]:
    return {
        name: {
            "kind": tensor.kind,
            "tensors": list(tensor.names),
            "dtype": tensor.data_type.name,
            "shape": None if tensor.shape is None else list(tensor.shape),
        }
        for name, tensor in tensors.items()
    }


def _saved_section(saved: Sequence[SavedTensor]) -> Section:
    return Section(
        title="SAVED TENSORS",
        word="saved",
        note="what a checkpoint beside it holds",
        columns=(Column("dtype"), Column("shape", folds=True), Column("part"), _NAME),
        rows=[
            (
                each.data_type.name,
                graph_shape_text(each.shape),
                "" if each.region is None else _region_text(each.region),
                each.name,
            )
            for each in saved
        ],
    )


def _saved_entry(saved: SavedTensor) -> dict[str, Any]:
    return {
        "name": saved.name,
        "dtype": saved.data_type.name,
        "shape": None if saved.shape is None else list(saved.shape),
        "region": None if saved.region is None else [list(extent) for extent in saved.region],
        "source": saved.source,
    }


def _region_text(region: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{start}:{start + length}" for start, length in region)


def _graph_summary(graph: Graph) -> str:
    functions = len(graph.functions)
    more = f", {count_text(functions, 'function')}" if functions else ""
    return f"producer {graph.producer}, {count_text(len(graph.nodes), 'operation')}{more}"


def _operations(graph: Graph) -> Section:
    return Section(
        title="OPERATIONS",
        word="operation",
        columns=(Column("count", right=True), Column("operation", folds=True)),
        rows=[(f"{count:,}", op) for op, count in _op_counts(graph)],
    )


def _op_counts(graph: Graph) -> list[tuple[str, int]]:
    counts = Counter(node.op for node in graph.nodes)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _graph_entry(graph: Graph) -> dict[str, Any]:
    return {
        "producer": graph.producer,
        "nodes": len(graph.nodes),
        "functions": list(graph.functions),
        "operations": dict(_op_counts(graph)),
    }


def _members_text(members: Sequence[Any]) -> str:
    shown = [_member_text(member) for member in members[:_SHOWN_MEMBERS]]
    return ", ".join([*shown, *["..."] * (len(members) > _SHOWN_MEMBERS)])


def _member_text(member: Any) -> str:
    if isinstance(member, Variable):
        return member.name
    if isinstance(member, Saver):
        return member.restore_op
    if isinstance(member, Packed):
        return member.type_url
    if isinstance(member, bytes):
        return member.decode("utf-8", "backslashreplace")
    return str(member)
