"""The state file: what the trainer said in it, and what it should say after a plan.

ckptd takes turns on this file with the trainer. It changes nothing but what is untrue or about to
be: entries that are gone or going, and, under `max_to_keep`, what the newest ones are. The path
style stays as it was written, timestamps are given where the writer gives them, and entries that
lead to other directories stay as they are.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ckptd.checkpoints.inventory import Checkpoint, Format
from ckptd.checkpoints.layouts.tensorflow import (
    index_name,
    prefix_of_path,
    v1_pattern,
    v1_shard_names,
    v1_shards_of_path,
)
from ckptd.checkpoints.listing import Entry
from ckptd.formats.state_file import StateFile
from ckptd.keeper.chronicle import Word, is_ahead


@dataclass(frozen=True, slots=True)
class Statement:
    """One state file as it was read, and which of its paths lead into this directory.

    `names` gives for each path the checkpoint's name here, None for a path that leads elsewhere.
    `head` is what the writer puts before a name: empty, or a directory with its slash. `moved` are
    the heads of paths that led here before the directory was moved, and lead nowhere now.
    """

    entry: Entry
    state: StateFile
    names: Mapping[str, str | None]
    head: str
    moved: frozenset[str] = frozenset()

    @property
    def current(self) -> str | None:
        """The checkpoint that `model_checkpoint_path` names, if it leads here."""
        return self.names[self.state.model_checkpoint_path]

    @property
    def timed(self) -> bool:
        """Whether the writer gives timestamps, one for each path, as CheckpointManager does."""
        times = self.state.all_model_checkpoint_timestamps
        return bool(times) and len(times) == len(self.state.all_model_checkpoint_paths)

    def word(self) -> Word:
        """Return what this file tells of the order and the times of saves."""
        paths = self.state.all_model_checkpoint_paths
        listed = [name for path in paths if (name := self.names[path]) is not None]
        # Who rolls back by hand names an earlier one of the list: that makes it no newer.
        if self.current is not None and (self.current not in listed or listed[-1] == self.current):
            listed = [name for name in listed if name != self.current] + [self.current]
        times = None
        if self.timed:
            told = zip(paths, self.state.all_model_checkpoint_timestamps, strict=True)
            times = {name: time for path, time in told if (name := self.names[path]) is not None}
        last = self.state.last_preserved_timestamp
        return Word(tuple(dict.fromkeys(listed)), times, last or None, self.current)


def read_statement(
    entry: Entry,
    state: StateFile,
    path: str,
    leads_here: Callable[[str], bool | None],
    entries: Iterable[Entry],
) -> Statement:
    """Find out which paths of `state` lead into the directory at `path`, whose listing is `entries`.

    `leads_here` says of another directory's path whether it is this one after all (by a symbolic
    link), or None where it does not exist. Then this directory has been moved, and its paths with
    it, if the last checkpoint named there is here; if not, the other one is away (not mounted, say).
    """
    verdicts: dict[str, bool | None] = {}

    def here(head: str) -> bool | None:
        if head not in verdicts:
            verdicts[head] = head in {"", "./", f"{path}/"} or leads_here(
                head if head.startswith("/") else f"{path}/{head}"
            )
        return verdicts[head]

    paths = (*state.all_model_checkpoint_paths, state.model_checkpoint_path)
    lost = {_head(written): written for written in paths if here(_head(written)) is None}
    moved: frozenset[str] = frozenset()
    if lost:
        there = {found.name for found in entries}
        moved = frozenset(
            head for head, last in lost.items() if not there.isdisjoint(_first_files(last))
        )
    names = {
        written: prefix_of_path(written)
        if here(_head(written)) or _head(written) in moved
        else None
        for written in paths
    }
    head = _head(state.model_checkpoint_path)
    if head in moved:
        head = f"{path}/" if head.startswith("/") else ""
    return Statement(entry, state, names, head, moved)


def _head(path: str) -> str:
    return path[: path.rfind("/") + 1]


def _first_files(path: str) -> set[str]:
    """Return the names of which one is there where the checkpoint at `path` is."""
    name = prefix_of_path(path)
    shards = v1_shards_of_path(path)
    return {next(v1_shard_names(name, shards))} if shards else {index_name(name), name}


def restate(
    statement: Statement,
    *,
    current: str,
    listed: Sequence[str],
    checkpoints: Mapping[str, Checkpoint],
    times: Mapping[str, float],
    last_preserved: float,
    now: float,
) -> StateFile:
    """Return what the file should say: `listed`, oldest first, and `current`, last if not listed.

    Paths that lead elsewhere keep their place before those that lead here. All names must be in
    `checkpoints` and `times`; `last_preserved` and `now` are in seconds since the epoch.
    """
    state = statement.state
    written = {
        name: path
        for path, name in statement.names.items()
        if name is not None and _head(path) not in statement.moved
    }

    def path_of(name: str) -> str:
        named = name_in_state(checkpoints[name])
        path = written.get(name, "")
        return path if path.rpartition("/")[2] == named else statement.head + named

    entries: list[tuple[str, float]] = []
    told = state.all_model_checkpoint_timestamps if statement.timed else ()
    for place, path in enumerate(state.all_model_checkpoint_paths):
        if statement.names[path] is None:
            entries.append((path, told[place] if told else 0.0))
    names = [*listed] if current in listed else [*listed, current]
    entries += [(path_of(name), times[name]) for name in names]
    if not state.all_model_checkpoint_paths and names == [current]:
        entries = []  # a writer that lists nothing is left to it
    restated = StateFile(
        model_checkpoint_path=path_of(current),
        all_model_checkpoint_paths=tuple(path for path, _ in entries),
    )
    if not statement.timed:
        return replace(restated, last_preserved_timestamp=state.last_preserved_timestamp)
    return replace(
        restated,
        all_model_checkpoint_timestamps=tuple(time for _, time in entries),
        last_preserved_timestamp=_later(last_preserved, state.last_preserved_timestamp, now),
    )


def _later(last_preserved: float, told: float | None, now: float) -> float:
    """Return the later of two times; what is no time, or lies in the future, is not kept."""
    if told is None or not math.isfinite(told) or is_ahead(told, now):
        return max(last_preserved, 0.0)
    return max(last_preserved, told, 0.0)


def without(statement: Statement, gone: Callable[[str], bool]) -> StateFile:
    """Return a file whose current checkpoint leads elsewhere, less the names here that are `gone`."""
    state = statement.state
    stay = [
        place
        for place, path in enumerate(state.all_model_checkpoint_paths)
        if (name := statement.names[path]) is None or not gone(name)
    ]
    paths = state.all_model_checkpoint_paths
    times = state.all_model_checkpoint_timestamps
    return replace(
        state,
        all_model_checkpoint_paths=tuple(paths[place] for place in stay),
        all_model_checkpoint_timestamps=tuple(times[p] for p in stay) if statement.timed else times,
    )


def name_in_state(checkpoint: Checkpoint) -> str:
    """Return what TensorFlow writes for a checkpoint: its prefix, or V1's pattern over shards."""
    if checkpoint.format is Format.V1 and checkpoint.index.name != checkpoint.name:
        return v1_pattern(checkpoint.name, checkpoint.num_shards)
    return checkpoint.name
