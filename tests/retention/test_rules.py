"""Each rule alone: what it keeps, the words it gives, and why it does not keep the others."""

import pytest
from builders import DAY, HOUR, MONDAY, at, names, save, saved, saved_at

from ckptd.retention.candidate import Candidate, Outcome, doubt, duration
from ckptd.retention.plan import make_plan
from ckptd.retention.policy import UNLIMITED, Policy
from ckptd.retention.preserve import Memory, preserve
from ckptd.retention.rules import EveryNSteps, GivenSteps, LastN, Rule, Within, rules_of


def rule(**keys: float | tuple[int, ...]) -> Rule:
    """Return the one rule of a policy with these keys."""
    (only,) = rules_of(Policy(**keys))  # type: ignore[arg-type]
    return only


@pytest.mark.parametrize(
    ("count", "steps", "kept"),
    [
        pytest.param(1, (0, 100, 200), ["m-200"], id="one"),
        pytest.param(2, (0, 100, 200), ["m-200", "m-100"], id="two"),
        pytest.param(3, (0, 100, 200), ["m-200", "m-100", "m-0"], id="as many as there are"),
        pytest.param(9, (0, 100, 200), ["m-200", "m-100", "m-0"], id="more than there are"),
        pytest.param(
            UNLIMITED, (0, 100, 200), ["m-200", "m-100", "m-0"], id="unlimited keeps everything"
        ),
        pytest.param(2, (900, 100, 200), ["m-200", "m-100"], id="by save order, not by step"),
        pytest.param(2, (), [], id="nothing there"),
    ],
)
def test_max_to_keep_keeps_the_newest(count, steps, kept):
    assert list(LastN(count).keeps(saved(*steps))) == kept


def test_max_to_keep_says_which_place_each_one_has():
    reasons = LastN(1500).keeps(saved(0, 100))

    assert reasons["m-100"] == ("max_to_keep", "last 1 of 1,500")
    assert reasons["m-0"] == ("max_to_keep", "last 2 of 1,500")
    assert LastN(UNLIMITED).keeps(saved(0))["m-0"].text == "last 1 of unlimited"


def tied(*flags: bool) -> list[Candidate]:
    """Return candidates of one time where a flag ties one with the next, an hour apart elsewhere."""
    hour, found = 0, []
    for step, flag in enumerate(flags, 1):
        found.append(save(step, MONDAY + hour * HOUR, tied=flag))
        hour += not flag
    return found


@pytest.mark.parametrize(
    ("candidates", "count", "kept"),
    [
        pytest.param(tied(True, False), 1, {"m-1", "m-2"}, id="either may be the newest"),
        pytest.param(
            tied(True, True, False), 1, {"m-1", "m-2", "m-3"}, id="three of one time stay together"
        ),
        pytest.param(tied(True, True, False), 2, {"m-1", "m-2", "m-3"}, id="across the limit"),
        pytest.param(tied(True, False, False), 1, {"m-3"}, id="a tie below the limit is no reason"),
        pytest.param(
            tied(True, False, False),
            2,
            {"m-1", "m-2", "m-3"},
            id="only the one at the limit counts",
        ),
        pytest.param(
            tied(False, True, False), 2, {"m-2", "m-3"}, id="a tie above the limit neither"
        ),
    ],
)
def test_max_to_keep_never_chooses_between_equal_times(candidates, count, kept):
    assert set(LastN(count).keeps(candidates)) == kept


def test_max_to_keep_chooses_between_equal_times_whose_order_is_known():
    assert list(LastN(1).keeps(saved_at(MONDAY, MONDAY))) == ["m-2"]


def test_one_tied_with_a_preserved_one_is_not_tied_with_whatever_comes_next():
    candidates = tied(True, False, False)
    memory = Memory(MONDAY, frozenset({"m-2"}))

    plan = make_plan(candidates, Policy(max_to_keep=1), now=MONDAY + HOUR, memory=memory)

    assert plan.named(Outcome.KEEP) == ("m-2", "m-3")


def test_a_tied_checkpoint_names_the_one_it_is_tied_with():
    reasons = LastN(1).keeps(tied(True, True, False))

    assert reasons["m-2"].text == "saved at the same time as m-3: either may be newer"
    assert reasons["m-1"].text == "saved at the same time as m-2: either may be newer"


