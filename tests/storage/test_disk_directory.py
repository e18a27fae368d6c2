"""The directory on a real disk keeps the contract; what only a real one has stands below."""

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage.directory_contract import DirectoryContract, content, names

from ckptd.checkpoints.listing import Kind
from ckptd.errors import (
    DirectoryReplacedError,
    NoSuchDirectoryError,
    NotPermittedError,
    StorageError,
)
from ckptd.storage import renameat2
from ckptd.storage.directory import Directory
from ckptd.storage.disk import DiskDirectory, open_model_directory


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir(mode=0o755)
    return path


@pytest.fixture
def opened(model: Path) -> Iterator[DiskDirectory]:
    directory = open_model_directory(str(model))
    yield directory
    directory.close()


class TestDiskDirectory(DirectoryContract):
    @pytest.fixture
    def directory(self, opened: DiskDirectory) -> Directory:
        return opened


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("path", ["", "absent", "absent/deeper", "file", "file/deeper", "loop"])
def test_a_path_that_leads_to_no_directory_is_refused(tmp_path, path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")

    with pytest.raises(NoSuchDirectoryError):
        open_model_directory(path and str(tmp_path / path))


@pytest.mark.parametrize("path", ["a\0b", "a\ud800"])
def test_a_path_that_cannot_be_one_is_refused(path):
    with pytest.raises(NoSuchDirectoryError, match="characters that no path can have"):
        open_model_directory(path)


def test_the_root_of_all_can_be_opened_and_named():
    directory = open_model_directory("/")
    with pytest.raises(StorageError, match="cannot read /absent: "):
        directory.read("absent", limit=1)

    assert directory.path == "/"
    directory.close()


def test_links_in_the_operators_path_are_followed_once(tmp_path, model):
    (tmp_path / "alias").symlink_to(model)
    directory = open_model_directory(str(tmp_path / "alias"))

    (tmp_path / "alias").unlink()

    assert directory.path == str(model)
    directory.verify()
    directory.close()


def test_a_relative_path_is_opened_where_the_process_stands(opened, model):
    relative = open_model_directory(os.path.relpath(model))

    assert relative.path == opened.path
    relative.close()


def test_a_removed_directory_is_no_longer_verified(opened, model):
    model.rmdir()

    with pytest.raises(DirectoryReplacedError, match="leads to no directory any more"):
        opened.verify()


def test_another_directory_in_its_place_is_noticed(opened, model):
    model.rename(model.with_name("moved"))
    model.mkdir()

    with pytest.raises(DirectoryReplacedError, match="leads to another directory"):
        opened.verify()


@pytest.mark.parametrize("component", ["model", "parent"])
def test_a_link_in_its_place_is_noticed_even_when_it_leads_back(tmp_path, component):
    (tmp_path / "parent" / "model").mkdir(parents=True)
    directory = open_model_directory(str(tmp_path / "parent" / "model"))
    path = tmp_path / "parent" / ("model" if component == "model" else "")
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")

    with pytest.raises(DirectoryReplacedError, match="leads to no directory any more"):
        directory.verify()
    directory.close()


def test_work_goes_on_in_the_directory_that_was_opened(opened, model):
    model.rename(model.with_name("moved"))
    model.mkdir()

    opened.create("file", b"x")

    assert os.listdir(model) == []
    assert os.listdir(model.with_name("moved")) == ["file"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("alias", True),
        ("model/../model", True),
        ("other", False),
        ("dangling", None),
        ("loop", None),
        ("a\0b", None),
        ("n" * 300, None),
    ],
)
def test_where_a_path_leads_is_found_through_links(opened, tmp_path, path, expected):
    (tmp_path / "alias").symlink_to("model")
    (tmp_path / "other").mkdir()
    (tmp_path / "dangling").symlink_to("absent")
    (tmp_path / "loop").symlink_to("loop")

    assert opened.leads_here(f"{tmp_path}/{path}") is expected


def test_every_kind_is_told_apart(opened, model):
    (model / "file").touch()
    (model / "directory").mkdir()
    (model / "link").symlink_to("file")
    os.mkfifo(model / "pipe")

    assert {entry.name: entry.kind for entry in opened.list()} == {
        "file": Kind.FILE,
        "directory": Kind.DIRECTORY,
        "link": Kind.SYMLINK,
        "pipe": Kind.OTHER,
    }


def test_two_listings_at_once_are_both_whole(opened):
    for i in range(500):
        opened.create(f"m-{i}.index", b"")
    counts: list[int] = []

    def read() -> None:
        counts.extend(len(opened.list()) for _ in range(20))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(counts) == {500}


