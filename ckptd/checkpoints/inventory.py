"""One listing, sorted into checkpoints, partial checkpoints, leftovers, state files and strangers.

Every entry ends up in exactly one place. A checkpoint is complete when every byte that its index
promises is there: the index is read and its checksums checked, by an `Inspector` that the caller
gives, because nothing here touches a disk.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, Protocol

from ckptd.checkpoints.layouts.tensorflow import (
    STATE_FILE,
    FileName,
    Role,
    leftover,
    looks_like_v1,
    parse_file_name,
    parse_series,
    parse_v1_name,
)
from ckptd.checkpoints.listing import Entry, Kind
from ckptd.errors import CkptdError
from ckptd.formats.bundle_index import IndexPromise

OWN_DIRECTORY = ".ckptd"
"""What ckptd needs beyond TensorFlow's files, inside the model directory so that it moves with it."""


class Format(Enum):
    """TensorFlow's two checkpoint formats (`SaverDef.CheckpointFormatVersion`)."""

    V1 = "V1"
    V2 = "V2"


class Checkpoint(NamedTuple):
    """A complete checkpoint. `files` are in the order of removal: what makes it exist comes first."""

    name: str
    series: str
    global_step: int | None
    format: Format
    num_shards: int
    files: tuple[Entry, ...]
    meta_graph: Entry | None

    @property
    def index(self) -> Entry:  # type: ignore[override]  # nobody searches it as a tuple
        """The file that makes this checkpoint exist; saving again replaces it."""
        return self.files[0]

    @property
    def tensor_files(self) -> tuple[Entry, ...]:
        """The files that its tensors are restored from, its index first.

        Data files that a save in another number of shards has left behind are not among them.
        """
        if self.format is Format.V1:
            return self.files[: self.num_shards]
        index, *others = self.files
        end = f"-of-{self.num_shards:05d}"
        return (index, *(entry for entry in others if entry.name.endswith(end)))

    @property
    def bytes(self) -> int:
        """Bytes in all its files, by their lengths."""
        return sum(entry.identity.size for entry in self.files)


