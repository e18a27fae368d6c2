"""The state file: `CheckpointState` in protobuf's text format, one field per line, UTF-8.

    model_checkpoint_path: "model-200"              the newest checkpoint; not empty
    all_model_checkpoint_paths: "model-100"         one line for each, oldest first
    all_model_checkpoint_paths: "model-200"
    all_model_checkpoint_timestamps: 1700000000.5   one line for each path, or none
    all_model_checkpoint_timestamps: 1700000600.0
    last_preserved_timestamp: 1700000000.5          absent when 0

Paths are prefixes, absolute or relative to the directory of the state file. A field that is given
again takes the last value. Reading is as lenient as TensorFlow's: comments, escapes, single quotes
and lists (``[a, b]``) are fine; a field that TensorFlow does not know is not.
"""

from dataclasses import dataclass
from typing import Final

from google.protobuf import text_format

from ckptd.errors import CorruptStateFileError, printable
from ckptd.formats.messages import CheckpointState

MAX_STATE_FILE_SIZE: Final = 16 << 20
"""Bytes; far above what any training run writes, and parsed in seconds."""

_LONGEST_REASON: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFile:
    """What a state file says, verbatim: nothing is resolved against a directory or judged.

    Timestamps are seconds since the epoch, and may be any float.
    """

    model_checkpoint_path: str
    all_model_checkpoint_paths: tuple[str, ...] = ()
    all_model_checkpoint_timestamps: tuple[float, ...] = ()
    last_preserved_timestamp: float | None = None
    """None where the file has none, or 0."""


def parse_state_file(data: bytes) -> StateFile:
    """Return what the state file `data` says.

    Raises `CorruptStateFileError` where TensorFlow's `get_checkpoint_state` would not return a
    state, and for what no file system could hold: a path with a NUL.
    """
    _require_size(data)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise CorruptStateFileError(f"not UTF-8 at byte {error.start}") from None
    message = CheckpointState()
    try:
        text_format.Merge(text, message)  # Parse would refuse a repeated field; TensorFlow merges
    except (text_format.ParseError, ValueError, RecursionError, DeprecationWarning) as error:
        # The warning is Python's, of an unknown escape, and only an error under `-W error`.
        raise CorruptStateFileError(f"does not parse: {_reason(error)}") from None
    state = StateFile(
        model_checkpoint_path=message.model_checkpoint_path,
        all_model_checkpoint_paths=tuple(message.all_model_checkpoint_paths),
        all_model_checkpoint_timestamps=tuple(message.all_model_checkpoint_timestamps),
        last_preserved_timestamp=message.last_preserved_timestamp or None,
    )
    _require_paths(state)
    return state


def format_state_file(state: StateFile) -> bytes:
    """Return the state file that says `state`, exactly as TensorFlow writes it.

    Raises `CorruptStateFileError` for a state that could not be read back: no
    `model_checkpoint_path`, a path with a NUL or that is not UTF-8, too many of them.
    """
    _require_paths(state)
    message = CheckpointState()
    message.model_checkpoint_path = state.model_checkpoint_path
    message.all_model_checkpoint_paths.extend(state.all_model_checkpoint_paths)
    message.all_model_checkpoint_timestamps.extend(state.all_model_checkpoint_timestamps)
    message.last_preserved_timestamp = state.last_preserved_timestamp or 0.0
    # By default older protobufs write octal escapes for all that is not ASCII.
    data = text_format.MessageToString(message, as_utf8=True).encode()
    _require_size(data)
    return data


def _require_size(data: bytes) -> None:
    if len(data) > MAX_STATE_FILE_SIZE:
        raise CorruptStateFileError(
            f"too large for a state file: {len(data)} bytes, at most {MAX_STATE_FILE_SIZE} are read"
        )


def _require_paths(state: StateFile) -> None:
    if not state.model_checkpoint_path:
        raise CorruptStateFileError(
            "names no checkpoint: model_checkpoint_path is missing or empty"
        )
    for path in (state.model_checkpoint_path, *state.all_model_checkpoint_paths):
        if "\0" in path:
            raise CorruptStateFileError(f"names a path with a NUL in it: {printable(path)}")
        try:
            path.encode()
        except UnicodeEncodeError:
            raise CorruptStateFileError(f"names a path not in UTF-8: {printable(path)}") from None


def _reason(error: Exception) -> str:
    reason = printable(str(error))
    return reason if len(reason) <= _LONGEST_REASON else reason[:_LONGEST_REASON] + "..."
