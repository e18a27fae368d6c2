"""What a reader opens: regular files, links followed, mapped so that nobody can take them away."""

import gc
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ckptd.checkpoints.listing import Kind
from ckptd.errors import NoSuchDirectoryError, NotFoundError, NotPermittedError, StorageError
from ckptd.storage.reading import ReaderDirectory, look_at

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "data").write_bytes(CONTENT)
    return ReaderDirectory(str(tmp_path))


def maps_of(path) -> int:
    """Return how often a file below `path` is mapped in this process."""
    return Path("/proc/self/maps").read_text().count(str(path))


def descriptors_of(path) -> int:
    folder = Path("/proc/self/fd")
    return sum(str(path) in str(link.readlink()) for link in folder.iterdir() if link.is_symlink())


def test_a_map_is_the_file_cannot_be_written_to_and_holds_no_descriptor(directory, tmp_path):
    mapped = directory.map("data")

    assert mapped.view == CONTENT
    assert mapped.view.readonly
    assert mapped.view.format == "B"
    assert mapped.identity.size == len(CONTENT)
    assert maps_of(tmp_path) == 1
    assert descriptors_of(tmp_path) == 0


def test_a_map_lasts_as_long_as_anything_made_of_it(directory, tmp_path):
    array = np.frombuffer(directory.map("data").view[100:104], np.uint8)
    gc.collect()
    assert array.tolist() == [100, 101, 102, 103]
    assert maps_of(tmp_path) == 1

    del array
    gc.collect()
    assert maps_of(tmp_path) == 0


def test_a_finalizer_in_a_cycle_of_garbage_may_still_read(directory, tmp_path):
    """The collector calls who waits for the end of an object before it calls finalizers."""
    read = []

    class Holder:
        def __init__(self):
            self.mapped = directory.map("data")
            self.itself = self

        def __del__(self):
            read.append(maps_of(tmp_path) and bytes(self.mapped.view[:3]))

    Holder()
    gc.collect()
    assert read == [b"\0\1\2"]

    gc.collect()
    assert maps_of(tmp_path) == 0


TAKEN_AWAY = {
    "removed": lambda file: file.unlink(),
    "replaced": lambda file: (file.parent / "new").rename(file),
    "renamed": lambda file: file.rename(file.parent / "elsewhere"),
    "grown": lambda file: os.truncate(file, 2 * len(CONTENT)),
    "directory renamed": lambda file: file.parent.rename(file.parent.with_name("other")),
}


@pytest.mark.parametrize("what", TAKEN_AWAY.values(), ids=TAKEN_AWAY)
def test_what_is_mapped_stays_whatever_happens_to_its_name(tmp_path, what):
    run = tmp_path / "run"
    run.mkdir()
    (run / "data").write_bytes(CONTENT)
    (run / "new").write_bytes(b"x")
    mapped = ReaderDirectory(str(run)).map("data")
    what(run / "data")

    mapped.require_whole()
    assert mapped.view == CONTENT


def test_a_mapped_file_that_was_cut_short_is_told_before_it_is_touched(directory, tmp_path):
    mapped = directory.map("data")
    os.truncate(tmp_path / "data", 10)

    with pytest.raises(StorageError) as caught:
        mapped.require_whole()
    assert str(caught.value) == (
        f"cannot read {tmp_path}/data: it has been cut short since it was opened: "
        "10 of 10,240 bytes are left"
    )


TOUCH = """
import os, sys
from ckptd.storage.reading import ReaderDirectory
mapped = ReaderDirectory(sys.argv[1]).map("data")
os.truncate(sys.argv[1] + "/data", 0)
bytes(mapped.view)
"""