@pytest.mark.parametrize(
    ("every", "steps", "kept"),
    [
        pytest.param(100, (50, 100, 150, 200), ["m-100", "m-200"], id="multiples"),
        pytest.param(100, (0, 99, 101), ["m-0"], id="step 0 is a multiple"),
        pytest.param(1, (7, 8), ["m-7", "m-8"], id="every step"),
        pytest.param(100, (-200, -50), ["m--200"], id="negative steps"),
        pytest.param(100, (99, 199), [], id="none"),
    ],
)
def test_keep_every_n_steps_keeps_multiples(every, steps, kept):
    assert list(EveryNSteps(every).keeps(saved(*steps))) == kept


def test_keep_every_n_steps_knows_nothing_of_a_checkpoint_without_step():
    candidate = Candidate("model.ckpt", None, MONDAY)

    assert not EveryNSteps(1).keeps([candidate])
    assert EveryNSteps(1).miss(candidate) == "no global_step in its name"


@pytest.mark.parametrize(
    ("listed", "steps", "kept"),
    [
        pytest.param((100,), (0, 100, 200), ["m-100"], id="one"),
        pytest.param((100, 0), (0, 100, 200), ["m-0", "m-100"], id="in any order"),
        pytest.param((300,), (0, 100, 200), [], id="not saved"),
        pytest.param((0,), (0, 100), ["m-0"], id="step 0 is a step"),
    ],
)
def test_keep_steps_keeps_what_is_listed(listed, steps, kept):
    assert list(GivenSteps(frozenset(listed)).keeps(saved(*steps))) == kept


def test_keep_steps_knows_nothing_of_a_checkpoint_without_step():
    assert not GivenSteps(frozenset({0})).keeps([Candidate("model.ckpt", None, MONDAY)])


@pytest.mark.parametrize(
    ("seconds", "ages", "kept"),
    [
        pytest.param(HOUR, (2 * HOUR, HOUR, 0.0), ["m-2", "m-3"], id="the boundary is inclusive"),
        pytest.param(HOUR, (HOUR + 0.001, 0.0), ["m-2"], id="and exact"),
        pytest.param(0.0, (1.0, 0.0), ["m-2"], id="a span of nothing is the newest alone"),
        pytest.param(0.0, (0.0, 0.0), ["m-1", "m-2"], id="or all of its time"),
        pytest.param(HOUR, (0.0, 2 * HOUR), ["m-1"], id="the newest time, wherever it stands"),
        pytest.param(HOUR, (), [], id="nothing there"),
    ],
)
def test_keep_within_counts_back_from_the_newest_save(seconds, ages, kept):
    candidates = saved_at(*(MONDAY - age for age in ages))

    assert list(Within(seconds).keeps(candidates)) == kept


