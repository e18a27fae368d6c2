"""The differential test: what survives under `make_plan` survives under CheckpointManager, and no more.

TensorFlow's own manager runs random schedules of saves, in real directories, with a clock of ours;
after every save the files on disk are compared with the plan, and so is what either remembers. Only
the writing of tensors is left out: what the manager does with files does not depend on their bytes.
"""

import logging
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders import HOUR, MONDAY

from ckptd.retention.candidate import Candidate, Outcome
from ckptd.retention.plan import make_plan
from ckptd.retention.policy import UNLIMITED, Policy
from ckptd.retention.preserve import Memory

pytestmark = pytest.mark.tensorflow

SCHEDULES = 1_200
PER_TEST = 100


@dataclass(frozen=True, slots=True)
class Start:
    """A manager is made, at a time: the first one, or one after a restart of the trainer."""

    now: float
    max_to_keep: int | None
    hours: float | None


@dataclass(frozen=True, slots=True)
class Save:
    """A checkpoint is saved, at a time."""

    now: float
    step: int


Schedule = list[Start | Save]


def compact(schedule: Schedule) -> str:
    """Write a schedule in a line: ``start(3,h=1.5)@0.0 7@12.0 7@90.5``, times counted from the first."""
    first = schedule[0].now
    return " ".join(
        f"start({event.max_to_keep},h={event.hours})@{event.now - first!r}"
        if isinstance(event, Start)
        else f"{event.step}@{event.now - first!r}"
        for event in schedule
    )


def a_schedule(
    chance: random.Random, *, restarts: bool = True, equal_times: bool = False
) -> Schedule:
    """Make a schedule of 6 to 24 saves: regular, irregular, or on the very boundaries of the hours."""
    now = MONDAY + chance.choice([0.0, 0.25, chance.random()])
    hours = chance.choice([None, 0.5, 1.0, 1.0, 2.0, 1 / 3, chance.uniform(0.01, 3.0)])
    max_to_keep: int | None = chance.randint(1, 6)
    pace = chance.choice(["regular", "on boundaries", "irregular"])
    gap = chance.choice([600.0, 1200.0, 1800.0, 3600.0, chance.uniform(10.0, 9000.0)])
    schedule: Schedule = [Start(now, max_to_keep, hours)]
    step, steps = 0, [0]
    for _ in range(chance.randint(6, 24)):
        if equal_times and chance.random() < 0.4:
            pass
        elif pace == "regular":
            now += gap
        elif pace == "on boundaries":
            ours = 1.0 if hours is None else hours
            now += ours * HOUR * chance.choice([0.25, 0.5, 1.0, 2.0]) + chance.choice(
                [0, 0, -1, 1e-3]
            )
        else:
            now += chance.choice([0.001, 1.0, chance.expovariate(1 / gap) + 1e-3, 3 * 86_400.0])
        if restarts and chance.random() < 0.15:
            if chance.random() < 0.7:
                max_to_keep = chance.choice([1, 2, 3, 4, 5, 6, None])
            if chance.random() < 0.3:
                hours = chance.choice([None, 0.5, 1.0, chance.uniform(0.01, 3.0)])
            schedule.append(Start(now, max_to_keep, hours))
            now += chance.choice([0.5, 30.0, 86_400.0])
        again = chance.random() < 0.12
        if not again:
            step += chance.choice([1, 1, 100])
        schedule.append(Save(now, chance.choice(steps[-6:]) if again else step))
        steps.append(step)
    return schedule


@dataclass(slots=True)
class Ours:
    """A directory as make_plan would keep it, save by save."""

    candidates: list[Candidate] = field(default_factory=list)
    memory: Memory = field(default_factory=lambda: Memory(0.0))
    policy: Policy = field(default_factory=Policy)

    def start(self, event: Start) -> None:
        """Take up the policy of a manager. An empty directory remembers from a second before."""
        if not self.candidates:
            self.memory = Memory(event.now - 1.0)
        max_to_keep = UNLIMITED if event.max_to_keep is None else event.max_to_keep
        self.policy = Policy(max_to_keep=max_to_keep, keep_checkpoint_every_n_hours=event.hours)

    def save(self, event: Save, *, tied: bool = False) -> None:
        """Save a step, the newest place being its own, and do what the plan says.

        A preserved checkpoint that is saved again is another one, and nobody has preserved that.
        With `tied`, the order of saves at one time is as good as unknown.
        """
        name = f"ckpt-{event.step}"
        found = [c for c in self.candidates if c.name != name]
        found.append(Candidate(name, event.step, event.now))
        if tied:
            found[:-1] = [c._replace(tied=c.saved_at == d.saved_at) for c, d in pairwise(found)]
        memory = replace(self.memory, preserved=self.memory.preserved - {name})
        plan = make_plan(found, self.policy, now=event.now, memory=memory)
        self.candidates = [d.candidate for d in plan.decisions if d.outcome is Outcome.KEEP]
        self.memory = plan.memory

    def names(self) -> set[str]:
        """Return what is left."""
        return {candidate.name for candidate in self.candidates}


class Counter:
    """The save counter: CheckpointManager counts it on, and nothing here reads it."""

    def assign_add(self, delta: int) -> None:
        """Count on."""


class EmptyCheckpoint:
    """A `tf.train.Checkpoint` that writes empty files, and calls back as the real one does."""

    def __init__(self) -> None:
        self.save_counter = Counter()

    def _write(self, prefix: str, options: Any) -> str:
        for suffix in (".index", ".data-00000-of-00001"):
            os.close(os.open(prefix + suffix, os.O_CREAT | os.O_WRONLY))
        for callback in options.experimental_write_callbacks:
            callback(prefix)
        return prefix


