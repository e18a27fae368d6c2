"""The tensor bundle is read and written as TensorFlow does; each corruption is named."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptd.errors import CorruptIndexError, CorruptTensorError
from ckptd.formats.bundle_index import IndexPromise, read_promise
from ckptd.formats.bundle_writer import encode_bundle
from ckptd.formats.messages import BundleEntry, BundleHeader, TensorSlice
from ckptd.formats.slices import slice_key
from ckptd.formats.sorted_table import read_table, write_table
from ckptd.formats.tensor_bundle import Bundle

# What TensorFlow 2.21 writes for 'a' = float32 [1, 2].
GOLDEN_INDEX = bytes.fromhex(
    "00000608011a02080100010f610801120412020802280835593ce535000000000100"
    "0000004419559e000000000100000000c0f2a1b00001026200240000000001000000"
    "005a996b352908360e" + "00" * 36 + "57fb808b247547db"
)
GOLDEN_SHARD = bytes.fromhex("0000803f00000040")
GOLDEN_V1_HEADER = bytes.fromhex("0a150a0f0a0161120412020802180122020a0012020801")

DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16"]

TENSORS = {
    f"layer/{np.dtype(code).name}": (np.arange(6).reshape(2, 3) - 1).astype(code) for code in DTYPES
} | {
    "scalar": np.float64(3.5),
    "empty": np.zeros((0, 4), np.float32),
    "Z": np.array([1], "f4"),
    "größe": np.int32(7),
}


def index(*entries, header=None):
    """An index whose header and entries (name, fields) are as given."""
    rows = {name.encode(): BundleEntry(**fields) for name, fields in entries}
    rows[b""] = BundleHeader(**(header or {"num_shards": 2}))
    return write_table(sorted((key, row.SerializeToString()) for key, row in rows.items()))


def _shape(*sizes):
    return {"dim": [{"size": size} for size in sizes]}


def shard(data):
    return lambda shard_id: {0: data}[shard_id]


def read_tensors(index, shard):
    bundle = Bundle(index, shard)
    return {name: bundle.read(name, verify=True) for name in bundle.tensors}


def assert_same(tensors, expected):
    assert tensors.keys() == expected.keys()
    for name, array in tensors.items():
        assert array.dtype == np.asarray(expected[name]).dtype, name
        np.testing.assert_array_equal(array, expected[name])


def test_the_golden_bytes_are_written():
    assert encode_bundle({"a": np.array([1, 2], "f4")}) == (GOLDEN_INDEX, GOLDEN_SHARD)


def test_the_golden_bytes_are_read():
    tensors = read_tensors(GOLDEN_INDEX, shard(GOLDEN_SHARD))

    assert read_promise(GOLDEN_INDEX) == IndexPromise(num_shards=1, shard_sizes={0: 8}, tensors=1)
    assert_same(tensors, {"a": np.array([1, 2], "f4")})


@pytest.mark.parametrize(
    ("value", "entry"),
    [
        (np.float64(3.5), "08021200280835722827bd"),
        (np.zeros((0, 4), np.float32), "08011206120012020804200835d8ea82a2"),
    ],
)
def test_the_golden_entries_are_written(value, entry):
    # `other` comes first in the shard and puts the tensor at byte 8.
    index, _ = encode_bundle({"other": np.int64(1), "x": value})

    written = BundleEntry.FromString(dict(read_table(index))[b"x"])
    assert written.offset == 8
    if written.size:
        written.ClearField("offset")
    assert written.SerializeToString().hex() == entry


def test_what_is_written_is_read():
    index, data = encode_bundle(TENSORS)

    tensors = read_tensors(index, shard(data))

    assert_same(tensors, TENSORS)
    assert not any(array.flags.writeable for array in tensors.values())


@given(st.dictionaries(st.text(min_size=1), st.binary(max_size=50), min_size=1))
def test_names_of_any_text_are_read_back(values):
    # A name that begins with NUL could be taken for the key of a slice.
    tensors = {name.lstrip("\0") or "0": np.frombuffer(v, "u1") for name, v in values.items()}
    index, data = encode_bundle(tensors)

    promise = read_promise(index)

    assert_same(read_tensors(index, shard(data)), tensors)
    assert (promise.tensors, promise.shard_sizes) == (len(tensors), {0: len(data)})


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype="i4").reshape(2, 3)),
        np.arange(12, dtype="i4").reshape(2, 6)[:, ::2] // 2,
    ],
    ids=["big-endian", "column by column", "with strides"],
)
def test_arrays_are_stored_little_endian_and_row_by_row(array):
    _, data = encode_bundle({"a": array})

    assert data == np.arange(6, dtype="<i4").tobytes()


@pytest.mark.parametrize("array", [np.array([None]), np.array("now", "M8[s]")])
def test_what_is_no_number_is_not_written(array):
    with pytest.raises(TypeError, match=r"tensor 'a': a (bundle|checkpoint) cannot hold dtype"):
        encode_bundle({"a": array})


def test_bundles_that_tensorflow_would_not_write_are_refused():
    with pytest.raises(ValueError, match="at least one tensor"):
        encode_bundle({})
    with pytest.raises(ValueError, match="empty name"):
        encode_bundle({"": np.float32(1)})


def test_a_promise_is_the_largest_end_in_each_shard_in_use():
    data = index(
        ("a", {"shard_id": 4, "offset": 100, "size": 28}),
        ("b", {"shard_id": 4, "offset": 0, "size": 100}),
        ("c", {"shard_id": 1}),
        header={"num_shards": 7},
    )

    assert read_promise(data) == IndexPromise(num_shards=7, shard_sizes={4: 128, 1: 0}, tensors=3)


def partitioned(*, without=0):
    parts = [TensorSlice(extent=[{"start": n, "length": 1}, {}]) for n in range(3)]
    rows = {
        b"": BundleHeader(num_shards=2),
        b"w": BundleEntry(dtype=1, shape=_shape(3, 2), slices=parts),
        b"x": BundleEntry(dtype=1, size=4),
    }
    for n, part in enumerate(parts[without:]):
        rows[slice_key(b"w", part)] = BundleEntry(
            dtype=1, shape=_shape(1, 2), shard_id=1, offset=8 * n, size=8
        )
    return write_table(sorted((key, row.SerializeToString()) for key, row in rows.items()))


def test_the_slices_of_a_partitioned_tensor_promise_their_bytes_and_count_as_one():
    assert read_promise(partitioned()) == IndexPromise(
        num_shards=2, shard_sizes={0: 4, 1: 24}, tensors=2
    )


def test_a_partitioned_tensor_without_all_its_slices_is_corrupt():
    with pytest.raises(CorruptIndexError, match="tensor 'w': slice 0,1:-: it has no row"):
        read_promise(partitioned(without=1))


@pytest.mark.parametrize(
    "version",
    [{}, {"producer": 1}, {"producer": 99}, {"min_consumer": 1}, {"bad_consumers": [0, 2]}],
)
def test_versions_that_tensorflow_reads(version):
    assert read_promise(index(header={"num_shards": 1, "version": version})).num_shards == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "too short to be a table"),
        (write_table([]), "no header: the table is empty"),
        (write_table([(b"a\n\xff", b"")]), r"no header: the first row is 'a\\\\n\\\\xff'"),
        (write_table([(b"", b"\xff")]), "header does not parse"),
        (write_table([(b"", b"")]), "num_shards must be at least 1, found 0"),
        (index(header={"num_shards": -3}), "num_shards must be at least 1, found -3"),
        (index(header={"num_shards": 1, "endianness": 2}), "unknown endianness 2"),
        (write_table([(b"", GOLDEN_V1_HEADER)]), "a V1 checkpoint, not an index"),
        (
            index(header={"num_shards": 1, "version": {"min_consumer": 2}}),
            "needs a reader of version 2, TensorFlow and ckptd are at version 1",
        ),
        (
            index(header={"num_shards": 1, "version": {"bad_consumers": [0, 1]}}),
            "must not be read by readers of version 1",
        ),
        (
            index(header={"num_shards": 1, "version": {"producer": -1}}),
            "version of its producer is negative: -1",
        ),
        (
            write_table([(b"", b"\x08\1"), (b"a", b"\xff")]),
            "tensor 'a': entry does not parse",
        ),
        (index(("a", {"shard_id": 2})), "tensor 'a': lies in shard 2 of 2"),
        (index(("a", {"shard_id": -1})), "tensor 'a': lies in shard -1 of 2"),
        (index(("a", {"offset": -8, "size": 8})), "tensor 'a': negative offset or size: -8, 8"),
        (index(("a", {"size": -1})), "tensor 'a': negative offset or size: 0, -1"),
        (
            index(("a", {"dtype": 1, "shape": _shape(2), "size": 7})),
            "tensor 'a': stored in 7 bytes, 2 elements of float32 take 8",
        ),
        (
            index(("a", {"dtype": 2, "size": 7})),
            "tensor 'a': stored in 7 bytes, 1 element of float64 take 8",
        ),
        (
            index(("a", {"dtype": 1, "shape": _shape(2**62, 2**62)})),
            f"stored in 0 bytes, {2**124} elements of float32 take {2**126}",
        ),
        (index(("a", {"shape": {"unknown_rank": True}})), "tensor 'a': its shape is not known"),
        (
            index(("a", {"shape": _shape(-1, -2)})),
            r"tensor 'a': its shape has a negative dimension: \[-1, -2\]",
        ),
    ],
)
def test_each_corruption_is_named(data, reason):
    with pytest.raises(CorruptIndexError, match=reason):
        read_promise(data)


def test_every_flipped_bit_is_noticed_unless_the_index_says_the_same():
    unnoticed = set()
    for position in range(len(GOLDEN_INDEX)):
        for bit in range(8):
            broken = bytearray(GOLDEN_INDEX)
            broken[position] ^= 1 << bit
            try:
                promise = read_promise(bytes(broken))
            except CorruptIndexError:
                continue
            assert promise == read_promise(GOLDEN_INDEX)
            unnoticed.add((position, bit))

    # The zeros behind the handles, and the last handle spelled in one byte more.
    padding = range(len(GOLDEN_INDEX) - 44, len(GOLDEN_INDEX) - 8)
    longer = (padding.start - 1, 7)
    assert unnoticed == {longer} | {(position, bit) for position in padding for bit in range(8)}


def test_every_truncation_is_noticed():
    for size in range(len(GOLDEN_INDEX)):
        with pytest.raises(CorruptIndexError):
            read_promise(GOLDEN_INDEX[:size])


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_an_index_or_corrupt(data):
    with contextlib.suppress(CorruptIndexError):
        read_promise(data)


@given(
    st.one_of(st.just(b"\x08\1"), st.binary(max_size=30)),
    st.dictionaries(st.binary(min_size=1, max_size=9), st.binary(max_size=40), max_size=4),
)
def test_arbitrary_rows_are_an_index_or_corrupt(header, rows):
    data = write_table([(b"", header), *sorted(rows.items())])
    with contextlib.suppress(CorruptIndexError):
        read_promise(data)
    with contextlib.suppress(CorruptIndexError):
        bundle = Bundle(data, lambda _: bytes(64))
        for name in [*bundle.tensors, *bundle.damaged]:
            with contextlib.suppress(CorruptTensorError):
                bundle.read(name)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_a_bundle_is_byte_for_byte_tensorflows(saver, tmp_path):
    tensors = {name: value for name, value in TENSORS.items() if name.isascii()}
    saver(tensors, str(tmp_path / "m"))

    index, data = encode_bundle(tensors)

    assert index == (tmp_path / "m.index").read_bytes()
    assert data == (tmp_path / "m.data-00000-of-00001").read_bytes()


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_tensorflow_reads_what_is_written(tf, tmp_path):
    index, data = encode_bundle(TENSORS)
    (tmp_path / "m.index").write_bytes(index)
    (tmp_path / "m.data-00000-of-00001").write_bytes(data)

    reader = tf.train.load_checkpoint(str(tmp_path / "m"))

    assert_same({name: reader.get_tensor(name) for name in TENSORS}, TENSORS)
    assert reader.get_variable_to_shape_map().keys() == TENSORS.keys()


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_shards_of_tensorflow_2_promise_what_is_on_disk(tf, tmp_path):
    values = {name: tf.Variable(tf.zeros([1000])) for name in "abcd"}
    policy = tf.train.experimental.MaxShardSizePolicy(max_shard_size=3000)
    options = tf.train.CheckpointOptions(experimental_sharding_callback=policy)
    prefix = tf.train.Checkpoint(**values).write(str(tmp_path / "m"), options=options)
    reader = tf.train.load_checkpoint(prefix)

    promise = read_promise((tmp_path / "m.index").read_bytes())

    sizes = {
        n: (tmp_path / f"m.data-{n:05}-of-{promise.num_shards:05}").stat().st_size
        for n in range(promise.num_shards)
    }
    assert promise.num_shards > 4
    assert promise.shard_sizes == sizes
    assert promise.tensors == len(reader.get_variable_to_shape_map())


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "version",
    [
        {"producer": 99},
        {"producer": -1},
        {"min_consumer": 1},
        {"min_consumer": 2},
        {"bad_consumers": [1]},
        {"bad_consumers": [0]},
    ],
    ids=str,
)
def test_the_same_versions_are_read_as_by_tensorflow(tf, tmp_path, version):
    index, data = encode_bundle({"a": np.float32(1)})
    rows = dict(read_table(index))
    rows[b""] = BundleHeader(num_shards=1, version=version).SerializeToString()
    index = write_table(sorted(rows.items()))
    (tmp_path / "m.index").write_bytes(index)
    (tmp_path / "m.data-00000-of-00001").write_bytes(data)

    try:
        tf.train.load_checkpoint(str(tmp_path / "m"))
    except Exception:
        with pytest.raises(CorruptIndexError):
            read_promise(index)
    else:
        assert read_promise(index).tensors == 1
