"""From the path that a person gives to the checkpoint that is meant, or to a word why there is none."""

import os
from typing import Final, NamedTuple

from ckptd.checkpoints.inventory import Checkpoint, Format, Partial
from ckptd.checkpoints.layouts.tensorflow import (
    STATE_FILE,
    Role,
    index_name,
    parse_file_name,
    parse_v1_name,
    prefix_of_path,
    v1_shard_names,
    v1_shards_of_path,
)
from ckptd.checkpoints.listing import Entry, Kind
from ckptd.errors import (
    CorruptIndexError,
    CorruptStateFileError,
    FormatError,
    NoSuchCheckpointError,
    NoSuchDirectoryError,
    StorageError,
    printable,
)
from ckptd.formats.near_names import hint_of, near_names
from ckptd.formats.state_file import StateFile
from ckptd.storage.reading import ReaderDirectory, look_at
from ckptd_client.holdings import Holdings, describe, enumerate_names, holdings_of

SAVED_MODEL_FILES: Final = ("saved_model.pb", "saved_model.pbtxt")
_VARIABLES: Final = "variables"
SAVED_MODEL_PREFIX: Final = f"{_VARIABLES}/{_VARIABLES}"
_SUFFIXES: Final = {
    Role.DATA: "a data file",
    Role.META_GRAPH: "a meta graph",
    Role.DEBUG_INFO: "the debug info of a graph",
}


class Located(NamedTuple):
    """A checkpoint's prefix, in the words of who asked, and its format.

    `shards` are the names of a V1 checkpoint's files, in order, and `missing` of those that should
    be there too. A V2 checkpoint's index tells its own.
    """

    prefix: str
    format: Format
    shards: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def locate(path: str | os.PathLike[str] | None, *, salvage: bool = False) -> Located:
    """Return the checkpoint that `path` means, whatever of it a person has named.

    A prefix; a directory with a state file (the newest) or a SavedModel; the path of an index, of a
    data file, of a meta graph, of a state file; a V1 file, one of its shards, or TensorFlow's
    pattern over them. A character is a character: ``[ ] ? *`` match only themselves. With `salvage`
    a V1 checkpoint may lack shards.

    Raises `NoSuchCheckpointError` (also for the None of a `latest_checkpoint` that has found
    nothing), `StorageError`, `CorruptIndexError` or `CorruptStateFileError`, whose text says what
    there is instead.
    """
    if path is None:
        raise NoSuchCheckpointError(
            "cannot open a checkpoint at None: latest_checkpoint has found nothing; "
            "give the directory in its place to be told why"
        )
    text = os.fspath(path)
    if not text:
        raise NoSuchCheckpointError("cannot open a checkpoint: the path is empty")
    found = look_at(text)
    if found is None:
        text = text.rstrip("/") or text  # of a prefix, or of a file: no directory is there
        found = look_at(text)
    if found is not None and found.kind is Kind.DIRECTORY:
        return _in_directory(text)
    located = _prefix(text, salvage=salvage)
    if located is not None:
        return located
    if found is None:
        raise _nothing_at(text)
    return _file(text, found, salvage=salvage)


def _cannot(path: str, why: str) -> NoSuchCheckpointError:
    return NoSuchCheckpointError(f"cannot open a checkpoint at {printable(path)}: {why}")


def _in_directory(path: str) -> Located:
    """Return what a directory offers: what its state file names, or the SavedModel that it is."""
    directory = ReaderDirectory(path)
    if directory.entry(STATE_FILE) is not None:
        return _named_by_state_file(path, STATE_FILE)
    if any(directory.entry(name) is not None for name in SAVED_MODEL_FILES):
        prefix = os.path.join(path, SAVED_MODEL_PREFIX)  # noqa: PTH118 (str in, str out)
        if look_at(index_name(prefix)) is None:
            raise _cannot(
                path, f"a SavedModel without variables: it has no {SAVED_MODEL_PREFIX}.index"
            )
        return Located(prefix, Format.V2)
    beside = path.rstrip("/")
    if beside and look_at(index_name(beside)) is not None:
        return Located(beside, Format.V2)  # a directory that happens to have a checkpoint's name
    above, inside = (os.path.join(path, name) for name in ("..", _VARIABLES))  # noqa: PTH118
    is_model = any(look_at(os.path.join(above, name)) for name in SAVED_MODEL_FILES)  # noqa: PTH118
    if is_model and look_at(index_name(inside)) is not None:
        return Located(inside, Format.V2)  # the directory in a SavedModel
    inventory = Holdings(path).look_known()
    why = f"it has no state file ({STATE_FILE!r}); {describe(inventory)}"
    if inventory.checkpoints:
        why += "; open one of them by its prefix"
    raise _cannot(path, why)


def _named_by_state_file(path: str, name: str) -> Located:
    """Return the newest checkpoint by the state file `name` of the directory `path`, if complete."""
    holdings = Holdings(path)
    try:
        state = holdings.state(name)
    except CorruptStateFileError as error:
        text = f"{printable(os.path.join(path, name))}: {error}; {describe(holdings.look_known())}"  # noqa: PTH118
        raise CorruptStateFileError(text) from error
    if state is None:
        raise _cannot(path, f"its state file {name!r} has just been removed")
    prefix = os.path.join(path, state.model_checkpoint_path)  # noqa: PTH118
    judged = holdings_of(prefix).judge(prefix)
    if isinstance(judged, Checkpoint):
        return _of_checkpoint(prefix, judged)
    raise _cannot(path, why_not_the_named(path, state, judged))