@pytest.mark.processes
def test_touching_what_was_cut_off_ends_the_process(directory, tmp_path):
    command = [sys.executable, "-c", TOUCH, str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGBUS


def test_an_empty_file_is_mapped_as_nothing(directory, tmp_path):
    (tmp_path / "empty").touch()

    assert directory.map("empty").view == b""
    assert directory.read("empty", limit=0) == b""
    directory.map("empty").require_whole()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, CONTENT),
        ({"offset": 250, "size": 10}, CONTENT[250:260]),
        ({"offset": len(CONTENT) - 5, "size": 10}, CONTENT[-5:]),
        ({"offset": len(CONTENT) + 5}, b""),
        ({"size": 0}, b""),
    ],
)
def test_a_part_is_read(directory, options, expected):
    assert directory.read("data", limit=len(CONTENT), **options) == expected


def test_more_than_the_limit_is_refused(directory):
    with pytest.raises(StorageError, match="10240 bytes, where at most 100 are expected"):
        directory.read("data", limit=100)
    assert directory.read("data", size=100, limit=100) == CONTENT[:100]


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


NO_FILES = {
    "a pipe": os.mkfifo,
    "a socket": make_socket,
    "a directory": os.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a terminal": lambda path: path.symlink_to("/dev/tty"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.timeout(10)  # a pipe that is waited for never ends
@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
@pytest.mark.parametrize("operation", ["read", "map"])
def test_only_regular_files_are_opened(tmp_path, make, operation):
    make(tmp_path / "it")
    directory = ReaderDirectory(str(tmp_path))

    with pytest.raises(StorageError, match=f"cannot {operation} {tmp_path}/it: ") as caught:
        directory.read("it", limit=100) if operation == "read" else directory.map("it")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing", "data/below", "x" * 300, "a\0b"])
def test_what_is_missing_is_named(directory, tmp_path, name):
    assert look_at(f"{tmp_path}/{name}") is None
    assert directory.entry(name) is None
    for operation in (directory.map, lambda name: directory.read(name, limit=9)):
        with pytest.raises(NotFoundError) as caught:
            operation(name)
        assert caught.value.path == f"{tmp_path}/{name}"


def test_links_are_followed(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0af3").write_bytes(CONTENT)
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "data").symlink_to("../blobs/0af3")
    (tmp_path / "real" / "lost").symlink_to("../blobs/none")
    (tmp_path / "run").symlink_to("real")
    directory = ReaderDirectory(str(tmp_path / "run"))

    assert directory.map("data").view == CONTENT
    assert directory.read("data", limit=10**6) == CONTENT
    kinds = {entry.name: (entry.kind, entry.size) for entry in directory.list()}
    assert kinds == {"data": (Kind.FILE, len(CONTENT)), "lost": (Kind.SYMLINK, 13)}
    data, blob = directory.entry("data"), look_at(str(tmp_path / "blobs" / "0af3"))
    assert data is not None
    assert blob is not None
    assert data.identity == blob.identity


def test_names_are_names_and_not_patterns(tmp_path):
    names = {"m-*", "m-1", "m-?", "[m]-1", "größe", " m", "n-1"}
    for name in names:
        (tmp_path / name).touch()
    directory = ReaderDirectory(str(tmp_path))

    assert {entry.name for entry in directory.list()} == names
    assert {entry.name for entry in directory.list(start="m-")} == {"m-*", "m-1", "m-?"}
    assert {entry.name for entry in directory.list(start="m-*")} == {"m-*"}


@pytest.mark.parametrize("path", ["none", "data", "a\0b"])
def test_a_directory_that_is_none_is_said_to_be_none(directory, tmp_path, path):
    with pytest.raises(NoSuchDirectoryError):
        ReaderDirectory(str(tmp_path / path)).list()


def test_the_working_directory_may_change(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "data").write_bytes(CONTENT)
    monkeypatch.chdir(tmp_path)
    relative, here = ReaderDirectory("run"), ReaderDirectory("")
    mapped = relative.map("data")
    monkeypatch.chdir("/")
    os.truncate(tmp_path / "run" / "data", 1)

    assert relative.read("data", limit=9) == CONTENT[:1]
    assert here.path == str(tmp_path)
    with pytest.raises(StorageError, match="cut short"):
        mapped.require_whole()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_not_permitted(directory, tmp_path):
    (tmp_path / "data").chmod(0)

    with pytest.raises(NotPermittedError):
        directory.map("data")
