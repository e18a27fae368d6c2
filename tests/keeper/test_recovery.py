"""What others have left half done, moved, damaged or forged in `.ckptd` is finished, or does no harm."""

import errno
import json
from contextlib import suppress

import pytest
from keeper.trainer import Clock, Trainer, complete_in, keeper_of, names_in
from storage.memory_directory import MemoryDirectory
from storage.memory_disk import Crash

from ckptd.errors import NoSuchCheckpointError, StorageError


def a_kept_run(*steps, max_to_keep=3, **policy):
    clock, directory = Clock(), MemoryDirectory()
    run = Trainer(directory, clock)
    for step in steps:
        run.save(step)
    keeper = keeper_of(MemoryDirectory(directory.disk), clock, max_to_keep=max_to_keep, **policy)
    keeper.sweep()
    keeper.sweep()
    return directory, clock, run, keeper


def another(directory, clock, **policy):
    return keeper_of(MemoryDirectory(directory.disk), clock, **{"max_to_keep": 3, **policy})


def own(directory, *rooms):
    opened = directory.open_directory(".ckptd")
    for room in rooms:
        opened = opened.open_directory(room)
    return opened


def test_a_step_saved_again_while_it_is_in_the_trash_disturbs_nobody():
    directory, clock, run, _ = a_kept_run(1, 2, 3, 4, 5)
    run.saved = run.saved[2:]
    run.save(2)
    another(directory, clock).sweep()

    for _ in range(3):
        assert another(directory, clock).sweep().failed == []
    assert "m-2" in complete_in(directory)


def test_an_undo_that_is_refused_leaves_a_persons_pin_alone():
    _directory, _clock, run, keeper = a_kept_run(1, 2, 3, 4, 5)
    run.saved = run.saved[2:]
    run.save(2)
    keeper.pin("m-2", by="ada")

    with pytest.raises(NoSuchCheckpointError):
        keeper.undo(lambda removed: removed.name == "m-2", by="bob")

    assert keeper.plan().survey.pins["m-2"].by == "ada"


def test_an_undo_killed_half_way_is_finished_by_a_keeper_that_lives_on():
    directory, clock, _, daemon = a_kept_run(1, 2, 3, 4, 5)
    directory.disk.crash_at(9)
    with pytest.raises(Crash):
        another(directory, clock).undo(lambda removed: removed.name == "m-2", by="ada")
    disk = directory.disk.restarted()
    daemon.directory.disk = directory.disk = disk

    clock.now += 30
    daemon.expire()

    files = {name for name in names_in(directory) if name.startswith("m-2.")}
    in_trash = {removed.name for removed in daemon.trash()}
    assert not files or "m-2" in complete_in(directory)
    assert ("m-2" in in_trash) != bool(files)


def test_an_undo_that_the_disk_refuses_half_way_can_be_asked_for_again():
    for refused in range(1, 15):
        directory, _, _, keeper = a_kept_run(1, 2, 3, 4, 5)
        keeper.directory.disk.fail_at(refused, errno.EIO)
        with suppress(StorageError):
            keeper.undo(lambda removed: removed.name == "m-2", by="ada")
        if "m-2" not in complete_in(directory):
            keeper.undo(lambda removed: removed.name == "m-2", by="ada")

        keeper.sweep()

        assert "m-2" in complete_in(directory)


@pytest.mark.parametrize("when", range(1, 60, 2))
def test_what_space_was_made_of_has_its_reason_in_the_history(when):
    clock, directory = Clock(), MemoryDirectory()
    run = Trainer(directory, clock)
    for step in range(1, 7):
        run.save(step)
    keeper = keeper_of(MemoryDirectory(directory.disk), clock, max_to_keep=3)
    directory.disk.fail_at(when, errno.ENOSPC)

    try:
        keeper.sweep()
    except StorageError:
        keeper.sweep()

    told = {line["name"] for line in keeper.history() if line["event"] == "removed"}
    assert {"m-1", "m-2", "m-3"} <= told | complete_in(directory)
    assert {"m-4", "m-5", "m-6"} <= complete_in(directory)


