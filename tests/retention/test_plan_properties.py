"""Laws that every plan obeys, whatever the history, the policy and the clock."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from builders import DAY, HOUR, MONDAY, WEEK, save, saved
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ckptd.retention.candidate import Candidate, Outcome, Reason
from ckptd.retention.plan import Plan, make_plan
from ckptd.retention.policy import UNLIMITED, Policy
from ckptd.retention.preserve import Memory

NOW = MONDAY + 30 * DAY

counts = st.integers(1, 8)
RULES: dict[str, st.SearchStrategy[Any]] = {
    "max_to_keep": counts | st.just(UNLIMITED),
    "keep_checkpoint_every_n_hours": st.sampled_from([0.25, 0.5, 1.0, 2.0, 24.0]),
    "keep_every_n_steps": st.integers(1, 7),
    "keep_steps": st.lists(st.integers(0, 40), min_size=1, max_size=3).map(tuple),
    "keep_within": st.integers(0, 100).map(lambda n: n * 900.0),
    "keep_hourly": counts,
    "keep_daily": counts,
    "keep_weekly": counts,
}


@st.composite
def policies(draw: st.DrawFn, *, least: int = 0) -> Policy:
    """Draw a policy of few rules: what keeps nearly everything tells little."""
    chosen = draw(st.lists(st.sampled_from(sorted(RULES)), unique=True, min_size=least, max_size=3))
    rules = {key: draw(RULES[key]) for key in chosen}
    return Policy(**rules, min_age=draw(st.sampled_from([0.0, 0.0, HOUR, DAY])))


gaps = st.sampled_from([0, 1, 900, 1800, 3600, 7200, 86_400, 259_200])
doubtful_times = st.sampled_from(
    [None, math.nan, math.inf, -math.inf, 0.0, -1.0, NOW + 61.0, NOW + 3650 * DAY, 1e300]
)


@st.composite
def histories(draw: st.DrawFn, *, tied: bool = True) -> list[Candidate]:
    """Draw up to 30 candidates, oldest first, with whole seconds; equal times may be tied."""
    steps = draw(st.lists(st.integers(0, 60), unique=True, max_size=30))
    time, found = MONDAY, []
    for step in steps:
        time += draw(gaps)
        found.append(save(step, time))
    assume(time <= NOW)
    if tied:
        found[:-1] = [
            c._replace(tied=c.saved_at == after.saved_at and draw(st.booleans()))
            for c, after in pairwise(found)
        ]
    return found


@st.composite
def memories(draw: st.DrawFn, candidates: Sequence[Candidate]) -> Memory:
    """Draw what was remembered of these: any of them preserved, and when the last one was."""
    last = MONDAY + draw(st.integers(-3600, 100_000))
    preserved = [c.name for c in candidates if draw(st.integers(0, 5)) == 0]
    return Memory(last, frozenset(preserved))


@st.composite
def situations(draw: st.DrawFn, *, tied: bool = True) -> tuple[list[Candidate], Memory]:
    """Draw a history, and a memory of it."""
    candidates = draw(histories(tied=tied))
    return candidates, draw(memories(candidates))


def plan_for(
    situation: tuple[Sequence[Candidate], Memory], policy: Policy, now: float = NOW
) -> Plan:
    candidates, memory = situation
    return make_plan(candidates, policy, now=now, memory=memory)


def removed(plan: Plan) -> set[str]:
    return set(plan.named(Outcome.REMOVE))


def without(candidates: Sequence[Candidate], gone: set[str]) -> list[Candidate]:
    return [candidate for candidate in candidates if candidate.name not in gone]


@given(situations(), policies())
def test_every_candidate_is_decided_once_and_in_order(situation, policy):
    plan = plan_for(situation, policy)

    assert [decision.candidate for decision in plan.decisions] == situation[0]
    kept, gone = plan.named(Outcome.KEEP), plan.named(Outcome.REMOVE)
    assert len(kept) + len(gone) == len(situation[0])


@given(situations(), policies())
def test_every_decision_has_a_reason_in_words(situation, policy):
    for decision in plan_for(situation, policy).decisions:
        assert decision.reasons
        assert all(rule and text for rule, text in decision.reasons)
        assert ([rule for rule, _ in decision.reasons] == ["no_rule"]) == (
            decision.outcome is Outcome.REMOVE
        )


@given(situations(), policies())
def test_a_removal_says_why_not_for_every_rule_that_is_set(situation, policy):
    rules = [key for key in RULES if getattr(policy, key) not in {None, ()}]

    for decision in plan_for(situation, policy).decisions:
        if decision.outcome is Outcome.REMOVE:
            (why_not,) = decision.reasons
            assert len(why_not.text.split("; ")) == len(rules)


@given(situations(), policies(least=1), st.sampled_from(sorted(RULES)), st.data())
def test_adding_a_rule_never_removes_more(situation, policy, key, data):
    assume(getattr(policy, key) in {None, ()})
    wider = replace(policy, **{key: data.draw(RULES[key])})

    assert removed(plan_for(situation, wider)) <= removed(plan_for(situation, policy))


@given(situations(), policies(), counts)
def test_a_higher_count_never_removes_more(situation, policy, more):
    for field in ("max_to_keep", "keep_hourly", "keep_daily", "keep_weekly"):
        if (count := getattr(policy, field)) is not None and count != UNLIMITED:
            wider = replace(policy, **{field: count + more})
            assert removed(plan_for(situation, wider)) <= removed(plan_for(situation, policy))


@given(situations(), st.builds(Policy, min_age=st.sampled_from([0.0, DAY])))
def test_no_rule_removes_nothing(situation, policy):
    assert not removed(plan_for(situation, policy))


@given(situations(), policies())
def test_the_newest_stays(situation, policy):
    assume(situation[0])

    newest = plan_for(situation, policy).decisions[-1]

    assert newest.outcome is Outcome.KEEP
    assert Reason("newest", "newest") in newest.reasons


@given(situations(), policies(least=1), st.lists(doubtful_times, min_size=1, max_size=4))
def test_the_newest_one_with_a_sound_time_stays_beside_newer_doubtful_ones(
    situation, policy, times
):
    candidates, memory = situation
    assume(candidates)
    doubtful = [save(100 + n, time) for n, time in enumerate(times)]

    plan = plan_for(([*candidates, *doubtful], memory), policy)

    decisions = {d.name: d for d in plan.decisions}
    for newest in (candidates[-1], doubtful[-1]):
        assert decisions[newest.name].outcome is Outcome.KEEP
        assert Reason("newest", "newest") in decisions[newest.name].reasons


@given(situations(), policies(), st.data())
def test_protected_ones_stay_and_change_nothing_for_the_others(situation, policy, data):
    candidates, memory = situation
    assume(candidates)
    chosen = data.draw(st.sets(st.sampled_from([c.name for c in candidates])))
    reason = Reason("pinned", "pinned by alice")

    plan = make_plan(
        candidates, policy, now=NOW, memory=memory, protected={name: [reason] for name in chosen}
    )

    assert removed(plan) == removed(plan_for(situation, policy)) - chosen
    assert all(reason in d.reasons for d in plan.decisions if d.name in chosen)


@given(situations(), policies())
def test_preserved_ones_stay(situation, policy):
    candidates, memory = situation

    plan = plan_for(situation, policy)

    assert not removed(plan) & memory.preserved
    assert memory.preserved <= plan.memory.preserved <= {c.name for c in candidates}
    assert plan.memory.last_preserved >= memory.last_preserved


@given(situations(), policies())
def test_what_is_no_longer_there_is_no_longer_remembered(situation, policy):
    candidates, memory = situation
    gone = Memory(memory.last_preserved, memory.preserved | {"gone-1"})

    assert "gone-1" not in plan_for((candidates, gone), policy).memory.preserved


@st.composite
def with_doubtful_times(
    draw: st.DrawFn,
) -> tuple[tuple[list[Candidate], Memory], tuple[list[Candidate], Memory], set[str]]:
    """Draw a situation, and the same with checkpoints of doubtful times anywhere in it."""
    candidates, memory = draw(situations())
    mixed = list(candidates)
    doubtful = [
        save(100 + n, time)
        for n, time in enumerate(draw(st.lists(doubtful_times, min_size=1, max_size=5)))
    ]
    for candidate in doubtful:
        mixed.insert(draw(st.integers(0, len(mixed))), candidate)
    return (candidates, memory), (mixed, memory), {c.name for c in doubtful}


@given(with_doubtful_times(), policies())
def test_a_doubtful_time_is_never_removed_and_removes_no_other(drawn, policy):
    sound, mixed, doubtful = drawn

    plan = plan_for(mixed, policy)

    assert not removed(plan) & doubtful
    assert removed(plan) <= removed(plan_for(sound, policy))
    assert plan.memory.last_preserved == plan_for(sound, policy).memory.last_preserved


@given(with_doubtful_times(), policies())
def test_a_doubtful_time_is_named_as_the_reason(drawn, policy):
    _, mixed, doubtful = drawn

    for decision in plan_for(mixed, policy).decisions:
        rules = [rule for rule, _ in decision.reasons]
        assert ("time_in_doubt" in rules) == (decision.name in doubtful)


@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 8))
def test_a_lowered_max_to_keep_is_reached_in_one_plan(there, before, after):
    candidates = saved(*range(there))
    left = without(
        candidates, removed(plan_for((candidates, Memory(MONDAY)), Policy(max_to_keep=before)))
    )

    plan = plan_for((left, Memory(MONDAY)), Policy(max_to_keep=after))

    assert len(plan.named(Outcome.KEEP)) == min(there, before, after)
    assert plan.named(Outcome.KEEP) == tuple(c.name for c in left[-min(before, after) :])


@given(situations(), policies())
@example((saved(*range(12)), Memory(MONDAY)), Policy(keep_checkpoint_every_n_hours=2.0))
def test_a_second_plan_over_what_is_left_removes_nothing(situation, policy):
    candidates, _ = situation
    first = plan_for(situation, policy)

    second = plan_for((without(candidates, removed(first)), first.memory), policy)

    assert not removed(second)
    assert second.memory == first.memory


def shifted(
    situation: tuple[Sequence[Candidate], Memory], seconds: float
) -> tuple[list[Candidate], Memory]:
    candidates, memory = situation
    moved = [
        c._replace(saved_at=None if c.saved_at is None else c.saved_at + seconds)
        for c in candidates
    ]
    return moved, Memory(memory.last_preserved + seconds, memory.preserved)


@given(situations(), policies(), st.integers(-1000, 1000))
def test_without_calendar_rules_only_differences_of_times_matter(situation, policy, seconds):
    timeless = replace(policy, keep_hourly=None, keep_daily=None, keep_weekly=None)
    here, there = (
        plan_for(situation, timeless),
        plan_for(shifted(situation, seconds), timeless, NOW + seconds),
    )

    assert [(d.outcome, d.reasons) for d in here.decisions] == [
        (d.outcome, d.reasons) for d in there.decisions
    ]
    assert there.memory.last_preserved == here.memory.last_preserved + seconds


@given(situations(), policies(), st.integers(-500, 500))
def test_weeks_are_all_alike(situation, policy, weeks):
    seconds = weeks * WEEK
    here, there = (
        plan_for(situation, policy),
        plan_for(shifted(situation, seconds), policy, NOW + seconds),
    )

    assert [(d.outcome, d.reasons) for d in here.decisions] == [
        (d.outcome, d.reasons) for d in there.decisions
    ]


@given(st.lists(st.integers(0, 60), unique=True, min_size=1, max_size=12), counts, policies())
def test_all_tied_with_the_newest_stay_under_max_to_keep(steps, count, policy):
    candidates = [save(step, MONDAY, tied=n < len(steps)) for n, step in enumerate(steps, 1)]
    policy = replace(policy, max_to_keep=count)

    assert not removed(plan_for((candidates, Memory(MONDAY)), policy))


@given(situations(), policies())
def test_a_tie_keeps_more_and_never_less(situation, policy):
    candidates, memory = situation
    known_order = [c._replace(tied=False) for c in candidates]

    assert removed(plan_for(situation, policy)) <= removed(plan_for((known_order, memory), policy))


@given(situations(), policies(), st.integers(0, 10**10))
def test_a_clock_that_runs_on_alone_removes_only_what_was_young(situation, policy, seconds):
    ageless = replace(policy, min_age=0.0)

    assert removed(plan_for(situation, ageless, NOW + seconds)) == removed(
        plan_for(situation, ageless)
    )


@given(situations(), policies(), st.integers(0, 10**9))
def test_a_clock_set_back_removes_nothing_that_would_have_stayed(situation, policy, seconds):
    assert removed(plan_for(situation, policy, NOW - seconds)) <= removed(
        plan_for(situation, policy)
    )


@given(situations(), policies())
def test_holding_back_changes_removals_alone(situation, policy):
    plan = plan_for(situation, policy)
    reason = Reason("brake", "too many")

    held = plan.hold(reason)

    assert held.named(Outcome.HOLD) == plan.named(Outcome.REMOVE)
    assert held.named(Outcome.KEEP) == plan.named(Outcome.KEEP)
    assert not held.named(Outcome.REMOVE)
    assert all(d.reasons[0] == reason for d in held.decisions if d.outcome is Outcome.HOLD)
    assert held.memory == plan.memory
