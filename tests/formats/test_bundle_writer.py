"""A bundle is laid out and written as TensorFlow writes it; what makes no bundle is refused."""

import itertools
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptd.formats.bundle_index import read_promise
from ckptd.formats.bundle_layout import TensorSpec, balanced, key_of, lay_out
from ckptd.formats.bundle_writer import BundleWriter, encode_bundle
from ckptd.formats.dtypes import BY_NAME, FLOAT32
from ckptd.formats.partitions import Partitioned, regions_of
from ckptd.formats.regions import Extent
from ckptd.formats.sorted_table import read_table
from ckptd.formats.string_tensor import decode_variants
from ckptd.formats.tensor_values import take_tensors

W = np.arange(15, dtype="f4").reshape(5, 3)
HALVES = [((0, 3), (0, 3)), ((3, 2), (0, 3))]

NUMPY = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16"]
ML_DTYPES = [
    "bfloat16",
    "float8_e5m2",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e4m3b11fnuz",
    "float8_e5m2fnuz",
    "int4",
    "uint4",
    "int2",
    "uint2",
    "float4_e2m1fn",
]
QUANTIZED = {"qint8": "i1", "quint8": "u1", "qint16": "i2", "quint16": "u2", "qint32": "i4"}


def write(tensors, *, num_shards=1, shards=None, data_types=None):
    """Return the index and the data files."""
    taken = take_tensors(tensors, data_types)
    writer = BundleWriter(taken, lay_out(taken.specs, num_shards=num_shards, shards=shards))
    files = [b"".join(writer.shard(shard)) for shard in range(num_shards)]
    return writer.index(), files


def put(path, name, index, files):
    (path / f"{name}.index").write_bytes(index)
    for shard, data in enumerate(files):
        (path / f"{name}.data-{shard:05}-of-{len(files):05}").write_bytes(data)
    return str(path / name)


def got(path, name):
    files = sorted(path.glob(f"{name}.data-*"))
    return (path / f"{name}.index").read_bytes(), [file.read_bytes() for file in files]


# Where things go.


def test_a_layout_says_where_each_part_lies():
    specs = [
        TensorSpec("w", FLOAT32, (5, 3), regions_of((5, 3), (2, 1), "w")),
        TensorSpec("a", BY_NAME["int64"], ()),
        TensorSpec("s", BY_NAME["string"], (2,), (), (20,)),
    ]

    layout = lay_out(specs)

    (parts,) = layout.shards
    assert [(part.name, part.offset, part.size) for part in parts] == [
        ("a", 0, 8),
        ("s", 8, 20),
        ("w", 28, 36),
        ("w", 64, 24),
    ]
    assert parts[3].region == (Extent(3, 2), Extent(0, 3))
    assert parts[3].shape == (2, 3)
    assert parts[0].region is None
    assert layout.sizes == (88,)


def test_a_layout_takes_shapes_that_no_memory_holds():
    layout = lay_out([TensorSpec("a", FLOAT32, (2**40, 2**10)), TensorSpec("b", FLOAT32, (1,))])

    assert layout.shards[0][1].offset == 2**52
    with pytest.raises(ValueError, match=r"shard would take 9,223,372,036,854,775,808 bytes"):
        lay_out([TensorSpec("a", FLOAT32, (2**61,))])


def test_shards_are_given_by_name_or_by_slice():
    tensors = {"w": Partitioned(W, (2, 1)), "a": np.int64(1), "b": np.int64(2)}

    _, files = write(tensors, num_shards=4, shards={"w": [3, 0], "a": 3, "b": 3})

    assert list(map(len, files)) == [24, 0, 0, 8 + 8 + 36]


@given(st.lists(st.integers(0, 1000), max_size=30), st.integers(1, 6))
def test_shards_are_balanced(sizes, num_shards):
    chosen = balanced(sizes, num_shards)

    loads = [
        sum(s for s, c in zip(sizes, chosen, strict=True) if c == n) for n in range(num_shards)
    ]
    best = max([math.ceil(sum(sizes) / num_shards), *sizes])
    assert max(loads) <= best * 4 / 3 + 1 or max(loads) - min(loads) <= max(sizes)
    assert balanced(sizes, num_shards) == chosen


@given(st.lists(st.integers(0, 7), max_size=4), st.data())
def test_parts_cover_a_tensor_once_and_differ_by_one_element_at_most(shape, data):
    counts = [data.draw(st.integers(1, max(size, 1))) for size in shape]

    regions = regions_of(shape, counts, "w")

    covered = np.zeros(shape, int)
    for region in regions:
        covered[tuple(slice(e.start, e.stop) for e in region)] += 1
    assert (covered == 1).all()
    assert len(regions) == math.prod(counts)
    for axis in range(len(shape)):
        lengths = [region[axis].length for region in regions]
        assert max(lengths) - min(lengths) <= 1
        assert lengths == sorted(lengths, reverse=True) or axis


