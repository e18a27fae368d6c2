"""A checkpoint is published whole, durably, and never mixed with the one before: at every crash."""

import errno
from contextlib import suppress

import numpy as np
import pytest
from storage.memory_directory import MemoryDirectory
from storage.memory_disk import Crash

from ckptd.checkpoints.inventory import take_inventory
from ckptd.checkpoints.layouts.tensorflow import shard_name, v1_shard_names
from ckptd.checkpoints.listing import Kind
from ckptd.errors import NoSpaceError, StorageError
from ckptd.formats.bundle_index import read_promise
from ckptd.formats.bundle_layout import lay_out
from ckptd.formats.bundle_writer import BundleWriter
from ckptd.formats.checksum import masked_crc32c
from ckptd.formats.tensor_values import take_tensors
from ckptd.formats.v1_writer import encode_v1
from ckptd.keeper.inspector import DirectoryInspector
from ckptd.storage.directory import pieces_of
from ckptd.storage.publish import NewFile, publish

META = "m-1.meta"


def writer_of(value, shards):
    taken = take_tensors({"a": np.full(3, value, "f4"), "b": np.full(3, -value, "f4")})
    return BundleWriter(taken, lay_out(taken.specs, num_shards=shards))


def v2(value, shards, *, meta=None):
    """The files of a V2 checkpoint `m-1` of two tensors; those of the same shards are equally long."""
    writer = writer_of(value, shards)
    for shard in range(shards):
        yield NewFile(shard_name("m-1", shard, shards), writer.shard(shard))
    if meta is not None:
        yield NewFile(META, meta)
    yield NewFile("m-1.index", writer.index())


def v1(value, shards, *, meta=None):
    tensors = [{"a": np.full(3, value, "f4")}, {"b": np.full(3, -value, "f4")}]
    if shards == 1:
        yield from [] if meta is None else [NewFile(META, meta)]
        yield NewFile("m-1", encode_v1(tensors[0] | tensors[1]))
        return
    names = list(v1_shard_names("m-1", 2))
    yield NewFile(names[1], encode_v1(tensors[1]))
    yield from [] if meta is None else [NewFile(META, meta)]
    yield NewFile(names[0], encode_v1(tensors[0]))


SAVES = {
    "nothing": lambda value: (),
    "V2 in one shard": lambda value: v2(value, 1),
    "V2 in two shards": lambda value: v2(value, 2),
    "V2 in three shards, with a meta graph": lambda value: v2(value, 3, meta=b"graph %d" % value),
    "V2 in one shard, with a meta graph": lambda value: v2(value, 1, meta=b"graph %d" % value),
    "V1": lambda value: v1(value, 1),
    "V1, with a meta graph": lambda value: v1(value, 1, meta=b"graph %d" % value),
    "V1 in two shards": lambda value: v1(value, 2, meta=b"graph %d" % value),
}


PAIRS = [(before, after) for before in SAVES for after in SAVES if after != "nothing"]


def checkpoint_in(directory):
    """Return the content by name of what a reader takes for the checkpoint, None if there is none.

    Anything that is neither a checkpoint, a part of one nor a leftover fails.
    """
    inventory = take_inventory(directory.list(), DirectoryInspector(directory), named=["m-1"])
    assert not inventory.state_files
    if not inventory.checkpoints:
        return None
    (found,) = inventory.checkpoints
    names = [entry.name for entry in found.tensor_files]
    if found.format.value == "V2":
        promise = read_promise(directory.read("m-1.index", limit=2**20))
        used = [shard_name("m-1", n, promise.num_shards) for n in range(promise.num_shards)]
        names = ["m-1.index", *used]
    if found.meta_graph is not None:
        names.append(META)
    return {name: directory.read(name, limit=2**20) for name in names}


def published(save, value, directory):
    if save != "nothing":
        publish(directory, "m-1", SAVES[save](value))
    return checkpoint_in(directory)


def both(before, after):
    """Return what a reader sees before and after, on disks of their own."""
    directory = MemoryDirectory()
    return published(before, 1, directory), published(after, 2, directory)


def is_fine(seen, before, after):
    """Say whether what is seen is nothing, or all of one checkpoint and nothing of the other."""
    return seen in (None, before, after)