def why_not_the_named(path: str, state: StateFile, judged: Partial | None) -> str:
    """Say why what the state file names cannot be restored, and what can."""
    named = printable(state.model_checkpoint_path)
    reason = "it is not there" if judged is None else f"it is not complete: {judged.reason}"
    inventory = Holdings(path).look_known(named=[state.model_checkpoint_path])
    why = f"its state file names {named}, but {reason}; {describe(inventory)}"
    here = prefix_of_path(state.model_checkpoint_path) in inventory.by_name()
    if judged is None and here and "/" in state.model_checkpoint_path:
        return f"{why}. The directory seems to have been moved: open the checkpoint by its prefix"
    if inventory.checkpoints:
        return f"{why}. Open one by its prefix, or let `ckptd sweep` mend the state file"
    return why


def _of_checkpoint(prefix: str, checkpoint: Checkpoint) -> Located:
    if checkpoint.format is Format.V2:
        return Located(prefix, Format.V2)
    shards = tuple(entry.name for entry in checkpoint.files[: checkpoint.num_shards])
    return Located(prefix, Format.V1, shards)


def _prefix(path: str, *, salvage: bool) -> Located | None:
    """Return the checkpoint whose prefix, or pattern of V1, is `path`; None if there is none."""
    index = look_at(index_name(path))
    if index is not None:
        _require_file(index_name(path), index)
        return Located(path, Format.V2)
    judged = holdings_of(path).judge(path)
    if judged is None:
        return None
    if isinstance(judged, Checkpoint):
        return _of_checkpoint(path, judged)
    return _of_partial(path, judged, salvage=salvage)


def _of_partial(path: str, judged: Partial, *, salvage: bool) -> Located | None:
    """Return what is there of a V1 checkpoint; None for a bare file, which speaks for itself."""
    files = [entry.name for entry in judged.files]
    if judged.name in files:
        return None
    shards = {
        (v1.num_shards, v1.shard): file
        for file in files
        if (v1 := parse_v1_name(file)).prefix == judged.name
    }
    if not shards:
        be = "is" if len(files) == 1 else "are"
        raise _cannot(
            path,
            f"{judged.reason}: of its files only {enumerate_names(files, in_order=False)} {be} there. "
            f"The index, {printable(index_name(judged.name))}, says which tensors lie where",
        )
    if not salvage:
        raise _cannot(path, f"it is not complete: {judged.reason}")
    count = v1_shards_of_path(path) or max(count for count, _ in shards)
    names = list(v1_shard_names(judged.name, count))
    there = tuple(name for name in names if name in files)
    return Located(path, Format.V1, there, tuple(name for name in names if name not in files))


def _file(path: str, found: Entry, *, salvage: bool) -> Located:
    """Return the checkpoint that the file at `path` belongs to."""
    _require_file(path, found)
    head, base = os.path.split(path)
    if base in SAVED_MODEL_FILES:
        return _in_directory(head or ".")
    parsed = parse_file_name(base)
    if parsed is not None:
        prefix = os.path.join(head, parsed.prefix)  # noqa: PTH118
        if parsed.role is Role.INDEX:
            return Located(prefix, Format.V2)
        located = _prefix(prefix, salvage=salvage)
        if located is not None:
            return located
        raise _cannot(
            path,
            f"{_SUFFIXES[parsed.role]}, and {printable(index_name(parsed.prefix))} is not there",
        )
    holdings = Holdings(head)
    if holdings.is_state_file(found):
        return _named_by_state_file(head or ".", base)
    v1 = parse_v1_name(base)
    if v1.num_shards > 1:
        located = _prefix(os.path.join(head, v1.prefix), salvage=salvage)  # noqa: PTH118
        if located is not None:
            return located
    try:
        holdings.require_v1(found)
    except FormatError as error:
        text = (
            f"{printable(path)}: neither an index nor a V1 checkpoint: {error}; "
            "name a checkpoint's prefix, its directory, or one of its files"
        )
        raise CorruptIndexError(text) from error
    return Located(path, Format.V1, (base,))


def _require_file(path: str, found: Entry) -> None:
    if found.kind is Kind.SYMLINK:
        raise _cannot(path, "it is a symbolic link that leads nowhere")
    if found.kind is not Kind.FILE:
        raise StorageError("open", path, f"it is a {found.kind.value}, not a regular file")


def _nothing_at(path: str) -> NoSuchCheckpointError:
    """Say what is wrong with a path at which there is nothing."""
    head, base = os.path.split(path.rstrip("/"))
    name = printable(prefix_of_path(base))
    try:
        inventory = Holdings(head).look_known()
    except NoSuchDirectoryError:
        return _cannot(path, f"there is no directory {printable(head)}")
    is_prefix = parse_file_name(base) is None
    what = f"{name}.index, and no V1 file {name}," if is_prefix else printable(base)
    why = f"there is no {what} in {printable(head or '.')}; "
    holds = describe(inventory).replace("it is empty", "that directory is empty")
    near = near_names(prefix_of_path(base), inventory.by_name())
    if len(inventory.checkpoints) <= len(near):  # all of them are told already
        near = []
    return _cannot(path, f"{why}{holds}{hint_of(near)}")
