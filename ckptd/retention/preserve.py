"""`keep_checkpoint_every_n_hours`, as `tf.train.CheckpointManager` does it.

A checkpoint that leaves the newest `max_to_keep` is preserved for good when it was saved at least
n hours after the last preserved one: boundaries are inclusive, nothing is caught up. The time of
the last preserved one is remembered (TensorFlow: ``last_preserved_timestamp`` in the state file),
so that a restart changes nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ckptd.retention.candidate import Candidate


@dataclass(frozen=True, slots=True)
class Memory:
    """What one series remembers: when the last preserved checkpoint was saved, and which there are."""

    last_preserved: float
    preserved: frozenset[str] = frozenset()


def preserve(leaving: Iterable[Candidate], hours: float, memory: Memory) -> Memory:
    """Return the memory after `leaving`, oldest first, have left the newest ones.

    >>> leaving = [Candidate("m-1", 1, 1000.0), Candidate("m-2", 2, 4600.0), Candidate("m-3", 3, 5000.0)]
    >>> after = preserve(leaving, 1.0, Memory(last_preserved=1000.0))
    >>> after.last_preserved, sorted(after.preserved)
    (4600.0, ['m-2'])
    """
    last_preserved = memory.last_preserved
    preserved = set(memory.preserved)
    for candidate in leaving:
        saved_at = candidate.saved_at
        # The very expression of CheckpointManager._sweep: rounding must fall the same way.
        if saved_at is not None and saved_at - hours * 3600.0 >= last_preserved:
            preserved.add(candidate.name)
            last_preserved = saved_at
    return Memory(last_preserved, frozenset(preserved))
