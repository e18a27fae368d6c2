"""Kills, power losses and refusals at every change that a keeper makes: the promises hold.

Each operation runs on a disk in memory. A kill leaves everything done so far; a power loss may lose
whatever was not synced; a refusal is an error of the operating system. Then a new keeper starts, and
a reader looks before it and after it.
"""

import errno
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

import pytest
from keeper.promises import check_reader, check_restart
from keeper.trainer import GRAPH, Clock, Trainer, complete_in, is_complete, keeper_of, names_in
from storage.memory_directory import MemoryDirectory
from storage.memory_disk import Crash, MemoryDisk

from ckptd.errors import CkptdError
from ckptd.keeper import trash
from ckptd.keeper.keeper import Keeper
from ckptd.retention.candidate import Outcome

POLICY = {"max_to_keep": 2}


class Scenario(NamedTuple):
    """An operation on a directory; `must_stay` can be restored whenever one looks."""

    prepare: Callable[[], tuple[MemoryDirectory, Clock]]
    act: Callable[[Keeper], object]
    must_stay: frozenset[str]
    policy: Mapping[str, object] = POLICY


def _run(steps, *, managed=False, graphs=None, pin=None, sweep_after=None, policy=POLICY):
    def prepare():
        clock, directory = Clock(), MemoryDirectory()
        run = Trainer(directory, clock, managed=managed)
        keeper = keeper_of(MemoryDirectory(directory.disk), clock, **policy)
        for step in steps:
            run.save(step, graph=GRAPH if graphs is None or step in graphs else None)
            if step == pin:
                keeper.pin(f"m-{step}", by="ada")
            if step == sweep_after:
                keeper.sweep()
        keeper.close()
        directory.disk.settle()
        return directory, clock

    return prepare


SCENARIOS = {
    "a sweep of a managed run": Scenario(
        _run((1, 2, 3, 4), managed=True), Keeper.sweep, frozenset({"m-3", "m-4"})
    ),
    "a sweep of a Saver's run with one graph": Scenario(
        _run((1, 2, 3), graphs={1}, sweep_after=1), Keeper.sweep, frozenset({"m-2", "m-3"})
    ),
    "a sweep with a pin": Scenario(
        _run((1, 2, 3, 4), pin=1), Keeper.sweep, frozenset({"m-1", "m-3", "m-4"})
    ),
    "a sweep that preserves": Scenario(
        _run(
            (1, 2, 3, 4),
            managed=True,
            policy={"max_to_keep": 1, "keep_checkpoint_every_n_hours": 0.03},
        ),
        Keeper.sweep,
        frozenset({"m-4"}),
        {"max_to_keep": 1, "keep_checkpoint_every_n_hours": 0.03},
    ),
    "a sweep without trash": Scenario(
        _run((1, 2, 3), policy={"max_to_keep": 2, "trash": None}),
        lambda keeper: (keeper.sweep(), keeper.purge()),
        frozenset({"m-2", "m-3"}),
        {"max_to_keep": 2, "trash": None},
    ),
    "undo": Scenario(
        _run((1, 2, 3), sweep_after=3),
        lambda keeper: keeper.undo(lambda _: True, by="ada"),
        frozenset({"m-2", "m-3"}),
    ),
    "a state file rebuilt": Scenario(
        _run((1, 2, 3), sweep_after=3), Keeper.rebuild_state, frozenset({"m-2", "m-3"})
    ),
    "a pin": Scenario(
        _run((1, 2), sweep_after=2),
        lambda keeper: keeper.pin("m-1", by="ada"),
        frozenset({"m-1", "m-2"}),
    ),
}


def wrong_now(disk: MemoryDisk, scenario: Scenario) -> list[str]:
    return check_reader(MemoryDirectory(disk), scenario.must_stay)


def wrong_after_restart(disk: MemoryDisk, clock: Clock, scenario: Scenario) -> list[str]:
    return check_restart(MemoryDirectory(disk), clock, scenario.must_stay, scenario.policy)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_at_any_change_leaves_what_the_next_start_finishes(name):
    scenario = SCENARIOS[name]
    n = 0
    while True:
        n += 1
        directory, clock = scenario.prepare()
        directory.disk.crash_at(n)
        keeper = keeper_of(directory, clock, **scenario.policy)
        try:
            scenario.act(keeper)
        except Crash:
            pass
        else:
            break
        killed = directory.disk.restarted()
        assert wrong_now(killed, scenario) == [], f"kill at change {n}"
        assert wrong_after_restart(killed, clock, scenario) == [], f"kill at change {n}"
    assert n > 4


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_second_kill_while_the_first_is_mended_changes_nothing(name):
    scenario = SCENARIOS[name]
    for first in range(1, 60, 3):
        directory, clock = scenario.prepare()
        directory.disk.crash_at(first)
        try:
            scenario.act(keeper_of(directory, clock, **scenario.policy))
        except Crash:
            pass
        else:
            return
        for second in range(1, 40, 4):
            disk = directory.disk.restarted()
            disk.crash_at(second)
            try:
                keeper_of(MemoryDirectory(disk), clock, **scenario.policy).sweep()
            except Crash:
                disk = disk.restarted()
                assert wrong_now(disk, scenario) == []
                assert wrong_after_restart(disk, clock, scenario) == []
            else:
                break


