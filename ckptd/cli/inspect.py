"""`ckptd inspect`: what a checkpoint, a graph or a file of tensors holds."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import click

from ckptd.checkpoints.inventory import Format
from ckptd.checkpoints.listing import Kind
from ckptd.cli.amounts import count_text, size_text, time_text
from ckptd.cli.arguments import FilePath
from ckptd.cli.inspect_objects import counters, objects_entry, readable_names, tree_section
from ckptd.cli.inspect_sections import (
    damaged_of,
    parameters,
    tensor_entry,
    tensor_sections,
    totals_text,
)
from ckptd.cli.screen import Screen
from ckptd.cli.sections import Column, Section, problems_section
from ckptd.cli.tensor_view import INSPECT_SCHEMA, Readable, Wish, selected, views
from ckptd.cli.verb import DONE, FAILED, all_option, verb
from ckptd.errors import (
    CkptdError,
    NoSuchTensorError,
    NotFoundError,
    NotPermittedError,
    printable,
)
from ckptd.formats.near_names import hint
from ckptd.formats.state_file import MAX_STATE_FILE_SIZE, parse_state_file
from ckptd.formats.tensors import TensorSource
from ckptd.storage.reading import look_at
from ckptd_client.opening import OpenedCheckpoint, open_checkpoint
from ckptd_client.sources import (
    Content,
    damaged_in,
    identify,
    lost_in,
    open_tensors,
    read_file,
    source_of,
)

_GRAPHS: Final = frozenset({Content.META_GRAPH, Content.SAVED_MODEL, Content.FROZEN_GRAPH})


@verb("inspect", statuses=(12, 13))
@click.argument("path", metavar="PREFIX|DIR|FILE", type=FilePath())
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1)
@click.option("--tree", is_flag=True, help="Show the objects that were saved as a tree.")
@click.option(
    "--statistics",
    is_flag=True,
    help="Read the tensors: least, greatest and mean element, zeros, NaN, Inf.",
)
@click.option("--value", is_flag=True, help="Show the elements of tensors of 1,000 at most.")
@click.option(
    "--diff",
    "other",
    metavar="OTHER",
    type=FilePath(),
    help="Compare with OTHER, the later one: which tensors changed, and by how much.",
)
@click.option(
    "--tensor",
    "graph_tensor",
    metavar="NAME:INDEX",
    help="Of a graph: which operation makes this tensor, its dtype and shape.",
)
@all_option
def inspect(
    screen: Screen,
    *,
    path: str,
    patterns: tuple[str, ...],
    tree: bool,
    statistics: bool,
    value: bool,
    other: str | None,
    graph_tensor: str | None,
) -> int:
    """Show what a checkpoint, a graph or a file of tensors holds.

    A checkpoint by its prefix, its directory (the one that the state file names) or one of its files; a meta graph,
    a SavedModel, a frozen graph, a state file, .npz or .safetensors. Only tensors that match a PATTERN, such as
    'dense*/kernel', are told.
    """
    wish = Wish(patterns=patterns, tree=tree, statistics=statistics, value=value)
    content = identify(path)
    if graph_tensor is not None and content not in _GRAPHS:
        raise click.UsageError(
            "--tensor is for graphs: name a .meta file, SavedModel or frozen .pb"
        )
    if other is not None:
        if tree or value or statistics or graph_tensor is not None:
            raise click.UsageError("--diff compares; it goes with no other view")
        from ckptd.cli.inspect_diff import show_differences  # noqa: PLC0415

        return show_differences(screen, path, other, patterns)
    is_tree = tree and content is Content.SAVED_MODEL and graph_tensor is None
    if content in _GRAPHS and not is_tree:
        _require_tensors(path, content, wish)
        from ckptd.cli.inspect_graph import inspect_graph  # noqa: PLC0415

        return inspect_graph(screen, path, content, wish, graph_tensor)
    if content is Content.STATE_FILE:
        return _state_file(screen, path)
    if content is Content.CHECKPOINT or is_tree:
        with open_checkpoint(path, salvage=True) as opened:
            return _checkpoint(screen, path, opened, wish)
    with open_tensors(path) as source:
        return show_tensors(screen, path, source, wish, what=content.value, lazy=False)


def _require_tensors(path: str, content: Content, wish: Wish) -> None:
    """Refuse to look at tensors where there is a graph only."""
    asked = (("--tree", wish.tree), ("--statistics", wish.statistics), ("--value", wish.value))
    for option, is_wished in asked:
        if is_wished and content is not Content.SAVED_MODEL:
            raise click.UsageError(
                f"{option} is for tensors: {printable(path)} is a {content.value}, "
                "name a checkpoint"
            )


def _checkpoint(screen: Screen, path: str, opened: OpenedCheckpoint, wish: Wish) -> int:
    source = source_of(opened)
    facts = [f"{opened.format.value} checkpoint"]
    notes = [_files_text(opened, path), *_beside(path)]
    problems = [*_missing(opened), *lost_in(opened)]
    told = {str(error) for error in opened.unopened.values()}
    problems += [str(e) for n, e in damaged_in(opened).items() if n not in source.tensors]
    graph = None
    try:
        graph = opened.object_graph
    except CkptdError as error:
        problems += [str(error)] if str(error) not in told else []
    counted = counters(source, graph)
    facts += [f"{name} {number}" for name, number in counted.items()]
    if wish.tree and graph is None and not problems:
        raise click.UsageError(f"--tree: {printable(path)} has no object graph, only names")
    status = show_tensors(
        screen,
        path,
        source,
        wish,
        what=Content.CHECKPOINT.value,
        facts=", ".join(facts),
        lazy=opened.format is Format.V2,
        readable=readable_names(graph),
        problems=problems,
        told=told,
        notes=notes,
        tree=tree_section(graph, source) if wish.tree and graph is not None else None,
        parts={
            "prefix": opened.prefix,
            "format": opened.format.value,
            "shards": opened.num_shards,
            "files": [{"name": file.name, "bytes": file.size} for file in opened.files],
            "missing": list(opened.missing),
            "counters": counted,
            "objects": objects_entry(graph) if wish.tree and graph is not None else None,
        },
    )
    refused = [e for e in opened.unopened.values() if isinstance(e, NotPermittedError)]
    return NotPermittedError.exit_status if refused else status


def _missing(opened: OpenedCheckpoint) -> Iterator[str]:
    """Say of each file that could not be opened what is wrong, and what lies in it."""
    unopened = {os.path.basename(e.path): (n, e) for n, e in opened.unopened.items()}  # noqa: PTH119
    for name in opened.missing:
        number, error = unopened.get(name, (None, None))
        gone = error is None or isinstance(error, NotFoundError)
        what = f"{name} is missing" if gone else str(error)
        count = sum(number in tensor.shards for tensor in opened.tensors.values())
        yield what if error is None else f"{what}; it holds {count_text(count, 'tensor')}"


def show_tensors(
    screen: Screen,
    path: str,
    source: TensorSource,
    wish: Wish,
    *,
    what: str,
    lazy: bool,
    facts: str = "",
    readable: Mapping[str, Readable] | None = None,
    problems: Sequence[str] = (),
    told: Collection[str] = (),
    notes: Sequence[str] = (),
    tree: Section | None = None,
    parts: Mapping[str, Any] | None = None,
) -> int:
    """Show the tensors of a source; return 1 if something is damaged or missing.

    `told` is what a tensor may say of its file, where that is among the `problems` already.
    """
    readable = readable or {}
    tensors = selected(source.tensors, readable, wish.patterns)
    if wish.patterns and not tensors:
        raise NoSuchTensorError(_nothing_matches(path, wish.patterns, source, readable))
    found = list(
        views(source, tensors, readable, lazy=lazy, statistics=wish.statistics, value=wish.value)
    )
    status = FAILED if problems or any(view.problem for view in found) else DONE
    if screen.as_json:
        screen.document(
            {
                "schema": INSPECT_SCHEMA,
                "path": path,
                "what": what,
                **(parts or {}),
                "problems": list(problems),
                "totals": {
                    "tensors": len(tensors),
                    "parameters": parameters(tensors),
                    "bytes": sum(tensor.nbytes for tensor in tensors),
                },
                "tensors": [tensor_entry(view) for view in found],
            }
        )
        return status
    damaged = len(damaged_of(found, told))
    amounts = [totals_text(tensors, len(source.tensors))]
    amounts += [f"{damaged:,} damaged"] if damaged else []
    amounts += [count_text(len(problems), "problem")] if problems else []
    screen.heading(path, f"{facts or what}: {', '.join(amounts)}", *notes)
    shown = list(tensor_sections(found, show_value=wish.value, told=told))
    if tree is not None:
        shown[0] = tree
    screen.sections([*shown, problems_section(problems)])
    return status


def _nothing_matches(
    path: str, patterns: Sequence[str], source: TensorSource, readable: Mapping[str, Readable]
) -> str:
    count = count_text(len(source.tensors), "tensor")
    names = [readable[key].path if key in readable else key for key in source.tensors]
    if len(patterns) > 1:
        asked = " or ".join(repr(printable(each)) for each in patterns)
        return f"{printable(path)}: none of its {count} is named as {asked}"
    near = hint(patterns[0], names)
    return f"{printable(path)}: none of its {count} is named {printable(patterns[0])!r}{near}"


def _files_text(opened: OpenedCheckpoint, path: str) -> str:
    size = size_text(sum(file.size for file in opened.files))
    files = count_text(len(opened.files), "file")
    text = f"{files}, {count_text(opened.num_shards, 'shard')}, {size}"
    return text if opened.prefix == path else f"{opened.prefix}: {text}"


def _beside(path: str) -> list[str]:
    """Say what else a directory holds, of which one checkpoint is shown."""
    found = look_at(path)
    if found is None or found.kind is not Kind.DIRECTORY:
        return []
    from ckptd_client.holdings import Holdings  # noqa: PLC0415 (only for directories)

    inventory = Holdings(path).look_known()
    count = count_text(len(inventory.checkpoints), "complete checkpoint")
    partial = f" and {len(inventory.partials):,} partial" if inventory.partials else ""
    if not inventory.checkpoints or (len(inventory.checkpoints) == 1 and not partial):
        return []
    return [f"the newest of {count}{partial}: `ckptd list` shows them"]


def _state_file(screen: Screen, path: str) -> int:
    state = parse_state_file(read_file(path, limit=MAX_STATE_FILE_SIZE))
    times = state.all_model_checkpoint_timestamps
    paths = state.all_model_checkpoint_paths
    ages = [*times, *[None] * (len(paths) - len(times))]
    if screen.as_json:
        screen.document(
            {
                "schema": INSPECT_SCHEMA,
                "path": path,
                "what": Content.STATE_FILE.value,
                "state": {
                    "model_checkpoint_path": state.model_checkpoint_path,
                    "all_model_checkpoint_paths": list(paths),
                    "all_model_checkpoint_timestamps": list(times),
                    "last_preserved_timestamp": state.last_preserved_timestamp,
                },
            }
        )
        return DONE
    screen.heading(
        path,
        f"state file: {state.model_checkpoint_path or 'no checkpoint'} is the newest, "
        f"of {count_text(len(paths), 'checkpoint')} named",
    )
    screen.sections(
        [
            Section(
                title="NAMED",
                word="named",
                columns=(Column("saved"), Column("path", folds=True)),
                rows=[
                    ("?" if at is None else time_text(at), named)
                    for at, named in zip(ages, paths, strict=False)
                ],
            )
        ]
    )
    return DONE
