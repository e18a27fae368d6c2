"""Who else may write in or above a model directory gains nothing by it, and makes nothing hang."""

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ckptd.checkpoints.listing import Kind
from ckptd.errors import (
    DirectoryReplacedError,
    NoSuchDirectoryError,
    NotFoundError,
    StorageError,
)
from ckptd.storage import renameat2
from ckptd.storage.disk import DiskDirectory, open_model_directory
from ckptd.storage.removal import empty_and_remove

VICTIM = "m-1.index"
ATTACK_SECONDS = 1.0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "parent" / "model"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def opened(model: Path) -> Iterator[DiskDirectory]:
    directory = open_model_directory(str(model))
    yield directory
    directory.close()


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A directory of somebody else, with a file under the victim's name."""
    path = tmp_path / "canary"
    path.mkdir()
    (path / VICTIM).write_bytes(b"canary")
    return path


def unharmed(canary: Path) -> bool:
    return os.listdir(canary) == [VICTIM] and (canary / VICTIM).read_bytes() == b"canary"


@contextmanager
def exchanging(folder: Path, name: str, other: str) -> Iterator[list[int]]:
    """Swap two names in `folder` without a pause; yields the count of swaps."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    stop = threading.Event()
    count = [0]

    def attack() -> None:
        while not stop.is_set():
            with suppress(FileNotFoundError):
                renameat2.exchange(descriptor, name, descriptor, other)
                count[0] += 1

    if not renameat2.exchange(descriptor, name, descriptor, other):
        os.close(descriptor)
        pytest.skip("this file system cannot exchange names")
    thread = threading.Thread(target=attack)
    thread.start()
    try:
        yield count
    finally:
        stop.set()
        thread.join()
        os.close(descriptor)


def for_a_while() -> Iterator[None]:
    end = time.monotonic() + ATTACK_SECONDS
    while time.monotonic() < end:
        yield


def plant_link(path: Path, canary: Path) -> None:
    path.symlink_to(canary / VICTIM)


def plant_dangling_link(path: Path, canary: Path) -> None:
    path.symlink_to(canary / "made through a link")


def plant_pipe(path: Path, _canary: Path) -> None:
    os.mkfifo(path)


def plant_socket(path: Path, _canary: Path) -> None:
    held = os.open(path.parent, os.O_RDONLY)  # the full path may be too long for a socket
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{held}/{path.name}")
    os.close(held)


def plant_device(path: Path, _canary: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")


PLANTS = [
    pytest.param(plant_link, Kind.SYMLINK, id="link"),
    pytest.param(plant_dangling_link, Kind.SYMLINK, id="dangling link"),
    pytest.param(plant_pipe, Kind.OTHER, id="pipe"),
    pytest.param(plant_socket, Kind.OTHER, id="socket"),
    pytest.param(plant_device, Kind.OTHER, id="device"),
]

Plant = Callable[[Path, Path], None]


@pytest.mark.timeout(10)
@pytest.mark.parametrize(("plant", "kind"), PLANTS)
@pytest.mark.parametrize(
    "step",
    [
        pytest.param(lambda d: d.read("odd", limit=100), id="read"),
        pytest.param(lambda d: d.append("odd", b"x"), id="append"),
        pytest.param(lambda d: d.sync_file("odd"), id="sync_file"),
        pytest.param(lambda d: d.link("odd", "new"), id="link"),
        pytest.param(lambda d: d.clone("odd", "new"), id="clone"),
        pytest.param(lambda d: d.copy("odd", "new"), id="copy"),
    ],
)
def test_what_is_planted_is_named_and_never_opened(opened, model, canary, plant, kind, step):
    plant(model / "odd", canary)

    with pytest.raises(StorageError, match=f"it is a {kind.value}, not a regular file"):
        step(opened)

    assert os.listdir(model) == ["odd"]
    assert unharmed(canary)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(("plant", "kind"), PLANTS)
@pytest.mark.parametrize(
    "step",
    [
        pytest.param(lambda d: d.create("odd", b"x"), id="create"),
        pytest.param(lambda d: d.rename("ours", "odd"), id="rename"),
        pytest.param(lambda d: d.link("ours", "odd"), id="link"),
        pytest.param(lambda d: d.clone("ours", "odd"), id="clone"),
        pytest.param(lambda d: d.copy("ours", "odd"), id="copy"),
        pytest.param(lambda d: d.make_directory("odd"), id="make_directory"),
    ],
)
def test_what_is_planted_under_a_new_name_stops_it(opened, model, canary, plant, kind, step):
    opened.create("ours", b"x")
    plant(model / "odd", canary)

    with pytest.raises(StorageError) as caught:
        step(opened)

    assert caught.value.number == errno.EEXIST
    assert sorted(os.listdir(model)) == ["odd", "ours"]
    assert unharmed(canary)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(("plant", "kind"), PLANTS)
def test_what_is_planted_is_replaced_and_removed_itself(opened, model, canary, plant, kind):
    plant(model / "odd", canary)
    plant(model / "other", canary)
    opened.create("ours", b"ours")

    opened.replace("ours", "odd")
    opened.unlink("other")

    assert os.listdir(model) == ["odd"]
    assert opened.read("odd", limit=100) == b"ours"
    assert unharmed(canary)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(("plant", "kind"), PLANTS)
def test_nothing_but_a_file_is_locked(opened, model, canary, plant, kind):
    plant(model / "lock", canary)

    with pytest.raises(StorageError), opened.lock("lock", wait=60.0):
        pass

    assert unharmed(canary)


@pytest.mark.parametrize(("plant", "kind"), PLANTS)
def test_what_is_planted_in_the_trash_is_reported_and_left(opened, model, canary, plant, kind):
    (model / "trash").mkdir()
    plant(model / "trash" / "odd", canary)
    (model / "trash" / VICTIM).write_bytes(b"ours")

    with pytest.raises(StorageError, match=f"it is a {kind.value}"):
        empty_and_remove(opened, "trash")

    assert os.listdir(model / "trash") == ["odd"]
    assert unharmed(canary)


def test_a_link_is_no_directory(opened, model, canary):
    (model / "trash").symlink_to(canary)

    with pytest.raises(StorageError):
        opened.open_directory("trash")
    with pytest.raises(StorageError):
        empty_and_remove(opened, "trash")
    with pytest.raises(StorageError):
        opened.remove_directory("trash")

    assert unharmed(canary)


def test_a_hard_link_to_somebody_elses_file_loses_its_name_only(opened, model, canary):
    os.link(canary / VICTIM, model / VICTIM)
    os.link(canary / VICTIM, model / "ledger")
    before = (canary / VICTIM).stat()

    opened.unlink(VICTIM)
    with pytest.raises(StorageError, match="2 names"):
        opened.append("ledger", b"x")

    after = (canary / VICTIM).stat()
    assert unharmed(canary)
    assert (after.st_mode, after.st_uid, after.st_size) == (
        before.st_mode,
        before.st_uid,
        before.st_size,
    )


@pytest.mark.parametrize("component", ["parent", "parent/model"])
def test_a_component_swapped_for_a_link_after_opening_changes_nothing(
    opened, tmp_path, canary, component
):
    opened.create(VICTIM, b"ours")
    (tmp_path / component).rename(tmp_path / "moved")
    (tmp_path / component).symlink_to(canary)

    with pytest.raises(DirectoryReplacedError):
        opened.verify()
    opened.unlink(VICTIM)

    assert unharmed(canary)


@pytest.mark.parametrize("evil", ["link", "directory"])
@pytest.mark.parametrize("component", ["parent", "model"])
def test_swapping_a_component_all_the_time_leads_nowhere(
    opened, tmp_path, model, canary, component, evil
):
    """The attack that deletes thousands of foreign files from a path-based program."""
    target = {"parent": model.parent, "model": model}[component]
    held = os.open(canary, os.O_RDONLY | os.O_DIRECTORY)  # wherever the swaps leave it
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "model").symlink_to(canary)
    decoy = target.with_name("decoy")
    leads_to = tmp_path / "outside" if component == "parent" else canary
    if evil == "link":
        decoy.symlink_to(leads_to)
    else:
        leads_to.rename(decoy)
    seen = {"same": 0, "replaced": 0}

    with exchanging(target.parent, target.name, "decoy") as swaps:
        for _ in for_a_while():
            try:
                opened.verify()
                seen["same"] += 1
            except DirectoryReplacedError:
                seen["replaced"] += 1
            opened.create(VICTIM, b"ours")
            opened.rename(VICTIM, "m-2.index")
            opened.link("m-2.index", VICTIM)
            opened.unlink(VICTIM)
            opened.unlink("m-2.index")

    assert unharmed(Path(f"/proc/self/fd/{held}"))
    os.close(held)
    assert opened.list() == []
    assert swaps[0] > 100
    assert min(seen.values()) > 0


def test_swapping_an_inner_directory_all_the_time_leads_nowhere(opened, model, canary):
    (model / "decoy").symlink_to(canary)
    (model / "trash").mkdir()
    removed = 0

    with exchanging(model, "trash", "decoy") as swaps:
        for _ in for_a_while():
            with suppress(StorageError):
                inside = opened.open_directory("trash")
                assert inside.identity != (canary.stat().st_dev, canary.stat().st_ino)
                inside.create(VICTIM, b"ours")
                inside.unlink(VICTIM)
                inside.close()
                removed += 1

    assert unharmed(canary)
    assert removed > 0
    assert swaps[0] > 100


def test_swapping_what_is_removed_all_the_time_leads_nowhere(opened, model, canary):
    (model / "decoy").symlink_to(canary)
    (model / "trash").mkdir()
    removed = 0

    with exchanging(model, "trash", "decoy"):
        for _ in for_a_while():
            for name in ("trash", "decoy"):
                with suppress(StorageError):
                    empty_and_remove(opened, name)
                    removed += 1
                    # The attacker puts it back, so that there is something to swap.
                    opened.make_directory(name)

    assert unharmed(canary)
    assert removed > 0


def test_opening_while_a_component_is_swapped_gives_one_directory_or_the_other(
    tmp_path, model, canary
):
    (model.parent / "decoy").symlink_to(canary)
    both = {(path.stat().st_dev, path.stat().st_ino): str(path) for path in (model, canary)}
    refused = 0

    with exchanging(model.parent, "model", "decoy"):
        for _ in for_a_while():
            try:
                directory = open_model_directory(str(model))
            except NoSuchDirectoryError:
                refused += 1
                continue
            assert directory.identity in both
            if both[directory.identity] == str(canary):
                assert directory.path == str(canary)
            directory.close()

    assert unharmed(canary)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(lambda d: d.list(), id="list"),
        pytest.param(lambda d: d.verify(), id="verify"),
        pytest.param(lambda d: d.entry("a"), id="entry"),
        pytest.param(lambda d: d.read("a", limit=10), id="read"),
        pytest.param(lambda d: d.read("a", limit=0), id="read too much"),
        pytest.param(lambda d: d.read("inner", limit=10), id="read a directory"),
        pytest.param(lambda d: d.create("new", b"x"), id="create"),
        pytest.param(lambda d: d.create("a", b"x"), id="create an existing file"),
        pytest.param(lambda d: d.append("a", b"x"), id="append"),
        pytest.param(lambda d: d.copy("a", "new"), id="copy"),
        pytest.param(lambda d: d.copy("a", "inner"), id="copy to an existing name"),
        pytest.param(lambda d: d.clone("a", "new"), id="clone"),
        pytest.param(lambda d: d.sync_file("a"), id="sync_file"),
        pytest.param(lambda d: d.make_directory("new"), id="make_directory"),
        pytest.param(lambda d: d.open_directory("inner").close(), id="open_directory"),
        pytest.param(lambda d: d.open_directory("a"), id="open a file as a directory"),
        pytest.param(lambda d: d.lock("lock").__enter__(), id="lock that is held"),
        pytest.param(lambda d: open_model_directory(d.path).close(), id="open"),
        pytest.param(lambda d: open_model_directory(d.path + "/a"), id="open a file"),
    ],
)
def test_no_descriptor_is_left_open(opened, step):
    opened.create("a", b"x")
    opened.make_directory("inner")
    with opened.lock("lock"):
        before = len(os.listdir("/proc/self/fd"))

        with suppress(StorageError):
            step(opened)

        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.timeout(60)
def test_descriptors_are_not_inherited(opened):
    assert not os.get_inheritable(opened.fileno())


FULL_DISK = """
import resource, sys
from ckptd.errors import StorageError
from ckptd.storage.disk import open_model_directory

directory = open_model_directory(sys.argv[1])
directory.create("large", b"x" * 50_000)
directory.append("ledger", b"one\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
for step in (
    lambda: directory.create("new", b"x" * 50_000),
    lambda: directory.append("ledger", b"y" * 50_000),
    lambda: directory.append("new", b"y" * 50_000),
    lambda: directory.copy("large", "new"),
):
    try:
        step()
    except StorageError as error:
        print(error.number)
"""


@pytest.mark.processes
def test_what_did_not_fit_is_not_left_behind(model):
    """Under a limit the kernel takes a part of a write, then refuses: as a full disk does."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(model)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert done.stdout.split() == [str(errno.EFBIG)] * 4
    assert sorted(os.listdir(model)) == ["large", "ledger"]
    assert (model / "ledger").read_bytes() == b"one\n"


def test_a_name_that_vanishes_between_two_steps_is_reported_as_missing(opened):
    opened.create("a", b"x")
    opened.unlink("a")

    with pytest.raises(NotFoundError):
        opened.unlink("a")