# What the pieces are.


def test_an_array_that_lies_as_in_the_file_is_not_copied():
    array = np.arange(3 << 20, dtype="f8")
    taken = take_tensors({"a": array, "b": Partitioned(array, (4,))})
    writer = BundleWriter(taken, lay_out(taken.specs))

    pieces = list(writer.shard(0))

    assert all(np.shares_memory(np.frombuffer(piece, "u1"), array) for piece in pieces)
    assert max(map(len, pieces)) <= 16 << 20


def test_small_tensors_are_gathered():
    taken = take_tensors({f"{n:05}": np.float32(n) for n in range(5000)})
    writer = BundleWriter(taken, lay_out(taken.specs))

    (piece,) = writer.shard(0)

    assert bytes(piece) == np.arange(5000, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(3 << 20, dtype=">i4").reshape(3, -1),
        np.asfortranarray(np.arange(3 << 20, dtype="i4").reshape(3, -1)),
        np.arange(6 << 20, dtype="i4").reshape(3, -1)[:, ::2] // 2,
        np.arange(3 << 20, dtype="i4")[::-1][::-1].reshape(3, -1),
        np.ma.masked_less(np.arange(3 << 20, dtype="i4").reshape(3, -1), 5),
        np.arange(3 << 20, dtype="i4").reshape(3, -1).view(np.matrix),
    ],
    ids=["big-endian", "column by column", "with strides", "backwards", "masked", "matrix"],
)
def test_arrays_are_stored_little_endian_and_row_by_row(array):
    _, (data,) = write({"a": array})

    assert data == np.arange(3 << 20, dtype="<i4").tobytes()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("größe", ["größe".encode()]),
        (b"\0a\0", [b"\0a\0"]),
        ([b"a\0", b"b"], [b"a\0", b"b"]),
        (["a", "b"], [b"a", b"b"]),
        (np.array(["a", b"\0"], object), [b"a", b"\0"]),
        (np.array(["é", ""]), ["é".encode(), b""]),
        (np.array([b"a", b""]), [b"a", b""]),
    ],
)
def test_text_and_bytes_are_strings(value, expected):
    assert write({"s": value}) == write({"s": np.array(expected, object).reshape(np.shape(value))})


@pytest.mark.parametrize(
    ("value", "code"),
    [(3, "i8"), (2.5, "f8"), ([[1], [2]], "i8"), (bytearray(b"ab"), "u1"), (True, "?")],
)
def test_what_numpy_makes_an_array_of_is_stored(value, code):
    assert write({"a": value}) == write({"a": np.array(value, code)})


def test_an_index_needs_every_shard_to_have_been_written():
    taken = take_tensors({"a": np.float32(1), "b": np.float32(2)})
    writer = BundleWriter(taken, lay_out(taken.specs, num_shards=2))
    list(writer.shard(0))

    with pytest.raises(ValueError, match="shard 1 has not been written"):
        writer.index()


def test_names_that_are_not_utf8_are_written_as_they_were():
    index, _ = encode_bundle({"a\udcff/\udce9": np.float32(1), "\0": np.float32(2)})

    assert [key for key, _ in read_table(index)] == [b"", b"\0", b"a\xff/\xe9"]


# What is refused.


