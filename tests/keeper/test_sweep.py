"""A keeper over a directory: what a sweep removes, records, and leaves alone."""

import pytest
from keeper.trainer import Clock, Trainer, complete_in, keeper_of, listed_in, names_in, state_of
from storage.memory_directory import MemoryDirectory

from ckptd.checkpoints.listing import Kind
from ckptd.errors import BusyError, NoSuchCheckpointError
from ckptd.retention.candidate import Outcome


def a_run(*steps, **trainer):
    clock = Clock()
    directory = MemoryDirectory()
    run = Trainer(directory, clock, **trainer)
    for step in steps:
        run.save(step)
    return directory, clock, run


def test_the_newest_stay_and_the_state_file_names_them():
    directory, clock, _ = a_run(1, 2, 3, 4, 5)
    keeper = keeper_of(directory, clock, max_to_keep=2)

    result = keeper.sweep()

    assert complete_in(directory) == {"m-4", "m-5"}
    assert listed_in(directory) == ["m-4", "m-5"]
    assert [line["name"] for line in result.lines if line["event"] == "removed"] == [
        "m-1",
        "m-2",
        "m-3",
    ]


def test_a_second_sweep_does_nothing():
    directory, clock, _ = a_run(1, 2, 3)
    keeper = keeper_of(directory, clock, max_to_keep=2)
    keeper.sweep()
    before = directory.disk.tree()

    result = keeper.sweep()

    assert not result.changed
    assert directory.disk.tree() == before
    assert keeper.is_settled()


def test_a_new_keeper_on_a_settled_directory_removes_nothing():
    directory, clock, _ = a_run(1, 2, 3)
    keeper_of(directory, clock, max_to_keep=2).sweep()

    result = keeper_of(directory, clock, max_to_keep=2).sweep()

    assert complete_in(directory) == {"m-2", "m-3"}
    assert result.lines == []


def test_a_plan_changes_nothing_in_a_directory_never_seen():
    directory, clock, _ = a_run(1, 2, 3)
    directory.disk.settle()

    plan = keeper_of(directory, clock, max_to_keep=1).plan()

    assert [v.checkpoint.name for v in plan.of(Outcome.REMOVE)] == ["m-1", "m-2"]
    assert directory.disk.trace == []


def test_a_directory_without_checkpoints_is_left_without_a_trace():
    directory, clock = MemoryDirectory(), Clock()
    directory.create("notes.txt", b"mine")
    keeper = keeper_of(directory, clock, max_to_keep=1)

    keeper.sweep()

    assert names_in(directory) == {"notes.txt"}
    assert directory.entry(".ckptd") is None


def test_no_rule_keeps_everything():
    directory, clock, _ = a_run(1, 2, 3)

    keeper_of(directory, clock).sweep()

    assert complete_in(directory) == {"m-1", "m-2", "m-3"}


def test_lowering_max_to_keep_converges_at_once():
    directory, clock, _ = a_run(*range(1, 13))
    keeper = keeper_of(directory, clock, max_to_keep=10)
    keeper.sweep()

    keeper_of(directory, clock, max_to_keep=3).sweep()

    assert complete_in(directory) == {"m-10", "m-11", "m-12"}


def test_a_partial_newest_neither_counts_nor_goes():
    directory, clock, _ = a_run(1, 2, 3)
    directory.create("m-4.data-00000-of-00001", b"half")
    clock.now += 3600

    keeper_of(directory, clock, max_to_keep=2).sweep()

    assert complete_in(directory) == {"m-2", "m-3"}
    assert "m-4.data-00000-of-00001" in names_in(directory)


def test_strangers_and_leftovers_stay():
    directory, clock, _ = a_run(1, 2, 3)
    for name in ("graph.pbtxt", "model.pb", "m-1.index.tempstate99", "events.out.tfevents.1"):
        directory.create(name, b"x")
    directory.make_directory("m-1_temp")
    directory.make_directory("saved")
    directory.plant("m-0.index", Kind.SYMLINK)

    keeper_of(directory, clock, max_to_keep=1).sweep()

    assert names_in(directory) >= {
        "graph.pbtxt",
        "model.pb",
        "m-1.index.tempstate99",
        "events.out.tfevents.1",
        "m-1_temp",
        "saved",
        "m-0.index",
    }


