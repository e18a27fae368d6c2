"""The daemon reads every byte once: damage costs no good checkpoint, and nothing waits for it."""

import os
import time
from contextlib import contextmanager

import numpy as np
import pytest
from daemon.harness import KEEP_2, eventually, keeping, save, steps

from ckptd.errors import NotFoundError
from ckptd.formats.bundle_writer import encode_bundle
from ckptd.formats.state_file import parse_state_file
from ckptd.retention.policy import Policy

AGO = 3600.0


def aged(directory, *, by=AGO):
    """Let everything in there be of an hour ago, in the same order."""
    now = time.time()
    for path in directory.iterdir():
        if path.is_file():
            number = path.stem.partition("-")[2].partition(".")[0]
            at = now - by + (float(number) if number.isdigit() else 0.0)
            os.utime(path, (at, at))


def saved(directory, *numbers):
    directory.mkdir(exist_ok=True)
    for number in numbers:
        save(directory, number, keep=tuple(range(numbers[0], number)))
    aged(directory)


def flip(directory, step):
    """Flip a bit on the disk: size and time stay as they are."""
    path = directory / f"m-{step}.data-00000-of-00001"
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def current(directory):
    return parse_state_file((directory / "checkpoint").read_bytes()).model_checkpoint_path


def scrub(daemon):
    daemon.service._mailbox.post(daemon.service._begin_scrub)


def scrubbed(daemon):
    return [line["name"] for line in daemon.events("scrubbed")]


def test_a_flipped_bit_is_found_and_the_state_file_names_the_good_one(start_open, tmp_path):
    saved(tmp_path / "run", 1, 2, 3)
    flip(tmp_path / "run", 3)
    daemon = start_open(keeping(tmp_path / "run", Policy(max_to_keep=5, trash=None)))
    assert current(tmp_path / "run") == "m-3"

    scrub(daemon)
    eventually(lambda: current(tmp_path / "run") == "m-2", what="the redirection")

    eventually(lambda: daemon.events("checkpoint_damaged"))
    (line,) = daemon.events("checkpoint_damaged")
    assert (line["level"], line["name"], line["global_step"]) == ("error", "m-3", 3)
    assert "m-3.data-00000-of-00001: tensor 'weights' at byte 0: checksum" in line["reason"]
    assert scrubbed(daemon) == ["m-3", "m-2", "m-1"]
    assert steps(tmp_path / "run") == [1, 2, 3]
    eventually(lambda: daemon.entry(tmp_path / "run")["damaged"] == 1)


def test_a_damaged_newest_one_pushes_out_no_good_one(start_open, tmp_path):
    saved(tmp_path / "run", 1, 2)
    flip(tmp_path / "run", 2)
    daemon = start_open(keeping(tmp_path / "run", KEEP_2))
    scrub(daemon)
    eventually(lambda: daemon.events("checkpoint_damaged"))

    save(tmp_path / "run", 3)

    eventually(lambda: daemon.entry(tmp_path / "run")["newest"]["name"] == "m-3")
    assert steps(tmp_path / "run") == [1, 2, 3]  # m-1 and m-3 are the two that are kept


def test_each_checkpoint_is_read_once_in_its_life(start_open, tmp_path):
    saved(tmp_path / "run", 1, 2)
    daemon = start_open(keeping(tmp_path / "run"))
    scrub(daemon)
    eventually(lambda: len(scrubbed(daemon)) == 2)
    eventually(lambda: daemon.service._scrub._current is None)
    (tended,) = daemon.service._roster
    eventually(lambda: tended.unverified == ())

    for _ in range(3):
        scrub(daemon)
        time.sleep(0.05)

    assert scrubbed(daemon) == ["m-2", "m-1"]


def test_many_directories_are_seen_to_one_after_the_other(start_open, tmp_path):
    entries = []
    for number in range(20):
        saved(tmp_path / f"run{number}", 1, 2)
        entries.append(keeping(tmp_path / f"run{number}"))
    daemon = start_open(*entries)

    scrub(daemon)

    eventually(lambda: len(scrubbed(daemon)) == 40, within=30.0)
    eventually(lambda: daemon.service._scrub._current is None)
    assert all(tended.unverified == () for tended in daemon.service._roster)


def test_more_than_a_visit_remembers_are_seen_to_in_turn(start_open, tmp_path):
    saved(tmp_path / "run", *range(1, 41))
    daemon = start_open(keeping(tmp_path / "run", Policy()))

    scrub(daemon)

    eventually(lambda: len(scrubbed(daemon)) == 40, within=30.0)
    assert scrubbed(daemon) == [f"m-{step}" for step in range(40, 0, -1)]


def test_what_is_written_just_now_waits(start_open, tmp_path):
    saved(tmp_path / "run", 1)
    save(tmp_path / "run", 2)
    daemon = start_open(keeping(tmp_path / "run"))

    scrub(daemon)

    eventually(lambda: scrubbed(daemon))
    time.sleep(0.1)
    assert scrubbed(daemon) == ["m-1"]


class Refusing:
    """A directory whose disk refuses to read some files."""

    def __init__(self, directory, refused):
        self.directory = directory
        self.refused = refused
        self.tries = []

    def read_through(self, name):
        if name.startswith(self.refused):
            self.tries.append(name)
            raise OSError(5, "Input/output error")
        return self.directory.read_through(name)

    def __getattr__(self, what):
        return getattr(self.directory, what)