def test_a_history_that_a_backup_has_linked_is_written_on_a_copy():
    directory, clock, run, _ = a_kept_run(1, 2, 3, 4)
    own(directory).link("history.jsonl", "backup")
    before = own(directory).read("backup", limit=10**6)
    run.save(5)

    another(directory, clock).sweep()

    assert own(directory).read("backup", limit=10**6) == before
    assert another(directory, clock).history()[-1]["name"] == "m-2"


def test_a_record_that_lies_takes_no_complete_checkpoint_away():
    directory, clock, _, _ = a_kept_run(1, 2, 3, 4, 5)
    directory.create("thesis.tex", b"mine")
    files = [["x", 1, 1, 1]]
    for name in ("m-5.index", "thesis.tex"):
        entry = directory.entry(name)
        files.append([name, entry.identity.inode, entry.size, entry.identity.mtime_ns])
    for identifier, listed in (("1-a", files), ("1-b", files[1:2]), ("1-c", [])):
        own(directory, "trash").make_directory(identifier)
        record = {
            "schema": "ckptd.removed/1",
            "name": "m-5",
            "global_step": 5,
            "at": clock(),
            "reasons": [],
            "files": listed,
        }
        own(directory, "trash", identifier).create("record.json", json.dumps(record).encode())
    keeper = another(directory, clock)

    keeper.sweep()
    keeper.purge()

    assert "m-5" in complete_in(directory)
    assert "thesis.tex" in names_in(directory)


@pytest.mark.parametrize(
    "text",
    [b"", b"[" * 5000, b'{"schema": "ckptd.removed/1", "at": Infinity}', b"\xff", b"[1]", b"null"],
)
def test_damaged_records_of_ours_stop_nothing(text):
    directory, clock, run, _ = a_kept_run(1, 2, 3, 4, 5)
    own(directory, "trash").make_directory("2-a")
    own(directory, "trash", "2-a").create("record.json", text)
    for name in ("ledger.json", "history.jsonl"):
        own(directory).unlink(name)
        own(directory).create(name, text)
    own(directory).create("held.json", text)
    run.save(6)

    keeper = another(directory, clock)
    keeper.sweep()
    keeper.pin("m-6", by="ada")

    assert complete_in(directory) >= {"m-5", "m-6"}
    assert keeper.history()[-1]["event"] == "pinned"


def test_what_was_removed_last_comes_back_first_though_the_clock_was_set_back():
    directory, clock, run, _ = a_kept_run(1, 2, 3, 4)
    clock.now -= 7200
    run.clock.now = clock.now
    keeper = another(directory, clock, max_to_keep=1, min_age=0.0)
    clock.now += 7200 - 60
    keeper.sweep()

    assert [removed.name for removed in keeper.trash()][-1] == "m-3"


def test_one_that_cannot_be_unlinked_does_not_keep_the_others_in_the_trash():
    directory, clock, _, keeper = a_kept_run(1, 2, 3, 4, 5)
    clock.now += 7200
    keeper.expire()
    first = min(entry.name for entry in own(directory, "trash").list())
    own(directory, "trash", first).make_directory("nested")

    with pytest.raises(StorageError, match="nested"):
        keeper.purge()

    assert [entry.name for entry in own(directory, "trash").list()] == [first]


def test_a_ckptd_directory_deleted_under_a_keeper_costs_nothing_that_was_preserved():
    directory, _clock, run, keeper = a_kept_run(max_to_keep=1, keep_checkpoint_every_n_hours=1.0)
    for step in range(1, 6):
        run.save(step, every=1900.0)
        keeper.sweep()
    before = complete_in(directory)
    own_directory = own(directory)
    for room in [e for e in own_directory.list() if e.kind.value == "directory"]:
        inner = own_directory.open_directory(room.name)
        for entry in inner.list():
            if entry.kind.value == "directory":
                for file in inner.open_directory(entry.name).list():
                    inner.open_directory(entry.name).unlink(file.name)
                inner.remove_directory(entry.name)
            else:
                inner.unlink(entry.name)
        own_directory.remove_directory(room.name)
    for entry in own_directory.list():
        own_directory.unlink(entry.name)
    directory.remove_directory(".ckptd")

    keeper.sweep()

    assert complete_in(directory) == before
