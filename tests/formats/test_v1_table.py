"""One V1 shard is recognised without reading it all, and told from everything else."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptd.errors import CorruptIndexError
from ckptd.formats.sorted_table import write_table
from ckptd.formats.v1_table import V1Promise, read_v1_promise

# What TensorFlow 2.21 writes for 'a' = float32 [1, 2] with SaverDef.V1.
HEADER = bytes.fromhex("0a150a0f0a0161120412020802180122020a0012020801")
SLICE_KEY = bytes.fromhex("006100010101807f")
SLICE = bytes.fromhex("12130a016112020a001a0a2a080000803f00000040")
GOLDEN = write_table([(b"", HEADER), (SLICE_KEY, SLICE)])


def promise_of(data):
    return read_v1_promise(lambda offset, size: data[offset : offset + size], len(data))


def test_the_golden_bytes_are_one_complete_shard():
    block = bytes.fromhex(
        "0000170a150a0f0a0161120412020802180122020a0012020801"
        "000815006100010101807f12130a016112020a001a0a2a080000803f00000040"
    )

    assert len(GOLDEN) == 151
    assert GOLDEN.startswith(block)
    assert promise_of(GOLDEN) == V1Promise(tensors=1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "too short to be a table: 0 bytes"),
        (b"#!/bin/sh\n" * 20, "bad magic number: not a table"),
        (GOLDEN[:-9], "bad magic number: not a table, or truncated"),
        (GOLDEN[10:], "checksum does not match|truncated"),
        (b"\1" + GOLDEN[1:], "data block at 0: checksum does not match"),
        (write_table([]), "no header: not a V1 checkpoint"),
        (write_table([(SLICE_KEY, SLICE)]), "no header: not a V1 checkpoint"),
        (write_table([(b"", b"\xff")]), "header does not parse"),
        (write_table([(b"", b"")]), "header does not list the tensors"),
        (write_table([(b"", b"\x08\1\x1a\2\x08\1")]), "the index of a tensor bundle"),
        (write_table([(b"", HEADER[:-4] + b"\x12\2\x10\2")]), "needs a reader of version 2"),
    ],
)
def test_what_is_no_complete_shard_is_named(data, reason):
    with pytest.raises(CorruptIndexError, match=reason):
        promise_of(data)


def test_the_values_are_not_read():
    data = write_table([(b"", HEADER), *((b"\0%04d" % n, bytes(600_000)) for n in range(20))])
    wanted = []

    def read(offset, size):
        wanted.append(size)
        return data[offset : offset + size]

    read_v1_promise(read, len(data))

    assert sum(wanted) < 2000 < len(data)


@given(st.binary(max_size=100), st.integers(0, len(GOLDEN) - 1))
def test_arbitrary_bytes_are_a_shard_or_corrupt(data, position):
    broken = GOLDEN[:position] + data + GOLDEN[position + len(data) :]
    for candidate in (data, broken, write_table([(b"", data)])):
        with contextlib.suppress(CorruptIndexError):
            promise_of(candidate)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_shards_of_tensorflow_are_recognised(saver, tf, tmp_path):
    tensors = {"a": tf.range(2.0).numpy(), "b/c": tf.zeros([400, 500]).numpy(), "s": 1.5}

    saver({"a": tensors["a"] + 1}, str(tmp_path / "golden"), version=1)
    saver(tensors, str(tmp_path / "m"), version=1)
    saver(tensors, str(tmp_path / "s"), version=1, sharded=True)
    golden = (tmp_path / "golden").read_bytes()
    several = (tmp_path / "m").read_bytes()
    sharded = (tmp_path / "s-00000-of-00001").read_bytes()

    assert golden == GOLDEN
    assert promise_of(several) == promise_of(sharded) == V1Promise(tensors=3)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_an_index_of_tensorflow_is_no_v1_shard(saver, tmp_path):
    saver({"a": 1.0}, str(tmp_path / "m"))

    with pytest.raises(CorruptIndexError, match="the index of a tensor bundle"):
        promise_of((tmp_path / "m.index").read_bytes())
