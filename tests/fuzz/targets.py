"""What is fuzzed: for each kind of file, everything that ckptd does with one.

A target takes the bytes of a file and returns. `CkptdError` is an answer; whatever else it raises is
a defect. What one has read is walked through, because much of it is taken apart only when asked for.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from random import Random
from typing import Any, Final, NamedTuple

from fuzz.mutations import BYTES, COUNT_SIZE, FILES, MESSAGES, STRINGS, TABLES, TEXTS, Mutation
from fuzz.seeds import tensors
from fuzz.wire import split_at_magic

from ckptd.checkpoints.inventory import Checkpoint, Format, take_inventory
from ckptd.checkpoints.layouts.tensorflow import prefix_of_path, v1_shards_of_path
from ckptd.checkpoints.listing import Entry, Identity, Kind
from ckptd.errors import CkptdError, CorruptIndexError, FormatError, NotFoundError
from ckptd.formats.arrays import Array
from ckptd.formats.bundle_index import IndexPromise, parse_index, read_pieces, read_promise
from ckptd.formats.bundle_writer import encode_bundle
from ckptd.formats.dtypes import STRING, VARIANT
from ckptd.formats.freezing import constants_of, freeze
from ckptd.formats.graph import Graph
from ckptd.formats.graph_file import read_graph, what_is
from ckptd.formats.messages import PARSE_ERRORS, TensorProto
from ckptd.formats.meta_graph import MetaGraph, read_meta_graph
from ckptd.formats.object_graph import read_object_graph
from ckptd.formats.piece_checksum import piece_checksum
from ckptd.formats.saved_model import assets_of, read_fingerprint, read_saved_model, variables_of
from ckptd.formats.sorted_table import read_first_block, read_table
from ckptd.formats.state_file import format_state_file, parse_state_file
from ckptd.formats.string_tensor import (
    decode_strings,
    decode_variants,
    stored_crc32c_of_strings,
    stored_crc32c_of_variants,
)
from ckptd.formats.tensor_bundle import Bundle
from ckptd.formats.tensor_proto import decode_tensor
from ckptd.formats.tensors import Extent, TensorSource
from ckptd.formats.v1_checkpoint import V1Checkpoint
from ckptd.formats.v1_table import read_v1_promise
from ckptd.keeper.verification import verify_checkpoint

_MOST: Final = 200
"""Tensors, nodes or outputs that are asked for one by one: files here have fewer."""


class Target(NamedTuple):
    """One kind of file, and how it is damaged."""

    read: Callable[[bytes], None]
    mutations: Sequence[Mutation]


def read_all_of_table(data: bytes) -> None:
    """Read the rows, with and without what is lost, and the first block alone."""
    with suppress(CkptdError):
        list(read_table(data))
    with suppress(CkptdError):
        list(read_table(data, on_lost=lambda _: None))
    with suppress(CkptdError):
        read_first_block(lambda offset, size: data[offset : offset + size], len(data))


def read_all_of_index(data: bytes) -> None:
    """Read what an index promises; that and its pieces are refused together."""
    promise = pieces = None
    with suppress(CkptdError):
        promise = read_promise(data)
    with suppress(CkptdError):
        pieces = read_pieces(data)
    assert (promise is None) == (pieces is None)
    for num_shards in (None, 3):
        with suppress(CkptdError):
            parse_index(data, salvage=True, num_shards=num_shards)


def read_all_of_bundle(data: bytes) -> None:
    """Open an index, with and without salvage, over one data file that is every shard."""
    index, shard = _index_and_data(data)
    for options in ({}, {"salvage": True}, {"salvage": True, "num_shards": 3}):
        with suppress(CkptdError):
            bundle = Bundle(index, functools.partial(_shard, shard), **options)
            str(list(bundle.damaged.values()) + list(bundle.lost))
            _read_all(bundle)


def read_all_of_v1(data: bytes) -> None:
    """Read each shard's promise, and all tensors of all shards, with one shard missing."""
    shards = _v1_shards(data)
    for shard in shards.values():
        with suppress(CkptdError):
            read_v1_promise(
                lambda offset, size, shard=shard: shard[offset : offset + size],  # type: ignore[misc]
                len(shard),
            )
    with suppress(CkptdError):
        _read_all(V1Checkpoint(shards, missing=["m-00099-of-00100"]))