def test_what_the_state_file_names_stays_though_it_is_old():
    directory, clock, run = a_run(1, 2, 3)
    run.saved = run.saved[:1]
    run.write_state()

    keeper_of(directory, clock, max_to_keep=1).sweep()

    assert complete_in(directory) == {"m-1", "m-3"}
    assert state_of(directory).model_checkpoint_path == "m-1"


def test_two_series_are_kept_apart():
    directory, clock, _ = a_run(1, 2, 3)
    other = Trainer(directory, clock, series="m-1-ema", state_file="ema_checkpoint")
    for step in (1, 2, 3):
        other.save(step)

    keeper_of(directory, clock, max_to_keep=1).sweep()

    assert complete_in(directory) == {"m-3", "m-1-ema-3"}
    assert listed_in(directory) == ["m-3"]
    assert listed_in(directory, "ema_checkpoint") == ["m-1-ema-3"]


def test_a_pinned_checkpoint_stays_until_it_is_unpinned():
    directory, clock, _ = a_run(1, 2, 3)
    keeper = keeper_of(directory, clock, max_to_keep=1)
    keeper.pin("m-1", by="ada", why="paper")
    keeper.sweep()
    assert complete_in(directory) == {"m-1", "m-3"}

    assert keeper.unpin("m-1", by="ada")
    keeper.sweep()

    assert complete_in(directory) == {"m-3"}


def test_pinning_what_is_not_there_is_refused():
    directory, clock, _ = a_run(1)

    with pytest.raises(NoSuchCheckpointError, match="m-7"):
        keeper_of(directory, clock).pin("m-7", by="ada")


def test_undo_brings_back_the_last_removed_and_pins_it():
    directory, clock, _ = a_run(1, 2, 3)
    keeper = keeper_of(directory, clock, max_to_keep=1)
    keeper.sweep()

    back = keeper.undo(lambda _: True, by="ada")
    keeper.sweep()

    assert back.name == "m-2"
    assert complete_in(directory) == {"m-2", "m-3"}
    assert [removed.name for removed in keeper.trash()] == ["m-1"]


def test_undo_of_a_name_that_is_taken_again_is_refused_and_pins_nothing():
    directory, clock, run = a_run(1, 2)
    keeper = keeper_of(directory, clock, max_to_keep=1)
    keeper.sweep()
    run.saved.clear()
    run.save(1)

    with pytest.raises(NoSuchCheckpointError, match=r"m-1\.index"):
        keeper.undo(lambda removed: removed.name == "m-1", by="ada")

    assert keeper.plan().survey.pins == {}


def test_the_trash_holds_two_and_for_an_hour():
    directory, clock, _ = a_run(1, 2, 3, 4, 5)
    keeper = keeper_of(directory, clock, max_to_keep=1)
    keeper.sweep()
    assert [removed.name for removed in keeper.trash()] == ["m-3", "m-4"]

    clock.now += 3601
    assert keeper.expire()

    assert keeper.trash() == []
    assert keeper.purge() == 4


def test_trash_off_removes_at_once():
    directory, clock, _ = a_run(1, 2)
    keeper = keeper_of(directory, clock, max_to_keep=1, trash=None)

    result = keeper.sweep()
    keeper.purge()

    assert result.trash_waits
    assert keeper.trash() == []
    assert not any("m-1" in path for path, _, _ in directory.disk.tree())


def test_the_trash_is_emptied_first_when_space_is_needed():
    directory, clock, run = a_run(1, 2)
    keeper = keeper_of(directory, clock, max_to_keep=1)
    keeper.sweep()
    directory.disk.free_bytes = 10

    run.save(3)
    keeper.sweep()

    assert keeper.trash() == []


def test_more_than_the_brake_allows_is_held_until_approved():
    directory, clock, _ = a_run(*range(1, 10))
    keeper = keeper_of(directory, clock, max_to_keep=1, max_removals_per_sweep=3)

    held = keeper.sweep()
    assert len(complete_in(directory)) == 9
    assert any("ckptd approve" in problem.text for problem in held.plan.problems)

    keeper.approve(by="ada")
    keeper.sweep()

    assert complete_in(directory) == {"m-9"}
    assert keeper.plan().survey.held is None


