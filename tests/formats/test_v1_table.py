"""A V1 shard is recognised without reading it all; its tensors are read and written as TensorFlow does."""

import contextlib
import time
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptd.errors import (
    CkptdError,
    CorruptIndexError,
    CorruptTensorError,
    FormatError,
    NoSuchTensorError,
)
from ckptd.formats.arrays import numpy_dtype
from ckptd.formats.dtypes import BY_NAME, FLOAT32
from ckptd.formats.messages import SavedTensorSlices
from ckptd.formats.sorted_table import read_table, write_table
from ckptd.formats.tensors import Extent, StoredTensor
from ckptd.formats.v1_checkpoint import V1Checkpoint
from ckptd.formats.v1_table import V1Promise, read_v1_promise
from ckptd.formats.v1_writer import encode_v1, v1_pieces

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


def one_shard(**shards):
    return V1Checkpoint({name: memoryview(data) for name, data in shards.items()})


def region(*extents):
    return tuple(Extent(*extent) for extent in extents)


V1_TYPES = [
    *("float32", "float64", "int32", "uint8", "int16", "int8", "complex64", "int64", "bool"),
    *("qint8", "quint8", "qint32", "uint16", "complex128", "float16"),
]
W = np.arange(12, dtype="f4").reshape(4, 3)
TOP, BOTTOM = region((0, 2), (0, 3)), region((2, 2), (0, 3))


def tensor_of(name, shape):
    dtype = numpy_dtype(BY_NAME[name])
    count = int(np.prod(shape))
    array = np.arange(count) - (0 if name.startswith(("u", "qu", "bool")) else count // 2)
    return array.astype(dtype).reshape(shape)


def meta(*tensors):
    return SavedTensorSlices(
        meta={"tensor": list(tensors), "versions": {"producer": 1}}
    ).SerializeToString()


def listed(name="a", shape=(2,), slices=({"extent": [{}]},), kind=1):
    return {
        "name": name,
        "shape": {"dim": [{"size": size} for size in shape]},
        "type": kind,
        "slice": list(slices),
    }


def test_the_golden_bytes_are_written_and_read():
    a = np.array([1, 2], "f4")

    assert encode_v1({"a": a}) == GOLDEN
    source = one_shard(m=GOLDEN)
    assert dict(source.tensors) == {"a": StoredTensor("a", FLOAT32, (2,), 8, (0,))}
    assert source.missing == ()
    np.testing.assert_array_equal(source.read("a"), a)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 3), (1,) * 8], ids=str)
@pytest.mark.parametrize("name", V1_TYPES)
def test_every_type_goes_there_and_back(name, shape):
    array = tensor_of(name, shape)
    source = one_shard(m=encode_v1({"x": array}, data_types={"x": BY_NAME[name]}))

    assert source.tensors["x"].data_type.name == name
    found = source.read("x")
    assert isinstance(found, np.ndarray)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_strings_and_names_of_any_kind():
    tensors = {
        "größe/\0x": np.array([[b"a", b"\0\xff"]], object),
        "a b": np.array(["ü"], object),
        "": np.array(b"", object),
    }
    source = one_shard(m=encode_v1(tensors))

    assert list(source.tensors) == ["", "a b", "größe/\0x"]
    assert source.read("größe/\0x").tolist() == [[b"a", b"\0\xff"]]
    assert source.read("a b").tolist() == ["ü".encode()]
    assert source.read("").shape == ()


def test_slices_are_put_together_over_shards():
    shards = {
        "m-00000-of-00002": encode_v1({"w": W, "a": W[0]}, slices={"w": [TOP]}),
        "m-00001-of-00002": encode_v1({"w": W, "s": W[1, 1]}, slices={"w": [BOTTOM]}),
    }
    source = one_shard(**shards)

    assert source.tensors["w"] == StoredTensor(
        "w", FLOAT32, (4, 3), 48, (0, 1), slices=(TOP, BOTTOM)
    )
    assert source.tensors["s"].shards == (1,)
    np.testing.assert_array_equal(source.read("w"), W)
    np.testing.assert_array_equal(source.read("w", region=region((1, 2), (1, 2))), W[1:3, 1:3])
    np.testing.assert_array_equal(source.read("w", region=region((3, 1), (0, 3))), W[3:])
    assert source.read("w", region=region((1, 0), (1, 2))).shape == (0, 2)


@pytest.mark.parametrize("name", [*V1_TYPES, "string"])
def test_slices_of_every_type_are_put_together(name):
    kind = BY_NAME[name]
    array = np.array([b"a", b"", b"c", b"d"], object) if name == "string" else tensor_of(name, (4,))
    parts = [region((1, 3)), region((0, 1))]
    data = encode_v1({"x": array}, slices={"x": parts}, data_types={"x": kind})

    np.testing.assert_array_equal(one_shard(m=data).read("x"), array)


