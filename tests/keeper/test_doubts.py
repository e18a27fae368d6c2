"""What nobody can know for sure: unreadable files, two state files, wrong clocks, a lost ledger."""

import dataclasses
import errno

import pytest
from formats.test_v1_table import GOLDEN
from keeper.trainer import (
    GRAPH,
    Clock,
    Trainer,
    complete_in,
    keeper_of,
    listed_in,
    names_in,
    state_of,
)
from storage.memory_directory import MemoryDirectory
from storage.memory_disk import Crash

from ckptd.checkpoints.inventory import take_inventory
from ckptd.checkpoints.listing import Kind
from ckptd.errors import NotPermittedError, StorageError
from ckptd.formats.state_file import StateFile, format_state_file
from ckptd.keeper import meta_graphs
from ckptd.keeper.inspector import DirectoryInspector
from ckptd.keeper.ledger import Ledger
from ckptd.retention.candidate import Outcome

HOUR = 3600.0
YEAR = 365 * 24 * HOUR


class GuardedDirectory(MemoryDirectory):
    """Refuses to read the names in `unreadable`, and to look at paths below `/secret`."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.unreadable = set()
        self.reads = []

    def read(self, name, **how):
        self.reads.append(name)
        if name in self.unreadable:
            path = f"{self.path}/{name}"
            raise StorageError("read", path, "Input/output error", number=errno.EIO)
        return super().read(name, **how)

    def leads_here(self, path):
        if path.startswith("/secret"):
            raise NotPermittedError("look at", path, "Permission denied", number=errno.EACCES)
        return super().leads_here(path)


@pytest.fixture
def directory():
    return GuardedDirectory()


@pytest.fixture
def clock():
    return Clock()


def saved(directory, clock, *steps, **how):
    run = Trainer(directory, clock, **how)
    for step in steps:
        run.save(step)
    return run


def put(directory, name, data):
    if directory.entry(name) is not None:
        directory.unlink(name)
    directory.create(name, data)


def metas(directory):
    return {name for name in names_in(directory) if name.endswith(".meta")}


# What cannot be read


def test_an_index_that_cannot_be_read_redirects_nobody(directory, clock):
    run = saved(directory, clock, 1, 2, 3)
    keeper = keeper_of(directory, clock, max_to_keep=3)
    keeper.sweep()
    run.save(4)
    clock.now += 60.0
    before = directory.read("checkpoint", limit=1000)
    directory.unreadable = {"m-4.index"}

    keeper.sweep()
    assert directory.read("checkpoint", limit=1000) == before

    directory.unreadable = set()
    keeper.sweep()
    assert listed_in(directory) == ["m-2", "m-3", "m-4"]


def test_a_meta_graph_that_cannot_be_read_is_told_once_and_holds_nothing_up(directory, clock):
    saved(directory, clock, 1, 2, 3, 4)
    directory.unreadable = {"m-3.meta"}
    keeper = keeper_of(directory, clock, max_to_keep=2)

    first = keeper.sweep()

    assert complete_in(directory) == {"m-3", "m-4"}
    assert len([text for text in first.failed if "m-3.meta" in text]) == 1
    again = keeper.sweep()
    assert (again.changed, again.failed) == (False, [])
    assert keeper.bytes_saved(keeper.plan()) == 0


def test_a_meta_graph_that_could_not_be_read_is_tried_again_by_the_next_keeper(directory, clock):
    saved(directory, clock, 1, 2)
    directory.unreadable = {"m-1.meta"}
    keeper_of(directory, clock, max_to_keep=2).sweep()
    directory.unreadable = set()
    keeper = keeper_of(directory, clock, max_to_keep=2)

    keeper.sweep()

    assert keeper.bytes_saved(keeper.plan()) == len(GRAPH)


def test_a_meta_graph_that_stays_unreadable_costs_each_keeper_one_try(directory, clock):
    saved(directory, clock, 1, 2)
    directory.unreadable = {"m-1.meta"}
    keeper_of(directory, clock, max_to_keep=2).sweep()
    keeper = keeper_of(directory, clock, max_to_keep=2)
    keeper.plan()
    assert keeper.sweep().failed

    directory.reads.clear()

    assert not keeper.sweep().changed
    assert "m-1.meta" not in directory.reads


def test_a_state_file_that_leads_where_nobody_may_look_holds_and_is_told(directory, clock):
    saved(directory, clock, 1, 2, 3)
    put(directory, "checkpoint.old", b'model_checkpoint_path: "/secret/run/m-1"\n')

    result = keeper_of(directory, clock, max_to_keep=1).sweep()

    assert complete_in(directory) == {"m-1", "m-2", "m-3"}
    assert any("checkpoint.old" in p.text and "/secret" in p.text for p in result.plan.problems)


# Two state files, and what they say of the order


@pytest.mark.parametrize("copy", ["checkpoint.bak", "best"])
def test_an_old_copy_of_the_state_file_changes_no_order(directory, clock, copy):
    run = saved(directory, clock, 1, 2)
    put(directory, copy, directory.read("checkpoint", limit=1000))
    keeper = keeper_of(directory, clock, max_to_keep=3)
    for step in (3, 4, 5, 6):
        run.save(step)

    keeper.sweep()

    assert complete_in(directory) == {"m-2", "m-4", "m-5", "m-6"}
    assert listed_in(directory) == ["m-4", "m-5", "m-6"]
    assert listed_in(directory, copy) == ["m-2"]
    assert not keeper.sweep().changed


def test_without_the_usual_name_the_file_that_names_the_newest_gives_the_order(directory, clock):
    saved(directory, clock, 1, 2, state_file="was")
    saved(directory, clock, 3, 4, 5, state_file="is")

    keeper_of(directory, clock, max_to_keep=2).sweep()

    assert complete_in(directory) == {"m-2", "m-4", "m-5"}


def test_another_state_file_adds_times_and_overrules_none(directory, clock):
    run = saved(directory, clock, 1, 2, 3, managed=True)
    other = Trainer(directory, clock, managed=True, state_file="other")
    other.saved = [("m-1", clock.now - 9 * HOUR), ("m-2", clock.now - 8 * HOUR)]
    other.write_state()
    run.saved = run.saved[1:]
    run.write_state()

    plan = keeper_of(directory, clock, keep_every_n_steps=1).plan()

    times = {v.checkpoint.name: v.decision.candidate.saved_at for v in plan.verdicts}
    assert times == {"m-1": other.saved[0][1], **dict(run.saved)}


def test_who_rolls_back_by_hand_does_not_lose_the_newest(directory, clock):
    saved(directory, clock, 1, 2, 3, 4, 5)
    state = dataclasses.replace(state_of(directory), model_checkpoint_path="m-2")
    put(directory, "checkpoint", format_state_file(state))
    keeper = keeper_of(directory, clock, max_to_keep=2)

    keeper.sweep()

    assert complete_in(directory) == {"m-2", "m-4", "m-5"}
    assert state_of(directory).model_checkpoint_path == "m-2"
    assert listed_in(directory) == ["m-2", "m-4", "m-5"]
    assert not keeper.sweep().changed


def test_the_one_saved_last_stays_wherever_the_state_file_lists_it(directory, clock):
    run = saved(directory, clock, 1, 2, 3)
    run.saved = [run.saved[2], *run.saved[:2]]
    run.write_state()

    keeper_of(directory, clock, max_to_keep=1).sweep()

    assert complete_in(directory) == {"m-2", "m-3"}


def test_a_name_without_step_is_not_rotated_away_by_the_steps(directory, clock):
    run = Trainer(directory, clock, series="model.ckpt")
    run.save(0)
    for name in [n for n in names_in(directory) if n.startswith("model.ckpt-0.")]:
        directory.rename(name, name.replace("model.ckpt-0.", "model.ckpt."))
    run.saved = []
    for step in (1, 2, 3):
        run.save(step)

    keeper_of(directory, clock, max_to_keep=2).sweep()

    assert complete_in(directory) == {"model.ckpt", "model.ckpt-2", "model.ckpt-3"}


# Times that are none


@pytest.mark.parametrize("told", ["nan", "inf", "-inf"])
def test_a_last_preserved_time_that_is_no_number_is_set_right_once(directory, clock, told):
    run = saved(directory, clock, 1, 2, 3, managed=True)
    text = directory.read("checkpoint", limit=1000)
    line = f"last_preserved_timestamp: {run.last_preserved}".encode()
    put(directory, "checkpoint", text.replace(line, f"last_preserved_timestamp: {told}".encode()))
    keeper = keeper_of(directory, clock, max_to_keep=2, keep_checkpoint_every_n_hours=1.0)

    keeper.sweep()

    assert not keeper.sweep().changed
    assert state_of(directory).last_preserved_timestamp == run.saved[0][1] - 1.0


@pytest.mark.parametrize("known", [False, True])
def test_a_last_preserved_time_in_the_future_does_not_end_preserving(directory, clock, known):
    run = saved(directory, clock, 1, 2, 3, managed=True)
    keeper = keeper_of(directory, clock, max_to_keep=1, keep_checkpoint_every_n_hours=1.0)
    if known:
        keeper.sweep()
        run.saved = run.saved[-1:]
    run.last_preserved = clock.now + YEAR
    run.write_state()

    keeper.sweep()
    clock.now += 1.0

    assert not keeper.sweep().changed
    assert state_of(directory).last_preserved_timestamp <= clock.now
    run.saved, run.last_preserved = run.saved[-1:], clock.now
    for step in (4, 5, 6):
        run.save(step, every=2 * HOUR)
        keeper.sweep()
        run.saved = run.saved[-1:]
    assert {"m-4", "m-5", "m-6"} <= complete_in(directory)


def test_a_future_time_that_stays_in_the_file_is_no_work_for_ever(directory, clock):
    saved(directory, clock, 1, 2)
    text = directory.read("checkpoint", limit=1000)
    put(directory, "checkpoint", text + f"last_preserved_timestamp: {clock.now + YEAR}\n".encode())
    keeper = keeper_of(directory, clock, max_to_keep=2, keep_checkpoint_every_n_hours=1.0)
    keeper.sweep()
    clock.now += 1.0

    assert not keeper.sweep().changed


def test_times_of_other_directories_that_are_no_numbers_are_no_work_for_ever(directory, clock):
    saved(directory, clock, 1, 2)
    directory.make_directory("elsewhere")
    text = (
        'model_checkpoint_path: "m-2"\n'
        'all_model_checkpoint_paths: "elsewhere/m-1"\nall_model_checkpoint_paths: "m-2"\n'
        "all_model_checkpoint_timestamps: nan\n"
        f"all_model_checkpoint_timestamps: {clock.now}\n"
        f"last_preserved_timestamp: {clock.now - HOUR}\n"
    )
    put(directory, "checkpoint", text.encode())
    keeper = keeper_of(directory, clock, max_to_keep=2)
    keeper.sweep()

    assert not keeper.sweep().changed


# The brake


def test_what_was_approved_goes_even_if_more_has_come_since(directory, clock):
    run = saved(directory, clock, *range(1, 10))
    keeper = keeper_of(directory, clock, max_to_keep=1, max_removals_per_sweep=3)
    keeper.sweep()
    keeper.approve(by="ada")
    run.save(10)

    keeper.sweep()

    assert complete_in(directory) == {"m-10"}


def test_what_was_not_approved_is_held_while_the_rest_goes(directory, clock):
    run = saved(directory, clock, *range(1, 10))
    keeper = keeper_of(directory, clock, max_to_keep=1, max_removals_per_sweep=3)
    keeper.sweep()
    keeper.approve(by="ada")
    for step in range(10, 15):
        run.save(step)

    plan = keeper.sweep().plan

    assert [v.checkpoint.name for v in plan.of(Outcome.HOLD)] == [f"m-{s}" for s in range(9, 14)]
    assert complete_in(directory) == {f"m-{step}" for step in range(9, 15)}


# The store of meta graphs


def test_a_kill_in_the_first_sweep_leaves_a_store_that_works(clock):
    operations = 0
    while True:
        operations += 1
        directory = MemoryDirectory()
        run = saved(directory, clock, 1, 2, 3, 4)
        directory.disk.crash_at(operations)
        try:
            keeper_of(directory, clock, max_to_keep=2).sweep()
            break
        except Crash:
            pass
        run.directory = MemoryDirectory(directory.disk.restarted())
        keeper = keeper_of(run.directory, clock, max_to_keep=2)
        run.save(5)

        assert keeper.sweep().failed == []
        assert not keeper.sweep().changed
    assert operations > 10


def test_a_stored_graph_that_is_cut_short_is_stored_anew(directory, clock):
    saved(directory, clock, 1, 2)
    keeper_of(directory, clock, max_to_keep=2).sweep()
    with_own = directory.open_directory(".ckptd")
    with_own.unlink("ledger.json")
    store = with_own.open_directory("meta_graphs")
    (digest,) = [entry.name for entry in store.list()]
    put(store, digest, GRAPH[:5])

    assert keeper_of(directory, clock, max_to_keep=2).sweep().failed == []
    assert store.read(digest, limit=1000) == GRAPH


def test_a_graph_that_nothing_needs_leaves_the_store_though_the_ledger_has_forgotten_it(
    directory, clock
):
    saved(directory, clock, 1)
    keeper = keeper_of(directory, clock, max_to_keep=1)
    keeper.sweep()
    store = directory.open_directory(".ckptd").open_directory("meta_graphs")
    store.create("notes", b"somebody's")
    store.create("f" * 64, b"not what the name says")
    saved(directory, clock, 2)

    keeper.sweep()

    assert {entry.name for entry in store.list()} == {
        "notes",
        *keeper.plan().ledger.graphs,
    }


def test_the_only_graph_outlives_the_ledger(directory, clock):
    run = saved(directory, clock, 1)
    keeper = keeper_of(directory, clock, max_to_keep=2)
    keeper.sweep()
    run.save(2, graph=None)
    keeper.sweep()
    directory.open_directory(".ckptd").unlink("ledger.json")
    for step in (3, 4, 5):
        run.save(step, graph=None)
        keeper.sweep()

    (carrier,) = metas(directory)
    assert directory.read(carrier, limit=1000) == GRAPH


def test_the_stores_only_graph_comes_back_where_ledger_and_meta_graphs_are_gone(directory, clock):
    run = saved(directory, clock, 1)
    keeper_of(directory, clock, max_to_keep=2).sweep()
    run.save(2, graph=None)
    directory.unlink("m-1.meta")
    checkpoints = take_inventory(directory.list(), DirectoryInspector(directory)).by_name()
    store = directory.open_directory(".ckptd").open_directory("meta_graphs")

    shared = meta_graphs.share(
        directory,
        store,
        {"m": ["m-1", "m-2"]},
        checkpoints,
        frozenset(checkpoints),
        Ledger(),
        frozenset(),
    )

    assert shared.problems == []
    assert metas(directory) == {"m-2.meta"}
    assert set(shared.ledger.graphs) == set(shared.ledger.latest_graph.values())


@pytest.mark.parametrize("kind", [Kind.SYMLINK, Kind.DIRECTORY])
def test_a_graph_is_not_put_where_something_else_has_its_name(directory, clock, kind):
    run = saved(directory, clock, 1)
    keeper = keeper_of(directory, clock, max_to_keep=2)
    keeper.sweep()
    for step in (2, 3):
        run.save(step, graph=None)
        directory.plant(f"m-{step}.meta", kind)

    result = keeper.sweep()

    plan = keeper.plan()
    names = {entry.name for entry in plan.survey.entries}
    assert result.failed == []
    assert not meta_graphs.is_due(plan.survey.checkpoints, plan.staying, plan.ledger, names)
    assert meta_graphs.is_due(plan.survey.checkpoints, plan.staying, plan.ledger, set())


# Directories that were moved, or are away


def test_a_directory_that_is_away_is_not_taken_for_this_one_before_it_was_moved(directory, clock):
    saved(directory, clock, 1, 2, 3)
    text = (
        b'model_checkpoint_path: "/away/run/m-9"\n'
        b'all_model_checkpoint_paths: "/away/run/m-3"\nall_model_checkpoint_paths: "m-2"\n'
        b'all_model_checkpoint_paths: "/away/run/m-9"\n'
    )
    put(directory, "checkpoint", text)

    result = keeper_of(directory, clock, max_to_keep=2).sweep()

    assert directory.read("checkpoint", limit=1000) == text
    assert result.plan.problems == ()


@pytest.mark.parametrize(
    ("current", "other", "becomes"),
    [
        ("m-3", "/gone/run/m-2", ["m-2", "m-3"]),
        ("/gone/run/m-3", "m-2", ["m-2", "/memory/m-3"]),
        ("/gone/run/m-3", "/away/run/m-9", ["/away/run/m-9", "/memory/m-2", "/memory/m-3"]),
    ],
)
def test_each_head_is_judged_by_itself(directory, clock, current, other, becomes):
    saved(directory, clock, 1, 2, 3)
    state = StateFile(model_checkpoint_path=current, all_model_checkpoint_paths=(other, current))
    put(directory, "checkpoint", format_state_file(state))

    keeper_of(directory, clock, max_to_keep=2).sweep()

    assert list(state_of(directory).all_model_checkpoint_paths) == becomes
    assert state_of(directory).model_checkpoint_path == becomes[-1]


# V1


def test_a_v1_step_saved_again_in_fewer_shards_stays_the_one_to_resume_from(directory, clock):
    for name in ("m-1-00000-of-00001", "m-2-00000-of-00002", "m-2-00001-of-00002"):
        put(directory, name, GOLDEN)
    put(directory, "m-2-00000-of-00001", GOLDEN)
    paths = ("m-1-?????-of-00001", "m-2-?????-of-00001")
    state = StateFile(model_checkpoint_path=paths[-1], all_model_checkpoint_paths=paths)
    put(directory, "checkpoint", format_state_file(state))
    for name in names_in(directory):
        directory.set_mtime(name, clock.now)
    clock.now += 60.0
    keeper = keeper_of(directory, clock, max_to_keep=2)

    assert keeper.sweep().plan.problems == ()
    assert state_of(directory) == state

    again = ("m-2-?????-of-00001", "m-3-?????-of-00001")
    put(directory, "m-3-00000-of-00001", GOLDEN)
    directory.set_mtime("m-3-00000-of-00001", clock.now)
    state = StateFile(model_checkpoint_path=again[-1], all_model_checkpoint_paths=again)
    put(directory, "checkpoint", format_state_file(state))
    keeper_of(directory, clock, max_to_keep=1).sweep()
    assert {name for name in names_in(directory) if name.startswith("m-")} == {"m-3-00000-of-00001"}
