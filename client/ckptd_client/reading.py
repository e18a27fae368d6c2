"""What a model directory offers to restore from, as `tf.train` answers it, without TensorFlow.

Unlike TensorFlow, a checkpoint exists here when it is complete by the bytes of its index, and paths
with ``[ ] ? *`` are names, not patterns.
"""

import os
import time
from typing import NamedTuple

from ckptd.checkpoints.layouts.tensorflow import STATE_FILE, prefix_of_path
from ckptd.errors import NoSuchDirectoryError
from ckptd.formats.state_file import MAX_STATE_FILE_SIZE, parse_state_file
from ckptd.keeper.own import Own
from ckptd.keeper.survey import Survey, Surveyor
from ckptd.storage.disk import DiskDirectory, open_model_directory


class CheckpointState(NamedTuple):
    """What the state file says, its relative paths joined to the directory (`tf.train`'s result)."""

    model_checkpoint_path: str
    all_model_checkpoint_paths: tuple[str, ...]
    all_model_checkpoint_timestamps: tuple[float, ...]
    last_preserved_timestamp: float | None


def get_checkpoint_state(
    checkpoint_dir: str | os.PathLike[str], latest_filename: str | None = None
) -> CheckpointState | None:
    """Return what the state file of a directory says, None where there is no such file.

    Raises `ckptd.errors.CorruptStateFileError` for a file that TensorFlow would not read, where it
    returns None with a warning or raises one of several errors; `StorageError` if it is no file.
    """
    directory = _open(checkpoint_dir)
    if directory is None:
        return None
    name = latest_filename or STATE_FILE
    try:
        if directory.entry(name) is None:
            return None
        state = parse_state_file(directory.read(name, limit=MAX_STATE_FILE_SIZE))
    finally:
        directory.close()
    where = os.fspath(checkpoint_dir)
    return CheckpointState(
        model_checkpoint_path=os.path.join(where, state.model_checkpoint_path),  # noqa: PTH118 (str in, str out)
        all_model_checkpoint_paths=tuple(
            os.path.join(where, path)  # noqa: PTH118
            for path in state.all_model_checkpoint_paths
        ),
        all_model_checkpoint_timestamps=state.all_model_checkpoint_timestamps,
        last_preserved_timestamp=state.last_preserved_timestamp,
    )


def latest_checkpoint(
    checkpoint_dir: str | os.PathLike[str], latest_filename: str | None = None
) -> str | None:
    """Return the prefix that the state file names, None if it names none that is complete."""
    state = get_checkpoint_state(checkpoint_dir, latest_filename)
    if state is None or not checkpoint_exists(state.model_checkpoint_path):
        return None
    return state.model_checkpoint_path


def checkpoint_exists(checkpoint_prefix: str | os.PathLike[str]) -> bool:
    """Say whether a prefix names a checkpoint of which every byte is there."""
    head, _ = os.path.split(os.fspath(checkpoint_prefix))
    directory = _open(head or ".")
    if directory is None:
        return False
    try:
        return prefix_of_path(os.fspath(checkpoint_prefix)) in _survey(directory).checkpoints
    finally:
        directory.close()


def _survey(directory: DiskDirectory) -> Survey:
    own = Own(directory)
    try:
        return Surveyor(directory, own).look(time.time())
    finally:
        own.close()


def _open(path: str | os.PathLike[str]) -> DiskDirectory | None:
    try:
        return open_model_directory(os.fspath(path))
    except NoSuchDirectoryError:
        return None