def read_all_of_meta_graph(data: bytes) -> None:
    """Read a meta graph and walk through all of it."""
    with suppress(CkptdError):
        _walk_meta_graph(read_meta_graph(data))


def read_all_of_saved_model(data: bytes) -> None:
    """Read a SavedModel, its graphs, variables and assets; and as a fingerprint."""
    with suppress(CkptdError):
        str(read_fingerprint(data))
    with suppress(CkptdError):
        model = read_saved_model(data)
        str(model.tags)
        with suppress(CkptdError):
            model.meta_graph(["serve"])
        _forms(model)
        for each in model.meta_graphs:
            _walk_meta_graph(each)
            assets_of(each)
            with suppress(CkptdError):
                variables_of(each)


def read_all_of_graph_file(data: bytes) -> None:
    """Say what a file is, and read it as a bare graph."""
    str(what_is(data))
    with suppress(CkptdError):
        graph = read_graph(data)
        _walk_graph(graph)
        _forms(graph)
        for every in (False, True):
            with suppress(CkptdError):
                constants_of(graph.message, all=every)


def read_all_of_state_file(data: bytes) -> None:
    """Read a state file, write what was read, and read that: it must say the same."""
    with suppress(CkptdError):
        state = parse_state_file(data)
        again = parse_state_file(format_state_file(state))
        assert repr(again) == repr(state)  # a timestamp may be no number
        for path in (state.model_checkpoint_path, *state.all_model_checkpoint_paths):
            prefix_of_path(path)
            v1_shards_of_path(path)


def read_all_of_object_graph(data: bytes) -> None:
    """Read an object graph and walk through all of it."""
    with suppress(CkptdError):
        graph = read_object_graph(data)
        for line in graph.tree():
            graph.path(line.node)
        for path, variable in graph.variables.items():
            assert graph.find(path) is variable
            assert graph.by_key[variable.checkpoint_key] is variable
            for alias in variable.aliases:
                graph.find(alias)


def read_tensor_proto(data: bytes) -> None:
    """Decode a tensor inside a message."""
    try:
        proto = TensorProto.FromString(data)
    except PARSE_ERRORS:
        return
    with suppress(CkptdError):
        _look_at(decode_tensor(proto, "constant"))


def read_strings(data: bytes) -> None:
    """Decode strings or variants; that and the checksum worked out in passing agree."""
    flags, count = data[:1], int.from_bytes(data[1:COUNT_SIZE], "little")
    stored = data[COUNT_SIZE:]
    big_endian = flags == b"\1"
    if flags == b"\2":
        found = _answer(lambda: stored_crc32c_of_variants(stored, count))
        values = _answer(lambda: decode_variants(stored, count))
    else:
        found = _answer(lambda: stored_crc32c_of_strings(stored, count, big_endian=big_endian))
        values = _answer(lambda: decode_strings(stored, count, big_endian=big_endian))
    assert (found is None) == (values is None)
    assert values is None or len(values) == count
    assert found == _answer(lambda: _checksum_in_passing(stored, count, flags)), "they disagree"


def freeze_all(data: bytes) -> None:
    """Freeze a meta graph with a sound checkpoint, by all of its outputs and by some."""
    with suppress(CkptdError):
        meta_graph = read_meta_graph(data)
        names = list(dict.fromkeys(node.name for node in meta_graph.nodes))[:_MOST]
        for outputs in (names, *([name] for name in names[:4] + names[-4:])):
            if outputs:
                with suppress(CkptdError):
                    constants_of(freeze(meta_graph.message, _checkpoint().read, outputs))