@pytest.mark.parametrize(
    ("tensors", "options", "kind", "reason"),
    [
        ({}, {}, ValueError, "at least one tensor"),
        ([("a", W)], {}, TypeError, "by name in a mapping, not in a list"),
        ({"": W}, {}, ValueError, "empty name"),
        ({b"a": W}, {}, TypeError, "the name of a tensor is text, not b'a'"),
        ({"a\ud800": W}, {}, ValueError, r"ud800': its name has no UTF-8 form"),
        ({"é": W, "\udcc3\udca9": W}, {}, ValueError, "have the same name in the index"),
        ({"\0w\0\1\0": W}, {}, ValueError, "taken for the key of a slice"),
        ({"a\n": np.array([1, None])}, {}, TypeError, "dtype object with a int in it"),
        ({"a": np.array("now", "M8[s]")}, {}, TypeError, "cannot hold dtype datetime64"),
        ({"a": np.zeros(1, "i4,f4")}, {}, TypeError, "cannot hold dtype"),
        ({"a": [[1], [2, 3]]}, {}, TypeError, "tensor 'a': a list cannot be stored: "),
        ({"a": object()}, {}, TypeError, "with a object in it, only bytes or str"),
        ({"a": "\ud800"}, {}, ValueError, "tensor 'a': its element 0 has no UTF-8 form"),
        ({"a": W}, {"num_shards": 0}, ValueError, "1 to 99,999 shards, not 0"),
        ({"a": W}, {"num_shards": 10**9}, ValueError, "1 to 99,999 shards, not 1,000,000,000"),
        ({"a": W}, {"shards": {}}, ValueError, "tensor 'a': no shard is given for it"),
        ({"a": W}, {"shards": {"a": 1}}, ValueError, "shard 1 is none of 0 to 0"),
        ({"a": W}, {"shards": {"a": [0, 0]}}, ValueError, "2 shards are given for its 1 slices"),
        ({"a": W}, {"shards": {"a": 0, "b": 0}}, ValueError, "a shard is given for 'b'"),
        ({"a": W}, {"data_types": {"b": "qint8"}}, ValueError, "a data type is given for 'b'"),
        ({"a": W}, {"data_types": {"a": "f4"}}, TypeError, "has no data type 'f4'"),
        ({"a": W}, {"data_types": {"a": "int32"}}, TypeError, "dtype float32 does not hold int32"),
        ({"a": W}, {"data_types": {"a": "resource"}}, TypeError, "does not hold resource"),
        ({"a": ["x"]}, {"data_types": {"a": "variant"}}, TypeError, "with a str in it, only bytes"),
    ],
)
def test_what_makes_no_bundle_is_refused(tensors, options, kind, reason):
    with pytest.raises(kind, match=reason):
        write(tensors, **options)


