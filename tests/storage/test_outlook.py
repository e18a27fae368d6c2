"""A glance tells a changed directory from an unchanged one, or says that it cannot."""

import os
import time

import pytest

from ckptd.storage.outlook import Glance, glance


def look(path) -> Glance:
    """Glance at a directory that is there."""
    found = glance(str(path), "checkpoint")
    assert found is not None
    return found


@pytest.fixture
def old(tmp_path):
    """A directory in which nothing has happened for a while, as far as its times say."""
    (tmp_path / "checkpoint").write_bytes(b"x")
    for path in (tmp_path / "checkpoint", tmp_path):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return tmp_path


CHANGES = {
    "a new name": lambda path: (path / "m-1.index").write_bytes(b"x"),
    "a name gone": lambda path: (path / "checkpoint").unlink(),
    "the file rewritten": lambda path: (path / "checkpoint").write_bytes(b"y"),
    "the directory replaced": lambda path: (path.rename(f"{path}-was"), path.mkdir()),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_changes_the_glance(old, what):
    before = look(old)
    CHANGES[what](old)

    assert look(old)[:2] != before[:2]


def test_without_a_change_glances_are_equal(old):
    assert look(old)[:2] == look(old)[:2]


def test_a_young_change_is_said_to_be_young(tmp_path):
    assert look(tmp_path).fresh


def test_a_glance_is_no_longer_young_after_two_seconds(tmp_path):
    time.sleep(2.1)

    assert not look(tmp_path).fresh


def test_where_there_is_no_directory_there_is_no_glance(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path)

    for name in ("missing", "file", "file/below", "link"):
        assert glance(str(tmp_path / name), "checkpoint") is None


def test_the_identity_is_that_of_the_directory(tmp_path):
    status = tmp_path.stat()

    assert look(tmp_path).identity == (status.st_dev, status.st_ino)
