"""`ckptd export`: tensors and graphs from one kind of file into another."""

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal

import click
import numpy as np

from ckptd.cli.amounts import count_text, size_text
from ckptd.cli.arguments import FilePath
from ckptd.cli.inspect_objects import readable_names
from ckptd.cli.inspect_sections import parameters
from ckptd.cli.screen import Screen
from ckptd.cli.sections import Column, Section, problems_section
from ckptd.cli.tensor_view import selected
from ckptd.cli.verb import DONE, IN_PART, verb
from ckptd.errors import (
    CkptdError,
    CorruptGraphError,
    FormatError,
    NoSuchTensorError,
    StorageError,
    printable,
)
from ckptd.formats.near_names import hint
from ckptd.formats.object_graph import OBJECT_GRAPH_KEY
from ckptd.formats.tensors import StoredTensor, TensorSource
from ckptd.storage.output import new_output
from ckptd.storage.reading import look_at
from ckptd_client.exchange import (
    Selection,
    UnsupportedTensorError,
    lost_of,
    why_not_checkpoint,
    write_checkpoint,
)
from ckptd_client.holdings import holdings_of
from ckptd_client.sources import (
    Content,
    identify,
    objects_in,
    open_tensors,
    read_file,
    saved_model_file,
)

EXPORT_SCHEMA: Final = "ckptd.export/1"


class Target(Enum):
    """What the output is, by its name."""

    NPZ = ".npz"
    SAFETENSORS = ".safetensors"
    JSON = ".json"
    TEXT = ".pbtxt"
    META_GRAPH = ".meta"
    CHECKPOINT = ""


_GRAPHS: Final = frozenset({Target.JSON, Target.TEXT, Target.META_GRAPH})
_NO_PREFIX: Final = frozenset(
    [
        *(".index", ".pb", ".npy", ".h5", ".hdf5", ".keras", ".pt", ".pth", ".onnx", ".pkl"),
        *(".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z"),
    ]
)
"""What other kinds of files end in: a checkpoint of that name would be taken for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be exported, as it was asked for."""

    source: str
    output: str
    target: Target
    patterns: tuple[str, ...]
    renames: tuple[str, ...]
    version: Literal["v1", "v2"]
    num_shards: int
    skip_damaged: bool
    skip_unsupported: bool
    force: bool


