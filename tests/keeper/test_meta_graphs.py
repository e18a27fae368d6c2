"""The meta graph once: linked, carried on, parted when written in place."""

import pytest
from keeper.trainer import GRAPH, Clock, Trainer, complete_in, keeper_of, names_in
from storage.memory_directory import MemoryDirectory


@pytest.fixture
def directory():
    return MemoryDirectory()


@pytest.fixture
def clock():
    return Clock()


def metas(directory):
    return {e.name: e.identity.inode for e in directory.list() if e.name.endswith(".meta")}


def test_equal_graphs_become_one_inode_and_the_bytes_saved_are_known(directory, clock):
    run = Trainer(directory, clock)
    for step in (1, 2, 3):
        run.save(step)
    keeper = keeper_of(directory, clock, max_to_keep=3)

    keeper.sweep()

    assert len(metas(directory)) == 3
    assert len(set(metas(directory).values())) == 1
    assert keeper.bytes_saved(keeper.plan()) == 2 * len(GRAPH)


def test_different_graphs_stay_apart(directory, clock):
    run = Trainer(directory, clock)
    run.save(1)
    run.save(2, graph=b"another graph, as long as that".ljust(len(GRAPH)))

    keeper_of(directory, clock, max_to_keep=3).sweep()

    assert len(set(metas(directory).values())) == 2


def test_off_leaves_them_alone(directory, clock):
    run = Trainer(directory, clock)
    for step in (1, 2):
        run.save(step)
    before = metas(directory)

    keeper_of(directory, clock, max_to_keep=2, meta_graph="off").sweep()

    assert metas(directory) == before


def test_the_only_graph_moves_on_when_its_checkpoint_goes(directory, clock):
    run = Trainer(directory, clock)
    keeper = keeper_of(directory, clock, max_to_keep=2)
    run.save(1)
    for step in (2, 3, 4, 5, 6):
        run.save(step, graph=None)
        keeper.sweep()

        assert len(metas(directory)) == 1
        (carrier,) = metas(directory)
        assert carrier.removesuffix(".meta") in complete_in(directory)
        assert directory.read(carrier, limit=1000) == GRAPH


def test_the_only_graph_survives_a_trainer_that_rotates_it_away_itself(directory, clock):
    run = Trainer(directory, clock)
    keeper = keeper_of(directory, clock, max_to_keep=5)
    run.save(1)
    keeper.sweep()
    run.save(2, graph=None)
    run.save(3, graph=None)
    for name in ("m-1.meta", "m-1.index", "m-1.data-00000-of-00001"):
        directory.unlink(name)

    keeper.sweep()

    assert list(metas(directory)) == ["m-3.meta"]
    assert directory.read("m-3.meta", limit=1000) == GRAPH


def test_each_graph_of_a_run_stays_as_long_as_a_checkpoint_belongs_to_it(directory, clock):
    run = Trainer(directory, clock)
    keeper = keeper_of(directory, clock, max_to_keep=1, keep_steps=(2,))
    run.save(1)
    run.save(2, graph=None)
    keeper.sweep()
    run.save(3, graph=b"new graph")
    run.save(4, graph=None)

    keeper.sweep()

    assert directory.read("m-2.meta", limit=1000) == GRAPH
    assert directory.read("m-4.meta", limit=1000) == b"new graph"
    assert complete_in(directory) == {"m-2", "m-4"}


def test_a_graph_that_no_checkpoint_needs_leaves_the_store(directory, clock):
    run = Trainer(directory, clock)
    keeper = keeper_of(directory, clock, max_to_keep=1, trash=None)
    run.save(1)
    keeper.sweep()
    run.save(2, graph=b"new graph")
    keeper.sweep()
    keeper.sweep()
    keeper.purge()

    assert not any(data == GRAPH for _, _, data in directory.disk.tree())


def test_a_write_in_place_through_one_link_parts_them_and_is_told(directory, clock):
    run = Trainer(directory, clock)
    for step in (1, 2, 3):
        run.save(step)
    keeper = keeper_of(directory, clock, max_to_keep=3)
    keeper.sweep()
    number = metas(directory)["m-2.meta"]
    inode = directory.disk.inodes[number]
    inode.data = b"overwritten in place"
    inode.mtime_ns += 10**9

    result = keeper.sweep()

    assert any("written in place" in text for text in result.failed)
    assert keeper.sweep().failed == []
    assert {directory.read(name, limit=100) for name in metas(directory)} == {
        b"overwritten in place"
    }


def test_a_touch_changes_nothing_and_is_no_write(directory, clock):
    run = Trainer(directory, clock)
    for step in (1, 2, 3):
        run.save(step)
    keeper = keeper_of(directory, clock, max_to_keep=3)
    keeper.sweep()
    before = metas(directory)
    directory.disk.inodes[before["m-2.meta"]].mtime_ns += 10**9

    result = keeper.sweep()

    assert result.failed == []
    assert metas(directory) == before
    assert not keeper.sweep().changed


def test_eager_checkpoints_have_no_graph_and_get_none(directory, clock):
    run = Trainer(directory, clock, managed=True)
    for step in (1, 2, 3):
        run.save(step, graph=None)

    keeper_of(directory, clock, max_to_keep=2).sweep()

    assert metas(directory) == {}
    assert "m-3.index" in names_in(directory)
