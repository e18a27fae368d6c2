"""In which order, and when, the checkpoints of a directory were saved.

The state file is the trainer's own word and comes first: its order among the checkpoints that it
lists, and its timestamps. Where several speak of a series, one gives the order. Then the ledger's memory of a checkpoint that has not changed since, then
the time of its index. Checkpoints are told apart by series: each has its own newest.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ckptd.checkpoints.inventory import Checkpoint
from ckptd.keeper.ledger import FileMark, Ledger
from ckptd.retention.candidate import TOLERANCE, Candidate
from ckptd.retention.preserve import Memory


@dataclass(frozen=True, slots=True)
class Word:
    """What the state files say of this directory's checkpoints, oldest first, by name.

    `times` and `last_preserved` are in seconds since the epoch, as written: they may be anything.
    """

    listed: tuple[str, ...] = ()
    times: Mapping[str, float] | None = None
    last_preserved: float | None = None
    current: str | None = None


def saved_at(checkpoint: Checkpoint, ledger: Ledger, word: Word) -> float:
    """Return when a checkpoint was saved, in seconds since the epoch, by the best witness."""
    if word.times is not None:
        told = word.times.get(checkpoint.name)
        if told is not None and math.isfinite(told):
            return told
    known = ledger.checkpoints.get(checkpoint.name)
    if (
        known is not None
        and known.mark == FileMark.of(checkpoint.index.identity)
        and math.isfinite(known.saved_at)
    ):
        return known.saved_at
    return checkpoint.index.mtime


def arrange(
    checkpoints: Sequence[Checkpoint], ledger: Ledger, words: Mapping[str, Word]
) -> dict[str, list[Candidate]]:
    """Return the candidates of each series, oldest first; `words` holds the word on each series."""
    unspoken = Word()
    series: defaultdict[str, list[Candidate]] = defaultdict(list)
    for checkpoint in checkpoints:
        time = saved_at(checkpoint, ledger, words.get(checkpoint.series, unspoken))
        series[checkpoint.series].append(Candidate(checkpoint.name, checkpoint.global_step, time))
    before = {name: place for place, name in enumerate(ledger.checkpoints)}
    arranged = {}
    for name in sorted(series):
        listed = words.get(name, unspoken).listed
        places = {listed_name: place for place, listed_name in enumerate(listed)}
        arranged[name] = in_order(series[name], places, before)
    return arranged


def remembered(
    candidates: Sequence[Candidate], memory: Memory | None, word: Word, now: float
) -> Memory:
    """Return a series' memory of what is preserved, as it stands before this plan.

    Where a trainer's own CheckpointManager has preserved checkpoints since, its
    ``last_preserved_timestamp`` has moved on; those between are no longer in its list and stay. One
    saved at that very time stays too: a CheckpointManager that starts again no longer manages it.
    With no memory at all, the series begins one second before its oldest checkpoint, as a
    CheckpointManager made then would.

    A time that is no number tells nothing. One in the future (a clock was wrong) would keep anything
    from being preserved until then: it counts as now, once, as a CheckpointManager takes it.
    """
    told = word.last_preserved
    if told is not None and not math.isfinite(told):
        told = None
    preserved = memory.preserved if memory is not None else frozenset()
    last: float | None = None
    if memory is not None and math.isfinite(memory.last_preserved):
        last = now if is_ahead(memory.last_preserved, now) else memory.last_preserved
    if told is None:
        oldest = min((c.saved_at for c in candidates if c.saved_at is not None), default=0.0)
        return Memory(min(oldest - 1.0, now) if last is None else last, preserved)
    if last is not None and told < last:
        return Memory(last, preserved)
    until = now if is_ahead(told, now) else told
    since = -math.inf if last is None else last
    listed = set(word.listed)
    theirs = {
        c.name
        for c in candidates
        if c.saved_at is not None and since <= c.saved_at <= until and c.name not in listed
    }
    # A file that stays in the future must not move the memory on with every look.
    moved = until if last is None or until == told else last
    return Memory(moved, preserved | theirs)


def is_ahead(time: float, now: float) -> bool:
    """Say whether a time is so far ahead of the clock that a clock must have been wrong."""
    return time > now + TOLERANCE


def in_order(
    candidates: Sequence[Candidate],
    places: Mapping[str, int],
    before: Mapping[str, int] | None = None,
) -> list[Candidate]:
    """Sort by save time, then step; those that the state file lists take its order among them.

    Equal times keep the order that they had `before`: the state file may have told it then, and
    lists fewer now.
    """
    before = before or {}
    ordered = sorted(
        candidates,
        key=lambda c: (
            c.saved_at if c.saved_at is not None else -math.inf,
            before.get(c.name, len(before)),
            places.get(c.name, -1),
            c.global_step if c.global_step is not None else -math.inf,
            c.name,
        ),
    )
    slots = [place for place, c in enumerate(ordered) if c.name in places]
    listed = sorted((ordered[slot] for slot in slots), key=lambda c: places[c.name])
    for slot, candidate in zip(slots, listed, strict=True):
        ordered[slot] = candidate
    for place, (one, other) in enumerate(pairwise(ordered)):
        if (
            one.saved_at == other.saved_at
            and one.global_step == other.global_step
            and not (one.name in places and other.name in places)
        ):
            ordered[place] = one._replace(tied=True)
    return ordered
