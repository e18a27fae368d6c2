"""What a model directory offers to restore from, as `tf.train` answers it, without TensorFlow.

Unlike TensorFlow, a checkpoint exists here when it is complete by the bytes of its index, and paths
with ``[ ] ? *`` are names, not patterns.
"""

import logging
import os
from typing import Final, NamedTuple

from ckptd.checkpoints.inventory import Checkpoint, Partial
from ckptd.checkpoints.layouts.tensorflow import STATE_FILE, parse_series, prefix_of_path
from ckptd.errors import CorruptStateFileError, printable
from ckptd.keeper.state import name_in_state
from ckptd.keeper.verification import verify_checkpoint
from ckptd.storage.passing import read_through
from ckptd_client.holdings import Holdings, holdings_of, oldest_first

_log: Final = logging.getLogger("ckptd_client")

_ATTEMPTS: Final = 5  # how often a checkpoint may be saved again while it is verified


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
    where = os.fspath(checkpoint_dir)
    name = latest_filename or STATE_FILE
    try:
        state = Holdings(where).state(name)
    except CorruptStateFileError as error:
        path = printable(os.path.join(where, name))  # noqa: PTH118 (str in, str out)
        raise CorruptStateFileError(f"{path}: {error}") from error
    if state is None:
        return None
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
    checkpoint_dir: str | os.PathLike[str],
    latest_filename: str | None = None,
    *,
    verify: bool = False,
) -> str | None:
    """Return the prefix that the state file names, None if it names none that is complete.

    With `verify` every checksum of it is checked, which reads all of it; if it is damaged or not
    complete, the next older checkpoint of the same series that is neither is returned instead, and
    a warning is logged (`logging.getLogger("ckptd_client")`) that says so.
    """
    state = get_checkpoint_state(checkpoint_dir, latest_filename)
    if state is None:
        return None
    path = state.model_checkpoint_path
    if verify:
        return _latest_sound(os.fspath(checkpoint_dir), state)
    return path if checkpoint_exists(path) else None


def checkpoint_exists(checkpoint_prefix: str | os.PathLike[str]) -> bool:
    """Say whether a prefix names a checkpoint of which every byte is there."""
    prefix = os.fspath(checkpoint_prefix)
    return isinstance(holdings_of(prefix).judge(prefix), Checkpoint)


def _latest_sound(where: str, state: CheckpointState) -> str | None:
    """Return the newest checkpoint without damage, not newer than the one that the state file names."""
    named = state.model_checkpoint_path
    problem = _damage(named)
    if problem is None:
        return named
    _log.warning("%s cannot be restored: %s", named, problem)
    for checkpoint in _older(where, state):
        path = os.path.join(where, name_in_state(checkpoint))  # noqa: PTH118
        problem = _damage(path)
        if problem is None:
            _log.warning("%s is taken instead of %s", path, named)
            return path
        _log.warning("%s cannot be restored: %s", path, problem)
    _log.warning("%s: no older checkpoint can be restored instead of %s", where, named)
    return None


def _older(where: str, state: CheckpointState) -> list[Checkpoint]:
    """Return the complete checkpoints of the named one's series that are older, newest first."""
    name = prefix_of_path(state.model_checkpoint_path)
    series, step = parse_series(name)
    inventory = Holdings(where).look(named=state.all_model_checkpoint_paths)
    listed = [prefix_of_path(path) for path in state.all_model_checkpoint_paths]
    ordered = oldest_first((c for c in inventory.checkpoints if c.series == series), listed)
    names = [checkpoint.name for checkpoint in ordered]
    if name in names:
        ordered = ordered[: names.index(name)]
    elif step is not None:
        ordered = [c for c in ordered if c.global_step is None or c.global_step < step]
    return ordered[::-1]


def _damage(prefix: str) -> str | None:
    """Say what is wrong with a checkpoint, None if nothing is: every byte is read."""
    holdings = holdings_of(prefix)
    directory = holdings.directory
    problem = ""
    for _ in range(_ATTEMPTS):
        judged = holdings.judge(prefix)
        if not isinstance(judged, Checkpoint):
            return judged.reason if isinstance(judged, Partial) else "it is not there"
        found = verify_checkpoint(judged, lambda name: read_through(directory.path_of(name)))
        problem = found.tensor_damage
        # Of one that is saved again meanwhile, an old index and new data make no whole.
        if not problem or not (found.changed or holdings.judge(prefix) != judged):
            break
    return problem or None
