"""A clock that jumps removes nothing; a calendar over more than a year keeps what it should."""

import random
from collections.abc import Iterable, Iterator

import pytest
from builders import DAY, HOUR, MONDAY, at, names, save, saved

from ckptd.retention.candidate import Candidate, Outcome
from ckptd.retention.plan import Plan, make_plan
from ckptd.retention.policy import Policy
from ckptd.retention.preserve import Memory

POLICIES = [
    pytest.param(Policy(max_to_keep=3), id="max_to_keep"),
    pytest.param(Policy(keep_within=DAY), id="keep_within"),
    pytest.param(Policy(max_to_keep=2, keep_checkpoint_every_n_hours=12.0), id="every 12 h"),
    pytest.param(Policy(keep_checkpoint_every_n_hours=12.0), id="every 12 h alone"),
    pytest.param(Policy(keep_hourly=5, keep_daily=3, keep_weekly=2), id="calendar"),
    pytest.param(Policy(max_to_keep=2, min_age=HOUR), id="min_age"),
]


def a_run(policy: Policy, *, hours: int = 14 * 24) -> tuple[list[Candidate], Memory, float]:
    """Return what is left of a run that saved every hour, what is remembered, and the time."""
    left: list[Candidate] = []
    memory = Memory(MONDAY - 1.0)
    for candidate in saved(*range(hours)):
        left.append(candidate)
        assert candidate.saved_at is not None
        plan = make_plan(left, policy, now=candidate.saved_at, memory=memory)
        left, memory = kept(plan), plan.memory
    return left, memory, MONDAY + (hours - 1) * HOUR


def kept(plan: Plan) -> list[Candidate]:
    return [d.candidate for d in plan.decisions if d.outcome is Outcome.KEEP]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "jump",
    [
        pytest.param(DAY, id="a day ahead"),
        pytest.param(-DAY, id="a day back"),
        pytest.param(at("2200-01-01 00:00") - MONDAY, id="to 2200"),
        pytest.param(-MONDAY, id="to 1970"),
    ],
)
def test_a_clock_that_jumps_removes_nothing_by_itself(policy, jump):
    left, memory, now = a_run(policy)
    settled = make_plan(left, policy, now=now + 2 * HOUR, memory=memory)  # the young ones have aged

    plan = make_plan(kept(settled), policy, now=now + 2 * HOUR + jump, memory=settled.memory)

    assert not plan.named(Outcome.REMOVE)
    assert plan.memory == settled.memory


@pytest.mark.parametrize("policy", POLICIES)
def test_saves_while_the_clock_is_a_day_back_remove_none_that_lie_ahead_of_it(policy):
    left, memory, now = a_run(policy)
    ahead = {c.name for c in left if (c.saved_at or 0.0) > now - DAY + 6 * HOUR}

    for n in range(1, 6):
        left.append(save(1000 + n, now - DAY + n * HOUR))
        left.sort(key=lambda c: c.saved_at or 0.0)
        plan = make_plan(left, policy, now=now - DAY + n * HOUR, memory=memory)
        left, memory = kept(plan), plan.memory

    assert ahead
    assert ahead <= set(names(left))


def test_keep_within_counts_from_a_save_that_is_not_in_the_future():
    recent = saved(*range(24))
    from_2096 = save(2096, at("2096-01-01 00:00"))
    now = MONDAY + 24 * HOUR

    plan = make_plan([*recent, from_2096], Policy(keep_within=DAY), now=now, memory=Memory(MONDAY))

    assert not plan.named(Outcome.REMOVE)


def test_a_save_a_little_ahead_of_the_clock_is_the_newest_all_the_same():
    candidates = [*saved(1, 2, 3), save(4, MONDAY + 3 * HOUR + 30.0)]

    plan = make_plan(
        candidates, Policy(max_to_keep=2), now=MONDAY + 3 * HOUR, memory=Memory(MONDAY)
    )

    assert plan.named(Outcome.KEEP) == ("m-3", "m-4")


class Oracle:
    """What calendar rules keep of everything ever saved, reckoned without a calendar.

    1970-01-01 was a Thursday: three days after a Monday.
    """

    def __init__(self, policy: Policy) -> None:
        self.counts = (policy.keep_hourly or 0, policy.keep_daily or 0, policy.keep_weekly or 0)
        self.last: tuple[dict[int, str], ...] = ({}, {}, {})

    def save(self, candidate: Candidate) -> set[str]:
        seconds = int(candidate.saved_at or 0)
        periods = (seconds // 3600, seconds // 86_400, (seconds // 86_400 + 3) // 7)
        for last, period in zip(self.last, periods, strict=True):
            last[period] = candidate.name  # times only grow, so the newest period stands last
        return {
            name
            for last, count in zip(self.last, self.counts, strict=True)
            for name in list(last.values())[max(len(last) - count, 0) :]
        }


def hourly(start: float, days: int) -> Iterator[float]:
    yield from (start + n * HOUR for n in range(days * 24))


def irregular(start: float, days: int) -> Iterator[float]:
    chance, now = random.Random(53), start
    while now < start + days * DAY:
        yield now
        now += chance.choice([1.0, 600.0, 3599.0, 3600.0, 50_000.0, 86_400.0, 200_000.0, 700_000.0])


TEN_YEARS = 3653
OVER_A_YEAR = 366 + 14


@pytest.mark.parametrize(
    "times",
    [
        # 2020 has a leap day and an ISO week 53 that reaches into 2021.
        pytest.param(hourly(at("2019-12-28 00:00"), OVER_A_YEAR), id="every hour for a year"),
        pytest.param(irregular(at("2015-12-01 00:20"), TEN_YEARS), id="ten years with pauses"),
    ],
)
def test_calendar_rules_over_a_year_keep_what_a_count_of_hours_days_and_weeks_keeps(
    times: Iterable[float],
) -> None:
    policy = Policy(keep_hourly=24, keep_daily=14, keep_weekly=60)
    oracle, memory = Oracle(policy), Memory(0.0)
    left: list[Candidate] = []
    for step, now in enumerate(times):
        left.append(save(step, now))

        left = kept(make_plan(left, policy, now=now, memory=memory))

        assert set(names(left)) == oracle.save(save(step, now)), f"after the save at {now}"
    assert len(left) > 60  # the year has been long enough for weeks to count
