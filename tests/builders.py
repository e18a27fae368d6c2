"""Small builders, so that a test says only what it is about."""

import zlib
from collections.abc import Iterable
from datetime import datetime, timezone

from ckptd.checkpoints.listing import Entry, Identity, Kind
from ckptd.retention.candidate import Candidate

HOUR = 3600.0
DAY = 86_400.0
WEEK = 604_800.0


def at(text: str) -> float:
    """Return the seconds since the epoch of a time in UTC.

    >>> at("2026-03-02 06:00")
    1772431200.0
    """
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


MONDAY = at("2026-03-02 00:00")
"""When saves start unless a test says otherwise: a Monday, the first hour of an ISO week."""


def save(step: int, saved_at: float | None, *, series: str = "m", tied: bool = False) -> Candidate:
    """Return the candidate that a save of `step` leaves: ``m-<step>``."""
    return Candidate(f"{series}-{step}", step, saved_at, tied)


def saved(
    *steps: int, start: float = MONDAY, every: float = HOUR, series: str = "m"
) -> list[Candidate]:
    """Return candidates saved `every` seconds, oldest first.

    >>> [c.name for c in saved(0, 100, 200)]
    ['m-0', 'm-100', 'm-200']
    """
    return [save(step, start + n * every, series=series) for n, step in enumerate(steps)]


def saved_at(*times: float | None) -> list[Candidate]:
    """Return candidates saved at these times, in this order; their steps count from 1."""
    return [save(step, time) for step, time in enumerate(times, 1)]


def names(candidates: Iterable[Candidate]) -> list[str]:
    """Return the names, in the same order."""
    return [candidate.name for candidate in candidates]


def entry(
    name: str,
    *,
    size: int = 100,
    kind: Kind = Kind.FILE,
    mtime: float = MONDAY,
    links: int = 1,
) -> Entry:
    """Return one name of a listing; equal names have equal inodes."""
    inode = zlib.crc32(name.encode("utf-8", "surrogatepass"))
    return Entry(name, kind, Identity(1, inode, size, int(mtime * 1e9)), links)


def data(prefix: str, *sizes: int) -> list[Entry]:
    """Return the data files of a checkpoint, one for each size."""
    return [
        entry(f"{prefix}.data-{shard:05d}-of-{len(sizes):05d}", size=size)
        for shard, size in enumerate(sizes)
    ]


def checkpoint(prefix: str, *sizes: int, meta_graph: bool = False) -> list[Entry]:
    """Return the files of a V2 checkpoint: its index, its shards of these sizes, its meta graph.

    >>> [e.name for e in checkpoint("m-7", 8, meta_graph=True)]
    ['m-7.index', 'm-7.data-00000-of-00001', 'm-7.meta']
    """
    meta = [entry(f"{prefix}.meta")] if meta_graph else []
    return [entry(f"{prefix}.index"), *data(prefix, *(sizes or (100,))), *meta]
