"""Events are hints: the watcher finds the directory, and survives what kills watchdog's own."""

import errno
import io
import os
import resource
import threading
import time

import pytest
from daemon.harness import eventually
from watchdog.events import DirModifiedEvent
from watchdog.observers.inotify_c import InotifyConstants

from ckptd.config.values import LogSettings
from ckptd.daemon.log import Log
from ckptd.daemon.watching import Role, Watcher


class Watching:
    """A watcher, and everything that it has told."""

    def __init__(self):
        self.stream = io.StringIO()
        self.happened = threading.Event()
        self.losses: list[str] = []
        self.log = Log(LogSettings(format="json"), self.stream)
        self.watcher = Watcher(self.log, self.happened.set, self.losses.append)

    def told(self, timeout: float = 2.0) -> set[str]:
        """Return the directories of the next events."""
        self.happened.wait(timeout)
        self.happened.clear()
        return self.watcher.take()

    def settled(self) -> set[str]:
        """Return all that is told until nothing has come for a while."""
        found: set[str] = set()
        while self.happened.wait(0.15):
            self.happened.clear()
            found |= self.watcher.take()
        return found


@pytest.fixture
def watching():
    one = Watching()
    one.watcher.start()
    yield one
    one.watcher.stop()
    assert one.log.failures == 0


def rename(path):
    (path / "a").rename(path / "b")


def make_link(path):
    (path / "b").hardlink_to(path / "a")


MARKS_DIRTY = {
    "write": lambda path: (path / "new").write_bytes(b"x"),
    "rename": rename,
    "hard link": make_link,
    "unlink": lambda path: (path / "a").unlink(),
    "directory": lambda path: (path / "d").mkdir(),
}


@pytest.mark.parametrize("what", MARKS_DIRTY)
def test_a_change_tells_the_directory(watching, tmp_path, what):
    (tmp_path / "a").write_bytes(b"x")
    watching.watcher.watch(str(tmp_path), Role.MODEL_DIRECTORY)
    MARKS_DIRTY[what](tmp_path)

    assert watching.told() == {str(tmp_path)}


def test_what_ckptd_and_shards_in_the_making_do_is_not_told(watching, tmp_path):
    watching.watcher.watch(str(tmp_path), Role.MODEL_DIRECTORY)
    (tmp_path / ".ckptd").mkdir()
    (tmp_path / ".ckptd" / "lock").write_bytes(b"")
    (tmp_path / "m-7_temp").mkdir()
    (tmp_path / "m-7_temp" / "part-00000-of-00001").write_bytes(b"x")
    (tmp_path / "m-7_temp_0af3").mkdir()

    assert watching.settled() == set()


def test_writing_is_not_told_before_it_ends(watching, tmp_path):
    path = tmp_path / "m-1.data-00000-of-00001"
    path.write_bytes(b"")
    watching.watcher.watch(str(tmp_path), Role.MODEL_DIRECTORY)
    with path.open("r+b", buffering=0) as file:
        for _ in range(100):
            file.write(b"x" * 1000)
        assert watching.settled() == set()

    assert watching.told() == {str(tmp_path)}


def test_a_parent_tells_of_directories_only(watching, tmp_path):
    watching.watcher.watch(str(tmp_path), Role.PARENT)
    (tmp_path / "file").write_bytes(b"x")
    assert watching.settled() == set()
    (tmp_path / "run").mkdir()

    assert watching.told() == {str(tmp_path)}


def test_a_directory_may_have_both_roles(watching, tmp_path):
    watching.watcher.watch(str(tmp_path), Role.PARENT)
    watching.watcher.watch(str(tmp_path), Role.MODEL_DIRECTORY)
    (tmp_path / "file").write_bytes(b"x")
    assert watching.told() == {str(tmp_path)}
    watching.settled()
    watching.watcher.unwatch(str(tmp_path), Role.MODEL_DIRECTORY)
    (tmp_path / "file").write_bytes(b"x")
    assert watching.settled() == set()
    watching.watcher.unwatch(str(tmp_path), Role.PARENT)
    (tmp_path / "run").mkdir()

    assert watching.settled() == set()


def test_a_thousand_directories_take_one_inotify_instance(watching, tmp_path):
    for number in range(1000):
        path = tmp_path / str(number)
        path.mkdir()
        assert watching.watcher.watch(str(path), Role.MODEL_DIRECTORY)

    links = [os.readlink(f"/proc/self/fd/{name}") for name in fds()]
    assert links.count("anon_inode:inotify") == 1
    assert watching.watcher.is_whole


