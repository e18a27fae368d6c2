"""A file that a person asked for: whole or not at all, and never another's."""

import os

import pytest

from ckptd.errors import NoSuchDirectoryError, StorageError
from ckptd.storage.output import new_output


def test_a_file_is_there_when_the_block_ends_and_not_before(tmp_path):
    path = tmp_path / "x"
    with new_output(str(path), replace=False) as out:
        out.stream.write(b"all")
        assert not path.exists()

    assert path.read_bytes() == b"all"
    assert os.listdir(tmp_path) == ["x"]


def test_after_an_error_there_is_nothing_of_it(tmp_path):
    (tmp_path / "x").write_bytes(b"old")
    with pytest.raises(AttributeError), new_output(str(tmp_path / "x"), replace=True) as out:
        out.stream.write(b"half").no_such_thing  # type: ignore[attr-defined]  # noqa: B018

    assert (tmp_path / "x").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_an_existing_file_is_refused_before_any_work(tmp_path):
    (tmp_path / "x").write_bytes(b"old")

    with (
        pytest.raises(StorageError, match="there is such a file already"),
        new_output(str(tmp_path / "x"), replace=False),
    ):
        raise AssertionError


def test_a_file_that_came_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(StorageError), new_output(str(path), replace=False):
        path.write_bytes(b"theirs")

    assert path.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["x"]


def test_replace_leaves_who_has_the_old_file_open_alone(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with path.open("rb") as old:
        with new_output(str(path), replace=True) as out:
            out.stream.write(b"new")
        assert old.read() == b"old"

    assert path.read_bytes() == b"new"


def test_a_library_may_write_by_path_even_another_file(tmp_path):
    path = tmp_path / "x"
    with new_output(str(path), replace=False) as out:
        other = tmp_path / "other"
        other.write_bytes(b"library")
        other.chmod(0o600)
        other.rename(out.path)

    assert path.read_bytes() == b"library"
    now = os.umask(0)
    os.umask(now)
    assert path.stat().st_mode & 0o777 == 0o666 & ~now


@pytest.mark.parametrize("name", ["missing/x", "file/x"])
def test_no_directory_is_told(tmp_path, name):
    (tmp_path / "file").touch()

    with (
        pytest.raises(NoSuchDirectoryError),
        new_output(str(tmp_path / name), replace=False),
    ):
        raise AssertionError


def fill_up(stream):
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, stream.fileno())
    os.close(full)
    stream.write(bytes(2**21))


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    with (
        pytest.raises(StorageError) as caught,
        new_output(str(tmp_path / "x"), replace=False) as out,
    ):
        fill_up(out.stream)

    assert "No space left" in str(caught.value)
    assert not os.listdir(tmp_path)