@dataclass(frozen=True, slots=True)
class Partial:
    """A checkpoint of which something is missing: being written, damaged, or half removed.

    `damaged` is the checkpoint if every byte is there, and a verification has found some to be wrong.
    """

    name: str
    files: tuple[Entry, ...]
    reason: str
    damaged: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Leftover:
    """What a save that did not finish left behind. Known, reported, never removed by a sweep."""

    entry: Entry
    what: str


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everything in one model directory, each name once."""

    checkpoints: tuple[Checkpoint, ...]
    partials: tuple[Partial, ...]
    leftovers: tuple[Leftover, ...]
    state_files: tuple[Entry, ...]
    strangers: tuple[Entry, ...]
    own: tuple[Entry, ...]

    def by_name(self) -> Mapping[str, Checkpoint]:
        """Return the complete checkpoints by name."""
        return {checkpoint.name: checkpoint for checkpoint in self.checkpoints}

    def with_damaged(self, reasons: Mapping[str, str]) -> "Inventory":
        """Return it with the checkpoints that have a reason here counted as partial ones."""
        damaged = [
            Partial(checkpoint.name, checkpoint.files, reasons[checkpoint.name], checkpoint)
            for checkpoint in self.checkpoints
            if checkpoint.name in reasons
        ]
        if not damaged:
            return self
        partials = sorted((*self.partials, *damaged), key=lambda partial: partial.name)
        return replace(
            self,
            checkpoints=tuple(c for c in self.checkpoints if c.name not in reasons),
            partials=tuple(partials),
        )


class Inspector(Protocol):
    """Looks into files for the inventory. Raises `CkptdError` where a file is not what it should be."""

    def index(self, entry: Entry) -> IndexPromise:
        """Return what an index promises."""

    def v1_shard(self, entry: Entry) -> None:
        """Return if the file is one complete shard of a V1 checkpoint."""

    def is_state_file(self, entry: Entry) -> bool:
        """Say whether a file without suffix is a state file (`latest_filename`)."""


def take_inventory(
    entries: Iterable[Entry],
    inspector: Inspector,
    *,
    named: Collection[str] = (),
    v1_shards: Mapping[str, int] | None = None,
) -> Inventory:
    """Sort `entries`; `named` are the checkpoints that the state file names (for V1's bare names).

    `v1_shards` says in how many shards the state file names a V1 checkpoint, 0 for a bare name:
    where two saves of it are whole, that one is meant.
    """
    v1_shards = v1_shards or {}
    groups: defaultdict[str, list[tuple[FileName, Entry]]] = defaultdict(list)
    with_index: set[str] = set()
    bare: list[Entry] = []
    leftovers: list[Leftover] = []
    state_files: list[Entry] = []
    strangers: list[Entry] = []
    own: list[Entry] = []
    for entry in entries:
        name = entry.name
        if name == STATE_FILE:
            state_files.append(entry)
        elif name == OWN_DIRECTORY:
            own.append(entry)
        elif entry.kind is Kind.FILE and is_text(name):
            if (what := leftover(name, is_directory=False)) is not None:
                leftovers.append(Leftover(entry, what))
            elif (parsed := parse_file_name(name)) is not None:
                groups[parsed.prefix].append((parsed, entry))
                if parsed.role is Role.INDEX:
                    with_index.add(parsed.prefix)
            else:
                bare.append(entry)
        elif (
            entry.kind is Kind.DIRECTORY and (what := leftover(name, is_directory=True)) is not None
        ):
            leftovers.append(Leftover(entry, what))
        else:
            strangers.append(entry)

    known = set(groups)  # before V1's files join: the order of the listing decides nothing
    for entry in bare:
        v1 = parse_v1_name(entry.name)
        prefix = v1.prefix
        could_be_v1 = prefix not in with_index and (
            prefix in known or prefix in named or looks_like_v1(entry.name)
        )
        if could_be_v1 and (v1.num_shards > 1 or prefix in known or _is_v1(entry, inspector)):
            groups[prefix].append((v1, entry))
        elif (
            could_be_v1 or "." not in entry.name or STATE_FILE in entry.name
        ) and inspector.is_state_file(entry):
            state_files.append(entry)
        else:
            strangers.append(entry)

    checkpoints: list[Checkpoint] = []
    partials: list[Partial] = []
    for prefix, files in groups.items():
        found = _judge(prefix, files, inspector, v1_shards.get(prefix))
        if isinstance(found, Checkpoint):
            checkpoints.append(found)
            if len(found.files) < len(files):
                strangers.extend(entry for _, entry in files if entry not in found.files)
        elif found is not None:
            partials.append(found)
        else:
            strangers.extend(entry for _, entry in files)
    return Inventory(
        checkpoints=tuple(checkpoints),
        partials=tuple(sorted(partials, key=lambda partial: partial.name)),
        leftovers=tuple(sorted(leftovers, key=lambda left: left.entry.name)),
        state_files=tuple(sorted(state_files)),
        strangers=tuple(sorted(strangers)),
        own=tuple(own),
    )


def is_text(name: str) -> bool:
    r"""Say whether a name is UTF-8: no state file can name another, so nobody could restore it.

    >>> is_text("größe-7.index"), is_text("bad\udcff.index")
    (True, False)
    """
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_v1(entry: Entry, inspector: Inspector) -> bool:
    """Say whether a file nobody else speaks for is a V1 checkpoint; most such files are strangers."""
    try:
        inspector.v1_shard(entry)
    except CkptdError:
        return False
    return True


def _judge(
    prefix: str,
    files: Sequence[tuple[FileName, Entry]],
    inspector: Inspector,
    named_shards: int | None,
) -> Checkpoint | Partial | None:
    """Return the checkpoint of `prefix`, or the part of one that is there; None: nobody's file."""
    index = meta = debug = None
    shards: dict[tuple[int, int], Entry] = {}
    v1: list[tuple[FileName, Entry]] = []
    for name, entry in files:
        role = name.role
        if role is Role.INDEX:
            index = entry
        elif role is Role.META_GRAPH:
            meta = entry
        elif role is Role.DATA:
            shards[name.shard, name.num_shards] = entry
        elif role is Role.V1_SHARD:
            v1.append((name, entry))
        else:
            debug = entry
    extra = [entry for entry in (meta, debug) if entry is not None]

    if index is not None:
        everything = (index, *extra, *_in_order(shards))
        try:
            promise = inspector.index(index)
        except CkptdError as error:
            return Partial(prefix, everything, str(error))
        for shard, size in promise.shard_sizes.items():
            found = shards.get((shard, promise.num_shards))
            if found is None:
                of = f"shard {shard} of {promise.num_shards}"
                return Partial(prefix, everything, f"{of} is missing")
            if found.identity.size < size:
                of = f"shard {shard} of {promise.num_shards}"
                short = f"is short: {found.identity.size:,} of {size:,} bytes"
                return Partial(prefix, everything, f"{of} {short}")
        series, step = parse_series(prefix)
        return Checkpoint(prefix, series, step, Format.V2, promise.num_shards, everything, meta)

    if v1:
        return _judge_v1(prefix, v1, meta, (*extra, *_in_order(shards)), inspector, named_shards)
    if not shards and meta is None:
        return None
    reason = "it has no index" if shards else "only its meta graph is there"
    return Partial(prefix, (*extra, *_in_order(shards)), reason)


def _judge_v1(
    prefix: str,
    v1: Sequence[tuple[FileName, Entry]],
    meta: Entry | None,
    others: tuple[Entry, ...],
    inspector: Inspector,
    named_shards: int | None,
) -> Checkpoint | Partial | None:
    """Judge V1 files. A save in another number of shards leaves those of the one before beside it."""
    saves: defaultdict[int, list[Entry]] = defaultdict(list)  # by shards; 0: the bare prefix
    refused: CkptdError | None = None
    sound: set[Entry] = set()
    for name, entry in sorted(v1, key=lambda pair: pair[1].name):
        saves[0 if entry.name == prefix else name.num_shards].append(entry)
        try:
            inspector.v1_shard(entry)
        except CkptdError as error:
            refused = refused or error
        else:
            sound.add(entry)
    complete = {
        shards: files
        for shards, files in saves.items()
        if len(files) == max(shards, 1) and sound.issuperset(files)
    }
    if complete:
        newest = max(complete, key=lambda shards: max(e.identity.mtime_ns for e in saves[shards]))
        shards = named_shards if named_shards in complete else newest
        files = complete[shards]
        older = sorted(sound.difference(files), key=lambda entry: entry.name)
        series, step = parse_series(prefix)
        everything = (*files, *older, *others)
        return Checkpoint(prefix, series, step, Format.V1, len(files), everything, meta)
    everything = (*sorted(entry for _, entry in v1), *others)
    if refused is not None:
        # Without a meta graph: somebody's files that happen to be numbered.
        return None if meta is None else Partial(prefix, everything, str(refused))
    if len(saves) > 1:
        return Partial(
            prefix, everything, "it has V1 shards of different saves, none of them whole"
        )
    ((count, files),) = saves.items()
    there = {name.shard for name, _ in v1}
    missing = next(shard for shard in range(count) if shard not in there)
    return Partial(prefix, everything, f"V1 shard {missing} of {count} is missing")


def _in_order(shards: Mapping[tuple[int, int], Entry]) -> Iterable[Entry]:
    return (shards[key] for key in sorted(shards)) if len(shards) > 1 else shards.values()