def power_loss(scenario: Scenario, make=keeper_of, root=MemoryDirectory) -> tuple[int, list[str]]:
    """Return how many crash states one run of a scenario can leave, and what is wrong in them."""
    directory, clock = scenario.prepare()
    keeper = make(root(directory.disk), clock, **scenario.policy)
    scenario.act(keeper)
    states, wrong = 0, []
    for disk in directory.disk.crash_states(limit=6):
        states += 1
        wrong += wrong_now(disk, scenario)
        wrong += wrong_after_restart(disk, clock, scenario)
        if len(wrong) > 20:
            break
    return states, wrong


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_power_loss_at_any_time_leaves_what_the_next_start_finishes(name):
    states, wrong = power_loss(SCENARIOS[name])

    assert wrong == []
    assert states > 4


class NeverSyncs(MemoryDirectory):
    """A directory whose syncs do nothing."""

    def sync(self):
        pass

    def open_directory(self, name):
        opened = super().open_directory(name)
        return NeverSyncs(opened.disk, opened._inode, opened.path)


class RemovesFirst(Keeper):
    """Removes the files before the state file stops naming them."""

    def _restate(self, plan, result):
        super()._remove(plan, result)
        return super()._restate(plan, result)


class DataFirst(Keeper):
    """Removes the data before the index."""

    def _remove(self, plan, result):
        for verdict in plan.of(Outcome.REMOVE):
            checkpoint = verdict.checkpoint
            bins = self._own.room("trash")
            backwards = checkpoint._replace(files=tuple(reversed(checkpoint.files)))
            trash.remove(self.directory, bins, backwards, verdict.decision.reasons, plan.at)


class NamesPartOfIt(Keeper):
    """Writes a state file that names what is not there."""

    def _restate(self, plan, result):
        done = super()._restate(plan, result)
        self.directory.unlink("m-4.data-00000-of-00001")
        return done


@pytest.mark.parametrize(
    ("make", "root"),
    [
        (Keeper, NeverSyncs),
        (RemovesFirst, MemoryDirectory),
        (NamesPartOfIt, MemoryDirectory),
    ],
)
def test_the_checker_sees_a_keeper_that_is_broken_on_purpose(make, root):
    scenario = SCENARIOS["a sweep of a managed run"]

    def build(directory, clock, **policy):
        keeper = keeper_of(directory, clock, **policy)
        return make(keeper.directory, keeper.policy, clock)

    _, wrong = power_loss(scenario, build, root)

    assert wrong


def test_the_checker_sees_data_that_goes_before_its_index():
    scenario = SCENARIOS["a sweep of a managed run"]
    directory, clock = scenario.prepare()
    keeper = keeper_of(directory, clock, **scenario.policy)
    DataFirst(keeper.directory, keeper.policy, clock).sweep()

    broken = [
        disk
        for disk in directory.disk.killed_states()
        for name in ("m-1", "m-2")
        if (there := MemoryDirectory(disk)).entry(f"{name}.index") and not is_complete(there, name)
    ]

    assert broken


def test_no_kill_leaves_an_index_without_its_data():
    scenario = SCENARIOS["a sweep of a managed run"]
    directory, clock = scenario.prepare()
    keeper_of(directory, clock, **scenario.policy).sweep()

    for disk in directory.disk.killed_states():
        there = MemoryDirectory(disk)
        indexes = {n for n in names_in(there) if n.endswith(".index")}
        assert {n.removesuffix(".index") for n in indexes} == complete_in(there)


ERRORS = [
    errno.EIO,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ESTALE,
    errno.EMFILE,
    errno.EINTR,
    9999,
]


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("number", ERRORS, ids=lambda n: errno.errorcode.get(n, "unknown"))
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_refusal_at_any_change_is_told_and_harms_nothing(name, number, sticky):
    scenario = SCENARIOS[name]
    n = 0
    while True:
        n += 1
        directory, clock = scenario.prepare()
        directory.disk.fail_at(n, number, sticky=sticky)
        before = directory.disk.operations
        keeper = keeper_of(directory, clock, **scenario.policy)
        with suppress(CkptdError):  # anything else is a traceback, and fails here
            scenario.act(keeper)
        reached = directory.disk.operations - before >= n
        keeper.close()
        if not reached:
            break
        disk = directory.disk.restarted()
        assert wrong_now(disk, scenario) == [], f"refusal at change {n}"
        assert wrong_after_restart(disk, clock, scenario) == [], f"refusal at change {n}"