def test_a_missing_shard_is_named_where_its_slices_are_missed():
    source = V1Checkpoint(
        {"m-00000-of-00002": encode_v1({"w": W, "a": W[0]}, slices={"w": [TOP]})},
        missing=["m-00001-of-00002"],
    )

    assert source.missing == ("m-00001-of-00002",)
    assert list(source.tensors) == ["a", "w"]
    np.testing.assert_array_equal(source.read("a"), W[0])
    np.testing.assert_array_equal(source.read("w", region=region((0, 2), (0, 1))), W[:2, :1])
    with pytest.raises(CorruptTensorError) as failed:
        source.read("w")
    assert str(failed.value) == (
        "tensor 'w': no slice of it holds 2,2:-; there are: 0,2:-; missing shards: m-00001-of-00002"
    )
    with pytest.raises(
        NoSuchTensorError, match=r"no tensor 'b' .*missing shards: m-00001-of-00002"
    ):
        source.read("b")


def test_only_what_is_asked_for_is_read():
    tensors = {f"t{n}": np.full(100_000, n, "f4") for n in range(20)}
    data = bytearray(encode_v1(tensors))
    at = data.index(tensors["t7"].tobytes()[:64])
    data[at] ^= 1
    source = one_shard(m=data)

    for name in tensors.keys() - {"t7"}:
        np.testing.assert_array_equal(source.read(name), tensors[name])
    with pytest.raises(
        CorruptTensorError, match=r"m: tensor 't7': slice -: data block at \d+: checksum does not"
    ):
        source.read("t7")


def test_slices_listed_to_and_fro_take_linear_time():
    half = 6000
    array = np.arange(2 * half, dtype=np.float32)
    places = [
        place for pair in zip(range(half), range(half, 2 * half), strict=True) for place in pair
    ]
    slices = {"a": [region((place, 1)) for place in places]}
    source = one_shard(m=encode_v1({"a": array}, slices=slices))

    started = time.process_time()
    np.testing.assert_array_equal(source.read("a"), array)

    assert time.process_time() - started < 3


def rows(header, *values):
    return write_table([(b"", header), *((SLICE_KEY, value) for value in values)])


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (meta(listed(shape=(-1,))), "m: tensor 'a': its shape is not known"),
        (meta({**listed(), "shape": {"unknown_rank": True}}), "its shape is not known"),
        (meta(listed(shape=[1] * 33)), "it has 33 dimensions, an array can have 32"),
        (meta(listed(shape=[1 << 62, 0, 8])), "its shape is beyond all memory"),
        (meta(listed(slices=[{}])), "a slice has 0 dimensions, the tensor has 1"),
        (
            meta(listed(slices=[{"extent": [{"start": 1, "length": 2}]}])),
            "slice 1,2 is not inside its shape",
        ),
        (
            meta(listed(), listed(shape=(3,))),
            r"tensor 'a' is listed as float32 \[3\] and as float32 \[2\]",
        ),
        (meta(listed(), listed(kind=9)), "is listed as int64 .* and as float32"),
    ],
)
def test_a_header_that_contradicts_itself_is_named(header, reason):
    with pytest.raises(CorruptIndexError, match=reason):
        one_shard(m=rows(header))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (GOLDEN[:-9], "m: bad magic number: not a table, or truncated"),
        (write_table([(b"", b"\x08\1\x1a\2\x08\1")]), "m: the index of a tensor bundle"),
    ],
)
def test_what_is_no_shard_is_named_with_its_file(data, reason):
    with pytest.raises(CorruptIndexError, match=reason):
        one_shard(m=data)


def spelled(*extents):
    return {"extent": [{"start": start, "length": length} for start, length in extents]}


@pytest.mark.parametrize(
    ("header", "values", "reason"),
    [
        (meta(listed()), [], "m: tensor 'a': slice -: it is listed, but not there"),
        (meta(listed()), [b"\xff"], "slice -: its row does not parse"),
        (meta(listed(shape=(3,))), [SLICE], "its row has 2 values, its shape asks for 3"),
        (meta(listed(shape=(10**15,))), [SLICE], "has 2 values, its shape asks for 1000000000000"),
        (meta(listed(shape=(1,))), [SLICE], "its row has 2 values, its shape asks for 1"),
        (meta(listed(kind=3)), [SLICE], "has 0 values"),
        (meta(listed(kind=20)), [SLICE], "tensor 'a': resource: tensors of this type are not"),
        (meta(listed(kind=77)), [SLICE], "tensor 'a': data type 77: tensors of this type are not"),
        (meta(listed(slices=[])), [SLICE], "no slice of it holds -; there are: none"),
        (
            meta(listed(slices=[spelled((1, 1))])),
            [SLICE],
            r"no slice of it holds 0,1; there are: 1,1$",
        ),
        (
            meta(listed(slices=[spelled((0, 1)), spelled((0, 2))])),
            [SLICE],
            "its slices 0,1 and - overlap",
        ),
    ],
)
def test_a_tensor_that_cannot_be_read_is_named(header, values, reason):
    source = one_shard(m=rows(header, *values))

    assert "a" in source.tensors
    with pytest.raises(CorruptTensorError, match=reason):
        source.read("a")


