"""Decide, for one series of checkpoints, what stays and why, and what goes and why not.

A plan is data. What `ckptd plan` prints is what `ckptd sweep` and the daemon do.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace

from ckptd.retention.candidate import Candidate, Decision, Outcome, Reason, doubt, duration
from ckptd.retention.policy import Policy
from ckptd.retention.preserve import Memory, preserve
from ckptd.retention.rules import rules_of


@dataclass(frozen=True, slots=True)
class Plan:
    """One decision for each candidate, in their order, and what to remember afterwards."""

    decisions: tuple[Decision, ...]
    memory: Memory

    def named(self, outcome: Outcome) -> tuple[str, ...]:
        """Return the names with this outcome, oldest first."""
        return tuple(d.name for d in self.decisions if d.outcome is outcome)

    def hold(self, reason: Reason, names: Container[str] | None = None) -> "Plan":
        """Return this plan with its removals (those in `names`, if given) held back for `reason`."""
        return replace(
            self,
            decisions=tuple(
                replace(d, outcome=Outcome.HOLD, reasons=(reason, *d.reasons))
                if d.outcome is Outcome.REMOVE and (names is None or d.name in names)
                else d
                for d in self.decisions
            ),
        )


def make_plan(
    candidates: Sequence[Candidate],
    policy: Policy,
    *,
    now: float,
    memory: Memory,
    protected: Mapping[str, Sequence[Reason]] | None = None,
) -> Plan:
    """Decide what to keep of one series.

    `candidates` are complete checkpoints, oldest first; `now` is in seconds since the epoch;
    `protected` are names with reasons that no policy overrules (named by the state file, pinned).
    A checkpoint stays when any rule keeps it. With no rule, everything stays: an empty policy is a
    mistake, not a wish to remove all. One whose time is in doubt stays, and counts for nothing. The
    newest stays: the last in order, and the one saved last, should the two not be the same.
    """
    names = {candidate.name for candidate in candidates}
    reasons: defaultdict[str, list[Reason]] = defaultdict(list)
    doubts = {
        candidate.name: text
        for candidate in candidates
        if (text := doubt(candidate.saved_at, now)) is not None
    }
    sound = [candidate for candidate in candidates if candidate.name not in doubts]

    for newest in {*candidates[-1:], *sound[-1:], *_latest(sound)}:
        reasons[newest.name].append(Reason("newest", "newest"))
    for name, why in (protected or {}).items():
        if name in names:
            reasons[name].extend(why)

    there = memory.preserved & names
    after = _remember(sound, policy, Memory(memory.last_preserved, there))
    word = "preserved"
    if (hours := policy.keep_checkpoint_every_n_hours) is not None:
        word = f"preserved every {duration(hours * 3600.0)}"
    for name in sorted(after.preserved):
        reasons[name].append(Reason("keep_checkpoint_every_n_hours", word))

    rules = tuple(rules_of(policy))
    rolling = [candidate for candidate in sound if candidate.name not in after.preserved]
    for rule in rules:
        counted = rolling if policy.max_to_keep is not None and rule is rules[0] else sound
        for name, reason in rule.keeps(counted).items():
            reasons[name].append(reason)

    if policy.min_age > 0:
        young = Reason("min_age", f"younger than {duration(policy.min_age)}")
        for candidate in sound:
            if candidate.saved_at is not None and candidate.saved_at > now - policy.min_age:
                reasons[candidate.name].append(young)
    for name, text in doubts.items():
        reasons[name].append(Reason("time_in_doubt", text))
    if not policy.has_rules:
        everything = Reason("no_rules", "no rule is set: everything stays")
        for name in names:
            reasons[name].append(everything)

    missed = [rule.miss for rule in rules]
    if hours is not None:
        text = f"less than {duration(hours * 3600.0)} after the last preserved one"
        missed.append(lambda _: text)
    return Plan(
        tuple(
            Decision(candidate, Outcome.KEEP, tuple(reasons[candidate.name]))
            if candidate.name in reasons
            else Decision(candidate, Outcome.REMOVE, _misses(candidate, missed))
            for candidate in candidates
        ),
        after,
    )


def _latest(sound: Sequence[Candidate]) -> Sequence[Candidate]:
    """Return the one with the latest save time, the last of equals; none of none."""
    timed = [candidate for candidate in reversed(sound) if candidate.saved_at is not None]
    return [max(timed, key=lambda c: c.saved_at or 0.0)] if timed else []


def _remember(sound: Sequence[Candidate], policy: Policy, memory: Memory) -> Memory:
    """Return the memory after this plan: what leaves the newest ones is preserved, or is not."""
    hours = policy.keep_checkpoint_every_n_hours
    if hours is None:
        return memory
    rolling = [candidate for candidate in sound if candidate.name not in memory.preserved]
    stay = policy.max_to_keep if policy.max_to_keep is not None else 1  # the newest always stays
    leaving = rolling[: max(len(rolling) - stay, 0)]
    return preserve(leaving, hours, memory)


def _misses(
    candidate: Candidate, missed: Sequence[Callable[[Candidate], str]]
) -> tuple[Reason, ...]:
    return (Reason("no_rule", "; ".join([miss(candidate) for miss in missed])),)