@pytest.mark.parametrize(
    ("keys", "times", "kept"),
    [
        pytest.param(
            {"keep_hourly": 2},
            ("2026-03-02 06:10", "2026-03-02 06:50", "2026-03-02 07:00"),
            ["m-3", "m-2"],
            id="the last of each hour",
        ),
        pytest.param(
            {"keep_hourly": 2},
            ("2026-03-02 06:59:59.999", "2026-03-02 07:00"),
            ["m-2", "m-1"],
            id="an hour begins with its first second",
        ),
        pytest.param(
            {"keep_hourly": 2},
            ("2026-03-01 06:00", "2026-03-02 06:00"),
            ["m-2", "m-1"],
            id="the same hour of two days is two hours",
        ),
        pytest.param(
            {"keep_daily": 2},
            ("2026-03-01 23:00", "2026-03-02 01:00", "2026-03-02 23:00", "2026-03-03 01:00"),
            ["m-4", "m-3"],
            id="the last of each day",
        ),
        pytest.param(
            {"keep_daily": 2},
            ("2026-02-03 12:00", "2026-03-03 12:00"),
            ["m-2", "m-1"],
            id="the same day of two months is two days",
        ),
        pytest.param(
            {"keep_daily": 2},
            ("2025-03-03 12:00", "2026-03-03 12:00"),
            ["m-2", "m-1"],
            id="the same day of two years is two days",
        ),
        pytest.param(
            {"keep_hourly": 2},
            ("2025-03-03 12:00", "2026-03-03 12:00"),
            ["m-2", "m-1"],
            id="the same hour of two years is two hours",
        ),
        pytest.param(
            {"keep_daily": 3},
            ("2026-01-05 12:00", "2026-02-01 12:00", "2026-03-02 12:00"),
            ["m-3", "m-2", "m-1"],
            id="days without a save cost nothing",
        ),
        pytest.param(
            {"keep_daily": 3},
            ("2024-02-28 12:00", "2024-02-29 12:00", "2024-03-01 12:00"),
            ["m-3", "m-2", "m-1"],
            id="a leap day is a day",
        ),
        pytest.param(
            {"keep_weekly": 2},
            ("2026-03-01 23:59", "2026-03-02 00:00", "2026-03-08 23:59"),
            ["m-3", "m-1"],
            id="a week begins on Monday",
        ),
        pytest.param(
            {"keep_weekly": 3},
            ("2020-12-27 12:00", "2020-12-31 12:00", "2021-01-03 12:00", "2021-01-04 12:00"),
            ["m-4", "m-3", "m-1"],
            id="week 53 reaches into the new year",
        ),
        pytest.param(
            {"keep_weekly": 3},
            ("2024-12-29 12:00", "2024-12-31 12:00", "2025-01-01 12:00"),
            ["m-3", "m-1"],
            id="week 1 begins in the old year",
        ),
        pytest.param({"keep_hourly": 2}, (), [], id="nothing there"),
    ],
)
def test_calendar_rules_keep_the_last_of_each_period(keys, times, kept):
    candidates = saved_at(*map(at, times))

    assert list(rule(**keys).keeps(candidates)) == kept


def test_calendar_rules_count_their_periods_from_the_newest():
    reasons = rule(keep_daily=7).keeps(saved(1, 2, every=DAY))

    assert reasons["m-2"] == ("keep_daily", "daily 1 of 7")
    assert reasons["m-1"] == ("keep_daily", "daily 2 of 7")


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"max_to_keep": 1500}, "not in the last 1,500"),
        ({"keep_every_n_steps": 1000}, "step 1,234 is no multiple of 1,000"),
        ({"keep_steps": (1, 2)}, "not a listed step"),
        ({"keep_within": 7200.0}, "more than 2 h before the newest"),
        ({"keep_hourly": 24}, "not the last of its period in hourly 24"),
        ({"keep_daily": 7}, "not the last of its period in daily 7"),
        ({"keep_weekly": 52}, "not the last of its period in weekly 52"),
    ],
)
def test_each_rule_says_why_it_does_not_keep_one(keys, text):
    assert rule(**keys).miss(save(1234, MONDAY)) == text


def test_a_policy_has_the_rules_that_are_set():
    assert not list(rules_of(Policy()))
    assert not list(rules_of(Policy(keep_checkpoint_every_n_hours=2.0)))  # it remembers: preserve()
    assert [type(r) for r in rules_of(Policy(max_to_keep=3, keep_within=5.0))] == [LastN, Within]


@pytest.mark.parametrize(
    ("hours", "ages", "preserved"),
    [
        pytest.param(1.0, (3600,), ["m-1"], id="the boundary is inclusive"),
        pytest.param(1.0, (3599,), [], id="too early"),
        pytest.param(1.0, (3600, 7199, 7200), ["m-1", "m-3"], id="each counts from the last one"),
        pytest.param(1.0, (36_000, 36_060, 39_600), ["m-1", "m-3"], id="nothing is caught up"),
        pytest.param(0.5, (1800, 3599, 3600), ["m-1", "m-3"], id="half an hour"),
        pytest.param(1.0, (), [], id="none leaves"),
        pytest.param(1.0, (None, 3600), ["m-2"], id="a time nobody knows is not reckoned with"),
    ],
)
def test_preserving_counts_from_the_last_preserved_one(hours, ages, preserved):
    leaving = saved_at(*(None if age is None else MONDAY + age for age in ages))

    after = preserve(leaving, hours, Memory(MONDAY))

    assert sorted(after.preserved) == preserved
    times = [c.saved_at for c in leaving if c.name in preserved]
    assert after.last_preserved == (times[-1] if times else MONDAY)


