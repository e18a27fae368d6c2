"""What a rule may know of a checkpoint, and the words in which decisions are given."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

EARLIEST = 631_152_000.0
"""1990-01-01: a save time before it is a clock that was never set, not a time."""

TOLERANCE = 60.0
"""Seconds by which a save may lie ahead of the clock before its time is in doubt: the clocks of a
trainer's host and of a file server are never quite the same."""


class Candidate(NamedTuple):
    """A complete checkpoint as the rules see it. Candidates come oldest first, one series a time.

    `saved_at` is in seconds since the epoch, None where nobody knows. `tied` says that nothing tells
    whether this one or the next was saved first: the same time, no order in the state file, and no
    global_step that differs.
    """

    name: str
    global_step: int | None
    saved_at: float | None
    tied: bool = False


class Reason(NamedTuple):
    """Why a checkpoint stays, goes or is held back: the rule's key, and words for a person."""

    rule: str
    text: str


class Outcome(Enum):
    """What a plan does with a checkpoint."""

    KEEP = "keep"
    REMOVE = "remove"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Decision:
    """One checkpoint's outcome. `reasons` of a removal say why no rule keeps it."""

    candidate: Candidate
    outcome: Outcome
    reasons: tuple[Reason, ...]

    @property
    def name(self) -> str:
        """The checkpoint's name."""
        return self.candidate.name


def doubt(saved_at: float | None, now: float) -> str | None:
    """Say what is wrong with a save time, or None if it can be reckoned with.

    >>> doubt(math.nan, 1.7e9)
    'its save time is not known'
    >>> doubt(1.7e9 + 86400, 1.7e9)
    'saved 1 d in the future, by this clock'
    >>> doubt(0.0, 1.7e9)
    'saved before 1990, by its time'
    """
    if saved_at is None or not math.isfinite(saved_at):
        return "its save time is not known"
    if saved_at < EARLIEST:
        return "saved before 1990, by its time"
    if saved_at > now + TOLERANCE:
        return f"saved {duration(saved_at - now)} in the future, by this clock"
    return None


_UNITS = ((604_800.0, "w"), (86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def duration(seconds: float) -> str:
    """Write a duration as a person would.

    >>> duration(7200), duration(90), duration(5400), duration(1_209_600), duration(0.25)
    ('2 h', '1.5 min', '1.5 h', '2 w', '0.25 s')
    """
    for unit, suffix in _UNITS:
        if seconds >= unit:
            value = seconds / unit
            return f"{value:.0f} {suffix}" if value == round(value) else f"{value:.1f} {suffix}"
    return f"{seconds:g} s"
