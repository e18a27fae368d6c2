"""What a keeper remembers of its directory between sweeps: `.ckptd/ledger.json`.

The ledger holds when each checkpoint was saved (a copy of the directory has other file times),
which ones are preserved for good, the content of each meta graph, and what came of it when every
byte of a checkpoint was looked at. It is a memory, not a truth: what is in the directory is read
from the directory.
"""

import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from ckptd.checkpoints.inventory import Checkpoint
from ckptd.checkpoints.listing import Entry, Identity
from ckptd.errors import CorruptRecordError
from ckptd.retention.preserve import Memory

LEDGER: Final = "ledger.json"
"""The ledger's name in `.ckptd`."""

SCHEMA: Final = "ckptd.ledger/1"

UNREAD: Final = ""
"""In place of a digest: the file could not be read. It is tried again when it has changed, and when
a keeper begins anew."""


class FileMark(NamedTuple):
    """An identity that outlives a restart of the host: device numbers do not."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, identity: Identity) -> "FileMark":
        """Return the mark of a file."""
        return cls(identity.inode, identity.size, identity.mtime_ns)


class Known(NamedTuple):
    """One checkpoint: the mark of its index, its save time, the digest of its meta graph."""

    mark: FileMark
    saved_at: float
    graph: str | None = None


class Verified(NamedTuple):
    """What a verification has found: in which files, when, and what is damaged; empty: nothing."""

    files: str
    at: float
    damage: str = ""


def marks_of(files: Iterable[Entry]) -> str:
    """Return a digest of the marks of `files`: another one when one of them is written again."""
    marks = [(entry.name, *FileMark.of(entry.identity)) for entry in files]
    return blake2b(ascii(marks).encode("ascii"), digest_size=16).hexdigest()


class Graph(NamedTuple):
    """One stored meta graph; `cloned`: equal files share its extents, not its inode."""

    mark: FileMark
    cloned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Checkpoints by name, memories by series, graphs by digest, digests by a file's mark.

    `verified` holds what is known of the bytes of checkpoints, damaged ones too, by name.
    `latest_graph` is the digest of the graph that the newest checkpoint of a series belongs to. A
    digest may be `UNREAD` in `digests`, and nowhere else.
    """

    checkpoints: Mapping[str, Known] = field(default_factory=dict)
    series: Mapping[str, Memory] = field(default_factory=dict)
    latest_graph: Mapping[str, str] = field(default_factory=dict)
    graphs: Mapping[str, Graph] = field(default_factory=dict)
    digests: Mapping[FileMark, str] = field(default_factory=dict)
    verified: Mapping[str, Verified] = field(default_factory=dict)

    def of_names(self, whole: Container[str], partial: Container[str]) -> "Ledger":
        """Return the ledger less the checkpoints that are not there."""
        return replace(
            self,
            checkpoints={n: known for n, known in self.checkpoints.items() if n in whole},
            verified={n: found for n, found in self.verified.items() if n in whole or n in partial},
        )

    def damages(self, checkpoints: Iterable[Checkpoint]) -> dict[str, str]:
        """Return which complete checkpoints are known to be damaged in the very files that are there.

        By name, each with the reason for which it is no longer complete.
        """
        known = {name: found for name, found in self.verified.items() if found.damage}
        return {
            each.name: f"damaged: {known[each.name].damage}"
            for each in checkpoints
            if each.name in known and known[each.name].files == marks_of(each.tensor_files)
        }

    def less_unread(self) -> "Ledger":
        """Return the ledger without the marks of files that could not be read."""
        digests = {mark: digest for mark, digest in self.digests.items() if digest != UNREAD}
        return replace(self, digests=digests)


def encode_ledger(ledger: Ledger) -> bytes:
    """Return the ledger as JSON text."""
    document = {
        "schema": SCHEMA,
        "checkpoints": {
            name: {"mark": list(known.mark), "saved_at": known.saved_at, "graph": known.graph}
            for name, known in ledger.checkpoints.items()
        },
        "series": {
            name: {
                "last_preserved": memory.last_preserved,
                "preserved": sorted(memory.preserved),
            }
            for name, memory in ledger.series.items()
        },
        "latest_graph": dict(ledger.latest_graph),
        "graphs": {
            digest: {"mark": list(graph.mark), "cloned": graph.cloned}
            for digest, graph in ledger.graphs.items()
        },
        "digests": [[*mark, digest] for mark, digest in ledger.digests.items()],
        "verified": {
            name: {"files": found.files, "at": found.at, "damage": found.damage}
            for name, found in ledger.verified.items()
        },
    }
    return json.dumps(document, indent=1).encode("ascii") + b"\n"


def decode_ledger(data: bytes) -> Ledger:
    """Return the ledger in `data`; raise `CorruptRecordError` where it is none."""
    try:
        document: dict[str, Any] = json.loads(data)
        if document["schema"] != SCHEMA:
            raise CorruptRecordError(
                f"the ledger says {document['schema']!r}, this ckptd reads {SCHEMA!r}"
            )
        return Ledger(
            checkpoints={
                str(name): Known(_mark(known["mark"]), float(known["saved_at"]), known["graph"])
                for name, known in document["checkpoints"].items()
            },
            series={
                str(name): Memory(float(memory["last_preserved"]), frozenset(memory["preserved"]))
                for name, memory in document["series"].items()
            },
            latest_graph={str(n): str(d) for n, d in document["latest_graph"].items()},
            graphs={
                str(digest): Graph(_mark(graph["mark"]), bool(graph["cloned"]))
                for digest, graph in document["graphs"].items()
            },
            digests={_mark(row[:3]): str(row[3]) for row in document["digests"]},
            verified={  # none in a ledger of before checkpoints were verified
                str(name): Verified(str(found["files"]), float(found["at"]), str(found["damage"]))
                for name, found in document.get("verified", {}).items()
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise CorruptRecordError(f"the ledger does not parse: {error!r}") from error


def _mark(numbers: list[int]) -> FileMark:
    inode, size, mtime_ns = numbers
    return FileMark(int(inode), int(size), int(mtime_ns))
