"""What there is to restore from: as `tf.train` answers it, and better where it cannot be trusted."""

import contextlib
import os
import shutil
from functools import partial

import pytest
from judge.programs import CheckpointProgram, ManagerProgram, SaverProgram

import ckptd_client
from ckptd.errors import CorruptStateFileError, StorageError

pytestmark = pytest.mark.tensorflow

V1 = 1

WRITERS = {
    "Saver": partial(SaverProgram),
    "Saver, V1": partial(SaverProgram, write_version=V1),
    "Saver, sharded": partial(SaverProgram, sharded=True),
    "Saver, V1, sharded": partial(SaverProgram, write_version=V1, sharded=True),
    "Saver, relative paths": partial(SaverProgram, save_relative_paths=True),
    "Saver, another state file": partial(SaverProgram, latest_filename="other"),
    "Saver, lists one": partial(SaverProgram, max_to_keep=None),
    "Checkpoint": partial(CheckpointProgram),
    "Checkpoint, no state file": partial(CheckpointProgram, write=True),
    "CheckpointManager": partial(ManagerProgram, max_to_keep=2),
}


def same_state(tf, path, name=None):
    """Return TensorFlow's answer in our words, after checking that it is ours too."""
    theirs = tf.train.get_checkpoint_state(path, name)
    ours = ckptd_client.get_checkpoint_state(path, name)
    if theirs is None:
        assert ours is None
        return None
    assert ours is not None
    assert ours.model_checkpoint_path == theirs.model_checkpoint_path
    assert list(ours.all_model_checkpoint_paths) == list(theirs.all_model_checkpoint_paths)
    assert list(ours.all_model_checkpoint_timestamps) == list(
        theirs.all_model_checkpoint_timestamps
    )
    assert (ours.last_preserved_timestamp or 0.0) == theirs.last_preserved_timestamp
    return ours


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_the_answers_are_tensorflows_on_what_it_writes(tf, tmp_path, writer):
    path = str(tmp_path)
    with writer(tf, tmp_path) as program:
        for step in (1, 2, 3):
            program.save(step)
            for name in {None, "checkpoint", "other", program.latest_filename}:
                state = same_state(tf, path, name)
                latest = tf.train.latest_checkpoint(path, name)

                assert ckptd_client.latest_checkpoint(path, name) == latest
                assert latest == (None if state is None else state.model_checkpoint_path)
                for each in () if state is None else state.all_model_checkpoint_paths:
                    exists = tf.compat.v1.train.checkpoint_exists(each)
                    assert ckptd_client.checkpoint_exists(each) == exists


@pytest.mark.parametrize("where", ["run", "./run", "run/", "absolute"])
def test_paths_are_given_as_they_were_asked_for(tf, tmp_path, monkeypatch, where):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    asked = str(tmp_path / "run") if where == "absolute" else where
    manager = ManagerProgram(tf, tmp_path / "run", max_to_keep=2)
    for step in (1, 2, 3):
        manager.save(step)

    assert same_state(tf, asked) is not None
    assert ckptd_client.latest_checkpoint(asked) == tf.train.latest_checkpoint(asked)
    assert ckptd_client.latest_checkpoint(asked) is not None


def test_a_path_object_is_as_good_as_text(tf, tmp_path):
    ManagerProgram(tf, tmp_path, max_to_keep=2).save(1)

    assert ckptd_client.latest_checkpoint(tmp_path) == str(tmp_path / "m-1")
    assert ckptd_client.checkpoint_exists(tmp_path / "m-1")
    assert ckptd_client.get_checkpoint_state(tmp_path) is not None


def test_a_directory_that_was_moved_with_relative_paths_is_read(tf, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    ManagerProgram(tf, old, max_to_keep=2).save(1)
    old.rename(new)

    assert same_state(tf, str(new)) is not None
    assert ckptd_client.latest_checkpoint(new) == str(new / "m-1")
    assert same_state(tf, str(old)) is None


@pytest.mark.parametrize("there", [False, True], ids=["no directory", "an empty directory"])
def test_where_nothing_was_saved_there_is_nothing(tf, tmp_path, there):
    path = str(tmp_path if there else tmp_path / "none")

    assert same_state(tf, path) is None
    assert ckptd_client.latest_checkpoint(path) is None is tf.train.latest_checkpoint(path)
    assert not ckptd_client.checkpoint_exists(f"{path}/m-1")


@pytest.mark.parametrize(
    "lost", ["m-2.index", "m-2.data-00000-of-00001", "m-2", "m-2.index short", "m-2.data short"]
)
def test_what_is_not_whole_does_not_exist(tf, tmp_path, lost):
    with SaverProgram(tf, tmp_path) as program:
        for step in (1, 2):
            program.save(step)
    pattern, _, short = lost.partition(" ")
    for file in tmp_path.glob(f"{pattern}*"):
        if short:
            os.truncate(file, file.stat().st_size - 1)
        else:
            file.unlink()

    assert same_state(tf, str(tmp_path)) is not None
    assert ckptd_client.latest_checkpoint(tmp_path) is None
    assert not ckptd_client.checkpoint_exists(tmp_path / "m-2")
    assert ckptd_client.checkpoint_exists(tmp_path / "m-1")


@pytest.mark.parametrize(
    "prefix", ["m-*", "m-?", "[m]-1", "", "m", "m-1.index", "m-1.meta", "checkpoint", "m-01"]
)
def test_only_a_checkpoints_own_prefix_exists(tf, tmp_path, prefix):
    with SaverProgram(tf, tmp_path) as program:
        program.save(1)

    assert ckptd_client.checkpoint_exists(tmp_path / "m-1")
    assert not ckptd_client.checkpoint_exists(os.path.join(tmp_path, prefix))


def test_a_path_that_is_a_pattern_is_a_name(tf, tmp_path):
    path = tmp_path / "a [b] *?"
    with SaverProgram(tf, path) as program:
        program.save(1)
    shutil.copytree(path, tmp_path / "plain")

    assert tf.train.latest_checkpoint(str(path)) is None  # it looks for what the pattern matches
    assert ckptd_client.latest_checkpoint(path) == str(path / "m-1")


@pytest.mark.parametrize(
    "text",
    [b"", b" \n", b"# nothing\n", b'model_checkpoint_path: "', b"\xff\xfe", b"unknown: 1\n"],
    ids=["empty", "blank", "a comment", "cut short", "no text", "an unknown field"],
)
def test_a_state_file_that_cannot_be_read_is_an_error_that_says_so(tf, tmp_path, text):
    (tmp_path / "checkpoint").write_bytes(text)

    with contextlib.suppress(ValueError):  # for some of these; UnicodeDecodeError is one
        assert tf.train.get_checkpoint_state(str(tmp_path)) is None
    with pytest.raises(CorruptStateFileError):
        ckptd_client.get_checkpoint_state(tmp_path)
    with pytest.raises(CorruptStateFileError):
        ckptd_client.latest_checkpoint(tmp_path)


def test_a_state_file_that_is_a_directory_is_an_error_that_says_so(tf, tmp_path):
    (tmp_path / "checkpoint").mkdir()

    assert tf.train.get_checkpoint_state(str(tmp_path)) is None
    with pytest.raises(StorageError, match="checkpoint"):
        ckptd_client.get_checkpoint_state(tmp_path)