@pytest.mark.parametrize(
    ("parted", "reason"),
    [
        ({"partitions": (2,)}, "1 counts of partitions .* for the 2 axes"),
        ({"partitions": (6, 1)}, "axis 0 of 5 cannot be cut into 6 parts"),
        ({"partitions": (0, 1)}, "axis 0 of 5 cannot be cut into 0 parts"),
        ({"regions": []}, "no regions"),
        ({"regions": HALVES[:1]}, "no region covers 3,2:-"),
        ({"regions": [((0, 5), (0, 3)), HALVES[1]]}, "regions -:- and 3,2:- overlap"),
        ({"regions": [((0, 6), (0, 3))]}, "region 0,6:0,3 is not inside"),
        ({"regions": [((0, 0), (0, 3)), ((0, 5), (0, 3))]}, "region 0,0:0,3 is empty"),
        ({"regions": [((0, 5),)]}, "region 0,5 is not inside"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parted, reason):
    with pytest.raises(ValueError, match=f"tensor 'w': {reason}"):
        write({"w": Partitioned(W, **parted)})


def test_parts_are_given_in_one_way():
    with pytest.raises(TypeError, match="either partitions or regions"):
        Partitioned(W)
    with pytest.raises(TypeError, match="either partitions or regions"):
        Partitioned(W, (1, 1), regions=HALVES)


@given(st.text())
def test_a_name_has_a_key_or_is_refused(name):
    try:
        key = key_of(name)
    except ValueError:
        return
    assert key.decode("utf-8", "surrogateescape") == name


# TensorFlow is the judge.


def tensors_of_every_type():
    tensors: dict[str, Any] = {}
    tensors |= {
        f"n/{np.dtype(code).name}": np.arange(6).reshape(2, 3).astype(code) for code in NUMPY
    }
    tensors |= {f"m/{n}": np.array([0, 1, -1]).astype(getattr(ml_dtypes, n)) for n in ML_DTYPES}
    tensors |= {f"q/{n}": np.arange(4).astype(code) for n, code in QUANTIZED.items()}
    return tensors | {
        "scalar": np.float64(3.5),
        "empty": np.zeros((0, 4), np.float32),
        "eight": np.arange(8, dtype="i2").reshape(1, 2, 1, 2, 1, 2, 1, 1),
        "string": np.array([[b"hello", b""], [b"wor\0ld", b"x" * 300]], object),
        "no strings": np.zeros((0, 2), object),
        "größe/\x00": np.int32(7),
        "large": np.arange(1 << 20, dtype="f8"),
    }


TYPES = {f"q/{name}": name for name in QUANTIZED}


def constants(tf, tensors):
    for name, value in tensors.items():
        if name in TYPES:
            yield tf.bitcast(tf.constant(value), getattr(tf, TYPES[name]))
        else:
            yield tf.constant(value, tf.string if value.dtype == object else None)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_every_type_is_byte_for_byte_tensorflows(tf, tmp_path):
    tensors = dict(sorted(tensors_of_every_type().items(), key=lambda item: item[0].encode()))
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "t"),
        tensor_names=[name.encode() for name in tensors],
        shape_and_slices=[""] * len(tensors),
        tensors=list(constants(tf, tensors)),
    )

    assert write(tensors, data_types=TYPES) == got(tmp_path, "t")


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("num_shards", [1, 3])
def test_tensorflow_restores_every_type(tf, tmp_path, num_shards):
    tensors = tensors_of_every_type()
    prefix = put(tmp_path, "m", *write(tensors, data_types=TYPES, num_shards=num_shards))

    wanted = list(constants(tf, tensors))
    restored = tf.raw_ops.RestoreV2(
        prefix=prefix,
        tensor_names=[name.encode() for name in tensors],
        shape_and_slices=[""] * len(tensors),
        dtypes=[tensor.dtype for tensor in wanted],
    )

    for name, tensor, want in zip(tensors, restored, wanted, strict=True):
        assert tensor.shape == want.shape, name
        np.testing.assert_array_equal(tensor.numpy(), want.numpy(), err_msg=name)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_variants_and_raw_bits_are_tensorflows(tf, tmp_path):
    scalar = tf.constant([], tf.int32)
    lists = [
        tf.raw_ops.TensorListFromTensor(tensor=tf.range(n), element_shape=scalar) for n in (2, 0)
    ]
    halves = np.arange(5).astype(ml_dtypes.bfloat16)
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "t"),
        tensor_names=["b", "v"],
        shape_and_slices=["", ""],
        tensors=[tf.constant(halves), tf.stack(lists)],
    )
    index, (data,) = got(tmp_path, "t")
    elements = decode_variants(data[halves.nbytes :], 2)

    written = write(
        {"b": halves.view("u2"), "v": np.array(elements, object)},
        data_types={"b": "bfloat16", "v": "variant"},
    )

    assert written == (index, [data])


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("shape", "partitions"), [((5, 3), (2, 1)), ((4, 7), (1, 3)), ((9,), (9,))]
)
def test_a_partitioned_variable_is_byte_for_byte_the_savers(tf, tmp_path, shape, partitions):
    v1 = tf.compat.v1
    value = np.arange(math.prod(shape), dtype="f4").reshape(shape)

    def initial(part_shape, dtype, partition_info):
        region = zip(partition_info.var_offset, part_shape, strict=True)
        return tf.constant(
            value[tuple(slice(start, start + size) for start, size in region)], dtype
        )

    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable("w", shape, initializer=initial, partitioner=lambda **_: partitions)
        v1.get_variable("a", initializer=np.float32(1))
        v1.get_variable("one", initializer=value)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "t"), write_meta_graph=False)

    tensors = {
        "w": Partitioned(value, partitions),
        "a": np.float32(1),
        "one": Partitioned(value, [1] * len(shape)),
    }

    assert write(tensors) == got(tmp_path, "t")


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_several_shards_are_byte_for_byte_a_merge(tf, tmp_path):
    tensors = {"a": np.float32(1), "b": np.arange(4), "w": Partitioned(W, regions=HALVES[::-1])}
    shards = {"a": 1, "b": 0, "w": [0, 1]}
    saves = [
        (["b", "w"], ["", "5 3 3,2:0,3"], [tensors["b"], W[3:]]),
        (["a", "w"], ["", "5 3 0,3:0,3"], [tensors["a"], W[:3]]),
    ]
    parts = []
    for n, (names, specs, values) in enumerate(saves):
        parts.append(str(tmp_path / f"part{n}"))
        tf.raw_ops.SaveV2(
            prefix=parts[-1], tensor_names=names, shape_and_slices=specs, tensors=values
        )
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=parts, destination_prefix=str(tmp_path / "t"), delete_old_dirs=False
    )

    assert write(tensors, num_shards=2, shards=shards) == got(tmp_path, "t")


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_tensorflow_restores_slices_of_strings_and_empty_shards(tf, tmp_path):
    text = np.array([b"one", b"two", b"three"], object)
    tensors = {"w": Partitioned(W, (5, 3)), "s": Partitioned(text, (3,))}
    index, files = write(tensors, num_shards=20)
    prefix = put(tmp_path, "m", index, files)

    def slices(name, shape, regions, dtype):
        specs = [
            " ".join(map(str, shape)) + " " + ":".join(f"{e.start},{e.length}" for e in region)
            for region in regions
        ]
        return tf.raw_ops.RestoreV2(
            prefix=prefix,
            tensor_names=[name] * len(specs),
            shape_and_slices=specs,
            dtypes=[dtype] * len(specs),
        )

    strings = slices("s", (3,), regions_of((3,), (3,), "s"), tf.string)
    (whole,) = tf.raw_ops.RestoreV2(
        prefix=prefix, tensor_names=["w"], shape_and_slices=[""], dtypes=[tf.float32]
    )

    assert list(itertools.chain(*(part.numpy() for part in strings))) == list(text)
    np.testing.assert_array_equal(whole, W)
    assert files.count(b"") == 2
    assert read_promise(index).tensors == 2
