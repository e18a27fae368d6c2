"""What there is to restore from: as `tf.train` answers it, and better where it cannot be trusted."""

import contextlib
import os
import shutil
from functools import partial

import pytest
from judge.programs import CheckpointProgram, ManagerProgram, SaverProgram

import ckptd_client
from ckptd.errors import CorruptStateFileError, StorageError
from ckptd.keeper import verification

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
    with pytest.raises(CorruptStateFileError, match=f"^{tmp_path}/checkpoint: "):
        ckptd_client.get_checkpoint_state(tmp_path)
    with pytest.raises(CorruptStateFileError):
        ckptd_client.latest_checkpoint(tmp_path)


def test_a_state_file_that_is_a_directory_is_an_error_that_says_so(tf, tmp_path):
    (tmp_path / "checkpoint").mkdir()

    assert tf.train.get_checkpoint_state(str(tmp_path)) is None
    with pytest.raises(StorageError, match="checkpoint"):
        ckptd_client.get_checkpoint_state(tmp_path)


# Verified.


def flip(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0xFF]))


def cut(*paths):
    for path in paths:
        os.truncate(path, 3)


@pytest.fixture
def run(tf, tmp_path):
    """Return a directory with m-1 to m-3 and ema-9, of which m-3 is the newest by the state file."""
    path = tmp_path / "run"
    with SaverProgram(tf, path, name="ema") as program:
        program.save(9)
    with SaverProgram(tf, path) as program:
        for step in (1, 2, 3):
            program.save(step)
    for time, name in enumerate(("m-1", "m-2", "ema-9", "m-3")):
        os.utime(path / f"{name}.index", (time, time))
    return path


DATA = "data-00000-of-00001"
BROKEN = "{run}/m-3 cannot be restored: "
TAKEN = "{run}/m-2 is taken instead of {run}/m-3"
CHECKSUM = (
    f"m-3.{DATA}: tensor 'w' at byte 16: checksum does not match: "
    "expected 0xd7c5bc06, found 0x713ab972"
)
SHORT = "too short to be a table: 3 bytes, a footer alone takes 48"
INDEX = "data block at 0: checksum does not match: expected 0x8440c2ff, found 0xbdc07c72"
FALLS_BACK = {
    "sound": (lambda run: None, "m-3", []),
    "a wrong byte": (lambda run: flip(run / f"m-3.{DATA}", 16), "m-2", [BROKEN + CHECKSUM, TAKEN]),
    "no data": (
        lambda run: (run / f"m-3.{DATA}").unlink(),
        "m-2",
        [BROKEN + "shard 0 of 1 is missing", TAKEN],
    ),
    "gone": (
        lambda run: [file.unlink() for file in run.glob("m-3*")],
        "m-2",
        [BROKEN + "it is not there", TAKEN],
    ),
    "a partial one between": (
        lambda run: cut(run / f"m-2.{DATA}", run / "m-3.index"),
        "m-1",
        [BROKEN + SHORT, "{run}/m-1 is taken instead of {run}/m-3"],
    ),
    "an older one does not matter": (lambda run: flip(run / f"m-2.{DATA}", 16), "m-3", []),
    "all": (
        lambda run: [flip(file, 5) for file in run.glob("m-*.index")],
        None,
        [BROKEN + INDEX, "{run}: no older checkpoint can be restored instead of {run}/m-3"],
    ),
}


@pytest.mark.parametrize(("damage", "expected", "told"), FALLS_BACK.values(), ids=FALLS_BACK)
def test_verified_it_falls_back_past_what_is_damaged_and_says_so(
    run, caplog, damage, expected, told
):
    damage(run)

    found = ckptd_client.latest_checkpoint(run, verify=True)
    assert found == (None if expected is None else str(run / expected))
    assert caplog.messages == [text.format(run=run) for text in told]
    assert {record.name for record in caplog.records} <= {"ckptd_client"}


def test_one_that_is_saved_again_while_it_is_verified_is_not_damaged(run, caplog, monkeypatch):
    """TensorFlow puts new data in place before the new index."""
    original = verification.verify_checkpoint
    attempts = []

    def meanwhile(checkpoint, read_through, **options):
        attempts.append(checkpoint)
        if len(attempts) == 1:
            flip(run / f"m-3.{DATA}", 16)
            found = original(checkpoint, read_through, **options)
            flip(run / f"m-3.{DATA}", 16)
            return found
        return original(checkpoint, read_through, **options)

    monkeypatch.setattr("ckptd_client.reading.verify_checkpoint", meanwhile)

    assert ckptd_client.latest_checkpoint(run, verify=True) == str(run / "m-3")
    assert len(attempts) == 2
    assert caplog.messages == []


def test_every_damaged_one_on_the_way_is_told(run, caplog):
    for step in (2, 3):
        flip(run / f"m-{step}.{DATA}", 16)

    assert ckptd_client.latest_checkpoint(run, verify=True) == str(run / "m-1")
    first, second, third = caplog.messages
    assert first.startswith(f"{run}/m-3 cannot be restored: m-3.{DATA}: tensor 'w'")
    assert second.startswith(f"{run}/m-2 cannot be restored: m-2.{DATA}: tensor 'w'")
    assert third == f"{run}/m-1 is taken instead of {run}/m-3"


def test_who_rolled_back_is_not_given_a_newer_one(run):
    (run / "checkpoint").write_text('model_checkpoint_path: "m-2"\n')
    flip(run / f"m-2.{DATA}", 16)
    assert ckptd_client.latest_checkpoint(run, verify=True) == str(run / "m-1")

    (run / "m-2.index").unlink()
    assert ckptd_client.latest_checkpoint(run, verify=True) == str(run / "m-1")


@pytest.mark.parametrize("options", [{"write_version": V1, "sharded": True}, {"sharded": True}])
def test_what_is_fallen_back_to_is_named_as_tensorflow_names_it(tf, tmp_path, options):
    with SaverProgram(tf, tmp_path, **options) as program:
        program.save(1)
        first = tf.train.latest_checkpoint(str(tmp_path))
        program.save(2)
        next(tmp_path.glob("m-2*00001-of-00002")).unlink()

        assert ckptd_client.latest_checkpoint(tmp_path, verify=True) == first
        assert program.restore(first)["w"][0] == 1.0


def test_linked_checkpoints_are_the_latest_too(tf, run, tmp_path):
    hub = tmp_path / "hub"
    hub.mkdir()
    for file in run.iterdir():
        (hub / file.name).symlink_to(file)
    (hub / "checkpoint").unlink()
    (hub / "checkpoint").write_text('model_checkpoint_path: "m-3"\n')

    assert tf.train.latest_checkpoint(str(hub)) == str(hub / "m-3")
    for verify in (False, True):
        assert ckptd_client.latest_checkpoint(hub, verify=verify) == str(hub / "m-3")