def verify_all(data: bytes) -> None:
    """Verify a bundle, or V1 shards, with its own bytes as meta graph.

    A bundle in which nothing is found can be read.
    """
    index, shard = _index_and_data(data)
    files = {"m.index": index, "m.data-00000-of-00001": shard, "m.meta": shard}
    found = _verified(Format.V2, files)
    if not found.damages:
        bundle = Bundle(index, functools.partial(_shard, shard))
        assert not bundle.lost
    _verified(Format.V1, _v1_shards(data))


def take_inventory_of(data: bytes) -> None:
    """Sort the names, one in a line, as a directory's listing: each ends up in one place."""
    names = dict.fromkeys(data.decode("utf-8", "surrogateescape").split("\n"))
    entries = [_entry(name, len(name)) for name in names]
    listed = take_inventory(entries, _Inspector(), named={"m-3"}, v1_shards={"m-4": 2})
    found = [
        *(entry for each in listed.checkpoints for entry in each.files),
        *(entry for each in listed.partials for entry in each.files),
        *(left.entry for left in listed.leftovers),
        *(*listed.state_files, *listed.strangers, *listed.own),
    ]
    assert sorted(found) == sorted(entries)


TARGETS: Final[Mapping[str, Target]] = {
    "table": Target(read_all_of_table, (*TABLES, *TABLES, *BYTES)),
    "index": Target(read_all_of_index, (*TABLES, *TABLES, *BYTES)),
    "bundle": Target(read_all_of_bundle, FILES),
    "v1": Target(read_all_of_v1, FILES),
    "meta_graph": Target(read_all_of_meta_graph, (*MESSAGES, *MESSAGES, *MESSAGES, *BYTES)),
    "meta_graph_text": Target(read_all_of_meta_graph, TEXTS),
    "saved_model": Target(read_all_of_saved_model, (*MESSAGES, *MESSAGES, *MESSAGES, *BYTES)),
    "graph_file": Target(read_all_of_graph_file, (*MESSAGES, *MESSAGES, *TEXTS)),
    "state_file": Target(read_all_of_state_file, TEXTS),
    "object_graph": Target(read_all_of_object_graph, (*MESSAGES, *MESSAGES, *MESSAGES, *BYTES)),
    "tensor_proto": Target(read_tensor_proto, (*MESSAGES, *MESSAGES, *MESSAGES, *BYTES)),
    "strings": Target(read_strings, STRINGS),
    "freezing": Target(freeze_all, (*MESSAGES, *MESSAGES, *MESSAGES, *BYTES)),
    "verification": Target(verify_all, FILES),
    "inventory": Target(take_inventory_of, BYTES),
}


def mutated(name: str, data: bytes, steps: Sequence[tuple[int, int]]) -> bytes:
    """Return `data` damaged in steps: which of the target's mutations, and the seed of its chance."""
    mutations = TARGETS[name].mutations
    for which, seed in steps:
        data = mutations[which % len(mutations)](data, Random(seed))
    return data