class Theirs:
    """A directory as CheckpointManager keeps it, save by save."""

    def __init__(
        self, directory: Path, manager: Callable[..., Any], clock: SimpleNamespace
    ) -> None:
        directory.mkdir()
        self.directory = directory
        self._manager_class = manager
        self._clock = clock
        self._manager: Any = None

    def start(self, event: Start) -> None:
        """Forget the manager, and make another one of what the directory says."""
        self._clock.now = event.now
        self._manager = self._manager_class(
            EmptyCheckpoint(),
            str(self.directory),
            max_to_keep=event.max_to_keep,
            keep_checkpoint_every_n_hours=event.hours,
        )

    def save(self, event: Save) -> None:
        """Save a step."""
        self._clock.now = event.now
        self._manager.save(checkpoint_number=event.step)

    @property
    def last_preserved(self) -> float:
        """The time that the manager remembers."""
        return float(self._manager._last_preserved_timestamp)

    def names(self) -> set[str]:
        """Return the checkpoints on disk; each has its data, and no data is without its index."""
        files = set(os.listdir(self.directory))
        data = {f.removesuffix(".data-00000-of-00001") for f in files if ".data-" in f}
        index = {f.removesuffix(".index") for f in files if f.endswith(".index")}
        assert data == index
        return index


@pytest.fixture(scope="module")
def tensorflow_management() -> Any:
    """Import TensorFlow's module once, before anything counts threads and descriptors."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return pytest.importorskip("tensorflow.python.checkpoint.checkpoint_management")


@pytest.fixture
def directories(
    tensorflow_management: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Theirs]:
    """Give new directories under a CheckpointManager whose clock is set by the schedule."""
    clock = SimpleNamespace(now=MONDAY)
    clock.time = lambda: clock.now
    monkeypatch.setattr(tensorflow_management, "time", clock)
    logger = logging.getLogger("tensorflow")
    monkeypatch.setattr(logger, "disabled", True)
    count = iter(range(10**6))
    return lambda: Theirs(
        tmp_path / str(next(count)), tensorflow_management.CheckpointManager, clock
    )


def difference(schedule: Schedule, at: int, ours: Ours, theirs: Theirs) -> str:
    """Say after which event the two differ, and how."""
    return (
        f"after {compact(schedule[: at + 1])}: "
        f"only ours has {sorted(ours.names() - theirs.names())}, "
        f"only theirs has {sorted(theirs.names() - ours.names())}, "
        f"last_preserved {ours.memory.last_preserved!r} and {theirs.last_preserved!r}"
    )


@pytest.mark.parametrize("first_seed", range(0, SCHEDULES, PER_TEST))
def test_the_same_saves_leave_the_same_checkpoints(first_seed, directories):
    for seed in range(first_seed, first_seed + PER_TEST):
        schedule = a_schedule(random.Random(seed))
        ours, theirs = Ours(), directories()
        for at, event in enumerate(schedule):
            if isinstance(event, Start):
                ours.start(event)
                theirs.start(event)
                continue

            ours.save(event)
            theirs.save(event)

            assert ours.names() == theirs.names(), difference(schedule, at, ours, theirs)
            assert ours.memory.last_preserved == theirs.last_preserved, difference(
                schedule, at, ours, theirs
            )


@pytest.mark.parametrize("tied", [False, True], ids=["order known", "order unknown"])
def test_saves_at_equal_times_lose_nothing_that_tensorflow_keeps(tied, directories):
    for seed in range(100):
        schedule = a_schedule(random.Random(seed), restarts=False, equal_times=True)
        ours, theirs = Ours(), directories()
        for at, event in enumerate(schedule):
            if isinstance(event, Start):
                ours.start(event)
                theirs.start(event)
                continue

            ours.save(event, tied=tied)
            theirs.save(event)

            assert ours.names() >= theirs.names(), difference(schedule, at, ours, theirs)
            if not tied:
                assert ours.names() == theirs.names(), difference(schedule, at, ours, theirs)


def test_tensorflow_alone_loses_sight_of_one_tied_with_the_last_preserved_one(directories):
    """At a restart the manager takes up only what was saved after the last preserved one.

    One of the very same time is never removed by any later manager; here it leaves by the rules.
    """
    schedule: Schedule = [
        Start(MONDAY, 2, 1.0),
        Save(MONDAY + HOUR, 1),
        Save(MONDAY + HOUR, 2),
        Save(MONDAY + HOUR + 60, 3),
        Start(MONDAY + HOUR + 90, 2, 1.0),
        Save(MONDAY + HOUR + 120, 4),
        Save(MONDAY + HOUR + 180, 5),
    ]
    ours, theirs = Ours(), directories()

    for event in schedule:
        for side in (ours, theirs):
            if isinstance(event, Start):
                side.start(event)
            else:
                side.save(event)

    assert ours.names() == {"ckpt-1", "ckpt-4", "ckpt-5"}
    assert theirs.names() == {"ckpt-1", "ckpt-2", "ckpt-4", "ckpt-5"}


def test_the_schedules_hold_what_they_are_meant_to():
    schedules = [a_schedule(random.Random(seed)) for seed in range(SCHEDULES)]
    saves = [[e for e in schedule if isinstance(e, Save)] for schedule in schedules]
    starts = [[e for e in schedule if isinstance(e, Start)] for schedule in schedules]

    assert all(a.now < b.now for s in saves for a, b in pairwise(s))
    assert sum(len(s) > 1 for s in starts) > SCHEDULES // 3  # restarts
    assert sum(len({e.step for e in s}) < len(s) for s in saves) > SCHEDULES // 3  # saved again
    assert sum(len({e.max_to_keep for e in s}) > 1 for s in starts) > SCHEDULES // 4
    assert {e.max_to_keep for s in starts for e in s} == {1, 2, 3, 4, 5, 6, None}
