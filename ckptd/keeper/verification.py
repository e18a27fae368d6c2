"""Everything that a checkpoint's bytes tell of their own soundness: each checksum is worked out.

A file is read once, in order, a few megabytes at a time, whatever it is made of: pieces that touch
are read together, those that are the same run of bytes are summed up once, and pieces that share a
part of theirs, which no writer makes, are damage. So the work is bounded by the lengths of the
files, and the memory by `_PIECE` and the index. Damage of one tensor keeps no other from being
looked at.

Damage is what keeps bytes that were saved from being restored. Slices that leave a part of a tensor
out are none: who saves one slice of a partitioned variable restores that one.

No numpy here: the daemon does this.
"""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from ckptd.checkpoints.inventory import Checkpoint, Format
from ckptd.checkpoints.layouts.tensorflow import shard_name
from ckptd.checkpoints.listing import Identity
from ckptd.errors import (
    CorruptGraphError,
    CorruptIndexError,
    FormatError,
    NotFoundError,
    StorageError,
    printable,
)
from ckptd.formats.bundle_index import LARGEST_INDEX, BundleIndex, Entry, name_of, parse_index
from ckptd.formats.dtypes import MOST_DIMENSIONS, MOST_ELEMENTS, DataType, data_type
from ckptd.formats.messages import PARSE_ERRORS, SavedTensorSlices
from ckptd.formats.piece_checksum import piece_checksum
from ckptd.formats.regions import Overlap, Region, elements_in, find_flaw, whole, written
from ckptd.formats.slices import region_of, slice_key
from ckptd.formats.sorted_table import Row, read_block_index, read_data_block
from ckptd.formats.v1_table import read_v1_header
from ckptd.storage.directory import PassingFile

_PIECE: Final = 8 << 20
_TOGETHER: Final = 64 << 10
"""Bytes between two pieces that are read rather than passed over: padding, mostly."""
_LARGEST_GRAPH: Final = (1 << 31) - 1  # protobuf's own limit
_LARGEST_BLOCK: Final = 1 << 31  # more than one slice of V1, which is one message, can take
_NAMED: Final = 3

ReadThrough: TypeAlias = Callable[[str], AbstractContextManager[PassingFile]]
"""Opens a file by its bare name: `Directory.read_through`."""

