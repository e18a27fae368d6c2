"""The meta graph once: `.ckptd/meta_graphs/DIGEST`.

TensorFlow writes the same ``.meta`` beside every checkpoint. Its bytes depend on the graph and the
Saver alone, so equal content means the same graph: equal files become one inode (or share extents,
where the file system can). One more name of each graph lies in the store, so that a trainer that
rotates the only ``.meta`` away (``write_meta_graph=False``) does not lose it: it comes back beside
a checkpoint that stays.

A checkpoint without a ``.meta`` belongs to the graph of the nearest earlier one in its series.

The store is ckptd's own word for what it holds: a graph in it that the ledger does not know (a crash
came before the ledger was written, or the ledger is gone) is taken over where its content is what
its name says. A ``.meta`` that cannot be read is left as it is, and stands in nobody's way.
"""

import errno
import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ckptd.checkpoints.inventory import Checkpoint
from ckptd.checkpoints.layouts.tensorflow import meta_graph_name
from ckptd.checkpoints.listing import Entry, Kind
from ckptd.errors import NotFoundError, NotPermittedError, StorageError
from ckptd.keeper.ledger import UNREAD, FileMark, Graph, Ledger
from ckptd.storage.atomic import discard, swap_in, temporary_name, unchanged
from ckptd.storage.directory import Directory

_PIECE: Final = 8 * 2**20
_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z", re.ASCII)