def test_an_approval_does_not_reach_what_was_saved_anew_since():
    directory, clock, run = a_run(*range(1, 10))
    keeper = keeper_of(directory, clock, max_to_keep=1, max_removals_per_sweep=3)
    keeper.sweep()
    keeper.approve(by="ada")
    for step in (1, 2, 3, 10):
        run.save(step)

    keeper.sweep()

    assert complete_in(directory) == {"m-1", "m-2", "m-3", "m-9", "m-10"}


def test_nothing_is_removed_while_the_state_file_does_not_parse():
    directory, clock, _ = a_run(1, 2, 3)
    directory.unlink("checkpoint")
    directory.create("checkpoint", b"model_checkpoint_path: ")

    result = keeper_of(directory, clock, max_to_keep=1).sweep()

    assert complete_in(directory) == {"m-1", "m-2", "m-3"}
    assert any("--rebuild-state" in problem.text for problem in result.plan.problems)


@pytest.mark.parametrize("kind", [Kind.SYMLINK, Kind.OTHER, Kind.DIRECTORY])
def test_nothing_is_removed_where_the_state_file_is_no_file(kind):
    directory, clock, _ = a_run(1, 2, 3)
    directory.unlink("checkpoint")
    if kind is Kind.DIRECTORY:
        directory.make_directory("checkpoint")
    else:
        directory.plant("checkpoint", kind)

    result = keeper_of(directory, clock, max_to_keep=1).sweep()

    assert complete_in(directory) == {"m-1", "m-2", "m-3"}
    assert any(kind.value in problem.text for problem in result.plan.problems)


def test_a_state_file_is_rebuilt_from_what_is_complete_and_the_old_one_kept():
    directory, clock, _ = a_run(1, 2, 3)
    directory.unlink("checkpoint")
    directory.create("checkpoint", b"garbage")
    keeper = keeper_of(directory, clock, max_to_keep=2)

    keeper.rebuild_state()
    keeper.sweep()

    assert state_of(directory).model_checkpoint_path == "m-3"
    assert complete_in(directory) == {"m-2", "m-3"}
    broken = [e.name for e in directory.open_directory(".ckptd").list() if "broken" in e.name]
    assert len(broken) == 1


def test_one_keeper_at_a_time_works_in_a_directory():
    directory, clock, _ = a_run(1, 2)
    first = keeper_of(directory, clock, max_to_keep=1)
    first.claim({"pid": 42})

    with pytest.raises(BusyError, match="pid 42"):
        keeper_of(directory, clock, max_to_keep=1).claim({"pid": 43})
    first.close()


def test_min_age_lets_time_alone_make_work():
    directory, clock, _ = a_run(1, 2, 3)
    keeper = keeper_of(directory, clock, max_to_keep=1, min_age=600.0)
    keeper.sweep()
    assert len(complete_in(directory)) == 3
    keeper.sweep()
    assert keeper.is_settled()

    clock.now += 600
    assert not keeper.is_settled()
    keeper.sweep()

    assert complete_in(directory) == {"m-3"}


def test_a_lost_ledger_keeps_what_may_have_been_preserved():
    directory, clock, run = a_run()
    keeper = keeper_of(directory, clock, max_to_keep=1, keep_checkpoint_every_n_hours=1.0)
    for step in range(1, 5):
        run.save(step, every=3600.0)
        keeper.sweep()
    before = complete_in(directory)
    own = directory.open_directory(".ckptd")
    own.unlink("ledger.json")
    own.create("ledger.json", b"{")

    keeper_of(directory, clock, max_to_keep=1, keep_checkpoint_every_n_hours=100.0).sweep()

    assert complete_in(directory) == before


def test_the_clock_set_back_removes_nothing():
    directory, clock, _ = a_run(1, 2, 3)
    keeper = keeper_of(directory, clock, max_to_keep=1)
    clock.now -= 86400

    result = keeper.sweep()

    assert complete_in(directory) == {"m-1", "m-2", "m-3"}
    assert all(v.outcome is Outcome.KEEP for v in result.plan.verdicts)