Progress: TypeAlias = Callable[[int], None]
"""Is told of bytes as they have been looked at. What it raises ends the verification."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong: in which file, with which tensor, from which byte of the file on.

    `problem` says what, and with `expected` and `found` beside it where there are such. `in_doubt`:
    the disk refused, so that nobody knows what is there.
    """

    file: str
    problem: str
    tensor: str | None = None
    offset: int | None = None
    expected: str = ""
    found: str = ""
    in_doubt: bool = False

    def __str__(self) -> str:
        """Say it in one line.

        >>> str(Damage("m-1.index", "checksum does not match", "w", 8, expected="0x1", found="0x2"))
        "m-1.index: tensor 'w' at byte 8: checksum does not match: expected 0x1, found 0x2"
        """
        tensor = "" if self.tensor is None else f"tensor {printable(self.tensor)!r}"
        at = "" if self.offset is None else f"at byte {self.offset}"
        place = " ".join(filter(None, (tensor, at)))
        values = [f"expected {self.expected}"] * bool(self.expected)
        values += [f"found {self.found}"] * bool(self.found)
        parts = (printable(self.file), place, printable(self.problem), ", ".join(values))
        return ": ".join(filter(None, parts))


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of looking at a checkpoint: its damages, and how much was looked at."""

    name: str
    damages: tuple[Damage, ...]
    tensors: int
    """Tensors that its index, or its headers, tell of."""
    bytes: int
    """Bytes that were read."""
    graph_damage: Damage | None = None
    """What is wrong with its meta graph, which no tensor depends on."""
    changed: bool = False
    """Whether a file was not the one that was listed, or was written to while it was read: then
    what was found is true of no checkpoint."""

    @property
    def tensor_damage(self) -> str:
        """Say in one line what is wrong with its tensors; empty where nothing is."""
        if not self.damages:
            return ""
        more = len(self.damages) - 1
        return str(self.damages[0]) + (f"; and {more:,} more" if more else "")

    @property
    def in_doubt(self) -> bool:
        """Whether the disk refused something, so that another time may find something else."""
        return any(damage.in_doubt for damage in self.damages)


def verify_checkpoint(
    checkpoint: Checkpoint,
    read_through: ReadThrough,
    *,
    progress: Progress = lambda _: None,
    meta_graph: bool = False,
) -> Verification:
    """Look at every byte that the tensors of `checkpoint` are restored from.

    With `meta_graph` its ``.meta`` must parse, too; it holds no checksum. A file that is missing or
    cannot be read is damage; whether it was only removed or saved again meanwhile, `changed` says.
    Raises `MissingLibraryError` where an index is compressed and the library for it is missing.
    """
    listed = {entry.name: entry.identity for entry in checkpoint.tensor_files}
    reader = _Reader(read_through, progress, listed)
    if checkpoint.format is Format.V1:
        shards = [entry.name for entry in checkpoint.tensor_files]
        tensors = _verify_v1(reader, shards)
    else:
        tensors = _verify_bundle(reader, checkpoint)
    damages = tuple(reader.damages)
    if meta_graph and checkpoint.meta_graph is not None:
        _verify_meta_graph(reader, checkpoint.meta_graph.name)
    graph_damage = next(iter(reader.damages[len(damages) :]), None)
    return Verification(
        checkpoint.name, damages, tensors, reader.bytes, graph_damage, reader.changed
    )


class _CutShortError(Exception):
    """A file ended, at `offset`, before the bytes that were wanted."""

    def __init__(self, offset: int) -> None:
        super().__init__()
        self.offset = offset


class _Reader:
    """Opens files one after the other and gathers what is wrong with them."""

    def __init__(
        self, read_through: ReadThrough, progress: Progress, listed: Mapping[str, Identity]
    ) -> None:
        self._read_through = read_through
        self._progress = progress
        self._listed = listed
        self.buffer = memoryview(bytearray(_PIECE))
        self.damages: list[Damage] = []
        self.bytes = 0
        self.changed = False

    def note(self, file: str, problem: str, **more: Any) -> None:
        """Note a damage."""
        self.damages.append(Damage(file, problem, **more))

    def look_into(self, name: str, work: Callable[["_Passing"], None]) -> None:
        """Do `work` with an open file; note what the disk refuses."""
        try:
            with self._read_through(name) as file:
                self._compare(name, file)
                work(_Passing(self, file, name))
                self._compare(name, file)
        except NotFoundError:
            self.changed |= name in self._listed
            self.note(name, "the file is missing")
        except StorageError as error:
            self.note_refusal(name, error)

    def _compare(self, name: str, file: PassingFile) -> None:
        self.changed |= self._listed.get(name, file.identity) != file.identity

    def note_refusal(self, file: str, error: StorageError, **more: Any) -> None:
        """Note that the disk refused."""
        self.note(file, f"cannot be read: {error.reason}", in_doubt=True, **more)

    def count(self, size: int) -> None:
        """Count bytes that were read."""
        self.bytes += size
        self._progress(size)


class _Passing:
    """One open file, of which a part is in memory: it moves on, and pieces that touch share it."""

    def __init__(self, reader: _Reader, file: PassingFile, name: str) -> None:
        self._reader = reader
        self._file = file
        self.name = name
        self.size = file.identity.size
        self._start = self._end = 0

    def parts(self, offset: int, size: int, ahead: int = 0) -> Iterator[memoryview]:
        """Yield `size` bytes from `offset`, in parts, each valid until the next one.

        Up to `ahead`, an offset, more may be read along. Raises `_CutShortError`, `StorageError`.
        """
        end = offset + size
        while offset < end:
            if not self._start <= offset < self._end:
                self._fill(offset, max(end, ahead))
            upto = min(end, self._end)
            yield self._reader.buffer[offset - self._start : upto - self._start]
            offset = upto

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes, fewer where the file ends."""
        size = max(0, min(size, self.size - offset))
        data = bytearray(size)
        filled = 0
        while filled < size:
            wanted = memoryview(data)[filled : filled + _PIECE]
            count = self._file.read_into(wanted, offset + filled)
            if not count:
                break
            filled += count
            self._reader.count(count)
        return bytes(memoryview(data)[:filled])

    def _fill(self, offset: int, end: int) -> None:
        wanted = self._reader.buffer[: end - offset]
        count = self._file.read_into(wanted, offset)
        if not count:
            raise _CutShortError(offset)
        self._start, self._end = offset, offset + count
        self._reader.count(count)


