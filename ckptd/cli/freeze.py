"""`ckptd freeze`: a graph and its checkpoint as one file, its variables as constants."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NamedTuple

import click

from ckptd.checkpoints.layouts.tensorflow import index_name
from ckptd.checkpoints.listing import Kind
from ckptd.cli.amounts import count_text, size_text
from ckptd.cli.arguments import FilePath
from ckptd.cli.inspect_sections import graph_shape_text
from ckptd.cli.screen import Screen
from ckptd.cli.sections import Column, Section
from ckptd.cli.verb import DONE, verb
from ckptd.errors import (
    CorruptGraphError,
    NoSuchTensorError,
    NotFoundError,
    StorageError,
    printable,
)
from ckptd.formats.arrays import Array
from ckptd.formats.dtypes import base_number, data_type
from ckptd.formats.freezing import Read, bytes_of_values, freeze
from ckptd.formats.graph import PLACEHOLDERS, Graph, serialized
from ckptd.formats.graph_shapes import Shape
from ckptd.formats.near_names import hint
from ckptd.formats.object_graph import OBJECT_GRAPH_KEY
from ckptd.formats.saved_model import read_saved_model
from ckptd.storage.output import new_output
from ckptd.storage.reading import look_at
from ckptd_client.graphs import import_meta_graph
from ckptd_client.locating import SAVED_MODEL_PREFIX
from ckptd_client.opening import open_checkpoint
from ckptd_client.sources import Content, identify, read_file, saved_model_file

FREEZE_SCHEMA: Final = "ckptd.freeze/1"

_SERVING: Final = "serving_default"
_SERVING_TAGS: Final = {"serve"}
_COLUMNS: Final = (Column("tensor", folds=True), Column("dtype"), Column("shape"))


class _Job(NamedTuple):
    """A graph, what reads its variables, and the outputs that are asked for."""

    meta_graph: Any
    read: Read
    outputs: Sequence[str]


class _Recorder:
    """Reads tensors, and remembers which."""

    def __init__(self, read: Read) -> None:
        self.tensors: list[tuple[str, Array]] = []
        self._read = read

    def __call__(self, name: str) -> Array:
        array = self._read(name)
        if name != OBJECT_GRAPH_KEY:
            self.tensors.append((name, array))
        return array


@verb("freeze", statuses=(12, 13))
@click.argument("path", metavar="PREFIX|DIR", type=FilePath())
@click.argument("nodes", metavar="[NODE]...", nargs=-1)
@click.option(
    "--output",
    "-o",
    "output",
    metavar="FILE",
    required=True,
    type=FilePath(),
    help="Write the frozen graph to this file.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option(
    "--meta-graph",
    "meta_graph_file",
    metavar="FILE",
    type=FilePath(),
    help="Take the graph from here instead of PREFIX.meta.",
)
@click.option(
    "--tag",
    "tags",
    metavar="TAG",
    multiple=True,
    help="Of a SavedModel: the graph with these tags; else the only one, or the one for serving.",
)
@click.option(
    "--signature",
    metavar="NAME",
    help="Freeze the outputs of this signature; of a SavedModel, serving_default is the default.",
)
@click.option("--keep-devices", is_flag=True, help="Keep the devices that the training ran on.")
def freeze_graph(
    screen: Screen,
    *,
    path: str,
    nodes: tuple[str, ...],
    output: str,
    force: bool,
    meta_graph_file: str | None,
    tags: tuple[str, ...],
    signature: str | None,
    keep_devices: bool,
) -> int:
    """Make one file of a graph and its checkpoint, for serving.

    The graph is cut back to what the NODEs need, which are operations or tensors (add, add:0), and its variables
    become constants. It is taken from a checkpoint with its .meta file, or from a SavedModel.
    """
    if nodes and signature is not None:
        raise click.UsageError("give NODEs or --signature, not both")
    if output.endswith((".pbtxt", ".json")):
        raise click.UsageError(
            f"a frozen graph is binary: write FILE.pb, and `ckptd export` makes "
            f"{printable(output)} of it"
        )
    there = look_at(output)
    if there is not None and there.kind is Kind.DIRECTORY:
        raise StorageError("write", output, "it is a directory", number=errno.EISDIR)
    if not force and there is not None:
        reason = "there is such a file already; --force replaces it"
        raise StorageError("write", output, reason, number=errno.EEXIST)
    is_model = meta_graph_file is None and identify(path) is Content.SAVED_MODEL
    if tags and not is_model:
        raise click.UsageError("--tag chooses among the graphs of a SavedModel")
    job = (
        _saved_model(path, nodes, tags, signature)
        if is_model
        else _checkpoint(path, nodes, meta_graph_file, signature)
    )
    with job as (meta_graph, read, outputs):
        recorder = _Recorder(read)
        frozen = freeze(meta_graph, recorder, outputs, keep_devices=keep_devices)
    data = serialized(frozen)
    with new_output(output, replace=force) as file:
        file.stream.write(data)
    document = _document(output, len(data), frozen, recorder.tensors, outputs)
    if screen.as_json:
        screen.document(document)
    else:
        _show(screen, document, len(meta_graph.graph_def.node))
    return DONE


@contextmanager
def _checkpoint(
    path: str, nodes: Sequence[str], meta_graph_file: str | None, signature: str | None
) -> Iterator[_Job]:
    with open_checkpoint(path) as opened:
        file = meta_graph_file or f"{opened.prefix}.meta"
        try:
            meta_graph = import_meta_graph(file).message
        except NotFoundError as error:
            if meta_graph_file is not None:
                raise
            reason = "the checkpoint has no meta graph beside it; --meta-graph FILE names one"
            raise NotFoundError("read", file, reason, number=error.number) from error
        if not nodes and signature is None:
            raise click.UsageError("name the NODEs that are to be computed, such as 'logits'")
        outputs = nodes or _outputs_of(meta_graph, str(signature), file)
        yield _Job(meta_graph, partial(opened.read, verify=True), outputs)


@contextmanager
def _saved_model(
    path: str, nodes: Sequence[str], tags: Sequence[str], signature: str | None
) -> Iterator[_Job]:
    file = saved_model_file(path)
    try:
        model = read_saved_model(read_file(file))
    except CorruptGraphError as error:
        raise CorruptGraphError(f"{printable(file)}: {error}") from error
    meta_graph = _tagged([each.message for each in model.meta_graphs], set(tags), file)
    outputs = nodes or _outputs_of(meta_graph, signature or _SERVING, file)
    prefix = os.path.join(os.path.dirname(file), SAVED_MODEL_PREFIX)  # noqa: PTH118, PTH120
    if look_at(index_name(prefix)) is None:
        yield _Job(meta_graph, _nothing, outputs)
        return
    with open_checkpoint(prefix) as opened:
        yield _Job(meta_graph, partial(opened.read, verify=True), outputs)


def _nothing(name: str) -> Array:
    raise NoSuchTensorError(f"the SavedModel has no variables, and no tensor {printable(name)!r}")


def _tagged(meta_graphs: Sequence[Any], wanted: set[str], file: str) -> Any:
    """Return the meta graph with those tags, or the one that is meant without any."""
    tags = [set(each.meta_info_def.tags) for each in meta_graphs]
    if not wanted and len(meta_graphs) == 1:
        return meta_graphs[0]
    found = [
        graph
        for graph, has in zip(meta_graphs, tags, strict=True)
        if has == (wanted or _SERVING_TAGS)
    ]
    if len(found) == 1:
        return found[0]
    there = "; ".join(", ".join(sorted(map(printable, has))) or "no tags" for has in tags)
    asked = f"the tags {', '.join(sorted(map(printable, wanted)))}" if wanted else "no --tag given"
    raise click.UsageError(f"{printable(file)}: {asked}; its graphs have: {there or 'none'}")


def _outputs_of(meta_graph: Any, signature: str, file: str) -> list[str]:
    """Return the tensors that a signature puts out, in the order of their keys."""
    signatures = meta_graph.signature_def
    if signature not in signatures:
        names = sorted(signatures)
        there = ", ".join(map(printable, names)) or "none"
        raise NoSuchTensorError(
            f"{printable(file)} has no signature {printable(signature)!r}"
            f"{hint(signature, names)} (it has: {there}); name NODEs instead"
        )
    outputs = signatures[signature].outputs
    names = [outputs[key].name for key in sorted(outputs) if outputs[key].name]
    if not names:
        raise NoSuchTensorError(
            f"{printable(file)}: signature {printable(signature)!r} puts out no plain tensors; "
            "name NODEs instead"
        )
    return names


def _document(
    path: str,
    size: int,
    frozen: Any,
    tensors: Sequence[tuple[str, Array]],
    outputs: Sequence[str],
) -> dict[str, Any]:
    graph = Graph(frozen)
    return {
        "schema": FREEZE_SCHEMA,
        "path": path,
        "bytes": size,
        "nodes": len(frozen.node),
        "functions": len(frozen.library.function),
        "variables": [
            {
                "tensor": name,
                "dtype": array.dtype.name if not array.dtype.hasobject else "string",
                "shape": list(array.shape),
                "bytes": bytes_of_values(array),
            }
            for name, array in tensors
        ],
        "inputs": [
            {
                "tensor": f"{node.name}:0",
                "dtype": data_type(base_number(node.attr["dtype"].type)).name,
                "shape": _listed(graph.get_tensor_by_name(f"{node.name}:0").shape),
            }
            for node in frozen.node
            if node.op in PLACEHOLDERS
        ],
        "outputs": [_output(graph, name) for name in dict.fromkeys(outputs)],
    }


def _output(graph: Graph, name: str) -> dict[str, Any]:
    full = name if ":" in name else f"{name}:0"
    try:
        tensor = graph.get_tensor_by_name(full)
    except NoSuchTensorError:  # an operation that puts out nothing
        return {"tensor": name, "dtype": None, "shape": None}
    dtype = None if tensor.data_type is None else tensor.data_type.name
    return {"tensor": full, "dtype": dtype, "shape": _listed(tensor.shape)}


def _listed(shape: Shape) -> list[int | None] | None:
    return None if shape is None else [None if size is None or size < 0 else size for size in shape]


def _show(screen: Screen, document: dict[str, Any], nodes_before: int) -> None:
    size = sum(each["bytes"] for each in document["variables"])
    count = count_text(len(document["variables"]), "variable")
    are = "is a constant" if len(document["variables"]) == 1 else "are constants"
    screen.heading(
        document["path"],
        size_text(document["bytes"]),
        f"{count} ({size_text(size)}) {are} now",
        f"{count_text(document['nodes'], 'node')} of {nodes_before:,} left",
    )
    screen.sections(
        Section(
            title=title,
            word=word,
            columns=_COLUMNS,
            rows=[
                (each["tensor"], each["dtype"] or "?", graph_shape_text(each["shape"]))
                for each in document[key]
            ],
        )
        for title, word, key in (("INPUTS", "input", "inputs"), ("OUTPUTS", "output", "outputs"))
    )
    path = os.path.abspath(document["path"])  # noqa: PTH100
    screen.message(
        "To load it with TensorFlow:\n"
        f"  graph_def = tf.compat.v1.GraphDef.FromString(open({path!r}, 'rb').read())\n"
        "  tf.compat.v1.import_graph_def(graph_def, name='')"
    )
