"""The directory in memory keeps the contract, and breaks it where a test says so."""

import errno

import pytest
from storage.directory_contract import DirectoryContract, content, names
from storage.memory_directory import MemoryDirectory
from storage.memory_disk import Crash, MemoryDisk

from ckptd.checkpoints.listing import Kind
from ckptd.errors import DirectoryReplacedError, NoSpaceError, StorageError
from ckptd.storage.directory import Directory


class TestMemoryDirectory(DirectoryContract):
    @pytest.fixture(params=[True, False], ids=["exchange", "no exchange"])
    def directory(self, request: pytest.FixtureRequest) -> Directory:
        return MemoryDirectory(MemoryDisk(can_exchange=request.param))


def test_the_chosen_change_fails_once_and_changes_nothing():
    directory = MemoryDirectory()
    directory.disk.fail_at(2, errno.ENOSPC)

    directory.create("a", b"x")
    with pytest.raises(NoSpaceError):
        directory.create("b", b"x")
    directory.create("c", b"x")

    assert names(directory) == ["a", "c"]


def test_a_sticky_failure_stays():
    directory = MemoryDirectory()
    directory.disk.fail_at(1, errno.EROFS, sticky=True)

    for _ in range(2):
        with pytest.raises(StorageError):
            directory.sync()
    assert directory.disk.operations == 2


def test_after_a_crash_nothing_reaches_the_disk():
    directory = MemoryDirectory()
    directory.create("a", b"x")
    directory.disk.crash_at(1)

    for _ in range(2):
        with pytest.raises(Crash):
            directory.unlink("a")

    assert names(directory) == ["a"]
    restarted = MemoryDirectory(directory.disk.restarted())
    restarted.unlink("a")
    assert names(restarted) == []


def test_a_restart_frees_the_locks_and_syncs_nothing():
    directory = MemoryDirectory()
    with directory.lock("lock"):
        restarted = MemoryDirectory(directory.disk.restarted())
        with restarted.lock("lock") as got:
            assert got

    assert [] in [names(MemoryDirectory(state)) for state in restarted.disk.crash_states()]


def test_reading_and_listing_are_not_counted():
    directory = MemoryDirectory()
    directory.create("a", b"x")

    directory.list()
    directory.entry("a")
    content(directory, "a")

    assert directory.disk.operations == 1


def test_each_content_is_younger_than_the_one_before():
    directory = MemoryDirectory()
    directory.create("a", b"x")
    directory.create("b", b"x")

    (a, b) = directory.list()
    assert a.mtime < b.mtime


def test_times_come_from_the_clock_when_there_is_one():
    directory = MemoryDirectory(MemoryDisk(clock=lambda: 12.5))
    directory.create("a", b"x")
    directory.create("b", b"x")
    directory.set_mtime("b", 7.25)

    assert [entry.mtime for entry in directory.list()] == [12.5, 7.25]


@pytest.mark.parametrize("kind", [Kind.SYMLINK, Kind.OTHER])
def test_what_is_planted_is_listed_and_never_read(kind):
    directory = MemoryDirectory()
    directory.plant("odd", kind)

    assert [entry.kind for entry in directory.list()] == [kind]
    with pytest.raises(StorageError, match=f"it is a {kind.value}"):
        directory.read("odd", limit=1)


def test_a_replaced_root_is_noticed():
    directory = MemoryDirectory()
    directory.disk.replaced = True

    with pytest.raises(DirectoryReplacedError):
        directory.verify()


def test_a_removed_directory_is_noticed():
    directory = MemoryDirectory()
    directory.make_directory("inner")
    inner = directory.open_directory("inner")
    directory.remove_directory("inner")

    with pytest.raises(DirectoryReplacedError):
        inner.verify()