# The tensor bundle.


class _Piece(NamedTuple):
    """One run of bytes in a shard, in the order in which they are looked at."""

    offset: int
    size: int
    chain: tuple[int, int]
    """What else decides its checksum: of strings and variants the type and how many there are."""
    name: str
    where: str
    """Which slice it is; empty for all of a tensor."""
    entry: Entry

    @property
    def end(self) -> int:
        return self.offset + self.size


def _verify_bundle(reader: _Reader, checkpoint: Checkpoint) -> int:
    name = checkpoint.index.name
    data: list[bytes] = []
    reader.look_into(name, lambda file: _read_index_file(reader, file, data))
    if not data:
        return 0
    try:
        index = parse_index(data[0], salvage=True, num_shards=checkpoint.num_shards)
    except CorruptIndexError as error:
        reader.note(name, str(error))
        return 0
    _judge_index(reader, name, index)
    for shard, pieces in sorted(_pieces_by_shard(index).items()):
        file_name = shard_name(checkpoint.name, shard, index.num_shards)
        reader.look_into(file_name, _Shard(reader, pieces, big_endian=index.big_endian).verify)
    return len(index.entries) + len(index.wrong)


def _read_index_file(reader: _Reader, file: _Passing, data: list[bytes]) -> None:
    if file.size > LARGEST_INDEX:
        limit = f"{LARGEST_INDEX:,} at most"
        reader.note(file.name, "too large", expected=limit, found=f"{file.size:,} bytes")
        return
    data.append(file.read(0, file.size))


def _judge_index(reader: _Reader, file: str, index: BundleIndex) -> None:
    """Note what the index says that cannot be."""
    for problem in index.lost:
        reader.note(file, problem)
    for key, problem in index.wrong.items():
        reader.note(file, problem, tensor=name_of(key))
    for key, parts in index.parts.items():
        tensor, shape = name_of(key), index.entries[key].kind.shape
        for part in parts:
            if part.entry is None:
                reader.note(file, part.problem, tensor=tensor)
        _judge_slices(reader, file, tensor, shape, [part.region for part in parts])


def _judge_slices(
    reader: _Reader, file: str, tensor: str, shape: Sequence[int], regions: Sequence[Region]
) -> None:
    """Note where the slices of a tensor hold a part of it twice: TensorFlow restores none of them."""
    flaw = find_flaw(regions, whole(shape))
    if isinstance(flaw, Overlap):
        one, other = (written(regions[place], shape) for place in (flaw.first, flaw.second))
        reader.note(file, f"its slices {one} and {other} overlap", tensor=tensor)


def _pieces_by_shard(index: BundleIndex) -> Mapping[int, list[_Piece]]:
    pieces: defaultdict[int, list[_Piece]] = defaultdict(list)
    for key, entry in index.entries.items():
        name = name_of(key)
        if key not in index.parts:
            pieces[entry.shard].append(_piece(name, "", entry))
            continue
        for part in index.parts[key]:
            if part.entry is not None:
                where = f"slice {written(part.region, entry.kind.shape)}: "
                pieces[part.entry.shard].append(_piece(name, where, part.entry))
    return pieces


def _piece(name: str, where: str, entry: Entry) -> _Piece:
    kind = entry.kind
    is_plain = kind.data_type.itemsize is not None
    chain = (0, 0) if is_plain else (kind.data_type.number, kind.elements)
    return _Piece(entry.offset, entry.size, chain, name, where, entry)