def _answer(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except CkptdError:
        return None


def _index_and_data(data: bytes) -> tuple[bytes, bytes]:
    *tables, behind = split_at_magic(data)
    return (tables[0], b"".join((*tables[1:], behind))) if tables else (behind, b"")


def _v1_shards(data: bytes) -> dict[str, bytes]:
    *tables, behind = split_at_magic(data)
    parts = [*tables, *[behind] * bool(behind or not tables)][:100]
    return {f"m-{n:05d}-of-{len(parts):05d}": part for n, part in enumerate(parts)}


def _shard(data: bytes, number: int) -> memoryview:
    if number > 2:
        raise NotFoundError("open", f"shard {number}", "not there")
    return memoryview(data)


def _read_all(source: TensorSource) -> None:
    """Read every tensor, whole and in part, and one that is not there."""
    for name, tensor in islice(source.tensors.items(), _MOST):
        for verify in (False, True):
            with suppress(CkptdError):
                array = source.read(name, verify=verify)
                assert array.shape == tensor.shape
                _look_at(array)
        for region in (
            tuple(Extent(size // 2, size - size // 2) for size in tensor.shape),
            tuple(Extent(0, min(size, 1)) for size in tensor.shape),
        ):
            with suppress(CkptdError):
                array = source.read(name, region=region)
                assert array.shape == tuple(length for _, length in region)
                _look_at(array)
    with suppress(CkptdError):
        source.read("layer_0/kernel")


def _look_at(array: Array) -> None:
    """Touch both ends: what an array maps must be there."""
    if array.size:
        str(array[(0,) * array.ndim])
        str(array[(-1,) * array.ndim])


def _walk_meta_graph(meta_graph: MetaGraph) -> None:
    for part in (
        *("tensorflow_version", "producer", "tags", "stripped_ops", "functions"),
        *("collections", "saver", "savers", "saved_tensors", "signatures"),
    ):
        with suppress(CkptdError):
            str(getattr(meta_graph, part))
    with suppress(CkptdError):
        for saver in islice(meta_graph.savers, 5):
            meta_graph.saved_tensors_of(saver)
    _walk_graph(meta_graph.graph)
    _forms(meta_graph)
    with suppress(CkptdError):
        meta_graph.to_bytes()


def _walk_graph(graph: Graph) -> None:
    for node in islice(graph.nodes, _MOST):
        for name in (f"{node.name}:0", f"{node.name}:1", f"{node.name}:999999999"):
            with suppress(CkptdError):
                str(graph.get_tensor_by_name(name))
        for value in node.attributes.values():
            str(type(value))
    with suppress(CkptdError):
        graph.get_tensor_by_name("op_to_restor:0")


def _forms(readable: Any) -> None:
    for form in (readable.to_text, readable.to_json):
        with suppress(CkptdError):
            form()


@functools.cache
def _checkpoint() -> Bundle:
    index, data = encode_bundle(tensors())
    return Bundle(index, lambda _: data)


def _checksum_in_passing(stored: bytes, count: int, flags: bytes) -> int:
    data_type = VARIANT if flags == b"\2" else STRING
    checksum = piece_checksum(data_type, count, len(stored), big_endian=flags == b"\1")
    for at in range(0, len(stored), 7):
        checksum.update(stored[at : at + 7])
    return checksum.finish()


class _Held:
    """A file in memory, to be read through."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.identity = Identity(1, 1, len(data), 0)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        part = self._data[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        return len(part)


def _verified(kind: Format, files: Mapping[str, bytes]) -> Any:
    @contextmanager
    def read_through(name: str) -> Iterator[_Held]:
        if name not in files:
            raise NotFoundError("open", name, "not there")
        yield _Held(files[name])

    entries = tuple(_entry(name, len(data)) for name, data in files.items())
    shards = len(entries) if kind is Format.V1 else 1
    checkpoint = Checkpoint("m", "m/", None, kind, shards, entries, entries[-1])
    verification = verify_checkpoint(checkpoint, read_through, meta_graph=True)
    str(verification)
    str(verification.tensor_damage)
    return verification


def _entry(name: str, size: int) -> Entry:
    kind = Kind.DIRECTORY if name.endswith(("_temp", ".ckptd")) else Kind.FILE
    return Entry(name, kind, Identity(1, size, size, size), 1)


class _Inspector:
    """Says of each file what its name's length decides: any answer may come from any file."""

    def index(self, entry: Entry) -> IndexPromise:
        if entry.size % 5 == 0:
            raise CorruptIndexError("no index")
        num_shards = 1 + entry.size % 2
        return IndexPromise(num_shards, dict.fromkeys(range(num_shards), entry.size), 1)

    def v1_shard(self, entry: Entry) -> None:
        if entry.size % 3 == 0:
            raise FormatError("no shard")

    def is_state_file(self, entry: Entry) -> bool:
        return entry.size % 2 == 0