def test_a_name_that_is_not_there():
    with pytest.raises(
        NoSuchTensorError, match="no tensor 'w2' in the checkpoint; did you mean 'w'"
    ):
        one_shard(m=encode_v1({"w": W})).read("w2")


def test_a_region_outside_the_tensor_is_refused():
    with pytest.raises(ValueError, match="is no part of shape"):
        one_shard(m=encode_v1({"w": W})).read("w", region=region((0, 5), (0, 3)))


@pytest.mark.parametrize(
    ("array", "options", "error", "reason"),
    [
        (np.zeros(2, "u4"), {}, TypeError, "tensor 'x': the V1 format has no uint32"),
        (np.zeros(2, "u8"), {}, TypeError, "has no uint64; save a V2 checkpoint"),
        (np.zeros(2, ml_dtypes.bfloat16), {}, TypeError, "has no bfloat16"),
        (
            np.zeros(2, "i2"),
            {"data_types": {"x": BY_NAME["qint16"]}},
            TypeError,
            "has no qint16",
        ),
        (np.zeros(2, "M8[s]"), {}, TypeError, "cannot hold dtype datetime64"),
        (W, {"slices": {"x": [region((0, 5), (0, 3))]}}, ValueError, "is no slice of shape"),
        (W, {"slices": {"x": [region((0, 0), (0, 3))]}}, ValueError, "is no slice of shape"),
        (W, {"slices": {"x": [TOP, TOP]}}, ValueError, "slice 0,2:- is given twice"),
        (
            np.broadcast_to(np.float32(0), (1 << 29,)),
            {},
            FormatError,
            "may take 2147484672 bytes as a message, which holds 2 GiB; save it in smaller",
        ),
    ],
)
def test_what_v1_cannot_hold_is_refused(array, options, error, reason):
    with pytest.raises(error, match=reason):
        encode_v1({"x": array}, **options)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(600_000, dtype=np.float32),
        np.arange(-300_000, 300_000, dtype=np.int64),
        np.tile(np.arange(-128, 128, dtype=np.int8), 2000),
        np.linspace(0, 1, 600_000).astype(np.float16),
        np.arange(300_000) * (1 + 2j),
        np.arange(600_000) % 3 == 0,
        np.array([b"%d" % n for n in range(600_000)], object),
        np.asfortranarray(np.arange(600_000, dtype=np.int32).reshape(600, 1000)),
    ],
    ids=lambda array: str(array.dtype),
)
def test_what_is_written_in_pieces_is_the_same_message(array, monkeypatch):
    in_pieces = encode_v1({"x": array})
    monkeypatch.setattr("ckptd.formats.v1_writer._PIECE", 10**9)

    assert in_pieces == encode_v1({"x": array})
    np.testing.assert_array_equal(one_shard(m=in_pieces).read("x"), array)


def test_a_large_tensor_is_written_with_some_megabytes():
    array = np.broadcast_to(np.int64(-1), (6_000_000,))
    tracemalloc.start()
    try:
        size = sum(len(piece) for piece in v1_pieces({"x": array}))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert size > 60_000_000
    assert peak < 24 * 2**20


SLICED = encode_v1(
    {"s": np.array([b"ab", b""], object), "w": W, "n": np.arange(3)},
    slices={"w": [TOP, BOTTOM]},
)


@given(st.binary(max_size=6), st.integers(0, len(SLICED) - 1))
def test_mutated_files_are_checkpoints_or_named_errors(data, position):
    broken = SLICED[:position] + data + SLICED[position + len(data) :]
    with contextlib.suppress(CkptdError):
        source = one_shard(m=broken)
        for name in source.tensors:
            with contextlib.suppress(CkptdError):
                source.read(name)


@given(st.binary(max_size=6), st.data())
def test_mutated_rows_are_tensors_or_named_errors(data, draw):
    # Behind a sound checksum, as somebody hostile would write them.
    pairs = list(read_table(SLICED))
    row = draw.draw(st.integers(0, len(pairs) - 1))
    key, value = pairs[row]
    position = draw.draw(st.integers(0, len(value)))
    pairs[row] = (key, value[:position] + data + value[position + len(data) :])
    with contextlib.suppress(CkptdError):
        source = one_shard(m=write_table(pairs))
        for name in source.tensors:
            with contextlib.suppress(CkptdError):
                source.read(name)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
