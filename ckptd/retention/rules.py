"""The rules: small values named after what they keep.

A rule is asked once with all candidates of a series whose times are in no doubt, oldest first, and
answers with a reason for each one it keeps. `miss` says, of one that it does not keep, why not.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Protocol

from ckptd.retention.candidate import Candidate, Reason, duration
from ckptd.retention.policy import UNLIMITED, Policy


class Rule(Protocol):
    """One reason for which a checkpoint may stay."""

    def keeps(self, candidates: Sequence[Candidate]) -> Mapping[str, Reason]:
        """Return the names that this rule keeps, each with its reason."""

    def miss(self, candidate: Candidate, /) -> str:
        """Say why this rule does not keep `candidate`, to follow the words 'no rule keeps it:'."""


@dataclass(frozen=True, slots=True)
class LastN:
    """`max_to_keep`: the newest `count`, as they were saved."""

    count: int

    def keeps(self, candidates: Sequence[Candidate]) -> Mapping[str, Reason]:
        """Keep the newest; one tied in time with them stays too, since it may be the newer one."""
        start = max(len(candidates) - self.count, 0)
        limit = "unlimited" if self.count == UNLIMITED else f"{self.count:,}"
        kept = {
            candidate.name: Reason("max_to_keep", f"last {place} of {limit}")
            for place, candidate in enumerate(reversed(candidates[start:]), 1)
        }
        while start > 0 and _are_tied(candidates[start - 1], candidates[start]):
            text = f"saved at the same time as {candidates[start].name}: either may be newer"
            start -= 1
            kept[candidates[start].name] = Reason("max_to_keep", text)
        return kept

    def miss(self, _candidate: Candidate, /) -> str:
        """Name the limit."""
        return f"not in the last {self.count:,}"


def _are_tied(older: Candidate, newer: Candidate) -> bool:
    """Say so of these two; what `older` is tied with may be preserved, and so not be asked about."""
    return older.tied and older.saved_at == newer.saved_at


@dataclass(frozen=True, slots=True)
class EveryNSteps:
    """`keep_every_n_steps`: where the global_step is a multiple of `steps`."""

    steps: int

    def keeps(self, candidates: Sequence[Candidate]) -> Mapping[str, Reason]:
        """Keep multiples; a checkpoint without global_step is none."""
        reason = Reason("keep_every_n_steps", f"every {self.steps:,} steps")
        return {
            c.name: reason
            for c in candidates
            if c.global_step is not None and c.global_step % self.steps == 0
        }

    def miss(self, candidate: Candidate, /) -> str:
        """Name the step."""
        if candidate.global_step is None:
            return "no global_step in its name"
        return f"step {candidate.global_step:,} is no multiple of {self.steps:,}"


@dataclass(frozen=True, slots=True)
class GivenSteps:
    """`keep_steps`: the steps that somebody listed."""

    steps: frozenset[int]

    def keeps(self, candidates: Sequence[Candidate]) -> Mapping[str, Reason]:
        """Keep the listed steps."""
        return {
            c.name: Reason("keep_steps", f"step {c.global_step:,} is listed")
            for c in candidates
            if c.global_step is not None and c.global_step in self.steps
        }

    def miss(self, _candidate: Candidate, /) -> str:
        """Say that the list does not name it."""
        return "not a listed step"


@dataclass(frozen=True, slots=True)
class Within:
    """`keep_within`: saved in the `seconds` before the newest save.

    The newest save is the reference, not the clock: a run that has stopped, or a clock that has
    jumped ahead, loses nothing.
    """

    seconds: float

    def keeps(self, candidates: Sequence[Candidate]) -> Mapping[str, Reason]:
        """Keep what is near enough to the newest."""
        times = [c.saved_at for c in candidates if c.saved_at is not None]
        if not times:
            return {}
        newest = max(times)
        reason = Reason("keep_within", f"within {duration(self.seconds)} of the newest")
        return {
            c.name: reason
            for c in candidates
            if c.saved_at is not None and c.saved_at >= newest - self.seconds
        }

    def miss(self, _candidate: Candidate, /) -> str:
        """Name the span."""
        return f"more than {duration(self.seconds)} before the newest"


@dataclass(frozen=True, slots=True)
class Calendar:
    """`keep_hourly`, `keep_daily`, `keep_weekly`: the last one of each of the newest `count` periods.

    Periods are counted where something was saved, so a pause in training costs nothing. UTC, and
    ISO weeks, so that daylight saving time changes nothing.
    """

    key: str
    word: str
    count: int
    period: Callable[[datetime], tuple[int, ...]]

    def keeps(self, candidates: Sequence[Candidate]) -> Mapping[str, Reason]:
        """Keep the last save of each period, newest periods first."""
        kept: dict[str, Reason] = {}
        seen: set[tuple[int, ...]] = set()
        for candidate in reversed(candidates):
            if candidate.saved_at is None:
                continue
            period = self.period(datetime.fromtimestamp(candidate.saved_at, tz=timezone.utc))
            if period in seen:
                continue
            if len(seen) == self.count:
                break
            seen.add(period)
            kept[candidate.name] = Reason(self.key, f"{self.word} {len(seen)} of {self.count:,}")
        return kept

    def miss(self, _candidate: Candidate, /) -> str:
        """Name the period."""
        return f"not the last of its period in {self.word} {self.count:,}"


def _hour(at: datetime) -> tuple[int, ...]:
    return at.year, at.month, at.day, at.hour


def _day(at: datetime) -> tuple[int, ...]:
    return at.year, at.month, at.day


def _week(at: datetime) -> tuple[int, ...]:
    return tuple(at.isocalendar())[:2]


def rules_of(policy: Policy) -> Iterator[Rule]:
    """Yield the rules of a policy but `keep_checkpoint_every_n_hours`, which remembers (`preserve`)."""
    if policy.max_to_keep is not None:
        yield LastN(policy.max_to_keep)
    if policy.keep_every_n_steps is not None:
        yield EveryNSteps(policy.keep_every_n_steps)
    if policy.keep_steps:
        yield GivenSteps(frozenset(policy.keep_steps))
    if policy.keep_within is not None:
        yield Within(policy.keep_within)
    if policy.keep_hourly is not None:
        yield Calendar("keep_hourly", "hourly", policy.keep_hourly, _hour)
    if policy.keep_daily is not None:
        yield Calendar("keep_daily", "daily", policy.keep_daily, _day)
    if policy.keep_weekly is not None:
        yield Calendar("keep_weekly", "weekly", policy.keep_weekly, _week)