class _Shard:
    """The pieces of one data file, looked at in the order in which they lie there."""

    def __init__(self, reader: _Reader, pieces: list[_Piece], *, big_endian: bool) -> None:
        self._reader = reader
        self._pieces = sorted(pieces, key=lambda piece: piece[:3])
        self._big_endian = big_endian

    def verify(self, file: _Passing) -> None:
        """Note what is wrong with the pieces in `file`."""
        furthest = before = None
        outcome: int | str = ""
        for piece, ahead in zip(self._pieces, self._ends(), strict=True):
            if before is not None and before[:3] == piece[:3]:
                pass  # the same bytes under another name, as one who stores equal tensors once has it
            elif furthest is not None and piece.size and piece.offset < furthest.end:
                other = f"tensor {printable(furthest.name)!r}"
                range_text = f"bytes {furthest.offset} to {furthest.end}"
                self._note(file, piece, f"it overlaps {other}, which has {range_text}")
                continue
            elif piece.end > file.size:
                outcome = ""
                self._note(
                    file,
                    piece,
                    "the file ends before it does",
                    expected=f"{piece.end:,} bytes",
                    found=f"{file.size:,}",
                )
                continue
            else:
                outcome = self._checksum(file, piece, ahead)
                before = piece
                if furthest is None or piece.end > furthest.end:
                    furthest = piece
            self._judge(file, piece, outcome)

    def _ends(self) -> Sequence[int]:
        """Return for each piece how far it may be read on, for the sake of those behind it."""
        ends: list[int] = []
        following: _Piece | None = None
        for piece in reversed(self._pieces):
            touches = following is not None and following.offset - piece.end <= _TOGETHER
            ends.append(max(piece.end, ends[-1]) if touches else piece.end)
            following = piece
        return ends[::-1]

    def _checksum(self, file: _Passing, piece: _Piece, ahead: int) -> int | str:
        """Return the masked checksum of what is stored, or what is wrong with it."""
        kind = piece.entry.kind
        try:
            checksum = piece_checksum(
                kind.data_type, kind.elements, piece.size, big_endian=self._big_endian
            )
            for part in file.parts(piece.offset, piece.size, min(ahead, file.size)):
                checksum.update(part)
            return checksum.finish()
        except FormatError as error:
            return str(error)
        except _CutShortError as error:
            return f"the file was cut short at byte {error.offset} while it was read"
        except StorageError as error:
            self._reader.note_refusal(file.name, error, tensor=piece.name, offset=piece.offset)
            return ""

    def _judge(self, file: _Passing, piece: _Piece, outcome: int | str) -> None:
        if isinstance(outcome, str):
            if outcome:
                self._note(file, piece, outcome)
        elif outcome != piece.entry.crc32c:
            self._note(
                file,
                piece,
                "checksum does not match",
                expected=f"{piece.entry.crc32c:#010x}",
                found=f"{outcome:#010x}",
            )

    def _note(self, file: _Passing, piece: _Piece, problem: str, **values: str) -> None:
        self._reader.note(
            file.name, piece.where + problem, tensor=piece.name, offset=piece.offset, **values
        )


# V1.


@dataclass(slots=True)
class _V1Tensor:
    """What the headers of all shards say of one tensor."""

    data_type: DataType
    shape: tuple[int, ...]
    file: str
    regions: list[Region]


def _verify_v1(reader: _Reader, shards: Sequence[str]) -> int:
    tensors: dict[str, _V1Tensor] = {}
    for shard in shards:
        reader.look_into(shard, lambda file: _verify_v1_shard(reader, file, tensors))
    for name, tensor in tensors.items():
        _judge_slices(reader, tensor.file, name, tensor.shape, tensor.regions)
    return len(tensors)