def test_names_that_vanish_during_a_listing_are_left_out(opened, model):
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            (model / "here").touch()
            (model / "here").unlink()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        seen = {entry.name for _ in range(300) for entry in opened.list()}
    finally:
        stop.set()
        thread.join()

    assert seen <= {"here"}


def test_a_copy_has_the_mode_of_its_source_and_no_more(opened, model):
    opened.create("a", b"x")
    (model / "a").chmod(0o4640)

    opened.copy("a", "b")

    assert mode(model / "b") == 0o640


def test_a_large_file_is_copied_whole(opened, model):
    data = os.urandom(1 << 20) * 17 + b"end"
    opened.create("a", data)

    opened.copy("a", "b")

    assert (model / "b").read_bytes() == data


@pytest.mark.parametrize("shared", [0o700, 0o750, 0o770, 0o2770, 0o777])
def test_an_inner_directory_is_open_to_whom_the_outer_one_is(opened, model, shared):
    model.chmod(shared)

    opened.make_directory(".ckptd")

    assert mode(model / ".ckptd") == shared
    assert (model / ".ckptd").stat().st_gid == model.stat().st_gid


@pytest.mark.parametrize(
    ("shared", "expected"), [(0o755, 0o600), (0o775, 0o660), (0o770, 0o660), (0o777, 0o666)]
)
def test_who_may_write_here_may_lock_here(opened, model, shared, expected):
    model.chmod(shared)

    with opened.lock("lock"):
        assert mode(model / "lock") == expected


def test_a_lock_is_waited_for(opened):
    held = threading.Event()

    def hold() -> None:
        with opened.lock("lock"):
            held.set()
            time.sleep(0.1)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with opened.lock("lock", wait=0.0) as at_once:
        pass
    with opened.lock("lock", wait=30.0) as later:
        pass
    thread.join()

    assert (at_once, later) == (False, True)


def test_a_wait_for_a_lock_ends(opened):
    with opened.lock("lock"):
        start = time.monotonic()
        with opened.lock("lock", wait=0.15) as got:
            waited = time.monotonic() - start

    assert not got
    assert waited >= 0.15


def test_a_lock_on_a_removed_file_excludes_nobody_and_is_no_lock(opened, model):
    with opened.lock("lock"):
        (model / "lock").unlink()
        with opened.lock("lock") as second:
            assert second
            with opened.lock("lock") as third:
                assert not third


@pytest.mark.processes
def test_a_lock_dies_with_its_holder(opened, model):
    program = (
        "import sys; from ckptd.storage.disk import open_model_directory\n"
        "with open_model_directory(sys.argv[1]).lock('lock'): print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", program, str(model)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with opened.lock("lock") as before:
            pass
        holder.kill()
        holder.wait()
        with opened.lock("lock") as after:
            pass

    assert (before, after) == (False, True)


@pytest.mark.processes
def test_a_lock_released_here_is_not_kept_by_a_forked_child(opened):
    with opened.lock("lock"):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    try:
        with opened.lock("lock") as got:
            assert got
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


def test_a_rename_in_two_steps_refuses_an_existing_name_too(opened):
    opened.create("a", b"mine")
    opened.create("b", b"theirs")

    with pytest.raises(FileExistsError):
        renameat2.link_and_unlink(opened.fileno(), "a", opened.fileno(), "b")
    renameat2.link_and_unlink(opened.fileno(), "a", opened.fileno(), "c")

    assert names(opened) == ["b", "c"]
    assert content(opened, "b") == b"theirs"


def test_another_file_system_inside_is_not_entered():
    root = open_model_directory("/")
    try:
        with pytest.raises(StorageError, match="another file system") as caught:
            root.open_directory("proc")
    finally:
        root.close()

    assert caught.value.number == errno.EXDEV


def test_a_file_of_the_kernel_that_refuses_directory_syncs_makes_durability_weak():
    kernel = open_model_directory("/proc")
    kernel.sync()

    assert kernel.weak_sync
    kernel.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do anything")
def test_what_is_forbidden_is_reported_as_such(opened, model):
    model.chmod(0o500)

    with pytest.raises(NotPermittedError):
        opened.create("file", b"x")


def test_the_text_of_an_error_names_both_files_and_cannot_forge_a_line(opened, model):
    opened.create("two\nlines", b"x")
    opened.create("taken", b"x")

    with pytest.raises(StorageError) as caught:
        opened.rename("two\nlines", "taken")

    assert str(caught.value) == (f"cannot give the name taken to {model}/two\\nlines: File exists")