@pytest.mark.parametrize("save", [name for name in SAVES if name != "nothing"])
def test_what_is_published_is_there_and_nothing_else(save):
    directory = MemoryDirectory()

    publish(directory, "m-1", SAVES[save](7))

    files = {name: b"".join(pieces_of(data)) for name, data in SAVES[save](7)}
    assert {e.name: directory.read(e.name, limit=2**20) for e in directory.list()} == files
    assert checkpoint_in(directory) == files


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_the_files_of_an_earlier_checkpoint_of_the_name_go(before, after):
    directory = MemoryDirectory()
    published(before, 1, directory)

    seen = published(after, 2, directory)

    assert {entry.name for entry in directory.list()} - {META} == seen.keys() - {META}
    assert seen == both(before, after)[1]


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_a_power_loss_at_any_time_leaves_the_old_one_none_or_the_new_one(before, after):
    directory = MemoryDirectory()
    published(before, 1, directory)
    directory.disk.settle()
    old, new = both(before, after)

    publish(directory, "m-1", SAVES[after](2))
    directory.disk.promise("durable")

    states = list(directory.disk.crash_states(limit=5))
    for state in states:
        seen = checkpoint_in(MemoryDirectory(state))
        assert seen == new if state.promises else is_fine(seen, old, new)
    assert len(states) > 3
    assert any(state.promises for state in states)


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_a_kill_at_any_change_leaves_the_old_one_none_or_the_new_one(before, after):
    old, new = both(before, after)
    n = 0
    while True:
        n += 1
        directory = MemoryDirectory()
        published(before, 1, directory)
        directory.disk.crash_at(n)
        try:
            publish(directory, "m-1", SAVES[after](2))
        except Crash:
            seen = checkpoint_in(MemoryDirectory(directory.disk.restarted()))
            assert is_fine(seen, old, new), f"kill at change {n}"
        else:
            break
    assert n > 3


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_a_refusal_at_any_change_is_told_and_leaves_no_temporary_file(before, after, number):
    old, new = both(before, after)
    n = 0
    while True:
        n += 1
        directory = MemoryDirectory()
        published(before, 1, directory)
        start = directory.disk.operations
        directory.disk.fail_at(n, number)
        with suppress(StorageError):
            publish(directory, "m-1", SAVES[after](2))
        if directory.disk.operations - start < n:
            break
        assert is_fine(checkpoint_in(directory), old, new), f"refusal at change {n}"
        # Only the removal of a temporary file can itself be what is refused.
        left = [e.name for e in directory.list() if ".tempstate" in e.name]
        assert len(left) <= 1
    assert n > 3


def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else():
    directory = MemoryDirectory()
    old = published("V2 in two shards", 1, directory)
    writes = 4  # two data files, each a file and its one piece; then the index
    for n in range(1, writes + 2):
        directory.disk.fail_at(n, errno.ENOSPC)

        with pytest.raises(NoSpaceError):
            publish(directory, "m-1", v2(2, 2))

        assert {e.name: directory.read(e.name, limit=2**20) for e in directory.list()} == old


def test_a_refusal_to_rename_the_first_file_brings_the_old_checkpoint_back():
    directory = MemoryDirectory()
    old = published("V2 in two shards", 1, directory)
    writes, withdrawal = 5, 2
    directory.disk.fail_at(writes + withdrawal + 1, errno.EIO)

    with pytest.raises(StorageError, match="replace"):
        publish(directory, "m-1", v2(2, 2))

    assert {e.name: directory.read(e.name, limit=2**20) for e in directory.list()} == old


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_while_files_are_made_leaves_the_old_checkpoint(error):
    directory = MemoryDirectory()
    old = published("V2 in one shard", 1, directory)

    def files():
        yield next(v2(2, 1))
        raise error

    with pytest.raises(error):
        publish(directory, "m-1", files())

    assert {e.name: directory.read(e.name, limit=2**20) for e in directory.list()} == old


def test_what_only_looks_like_a_file_of_the_checkpoint_stays():
    directory = MemoryDirectory()
    strangers = {"m-1": b"notes", "m-1-00000-of-00002": b"part", "m-10.index": b"other's"}
    for name, data in strangers.items():
        directory.create(name, data)
    directory.plant("m-1.data-00002-of-00003", Kind.SYMLINK)

    publish(directory, "m-1", v2(1, 1))

    left = {entry.name for entry in directory.list()}
    assert left >= {*strangers, "m-1.data-00002-of-00003"}


def test_every_byte_of_what_is_published_verifies():
    directory = MemoryDirectory()
    publish(directory, "m-1", v2(3, 2))
    writer = writer_of(3, 2)

    for shard, parts in enumerate(writer.layout.shards):
        data = directory.read(shard_name("m-1", shard, 2), limit=100)
        crcs = [masked_crc32c(data[part.offset : part.offset + part.size]) for part in parts]
        assert b"".join(writer.shard(shard)) == data
        assert len(crcs) == 1
    assert writer.index() == directory.read("m-1.index", limit=2**20)