class TestTensorFlow:
    """TensorFlow as the judge: its bytes, its reader, its refusals."""

    def test_writes_the_same_bytes(self, saver, tf, tmp_path):
        tensors = {
            "b/c": np.arange(400 * 500, dtype="f4").reshape(400, 500),
            "b": np.float64(2),
            "Z": np.zeros((0, 4), "i8"),
            "a": np.array([-1, 300], "i4"),
            "s": np.array([b"x", b"\xff\0"], object),
            **{f"many/{n}": np.full(300, n, "i2") for n in range(500)},
        }
        saver(tensors, str(tmp_path / "m"), version=1)

        assert encode_v1(tensors) == (tmp_path / "m").read_bytes()

    def test_writes_partitioned_variables_over_shards_alike(self, tf, tmp_path):
        v1 = tf.compat.v1
        prefix = str(tmp_path / "m")

        def rows_of(shape, dtype=None, partition_info=None):
            first = partition_info.var_offset[0]
            return W[first : first + shape[0]]

        with (
            tf.Graph().as_default(),
            v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session,
        ):
            with v1.device(lambda op: f"/cpu:{int('part_1' in op.name)}"):
                w = v1.get_variable(
                    "w",
                    shape=W.shape,
                    partitioner=v1.fixed_size_partitioner(2),
                    initializer=rows_of,
                )
                v1.get_variable("a", initializer=W[0])
            session.run(v1.global_variables_initializer())
            assert len(list(w)) == 2
            saver = v1.train.Saver(write_version=1, sharded=True)
            saver.save(session, prefix, write_meta_graph=False)

        shards = {path.name: path.read_bytes() for path in tmp_path.glob("m-*")}
        assert shards == {
            "m-00000-of-00002": encode_v1({"w": W, "a": W[0]}, slices={"w": [TOP]}),
            "m-00001-of-00002": encode_v1({"w": W}, slices={"w": [BOTTOM]}),
        }
        np.testing.assert_array_equal(one_shard(**shards).read("w"), W)

    @pytest.mark.parametrize("shape", [(), (0, 2), (2, 3)], ids=str)
    @pytest.mark.parametrize("name", [*V1_TYPES, "string"])
    def test_writes_and_restores_every_type_alike(self, name, shape, tf, tmp_path):
        full = np.full(shape, b"\0a\xff", object)
        array = full if name == "string" else tensor_of(name, shape)
        value = tf.constant(array)
        if name.startswith("q"):
            value = tf.bitcast(value, tf.dtypes.as_dtype(name))
        path = str(tmp_path / "m")
        tf.raw_ops.SaveSlices(
            filename=path, tensor_names=["x"], shapes_and_slices=[""], data=[value]
        )
        written = encode_v1({"x": array}, data_types={"x": BY_NAME[name]})

        assert written == (tmp_path / "m").read_bytes()
        (tmp_path / "m").write_bytes(written)
        restored = tf.raw_ops.RestoreSlice(
            file_pattern=path, tensor_name="x", shape_and_slice="", dt=value.dtype
        )
        np.testing.assert_array_equal(np.asarray(restored.numpy()).astype(array.dtype), array)

    def test_restores_slices_and_lists_what_we_list(self, tf, tmp_path):
        (tmp_path / "m").write_bytes(SLICED)
        path = str(tmp_path / "m")

        restored = tf.raw_ops.RestoreSlice(
            file_pattern=path, tensor_name="w", shape_and_slice="4 3 1,2:-", dt=tf.float32
        )
        reader = tf.train.load_checkpoint(path)
        np.testing.assert_array_equal(restored.numpy(), W[1:3])
        assert reader.get_variable_to_shape_map() == {
            name: list(tensor.shape) for name, tensor in one_shard(m=SLICED).tensors.items()
        }

    @pytest.mark.parametrize(
        "name",
        [
            name
            for name, kind in BY_NAME.items()
            if kind.itemsize is not None and name not in {"int2", "uint2", "float4_e2m1fn"}
        ],
    )
    def test_has_the_same_types(self, name, tf, tmp_path):
        dtype = tf.dtypes.as_dtype(name)
        array = tensor_of(name, (2,))
        value = tf.constant(array)
        if name.startswith("q"):
            value = tf.bitcast(value, dtype)
        saved = True
        try:
            tf.raw_ops.SaveSlices(
                filename=str(tmp_path / "m"),
                tensor_names=["x"],
                shapes_and_slices=[""],
                data=[value],
            )
        except tf.errors.OpError:
            saved = False

        assert saved == (name in V1_TYPES)