def _verify_v1_shard(reader: _Reader, file: _Passing, tensors: dict[str, _V1Tensor]) -> None:
    try:
        header = read_v1_header(file.read, file.size)
        blocks = read_block_index(file.read, file.size)
    except FormatError as error:
        reader.note(file.name, str(error))
        return
    expected = _v1_slices(reader, file.name, header, tensors)
    keys = sorted(expected)
    after: bytes | None = None
    for up_to, handle in blocks:
        try:
            rows = _v1_rows(file, handle, after, up_to)
        except CorruptIndexError as error:
            lost = keys[bisect_right(keys, after or b"") : bisect_right(keys, up_to)]
            names = [expected.pop(key)[0] for key in lost if key in expected]
            reader.note(file.name, f"{error}{_lost_text(names)}", offset=handle.offset)
        else:
            for key, value in rows:
                if key in expected:
                    name, elements = expected.pop(key)
                    _verify_v1_row(reader, file.name, handle.offset, name, elements, value)
        after = up_to
    for name, _ in expected.values():
        reader.note(file.name, "a slice of it that the header lists has no row", tensor=name)


def _v1_rows(file: _Passing, handle: Any, after: bytes | None, up_to: bytes) -> list[Row]:
    if handle.size > _LARGEST_BLOCK:
        raise CorruptIndexError(f"data block at {handle.offset}: larger than 2 GiB")
    return read_data_block(file.read, handle, after, up_to)


def _v1_slices(
    reader: _Reader, file: str, header: Any, tensors: dict[str, _V1Tensor]
) -> dict[bytes, tuple[str, int]]:
    """Return name and elements of each slice that must be in a shard, by the key of its row."""
    expected: dict[bytes, tuple[str, int]] = {}
    for listed in header.tensor:
        name, kind = listed.name, data_type(listed.type)
        shape = tuple(dim.size for dim in listed.shape.dim)
        possible = len(shape) <= MOST_DIMENSIONS and min(shape, default=0) >= 0
        if listed.shape.unknown_rank or not possible or math.prod(shape) > MOST_ELEMENTS:
            reader.note(file, "its shape is not one that a tensor can have", tensor=name)
            continue
        known = tensors.setdefault(name, _V1Tensor(kind, shape, file, []))
        if (known.data_type, known.shape) != (kind, shape):
            reader.note(
                file,
                f"another shard, {printable(known.file)}, has it otherwise",
                tensor=name,
                expected=f"{known.data_type.name} {list(known.shape)}",
                found=f"{kind.name} {list(shape)}",
            )
            continue
        for each in listed.slice:
            try:
                region = region_of(each, shape)
            except FormatError as error:
                reader.note(file, str(error), tensor=name)
                continue
            known.regions.append(region)
            expected[slice_key(name.encode(), each)] = name, elements_in(region)
    return expected


def _verify_v1_row(
    reader: _Reader, file: str, offset: int, name: str, elements: int, value: bytes
) -> None:
    """Note if a row does not hold as many values as its slice has; it holds no checksum of its own."""
    try:
        values = SavedTensorSlices.FromString(value).data.data
    except PARSE_ERRORS:
        reader.note(file, "its values do not parse", tensor=name, offset=offset)
        return
    found = sum(
        len(listed) // (2 if field.name in _PAIRS else 1)
        for field, listed in values.ListFields()
        if field.name.endswith("_val")
    )
    if found != elements:
        reader.note(
            file,
            "its values are not as many as its shape asks for",
            tensor=name,
            offset=offset,
            expected=f"{elements:,}",
            found=f"{found:,}",
        )


_PAIRS: Final = frozenset({"scomplex_val", "dcomplex_val"})  # real, imaginary


def _lost_text(names: Sequence[str]) -> str:
    if not names:
        return ""
    shown = [repr(printable(name)) for name in dict.fromkeys(names)]
    more = f" and {len(shown) - _NAMED:,} more" if len(shown) > _NAMED else ""
    return f"; lost with it: {', '.join(shown[:_NAMED])}{more}"


def _verify_meta_graph(reader: _Reader, name: str) -> None:
    from ckptd.formats.graph_file import GraphKind, parse  # noqa: PLC0415 (the daemon reads none)

    def read(file: _Passing) -> None:
        if file.size > _LARGEST_GRAPH:
            limit = f"{_LARGEST_GRAPH:,} at most"
            reader.note(name, "too large for a meta graph", expected=limit, found=f"{file.size:,}")
            return
        try:
            parse(file.read(0, file.size), GraphKind.META_GRAPH)
        except CorruptGraphError as error:
            reader.note(name, str(error))

    reader.look_into(name, read)