@dataclass(slots=True)
class Outcome:
    """What was written, and what was not."""

    written: list[StoredTensor] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What cannot be said of single tensors: their names are lost with them."""
    bytes: int = 0


@verb("export", statuses=(3, 12, 13))
@click.argument("source", metavar="SOURCE", type=FilePath())
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1)
@click.option(
    "--output",
    "-o",
    metavar="FILE",
    required=True,
    type=FilePath(),
    help="Write this; its name says what it is.",
)
@click.option(
    "--rename",
    "renames",
    metavar="OLD=NEW",
    multiple=True,
    help="Write the tensor OLD under the name NEW; can be given again.",
)
@click.option("--v1", is_flag=True, help="Write a checkpoint of format V1.")
@click.option(
    "--shards",
    "num_shards",
    metavar="N",
    type=click.IntRange(1, 99_999),
    help="Write a checkpoint in so many data files.",
)
@click.option(
    "--skip-damaged",
    is_flag=True,
    help="Write what is intact, tell what is lost, and exit with 3.",
)
@click.option(
    "--skip-unsupported",
    is_flag=True,
    help="Leave out what the output's format cannot hold, and exit with 3.",
)
@click.option("--force", is_flag=True, help="Replace what is there under the output's name.")
def export(
    screen: Screen,
    *,
    source: str,
    patterns: tuple[str, ...],
    output: str,
    renames: tuple[str, ...],
    v1: bool,
    num_shards: int | None,
    skip_damaged: bool,
    skip_unsupported: bool,
    force: bool,
) -> int:
    """Write tensors or a graph into another kind of file.

    The direction follows from the names. FILE.npz and FILE.safetensors take the tensors of a checkpoint, SavedModel,
    frozen graph, .npz or .safetensors; FILE.json, FILE.pbtxt and FILE.meta take a meta graph. Any other FILE is the
    prefix of a new checkpoint, for the same tensors. With a PATTERN, only tensors that match one.
    """
    target = _target(output)
    if target is not Target.CHECKPOINT and (v1 or num_shards is not None):
        raise click.UsageError(f"--v1 and --shards are for checkpoints: {_said(output)} is none")
    order = Order(
        source=source,
        output=output,
        target=target,
        patterns=patterns,
        renames=renames,
        version="v1" if v1 else "v2",
        num_shards=num_shards or 1,
        skip_damaged=skip_damaged,
        skip_unsupported=skip_unsupported,
        force=force,
    )
    content = identify(source)
    _refuse_existing(order)
    if target in _GRAPHS:
        return _export_graph(screen, order, content)
    if content is Content.META_GRAPH:
        raise click.UsageError(
            f"{_said(source)} is a meta graph, which holds no tensors: write it to FILE.json, "
            "FILE.pbtxt or FILE.meta, or name the checkpoint beside it"
        )
    with open_tensors(source, salvage=skip_damaged) as opened:
        return _export_tensors(screen, order, opened)


def _said(path: str) -> str:
    return printable(path)


def _target(output: str) -> Target:
    suffix = os.path.splitext(output)[1]  # noqa: PTH122 (the suffix of a text)
    for target in Target:
        if target.value and suffix == target.value:
            return target
    if not os.path.basename(output) or suffix in _NO_PREFIX or ".data-" in suffix:  # noqa: PTH119
        raise click.UsageError(
            f"{_said(output)}: no name for an output: FILE.npz, FILE.safetensors, FILE.json, "
            "FILE.pbtxt, FILE.meta, or the prefix of a checkpoint, such as model.ckpt-1000"
        )
    return Target.CHECKPOINT


def _export_tensors(screen: Screen, order: Order, source: TensorSource) -> int:
    outcome = Outcome()
    selection = _without_unsupported(order, _selection(order, source, outcome), outcome)
    if order.skip_damaged:
        outcome.problems += getattr(source, "lost", ())
        damaged: Mapping[str, CkptdError] = getattr(source, "damaged", {})
        outcome.lost = {name: str(e) for name, e in damaged.items() if name not in source.tensors}
        with screen.progress("checking", _bytes(selection)) as done:
            lost = lost_of(selection, done)
        outcome.lost |= lost
        selection = selection.without(lost)
    if not selection.tensors:
        raise NoSuchTensorError(f"{_said(order.source)}: no tensor is left to write")
    selection = _with_fitting_graph(selection, outcome)
    times = 2 if order.target is Target.CHECKPOINT else 1
    with screen.progress("writing", times * _bytes(selection)) as done:
        _write(order, selection, done)
    outcome.written = list(selection.tensors.values())
    outcome.bytes = _bytes(selection)
    return _show(screen, order, outcome)


def _with_fitting_graph(selection: Selection, outcome: Outcome) -> Selection:
    """Let the graph of objects name no tensor that is not written: nothing could be restored by it."""
    gone = {*outcome.lost, *outcome.left_out}
    if not gone or OBJECT_GRAPH_KEY not in selection.tensors:
        return selection
    from ckptd.formats.object_pruning import without_tensors  # noqa: PLC0415 (seldom)

    graph = np.empty((), object)
    try:
        graph[()] = without_tensors(selection.read(OBJECT_GRAPH_KEY).item(), gone)
    except FormatError:
        outcome.notes.append(_NO_OBJECTS)
        return selection.without([OBJECT_GRAPH_KEY])
    outcome.notes.append("the object graph names only what is written")
    return selection.replacing(OBJECT_GRAPH_KEY, graph)


_NO_OBJECTS: Final = "without the object graph: the tensors are known by their keys"


def _bytes(source: TensorSource) -> int:
    return sum(tensor.nbytes for tensor in source.tensors.values())


def _selection(order: Order, source: TensorSource, outcome: Outcome) -> Selection:
    """Return what was asked for under the names that were asked for."""
    tensors = source.tensors
    readable = readable_names(objects_in(source)) if order.patterns else {}
    chosen = [each.name for each in selected(tensors, readable, order.patterns)]
    if order.patterns and not chosen:
        called = [readable[key].path if key in readable else key for key in tensors]
        near = hint(order.patterns[0], called)
        raise NoSuchTensorError(
            f"{_said(order.source)}: none of its {count_text(len(tensors), 'tensor')} is named "
            f"{printable(order.patterns[0])!r}{near}"
        )
    renamed = dict(_renames(order, tensors, set(chosen)))
    names: dict[str, str] = {}
    for old in chosen:
        new = renamed.get(old, old)
        if new in names:
            raise click.UsageError(f"--rename: two tensors would be named {printable(new)!r}")
        names[new] = old
    # The graph of objects names every tensor of its checkpoint, and nothing else can be made of it.
    whole = order.target is Target.CHECKPOINT and not renamed and len(chosen) == len(tensors)
    if not whole and OBJECT_GRAPH_KEY in chosen:
        names.pop(OBJECT_GRAPH_KEY, None)
        outcome.notes.append(_NO_OBJECTS)
    return Selection(source, names)


def _renames(
    order: Order, tensors: Mapping[str, StoredTensor], chosen: set[str]
) -> Iterable[tuple[str, str]]:
    for text in order.renames:
        parts = text.split("=")
        splits = [("=".join(parts[:at]), "=".join(parts[at:])) for at in range(1, len(parts))]
        found = next(((old, new) for old, new in splits if old in tensors), None)
        if not splits or not all(found or splits[0]):
            raise click.UsageError(f"--rename takes OLD=NEW; found {printable(text)!r}")
        if found is None:
            old = splits[0][0]
            raise NoSuchTensorError(
                f"{_said(order.source)}: --rename: it has no tensor {printable(old)!r}"
                f"{hint(old, tensors)}"
            )
        if found[0] not in chosen:
            raise click.UsageError(f"--rename: no PATTERN matches {printable(found[0])!r}")
        yield found


def _without_unsupported(order: Order, selection: Selection, outcome: Outcome) -> Selection:
    for name, tensor in selection.tensors.items():
        reason = _why_not(order, tensor)
        if reason:
            outcome.left_out[name] = reason
    if outcome.left_out and not order.skip_unsupported:
        name, reason = next(iter(outcome.left_out.items()))
        more = len(outcome.left_out) - 1
        others = f" (and {count_text(more, 'more tensor')})" if more else ""
        raise UnsupportedTensorError(
            name, f"{reason}{others}; --skip-unsupported writes the others"
        )
    return selection.without(outcome.left_out)


def _why_not(order: Order, tensor: StoredTensor) -> str:
    """Return why a tensor cannot be in the output; the empty text where it can."""
    if order.target is Target.NPZ:
        from ckptd_client.npz import why_not_npz  # noqa: PLC0415 (each format for itself)

        return why_not_npz(tensor)
    if order.target is Target.SAFETENSORS:
        from ckptd_client.safetensors_file import why_not_safetensors  # noqa: PLC0415

        return why_not_safetensors(tensor)
    return why_not_checkpoint(tensor, order.version)


def _write(order: Order, selection: Selection, done: Callable[[int], None]) -> None:
    if order.target is Target.NPZ:
        from ckptd_client.npz import write_npz  # noqa: PLC0415

        with new_output(order.output, replace=order.force) as file:
            write_npz(file.stream, selection, done)
    elif order.target is Target.SAFETENSORS:
        from ckptd_client.safetensors_file import write_safetensors  # noqa: PLC0415

        with new_output(order.output, replace=order.force) as file:
            write_safetensors(file.path, selection, done, called=order.output)
    else:
        write_checkpoint(
            order.output, selection, order.version, num_shards=order.num_shards, progress=done
        )


def _refuse_existing(order: Order) -> None:
    if order.force:
        return
    there = look_at(order.output) is not None
    if order.target is Target.CHECKPOINT and not there:
        there = holdings_of(order.output).judge(order.output) is not None
    if there:
        what = "file" if order.target is not Target.CHECKPOINT else "checkpoint"
        reason = f"there is such a {what} already; --force replaces it"
        raise StorageError("write", order.output, reason, number=errno.EEXIST)


def _export_graph(screen: Screen, order: Order, content: Content) -> int:
    if content not in {Content.META_GRAPH, Content.SAVED_MODEL, Content.FROZEN_GRAPH}:
        raise click.UsageError(
            f"{_said(order.output)} takes a graph: name a .meta file, a SavedModel or a graph "
            f"instead of {_said(order.source)}"
        )
    if order.patterns or order.renames or order.skip_damaged or order.skip_unsupported:
        raise click.UsageError("PATTERN, --rename and --skip-... are for tensors, not for graphs")
    from ckptd.formats.graph_file import read_graph  # noqa: PLC0415 (only for graphs)
    from ckptd.formats.meta_graph import read_meta_graph  # noqa: PLC0415
    from ckptd.formats.saved_model import read_saved_model  # noqa: PLC0415

    is_model = content is Content.SAVED_MODEL
    path = saved_model_file(order.source) if is_model else order.source
    data = read_file(path)
    try:
        graph: Any
        if is_model:
            graph = read_saved_model(data)
        else:
            graph = (read_meta_graph if content is Content.META_GRAPH else read_graph)(data)
    except CorruptGraphError as error:
        raise CorruptGraphError(f"{printable(path)}: {error}") from error
    if order.target is Target.META_GRAPH:
        if is_model and len(graph.meta_graphs) == 1:
            graph = graph.meta_graphs[0]
        elif content is not Content.META_GRAPH:
            raise click.UsageError(f"{_said(path)} is not one meta graph")
        written = graph.to_bytes()
    else:
        written = (graph.to_json() if order.target is Target.JSON else graph.to_text()).encode()
    with new_output(order.output, replace=order.force) as file:
        file.stream.write(written)
    return _show(screen, order, Outcome(bytes=len(written)))


def _show(screen: Screen, order: Order, outcome: Outcome) -> int:
    in_part = outcome.lost or outcome.left_out or outcome.problems
    status = IN_PART if in_part else DONE
    if screen.as_json:
        screen.document(
            {
                "schema": EXPORT_SCHEMA,
                "source": order.source,
                "output": order.output,
                "format": order.target.value.removeprefix(".") or order.version.upper(),
                "tensors": [tensor.name for tensor in outcome.written],
                "parameters": parameters(outcome.written),
                "bytes": outcome.bytes,
                "lost": [_unwritten(*each) for each in outcome.lost.items()],
                "left_out": [_unwritten(*each) for each in outcome.left_out.items()],
                "problems": outcome.problems,
                "notes": outcome.notes,
            }
        )
        return status
    amount = size_text(outcome.bytes)
    if outcome.written:
        count = count_text(len(outcome.written), "tensor")
        amount = f"{count}, {count_text(parameters(outcome.written), 'parameter')}, {amount}"
    screen.heading(order.output, f"written, {amount}", *outcome.notes)
    screen.sections(
        [
            _not_written("LOST", "damaged, and not written", outcome.lost),
            problems_section(outcome.problems),
            _not_written("LEFT OUT", "the output cannot hold them", outcome.left_out),
        ]
    )
    return status


def _unwritten(name: str, reason: str) -> dict[str, str]:
    return {"name": name, "reason": reason}


def _not_written(title: str, note: str, reasons: Mapping[str, str]) -> Section:
    return Section(
        title=title,
        word=title.lower().replace(" ", "-"),
        note=f"{count_text(len(reasons), 'tensor')}: {note}",
        colour="red",
        columns=(Column("why", folds=True),),
        rows=[
            (reason if name in reason else f"{name}: {reason}",) for name, reason in reasons.items()
        ],
        long=True,
    )