def test_what_the_disk_refuses_is_tried_again_in_the_next_pass_only(start_open, tmp_path):
    saved(tmp_path / "run", 1, 2)
    daemon = start_open(keeping(tmp_path / "run"))
    (tended,) = daemon.service._roster
    refusing = tended.keeper.directory = Refusing(tended.keeper.directory, "m-2")

    scrub(daemon)
    eventually(lambda: scrubbed(daemon) == ["m-1"])
    eventually(lambda: daemon.service._scrub._current is None)

    assert len(refusing.tries) == 1
    assert "m-2 cannot be verified: " in daemon.events("problem")[0]["reason"]
    assert daemon.events("checkpoint_damaged") == []
    scrub(daemon)
    eventually(lambda: len(refusing.tries) == 2)
    assert len(daemon.events("problem")) == 1
    refusing.refused = "nothing"
    eventually(lambda: daemon.service._scrub._current is None)
    scrub(daemon)
    eventually(lambda: scrubbed(daemon) == ["m-1", "m-2"])


def test_what_cannot_be_read_keeps_no_other_waiting(start_open, tmp_path, monkeypatch):
    monkeypatch.setattr("ckptd.daemon.scrub._BATCH", -1.0)  # one in each batch
    saved(tmp_path / "run", 1, 2, 3)
    daemon = start_open(keeping(tmp_path / "run", Policy()))
    (tended,) = daemon.service._roster
    tended.keeper.directory = Refusing(tended.keeper.directory, "m-3")

    scrub(daemon)

    eventually(lambda: scrubbed(daemon) == ["m-2", "m-1"])


class Vanishing(Refusing):
    """A directory in which some files are gone when they are opened."""

    def read_through(self, name):
        if name.startswith(self.refused):
            raise NotFoundError("read", name, "No such file or directory")
        return self.directory.read_through(name)


def test_what_is_removed_before_it_is_read_is_neither_verified_nor_a_problem(start_open, tmp_path):
    saved(tmp_path / "run", 1, 2)
    daemon = start_open(keeping(tmp_path / "run"))
    (tended,) = daemon.service._roster
    tended.keeper.directory = Vanishing(tended.keeper.directory, "m-2")

    scrub(daemon)

    eventually(lambda: scrubbed(daemon) == ["m-1"])
    eventually(lambda: daemon.service._scrub._current is None)
    assert scrubbed(daemon) == ["m-1"]
    assert daemon.events("problem") == daemon.events("checkpoint_damaged") == []


class Flaky:
    """A directory in which the first bytes read of a file are wrong, and later ones are not."""

    def __init__(self, directory, flaky):
        self.directory = directory
        self.flaky = flaky
        self.reads = 0

    @contextmanager
    def read_through(self, name):
        with self.directory.read_through(name) as file:
            yield self.Flipping(self, file) if name == self.flaky else file

    class Flipping:
        def __init__(self, flaky, file):
            self.flaky = flaky
            self.file = file
            self.identity = file.identity

        def read_into(self, buffer, offset):
            self.flaky.reads += 1
            count = self.file.read_into(buffer, offset)
            buffer[0] ^= self.flaky.reads == 1
            return count

    def __getattr__(self, what):
        return getattr(self.directory, what)


def test_nothing_is_condemned_by_one_look(start_open, tmp_path):
    saved(tmp_path / "run", 1, 2)
    daemon = start_open(keeping(tmp_path / "run"))
    (tended,) = daemon.service._roster
    flaky = Flaky(tended.keeper.directory, "m-2.data-00000-of-00001")
    tended.keeper.directory = flaky

    scrub(daemon)

    eventually(lambda: scrubbed(daemon) == ["m-2", "m-1"])
    eventually(lambda: tended.unverified == ())
    assert flaky.reads == 2
    assert daemon.events("checkpoint_damaged") == []


def big(directory, step, megabytes):
    """A checkpoint whose data file is sparse and long: reading it takes a while."""
    index, data = encode_bundle({"weights": np.zeros(megabytes << 18, np.float32)})
    (directory / f"m-{step}.data-00000-of-00001").write_bytes(data)
    (directory / f"m-{step}.index").write_bytes(index)


@pytest.mark.parametrize("how", ["stop", "release"])
def test_reading_ends_at_once_where_nobody_wants_it_any_more(start_open, tmp_path, how):
    saved(tmp_path / "run", 1)
    big(tmp_path / "run", 2, 64)
    aged(tmp_path / "run")
    daemon = start_open(keeping(tmp_path / "run"))
    (tended,) = daemon.service._roster
    daemon.service._scrub._paced = lambda tended: slowly(
        type(daemon.service._scrub)._paced(daemon.service._scrub, tended)
    )

    scrub(daemon)
    eventually(lambda: tended.is_scrubbing)
    start = time.monotonic()
    if how == "stop":
        assert daemon.end() == 0
    else:
        daemon.service._mailbox.post(lambda: daemon.service._roster.release(tended, "a test"))
        eventually(lambda: tended.keeper is None)
        assert daemon.service._scrub._current is None

    assert time.monotonic() - start < 2.0
    assert scrubbed(daemon) == []


def slowly(pause):
    def slow(size):
        time.sleep(0.2)
        pause(size)

    return slow


def test_sweeps_go_on_while_it_reads(start_open, tmp_path):
    saved(tmp_path / "run", 1)
    big(tmp_path / "run", 2, 64)
    aged(tmp_path / "run")
    daemon = start_open(keeping(tmp_path / "run"))
    (tended,) = daemon.service._roster
    original = type(daemon.service._scrub)._paced
    daemon.service._scrub._paced = lambda t: slowly(original(daemon.service._scrub, t))
    scrub(daemon)
    eventually(lambda: tended.is_scrubbing)

    save(tmp_path / "run", 3)
    save(tmp_path / "run", 4)

    eventually(lambda: steps(tmp_path / "run") == [3, 4], within=1.5)
    assert tended.is_scrubbing
    eventually(lambda: not tended.is_scrubbing, within=20.0)
    assert daemon.events("checkpoint_damaged") == []
