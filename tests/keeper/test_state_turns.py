"""A trainer and ckptd write the state file in turns: nobody's work is lost, and it stays true."""

from collections.abc import Callable
from functools import partial

import pytest
from keeper.trainer import Clock, Trainer, complete_in, keeper_of, listed_in, state_of
from storage.memory_directory import MemoryDirectory

from ckptd.formats.state_file import StateFile, format_state_file


@pytest.fixture
def directory():
    return MemoryDirectory()


@pytest.fixture
def clock():
    return Clock()


@pytest.mark.parametrize("head", ["", "./", "/memory/"])
def test_the_path_style_stays(directory, clock, head):
    run = Trainer(directory, clock, head=head)
    for step in (1, 2, 3):
        run.save(step)

    keeper_of(directory, clock, max_to_keep=2).sweep()

    assert state_of(directory).all_model_checkpoint_paths == (f"{head}m-2", f"{head}m-3")
    assert state_of(directory).model_checkpoint_path == f"{head}m-3"


def test_times_are_kept_where_the_trainer_writes_them(directory, clock):
    run = Trainer(directory, clock, managed=True)
    for step in (1, 2, 3):
        run.save(step)
    times = [time for _, time in run.saved]

    keeper_of(directory, clock, max_to_keep=2).sweep()

    state = state_of(directory)
    assert list(state.all_model_checkpoint_timestamps) == times[1:]
    assert state.last_preserved_timestamp == run.last_preserved


def test_no_times_are_added_to_a_savers_file(directory, clock):
    run = Trainer(directory, clock)
    for step in (1, 2, 3):
        run.save(step)

    keeper_of(directory, clock, max_to_keep=2).sweep()

    assert state_of(directory).all_model_checkpoint_timestamps == ()


def test_preserving_moves_last_preserved_on_in_a_managers_file(directory, clock):
    run = Trainer(directory, clock, managed=True)
    keeper = keeper_of(directory, clock, max_to_keep=1, keep_checkpoint_every_n_hours=1.0)
    for step in (1, 2, 3):
        run.save(step, every=3600.0)
        keeper.sweep()

    assert complete_in(directory) == {"m-1", "m-2", "m-3"}
    assert state_of(directory).last_preserved_timestamp == dict(run.saved)["m-2"]
    assert listed_in(directory) == ["m-3"]


def test_what_a_trainers_own_manager_preserved_stays(directory, clock):
    run = Trainer(directory, clock, managed=True)
    for step in (1, 2, 3):
        run.save(step, every=3600.0)
    run.last_preserved = dict(run.saved)["m-1"]
    run.saved = run.saved[1:]
    run.write_state()

    keeper_of(directory, clock, max_to_keep=1).sweep()

    assert complete_in(directory) == {"m-1", "m-3"}


def test_a_sweep_that_changes_nothing_in_it_does_not_write_it(directory, clock):
    run = Trainer(directory, clock)
    for step in (1, 2):
        run.save(step)
    before = directory.entry("checkpoint")

    keeper_of(directory, clock, max_to_keep=2).sweep()

    assert directory.entry("checkpoint") == before


def test_entries_that_lead_elsewhere_stay_as_they_are(directory, clock):
    run = Trainer(directory, clock, head="/memory/")
    for step in (1, 2):
        run.save(step)
    directory.disk.other_directories.add("/other/run")
    paths = ("/other/run/m-9", "/memory/m-1", "/memory/m-2")
    state = StateFile(model_checkpoint_path=paths[-1], all_model_checkpoint_paths=paths)
    directory.unlink("checkpoint")
    directory.create("checkpoint", format_state_file(state))

    keeper_of(directory, clock, max_to_keep=1).sweep()

    assert state_of(directory).all_model_checkpoint_paths == ("/other/run/m-9", "/memory/m-2")


def test_the_paths_of_a_directory_that_was_moved_are_set_right(directory, clock):
    run = Trainer(directory, clock, head="/where/it/was/")
    for step in (1, 2, 3):
        run.save(step)

    keeper_of(directory, clock, max_to_keep=2).sweep()

    assert state_of(directory).all_model_checkpoint_paths == ("/memory/m-2", "/memory/m-3")


def test_a_named_checkpoint_that_is_damaged_gives_way_to_the_newest_complete(directory, clock):
    run = Trainer(directory, clock)
    for step in (1, 2, 3):
        run.save(step)
    directory.unlink("m-3.data-00000-of-00001")
    clock.now += 3600

    result = keeper_of(directory, clock, max_to_keep=2).sweep()

    assert state_of(directory).model_checkpoint_path == "m-2"
    assert complete_in(directory) == {"m-1", "m-2"}
    assert any("shard 0 of 1 is missing" in problem.text for problem in result.plan.problems)


def test_a_named_checkpoint_being_saved_again_is_waited_for(directory, clock):
    run = Trainer(directory, clock)
    for step in (1, 2, 3):
        run.save(step)
    directory.unlink("m-3.index")

    keeper = keeper_of(directory, clock, max_to_keep=1)
    keeper.sweep()

    assert state_of(directory).model_checkpoint_path == "m-3"
    assert complete_in(directory) == {"m-1", "m-2"}


class InTheMiddle(MemoryDirectory):
    """Lets a trainer act at the very moment in which ckptd exchanges the state file."""

    interrupt: list[Callable[[], object]]
    outer: "InTheMiddle"

    def open_directory(self, name):
        opened = super().open_directory(name)
        inner = InTheMiddle(opened.disk, opened._inode, opened.path)
        inner.outer = self
        return inner

    def exchange(self, name, other, *, into=None):
        if other == "checkpoint" and self.outer.interrupt:
            self.outer.interrupt.pop(0)()
        return super().exchange(name, other, into=into)


@pytest.mark.parametrize("saves", [1, 2, 3, 4])
def test_a_save_between_reading_and_writing_the_state_file_is_not_lost(clock, saves):
    directory = InTheMiddle()
    run = Trainer(directory, clock)
    for step in (1, 2, 3):
        run.save(step)
    directory.interrupt = [partial(run.save, step, graph=None) for step in range(4, 4 + saves)]

    keeper_of(directory, clock, max_to_keep=2).sweep()

    newest = f"m-{3 + saves}"
    assert state_of(directory).model_checkpoint_path == newest
    assert set(listed_in(directory)) <= complete_in(directory)
    assert newest in complete_in(directory)


def test_without_exchange_the_file_is_replaced(clock):
    directory = MemoryDirectory()
    directory.disk.can_exchange = False
    run = Trainer(directory, clock)
    for step in (1, 2, 3):
        run.save(step)

    keeper_of(directory, clock, max_to_keep=2).sweep()

    assert listed_in(directory) == ["m-2", "m-3"]


def test_a_preserved_checkpoint_that_is_saved_again_is_a_new_one(directory, clock):
    run = Trainer(directory, clock, managed=True)
    keeper = keeper_of(directory, clock, max_to_keep=1, keep_checkpoint_every_n_hours=1.0)
    for step in (1, 2):
        run.save(step, every=3600.0)
        keeper.sweep()
    assert complete_in(directory) == {"m-1", "m-2"}
    run.last_preserved = clock()
    run.save(1, every=60.0)
    keeper.sweep()

    run.save(3, every=60.0)
    keeper.sweep()

    assert "m-1" not in complete_in(directory)