def test_preserved_ones_take_no_place_among_the_newest():
    policy = Policy(max_to_keep=2, keep_checkpoint_every_n_hours=100.0)
    memory = Memory(MONDAY, frozenset({"m-3", "m-4"}))

    plan = make_plan(saved(1, 2, 3, 4, 5), policy, now=MONDAY + DAY, memory=memory)

    assert plan.named(Outcome.KEEP) == ("m-2", "m-3", "m-4", "m-5")


def test_what_stays_beside_preserved_ones_is_not_preserved_before_it_leaves():
    policy = Policy(max_to_keep=2, keep_checkpoint_every_n_hours=1.0)
    memory = Memory(MONDAY, frozenset({"m-1", "m-2"}))

    plan = make_plan(saved(1, 2, 3, 4), policy, now=MONDAY + DAY, memory=memory)

    assert plan.memory == memory
    assert plan.named(Outcome.KEEP) == ("m-1", "m-2", "m-3", "m-4")


def test_without_max_to_keep_one_is_preserved_when_a_newer_one_is_there():
    policy = Policy(keep_checkpoint_every_n_hours=1.0)

    plan = make_plan(saved(1, 2, 3), policy, now=MONDAY + DAY, memory=Memory(MONDAY - 1.0))

    assert plan.memory == Memory(MONDAY + HOUR, frozenset({"m-2"}))
    assert plan.named(Outcome.REMOVE) == ("m-1",)


def test_unlimited_preserves_nothing_because_nothing_leaves():
    policy = Policy(max_to_keep=UNLIMITED, keep_checkpoint_every_n_hours=1.0)

    plan = make_plan(saved(1, 2, 3), policy, now=MONDAY + DAY, memory=Memory(0.0))

    assert plan.memory == Memory(0.0)
    assert plan.named(Outcome.KEEP) == ("m-1", "m-2", "m-3")


def test_preserving_forgets_nothing():
    before = Memory(MONDAY, frozenset({"m-90"}))

    assert preserve(saved(100), 1.0, before).preserved == {"m-90"}
    assert preserve(saved(100, start=MONDAY + DAY), 1.0, before).preserved == {"m-90", "m-100"}


@pytest.mark.parametrize(
    ("saved_at", "what"),
    [
        pytest.param(None, "its save time is not known", id="None"),
        pytest.param(float("nan"), "its save time is not known", id="nan"),
        pytest.param(float("inf"), "its save time is not known", id="inf"),
        pytest.param(float("-inf"), "its save time is not known", id="-inf"),
        pytest.param(0.0, "saved before 1990, by its time", id="1970"),
        pytest.param(-1.0, "saved before 1990, by its time", id="before 1970"),
        pytest.param(at("1989-12-31 23:59:59"), "saved before 1990, by its time", id="1989"),
        pytest.param(at("1990-01-01 00:00"), None, id="1990"),
        pytest.param(MONDAY, None, id="now"),
        pytest.param(MONDAY + 60.0, None, id="the tolerance"),
        pytest.param(
            MONDAY + 61.0, "saved 1.0 min in the future, by this clock", id="beyond the tolerance"
        ),
        pytest.param(
            at("2096-01-01 00:00"), "saved 3643.9 w in the future, by this clock", id="2096"
        ),
    ],
)
def test_a_time_that_cannot_be_is_in_doubt(saved_at, what):
    assert doubt(saved_at, MONDAY) == what


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.001, "0.001 s"),
        (1.0, "1 s"),
        (59.0, "59 s"),
        (60.0, "1 min"),
        (3600.0, "1 h"),
        (86_400.0, "1 d"),
        (129_600.0, "1.5 d"),
        (604_800.0, "1 w"),
    ],
)
def test_durations_are_written_as_a_person_would(seconds, text):
    assert duration(seconds) == text


def test_the_builders_say_what_was_saved_when():
    assert names(saved(0, 100)) == ["m-0", "m-100"]
    assert [c.saved_at for c in saved(0, 100)] == [MONDAY, MONDAY + HOUR]