@dataclass(slots=True)
class Shared:
    """What sharing did: the ledger afterwards, lines for the history, and what went wrong."""

    ledger: Ledger
    lines: list[dict[str, object]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def digest_of(directory: Directory, entry: Entry) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    for offset in range(0, entry.size, _PIECE):
        size = min(_PIECE, entry.size - offset)
        digest.update(directory.read(entry.name, offset=offset, size=size, limit=_PIECE))
    return digest.hexdigest()


def bytes_saved(checkpoints: Iterable[Checkpoint], ledger: Ledger) -> int:
    """Return the bytes of meta graphs that are named more than once and stored once."""
    by_inode: Counter[tuple[int, int]] = Counter()
    clones: Counter[str] = Counter()
    sizes: dict[str, int] = {}
    cloned = {digest for digest, graph in ledger.graphs.items() if graph.cloned}
    for checkpoint in checkpoints:
        meta = checkpoint.meta_graph
        if meta is None:
            continue
        digest = ledger.digests.get(FileMark.of(meta.identity))
        if digest in cloned:
            clones[digest] += 1
            sizes[digest] = meta.size
        else:
            by_inode[meta.identity.inode, meta.size] += 1
    linked = sum(size * (count - 1) for (_, size), count in by_inode.items())
    return linked + sum(sizes[digest] * (count - 1) for digest, count in clones.items())


def belongs(
    series: Mapping[str, Sequence[str]],
    checkpoints: Mapping[str, Checkpoint],
    ledger: Ledger,
) -> dict[str, str]:
    """Return for each checkpoint, by name, the digest of the graph that it belongs to."""
    graphs: dict[str, str] = {}
    for key, names in series.items():
        # Before the first one here came others, which may have gone with their graph's only file.
        latest = ledger.latest_graph.get(key)
        for name in names:
            checkpoint = checkpoints[name]
            meta = checkpoint.meta_graph
            known = ledger.checkpoints.get(name)
            if meta is not None:
                latest = _digest(meta, ledger)  # None: not read yet, or not readable
            elif known is not None and known.mark == FileMark.of(checkpoint.index.identity):
                latest = known.graph or latest
            if latest is not None:
                graphs[name] = latest
    return graphs


def examine(directory: Directory, checkpoints: Iterable[Checkpoint], ledger: Ledger) -> Ledger:
    """Return the ledger with the digest of every meta graph; only new or changed files are read.

    One that cannot be read is `UNREAD`; `share` says why.
    """
    digests: dict[FileMark, str] = {}
    for checkpoint in checkpoints:
        meta = checkpoint.meta_graph
        if meta is None:
            continue
        mark = FileMark.of(meta.identity)
        if mark in digests:
            continue
        known = ledger.digests.get(mark)
        if known is None:
            try:
                known = digest_of(directory, meta)
            except NotFoundError:
                continue  # the trainer rotated it away meanwhile
            except StorageError:
                known = UNREAD
            found = directory.entry(meta.name)
            if found is None or found.identity != meta.identity:
                continue  # written while it was read: next time
        digests[mark] = known
    if digests == ledger.digests:
        return ledger
    return replace(ledger, digests=digests)


def is_due(
    checkpoints: Mapping[str, Checkpoint],
    staying: Collection[str],
    ledger: Ledger,
    names: Collection[str],
) -> bool:
    """Say whether `share` has something to do: a new meta graph, or one that can be carried on.

    `names` are all names in the model directory; `ledger` has a graph for each of `staying`.
    """
    metas = [c.meta_graph for c in checkpoints.values() if c.meta_graph is not None]
    if any(FileMark.of(meta.identity) not in ledger.digests for meta in metas):
        return True
    carried = _carried(checkpoints, staying, ledger)
    return any(
        graph in ledger.graphs and graph not in carried and _is_free(checkpoints[name], names)
        for name in staying
        if (graph := ledger.checkpoints[name].graph) is not None
    )


def share(
    directory: Directory,
    store: Directory,
    series: Mapping[str, Sequence[str]],
    checkpoints: Mapping[str, Checkpoint],
    staying: frozenset[str],
    ledger: Ledger,
    fresh: frozenset[FileMark],
) -> Shared:
    """Store each graph once, link equal files to it, and keep it beside a checkpoint that stays.

    `series` lists names oldest first; `ledger` must come from `examine`; `fresh` are the marks of
    files that no earlier sweep has seen.
    """
    ledger, refused = _adopt_strays(store, series, checkpoints, ledger)
    ledger, parted = _part_if_written(directory, store, checkpoints, ledger)
    done = Shared(ledger, problems=refused)
    if parted:
        done.problems.append(
            "a meta graph was written in place through one of its links; "
            "the links have been parted, and all of them hold what was written"
        )
        return done
    done.problems += _unreadable(directory, checkpoints, ledger, fresh)
    graphs = belongs(series, checkpoints, ledger)
    stored = dict(ledger.graphs)
    digests = dict(ledger.digests)
    changed = False
    for checkpoint in checkpoints.values():
        meta = checkpoint.meta_graph
        digest = None if meta is None else _digest(meta, ledger)
        if meta is None or digest is None:
            continue
        try:
            if digest not in stored or store.entry(digest) is None:
                stored[digest] = _store(directory, store, meta, digest)
                if stored[digest].cloned:
                    continue
            if _is_apart(meta, stored[digest], fresh) and (
                mark := _join(directory, store, meta, digest, stored[digest])
            ):
                digests[mark] = digest
                changed = True
        except StorageError as error:
            if error.number == errno.EMLINK:  # as many names as an inode can have: leave this one
                continue
            if isinstance(error, NotFoundError) and directory.entry(meta.name) is None:
                continue  # the trainer rotated it away meanwhile
            done.problems.append(str(error))
    carried = _carried(checkpoints, staying, ledger)
    names_here = (
        {entry.name for entry in directory.list()} if set(graphs.values()) - carried else ()
    )
    for digest in sorted(set(graphs.values()) - carried):
        heirs = [
            name
            for names in series.values()
            for name in names
            if name in staying
            and graphs.get(name) == digest
            and _is_free(checkpoints[name], names_here)
        ]
        if heirs and digest in stored:
            name = meta_graph_name(heirs[-1])
            try:
                store.link(digest, name, into=directory)
            except StorageError as error:
                done.problems.append(str(error))
                continue
            changed = True
            line = {
                "event": "meta_graph_moved",
                "name": heirs[-1],
                "bytes": stored[digest].mark.size,
            }
            done.lines.append(line)
    if changed:
        directory.sync()
    latest = {
        key: digest
        for key, names in series.items()
        if (digest := graphs.get(names[-1])) is not None
    }
    latest_graph = {**ledger.latest_graph, **latest}
    needed = {graphs[name] for name in staying & graphs.keys()} | set(latest_graph.values())
    for entry in store.list():
        if _DIGEST.match(entry.name) and entry.kind is Kind.FILE and entry.name not in needed:
            discard(store, entry.name)
    stored = {digest: graph for digest, graph in stored.items() if digest in needed}
    for digest, graph in stored.items():
        digests[graph.mark] = digest
    done.ledger = replace(ledger, graphs=stored, digests=digests, latest_graph=latest_graph)
    return done


def _digest(meta: Entry, ledger: Ledger) -> str | None:
    """Return the digest of a meta graph, None where it has not been read or cannot be."""
    return ledger.digests.get(FileMark.of(meta.identity)) or None


def _carried(
    checkpoints: Mapping[str, Checkpoint], staying: Iterable[str], ledger: Ledger
) -> set[str]:
    """Return the graphs that lie beside a checkpoint that stays."""
    return {
        digest
        for name in staying
        if (meta := checkpoints[name].meta_graph) is not None
        and (digest := _digest(meta, ledger)) is not None
    }


def _is_free(checkpoint: Checkpoint, names: Collection[str]) -> bool:
    """Say whether a graph can be put beside a checkpoint: a link or a directory may be in the way."""
    return checkpoint.meta_graph is None and meta_graph_name(checkpoint.name) not in names


def _unreadable(
    directory: Directory,
    checkpoints: Mapping[str, Checkpoint],
    ledger: Ledger,
    fresh: frozenset[FileMark],
) -> list[str]:
    """Say why new meta graphs could not be read, by trying once more; nobody is told twice."""
    problems = []
    for checkpoint in checkpoints.values():
        meta = checkpoint.meta_graph
        if meta is None or (mark := FileMark.of(meta.identity)) not in fresh:
            continue
        if ledger.digests.get(mark) == UNREAD:
            try:
                digest_of(directory, meta)
            except NotFoundError:
                continue
            except StorageError as error:
                problems.append(f"{error}: this meta graph is not stored")
    return problems


def _adopt_strays(
    store: Directory,
    series: Mapping[str, Sequence[str]],
    checkpoints: Mapping[str, Checkpoint],
    ledger: Ledger,
) -> tuple[Ledger, list[str]]:
    """Take over the graphs in the store that the ledger does not know; remove what is none.

    A series that has no ``.meta`` and of which nothing is known belongs to the store's only graph,
    if no checkpoint here carries that one: else the graph would be lost with the ledger. Returns
    the ledger afterwards, and what the disk refused.
    """
    adopted: dict[str, Graph] = {}
    refused: list[str] = []
    for entry in store.list():
        if not _DIGEST.match(entry.name) or entry.name in ledger.graphs:
            continue
        try:
            if entry.kind is Kind.FILE and digest_of(store, entry) == entry.name:
                store.sync_file(entry.name)
                cloned = entry.links == 1 and _can_clone(store, entry.name)
                adopted[entry.name] = Graph(FileMark.of(entry.identity), cloned)
            else:
                discard(store, entry.name)
        except StorageError as error:
            refused.append(str(error))
    if not adopted:
        return ledger, refused
    store.sync()
    graphs = {**ledger.graphs, **adopted}
    latest = dict(ledger.latest_graph)
    carried = _carried(checkpoints, checkpoints, ledger)
    if len(graphs) == 1 and carried.isdisjoint(graphs):
        (only,) = graphs
        for key, names in series.items():
            if key not in latest and all(_is_unknown(checkpoints[n], ledger) for n in names):
                latest[key] = only
    return replace(ledger, graphs=graphs, latest_graph=latest), refused


def _is_unknown(checkpoint: Checkpoint, ledger: Ledger) -> bool:
    known = ledger.checkpoints.get(checkpoint.name)
    return checkpoint.meta_graph is None and (known is None or known.graph is None)


def _can_clone(store: Directory, name: str) -> bool:
    temporary = temporary_name()
    cloned = store.clone(name, temporary)
    if cloned:
        discard(store, temporary)
    return cloned


def _store(directory: Directory, store: Directory, meta: Entry, digest: str) -> Graph:
    """Put a graph into the store: a clone where extents can be shared, a link otherwise.

    The kernel refuses a link to a file that is another user's and not ours to write
    (``fs.protected_hardlinks``): then it is a copy, of our own, that all the others can be links of.
    """
    cloned = directory.clone(meta.name, digest, into=store)
    if not cloned:
        try:
            directory.link(meta.name, digest, into=store)
        except NotPermittedError:
            directory.copy(meta.name, digest, into=store)
    store.sync_file(digest)
    store.sync()
    stored, now = store.entry(digest), directory.entry(meta.name)
    if stored is None or now is None or now.identity != meta.identity or stored.size != meta.size:
        if stored is not None:
            discard(store, digest)
        raise StorageError(
            "share", f"{directory.path}/{meta.name}", "it was written while it was being shared"
        )
    return Graph(FileMark.of(stored.identity), cloned)


def _is_apart(meta: Entry, graph: Graph, fresh: frozenset[FileMark]) -> bool:
    """Say whether a file of the same content pays for its bytes once more."""
    if graph.cloned:
        return FileMark.of(meta.identity) in fresh
    return meta.identity.inode != graph.mark.inode


def _join(
    directory: Directory, store: Directory, meta: Entry, digest: str, graph: Graph
) -> FileMark | None:
    """Replace a file by the stored graph; return its new mark, None if it has changed meanwhile."""
    temporary = temporary_name()
    if not (graph.cloned and store.clone(digest, temporary)):
        store.link(digest, temporary)
    joined = store.entry(temporary)
    swapped = swap_in(directory, meta.name, store, temporary, unchanged(meta))
    return FileMark.of(joined.identity) if swapped and joined is not None else None


def _part_if_written(
    directory: Directory,
    store: Directory,
    checkpoints: Mapping[str, Checkpoint],
    ledger: Ledger,
) -> tuple[Ledger, bool]:
    """Give every name an inode of its own again where somebody wrote through a shared one.

    Returns the ledger afterwards, and whether there was such a graph.
    """
    graphs = dict(ledger.graphs)
    parted = False
    for digest, graph in ledger.graphs.items():
        found = store.entry(digest)
        if found is None or FileMark.of(found.identity) == graph.mark:
            continue
        if digest_of(store, found) == digest:  # touched, with the same content
            graphs[digest] = graph._replace(mark=FileMark.of(found.identity))
            continue
        parted = True
        for checkpoint in checkpoints.values():
            meta = checkpoint.meta_graph
            if meta is not None and meta.identity.inode == found.identity.inode:
                temporary = temporary_name()
                directory.copy(meta.name, temporary, into=store)
                swap_in(directory, meta.name, store, temporary, unchanged(meta))
        discard(store, digest)
        del graphs[digest]
    return (replace(ledger, graphs=graphs) if graphs != ledger.graphs else ledger), parted