def fds() -> list[str]:
    found = os.listdir("/proc/self/fd")
    return [name for name in found if os.path.lexists(f"/proc/self/fd/{name}")]


def test_a_directory_is_watched_again_after_it_was_removed(watching, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    watching.watcher.watch(str(run), Role.MODEL_DIRECTORY)
    run.rmdir()
    assert watching.told() == {str(run)}
    run.mkdir()
    assert watching.watcher.watch(str(run), Role.MODEL_DIRECTORY)
    watching.settled()
    (run / "file").write_bytes(b"x")

    assert watching.told() == {str(run)}
    assert watching.watcher.fault() is None


def test_a_renamed_directory_is_told_under_its_new_name(watching, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    watching.watcher.watch(str(old), Role.MODEL_DIRECTORY)
    old.rename(new)
    assert watching.told() == {str(old)}
    watching.watcher.watch(str(new), Role.MODEL_DIRECTORY)
    watching.watcher.unwatch(str(old), Role.MODEL_DIRECTORY)
    watching.settled()
    (new / "file").write_bytes(b"x")

    assert watching.told() == {str(new)}


def test_an_overflow_of_the_kernels_queue_is_told(watching, tmp_path):
    watching.watcher.watch(str(tmp_path), Role.MODEL_DIRECTORY)
    emitter = watching.watcher._emitter
    # The thread that reads events stands still while the queue (16,384 events) overflows.
    with emitter._lock:
        for number in range(9000):
            path = tmp_path / str(number)
            path.touch()
            path.unlink()

    eventually(lambda: watching.losses)
    assert watching.watcher.fault() is None


def test_a_missing_directory_is_no_error(watching, tmp_path):
    assert not watching.watcher.watch(str(tmp_path / "missing"), Role.MODEL_DIRECTORY)
    assert watching.watcher.is_whole


def test_a_handler_cannot_be_killed_by_an_event(watching, tmp_path):
    watching.watcher.watch(str(tmp_path), Role.MODEL_DIRECTORY)
    for name in (b"\xff\xfe.index", b"a\nb", b"\x1b[2J"):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb"):
            pass

    assert watching.told() == {str(tmp_path)}
    assert watching.watcher.fault() is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("victim", ["emitter", "observer"])
def test_a_dead_thread_is_a_fault_and_rebuilding_mends_it(watching, tmp_path, victim):
    watching.watcher.watch(str(tmp_path), Role.MODEL_DIRECTORY)
    observer, emitter = watching.watcher._observer, watching.watcher._emitter
    if victim == "emitter":
        emitter.stop()
    else:
        observer.event_queue.put("no event at all")
    eventually(watching.watcher.fault)
    watching.watcher.rebuild()

    assert watching.watcher.fault() is None
    assert watching.watcher.watch(str(tmp_path), Role.MODEL_DIRECTORY)
    watching.settled()
    (tmp_path / "file").write_bytes(b"x")
    assert watching.told() == {str(tmp_path)}


def test_too_long_a_queue_is_a_fault(watching):
    observer, watch = watching.watcher._observer, watching.watcher._emitter.watch
    with watching.watcher._handler._lock:  # the thread that hands out events stands still
        for number in range(10_100):
            observer.event_queue.put((DirModifiedEvent(f"/{number}"), watch))
        fault = watching.watcher.fault()

    assert "events wait" in fault


def test_without_an_instance_it_polls_and_says_so_once():
    watching = Watching()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(fds()) - 1, hard))
    try:
        watching.watcher.start()
        watching.watcher.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert not watching.watcher.is_whole
    assert watching.watcher.fault() is None
    assert not watching.watcher.watch("/tmp", Role.MODEL_DIRECTORY)
    (line,) = watching.stream.getvalue().splitlines()
    assert "fs.inotify.max_user_instances" in line


def test_the_limit_of_watches_names_its_sysctl(watching, tmp_path):
    watching.watcher._tell_limit(OSError(errno.ENOSPC, "No space left on device", str(tmp_path)))
    watching.watcher._tell_limit(OSError(errno.ENOSPC, "No space left on device", "/another"))

    (line,) = watching.stream.getvalue().splitlines()
    assert "fs.inotify.max_user_watches" in line


def test_only_the_public_names_of_watchdog_that_both_versions_have_are_used():
    for name in ("IN_Q_OVERFLOW", "IN_UNMOUNT", "IN_EXCL_UNLINK", "IN_ONLYDIR", "IN_MOVE"):
        assert isinstance(getattr(InotifyConstants, name), int)


def test_stopping_is_quick(watching):
    start = time.monotonic()
    watching.watcher.stop()

    assert time.monotonic() - start < 1.0
