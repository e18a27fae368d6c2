"""A trainer that rotates by itself takes away what ckptd is about to remove, file by file."""

from collections.abc import Callable

import pytest
from keeper.trainer import Clock, Trainer, complete_in, keeper_of, names_in
from storage.memory_directory import MemoryDirectory

FILES = ("m-1.meta", "m-1.index", "m-1.data-00000-of-00001")  # in TensorFlow's order


class Rotated(MemoryDirectory):
    """Has a trainer remove `files` just before the removal of `m-1` moves file number `place`."""

    files: tuple[str, ...] = ()
    place = -1

    def rename(self, name, new_name, *, into=None):
        if name.startswith("m-1."):
            if self.place == 0:
                for file in self.files:
                    if self.entry(file) is not None:
                        self.unlink(file)
            self.place -= 1
        super().rename(name, new_name, into=into)


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_the_trainer_takes_first_is_no_failure_and_leaves_nothing_behind(place, count):
    directory, clock = Rotated(), Clock()
    run = Trainer(directory, clock)
    for step in (1, 2, 3):
        run.save(step)
    keeper = keeper_of(directory, clock, max_to_keep=2)
    directory.files, directory.place = FILES[:count], place

    result = keeper.sweep()
    for file in FILES:  # it goes on to the end, and finds what is still there
        if directory.entry(file) is not None:
            directory.unlink(file)

    assert result.failed == []
    assert complete_in(directory) == {"m-2", "m-3"}
    assert not any(name.startswith("m-1.") for name in names_in(directory))
    assert not keeper.sweep().changed
    keeper.purge()
    for _ in keeper.trash():  # what can be brought back can be brought back whole
        keeper.undo(lambda removed: removed.name == "m-1", by="somebody")
        assert complete_in(directory) == {"m-1", "m-2", "m-3"}


def test_what_was_moved_before_the_trainer_came_does_not_come_back_alone():
    directory, clock = Rotated(), Clock()
    run = Trainer(directory, clock)
    for step in (1, 2, 3):
        run.save(step)
    keeper = keeper_of(directory, clock, max_to_keep=2)
    directory.files, directory.place = FILES, 1

    result = keeper.sweep()

    assert names_in(directory) & set(FILES) == set()
    assert keeper.trash() == []
    assert [line["name"] for line in result.lines if line["event"] == "removed"] == ["m-1"]


class SavedAgain(MemoryDirectory):
    """Has the trainer save `m-1` anew just before file number `place` of it is moved."""

    place = -1
    save: Callable[[], object] | None = None

    def rename(self, name, new_name, *, into=None):
        if name.startswith("m-1.") and not name.endswith("0"):
            self.place -= 1
            if self.place == -1 and self.save is not None:
                self.save()
        super().rename(name, new_name, into=into)


@pytest.mark.parametrize("place", range(3))
def test_a_checkpoint_saved_anew_while_it_is_moved_stays_whole(place):
    directory, clock = SavedAgain(), Clock()
    run = Trainer(directory, clock)
    for step in (1, 2, 3):
        run.save(step)
    keeper = keeper_of(directory, clock, max_to_keep=2)
    directory.place, directory.save = place, lambda: run.save(1)

    keeper.sweep()

    assert "m-1" in complete_in(directory)
    keeper.sweep()
    assert complete_in(directory) == {"m-1", "m-3"}


class Vanishing(MemoryDirectory):
    """Has a trainer remove a meta graph at the very moment in which it is to be shared."""

    outer: "Vanishing"
    victim = "m-2.meta"
    at = ""

    def open_directory(self, name):
        opened = super().open_directory(name)
        inner = Vanishing(opened.disk, opened._inode, opened.path)
        inner.outer = getattr(self, "outer", self)
        return inner

    def exchange(self, name, other, *, into=None):
        self.outer.vanish("exchange", other)
        return super().exchange(name, other, into=into)

    def link(self, name, new_name, *, into=None):
        self.vanish("link", name)
        super().link(name, new_name, into=into)

    def vanish(self, at, name):
        if (at, name) == (self.at, self.victim):
            self.at = ""
            self.unlink(name)


@pytest.mark.parametrize(("at", "victim"), [("exchange", "m-2.meta"), ("link", "m-1.meta")])
def test_a_meta_graph_that_the_trainer_takes_meanwhile_is_no_failure(at, victim):
    directory, clock = Vanishing(), Clock()
    run = Trainer(directory, clock)
    for step in (1, 2, 3):
        run.save(step)
    keeper = keeper_of(directory, clock, max_to_keep=3)
    directory.at, directory.victim = at, victim

    result = keeper.sweep()

    assert directory.at == ""
    assert result.failed == []
    own = directory.open_directory(".ckptd")
    assert not [e.name for e in own.open_directory("meta_graphs").list() if "tmp" in e.name]
    keeper.sweep()
    assert not keeper.sweep().changed
    assert complete_in(directory) == {"m-1", "m-2", "m-3"}
