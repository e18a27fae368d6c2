"""Whole plans for one history under many policies, with every reason, as golden files.

The history has what histories have: regular saves, a burst, a pause, two saves in one second,
a save again of an earlier step, a clock that was wrong for a while, and a final save by hand.
"""

from dataclasses import asdict
from typing import Any

import pytest
from builders import DAY, HOUR, at, save

from ckptd.retention.candidate import Candidate, Reason
from ckptd.retention.plan import Plan, make_plan
from ckptd.retention.policy import UNLIMITED, Policy
from ckptd.retention.preserve import Memory

START = at("2024-02-25 00:00")
"""A Sunday, four days before a leap day: the history crosses a week, a leap day and a month."""

NOW = START + 10 * DAY


def history() -> list[Candidate]:
    """Return 60 checkpoints over ten days, oldest first."""
    regular = [save(n * 500, START + n * 6 * HOUR) for n in range(1, 17)]  # four days
    burst = [save(8100 + n * 10, START + 4 * DAY + n * 120) for n in range(1, 21)]
    same_second = [
        save(8400, START + 4 * DAY + 3 * HOUR, series="a", tied=True),
        save(8400, START + 4 * DAY + 3 * HOUR, series="b"),
    ]
    # Training pauses for three days, then saves every three hours.
    after_pause = [save(9000 + n * 250, START + 7 * DAY + n * 3 * HOUR) for n in range(1, 17)]
    again = [save(9000, START + 9 * DAY + HOUR)]
    wrong_clock = [save(13_100, 86_400.0), save(13_200, None), save(13_300, NOW + 400 * DAY)]
    last = [save(13_400, NOW - 2 * HOUR, tied=True), save(13_500, NOW - 2 * HOUR)]
    return [*regular, *burst, *same_second, *after_pause, *again, *wrong_clock, *last]


POLICIES: dict[str, Policy] = {
    "no-rules": Policy(),
    "last-5": Policy(max_to_keep=5),
    "last-1": Policy(max_to_keep=1),
    "unlimited": Policy(max_to_keep=UNLIMITED, keep_checkpoint_every_n_hours=1.0),
    "last-5-and-every-12-hours": Policy(max_to_keep=5, keep_checkpoint_every_n_hours=12.0),
    "every-24-hours": Policy(keep_checkpoint_every_n_hours=24.0),
    "last-2-and-every-1000-steps": Policy(max_to_keep=2, keep_every_n_steps=1000),
    "given-steps": Policy(max_to_keep=1, keep_steps=(500, 8400, 9000, 77)),
    "within-a-day": Policy(keep_within=DAY),
    "hourly-6-daily-5-weekly-3": Policy(keep_hourly=6, keep_daily=5, keep_weekly=3),
    "daily-3": Policy(keep_daily=3),
    "last-3-and-younger-than-a-day": Policy(max_to_keep=3, min_age=DAY),
    "every-rule": Policy(
        max_to_keep=3,
        keep_checkpoint_every_n_hours=48.0,
        keep_every_n_steps=4000,
        keep_steps=(8130,),
        keep_within=6 * HOUR,
        keep_hourly=2,
        keep_daily=2,
        keep_weekly=2,
        min_age=HOUR,
    ),
}


def as_golden(plan: Plan, policy: Policy, memory: Memory) -> dict[str, Any]:
    """Return a plan with one line for each checkpoint, so that a diff of two plans can be read."""
    defaults = asdict(Policy())
    return {
        "policy": {key: value for key, value in asdict(policy).items() if value != defaults[key]},
        "memory": as_json(memory),
        "plan": {
            decision.name: f"{decision.outcome.value}: "
            + " | ".join(f"{rule}: {text}" for rule, text in decision.reasons)
            for decision in plan.decisions
        },
        "memory_after": as_json(plan.memory),
    }


def as_json(memory: Memory) -> dict[str, Any]:
    return {"last_preserved": memory.last_preserved, "preserved": sorted(memory.preserved)}


def test_the_history_is_what_it_says():
    candidates = history()

    assert len({c.name for c in candidates}) == len(candidates) == 60


@pytest.mark.parametrize("name", POLICIES)
def test_a_plan_is_as_reviewed(name, check_golden):
    memory = Memory(START - 1.0)

    plan = make_plan(history(), POLICIES[name], now=NOW, memory=memory)

    check_golden(name, as_golden(plan, POLICIES[name], memory))


def test_a_plan_with_protected_and_preserved_ones_is_as_reviewed(check_golden):
    policy = Policy(max_to_keep=2, keep_checkpoint_every_n_hours=48.0)
    memory = Memory(START + DAY, frozenset({"m-2000", "m-1"}))
    protected = {
        "m-500": [Reason("pinned", "pinned by alice")],
        "m-8110": [Reason("state_file", "named by the state file"), Reason("leased", "being read")],
        "m-13500": [Reason("state_file", "named by the state file")],
        "gone-7": [Reason("pinned", "pinned by alice")],
    }

    plan = make_plan(history(), policy, now=NOW, memory=memory, protected=protected)

    check_golden("protected-and-preserved", as_golden(plan, policy, memory))


def test_a_plan_held_back_is_as_reviewed(check_golden):
    policy, memory = POLICIES["last-5"], Memory(START - 1.0)
    reason = Reason("brake", "36 removals are more than max_removals_per_sweep allows")

    plan = make_plan(history(), policy, now=NOW, memory=memory).hold(reason)

    check_golden("held-back", as_golden(plan, policy, memory))
