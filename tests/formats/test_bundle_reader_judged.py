"""What TensorFlow writes is read as TensorFlow reads it, and more of it."""

import itertools
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptd.errors import CorruptTensorError
from ckptd.formats.bundle_index import read_pieces, read_promise
from ckptd.formats.dtypes import BY_NAME
from ckptd.formats.messages import BundleHeader
from ckptd.formats.regions import Extent
from ckptd.formats.sorted_table import read_table, write_table
from ckptd.formats.tensor_bundle import Bundle

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]

STORED = [name for name in BY_NAME if name not in {"resource", "variant"}]


def opened(prefix):
    """The bundle at `prefix`."""
    index = Path(f"{prefix}.index").read_bytes()
    bundle: Bundle

    def shard(number):
        return Path(f"{prefix}.data-{number:05}-of-{bundle.num_shards:05}").read_bytes()

    bundle = Bundle(index, shard)
    return bundle


def save(tf, prefix, rows):
    """Write (name, slice, tensor) as they are."""
    names, specs, tensors = zip(*rows, strict=True)
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=names, shape_and_slices=specs, tensors=tensors
    )


def assert_as_tensorflow(tf, prefix, *, unreadable=()):
    bundle = opened(prefix)
    reader = tf.train.load_checkpoint(str(prefix))
    shapes = reader.get_variable_to_shape_map()
    types = reader.get_variable_to_dtype_map()
    assert bundle.tensors.keys() == shapes.keys()
    assert bundle.damaged == {}
    for name, stored in bundle.tensors.items():
        assert list(stored.shape) == shapes[name], name
        assert stored.data_type.number == types[name].as_datatype_enum, name
        found = bundle.read(name, verify=True)
        assert found.shape == stored.shape
        if name in unreadable:
            continue
        theirs = np.asarray(reader.get_tensor(name))
        if found.dtype == object:
            assert found.tolist() == theirs.tolist(), name
        else:
            assert found.dtype.itemsize == theirs.dtype.itemsize
            assert found.tobytes() == theirs.tobytes(), name
    index = Path(f"{prefix}.index").read_bytes()
    assert read_promise(index).tensors == len(shapes)
    assert sum(piece.size for piece in read_pieces(index)) == sum(
        stored.nbytes for stored in bundle.tensors.values()
    )
    return bundle


def values(tf, name, shape):
    """A tensor of that type and shape, with no two elements alike where there is room."""
    count = int(np.prod(shape))
    if name == "string":
        texts = [b"%d" % n * (n % 50) for n in range(count)]
        return tf.constant(np.array(texts, object).reshape(shape), tf.string, shape)
    if name.startswith("q"):
        plain = tf.constant(np.arange(count).reshape(shape), name[1:].replace("u", "u"))
        return tf.bitcast(plain, name)
    dtype = getattr(ml_dtypes, name, None)
    if dtype is not None and BY_NAME[name].number >= 29:  # fewer than 8 bits
        return tf.constant((np.arange(count) % 2).reshape(shape).astype(dtype))
    array = np.arange(count).reshape(shape)
    if name.startswith("complex"):
        return tf.constant(array + 1j * array[::-1] if shape else array + 1j, name)
    return tf.constant(array.astype(dtype or name))


@pytest.mark.parametrize("name", STORED)
def test_every_type(tf, tmp_path, name):
    shapes = [(), (5,), (2, 3), (0,), (0, 4), (3, 0, 2)]
    save(tf, tmp_path / "m", [(f"t{n}", "", values(tf, name, s)) for n, s in enumerate(shapes)])

    bundle = assert_as_tensorflow(tf, tmp_path / "m")

    assert {stored.data_type.name for stored in bundle.tensors.values()} == {name}


def test_every_rank(tf, tmp_path):
    shapes = [tuple(range(1, rank + 1)) for rank in range(7)] + [(2,) * 7, (1, 2) * 4]
    save(tf, tmp_path / "m", [(f"r{n}", "", values(tf, "int32", s)) for n, s in enumerate(shapes)])

    assert_as_tensorflow(tf, tmp_path / "m")


def test_every_name(tf, tmp_path):
    names = ["a/b/c", "größe", "日本/🙂", "a\0b", "\0", "\0w\0\1", "a b\n", "x" * 5000]
    save(tf, tmp_path / "m", [(name, "", tf.constant(n)) for n, name in enumerate(names)])

    bundle = opened(tmp_path / "m")

    assert {name: bundle.read(name).item() for name in bundle.tensors} == {
        name: n for n, name in enumerate(names)
    }


def test_a_name_that_is_not_text(tf, tmp_path):
    save(tf, tmp_path / "m", [(b"\xff\xfe", "", tf.constant(7))])

    assert opened(tmp_path / "m").read("\udcff\udcfe").item() == 7


@pytest.mark.parametrize("name", STORED)
def test_slices_of_every_type(tf, tmp_path, name):
    array = values(tf, name, (4, 3)).numpy()
    rows = []
    for (first, last), (left, right) in itertools.product([(0, 1), (1, 4)], [(0, 2), (2, 3)]):
        piece = np.ascontiguousarray(array[first:last, left:right])
        if name.startswith("q"):
            tensor = tf.bitcast(tf.constant(piece.astype(name[1:])), name)
        else:
            tensor = tf.constant(piece)
        rows.append(("w", f"4 3 {first},{last - first}:{left},{right - left}", tensor))
    save(tf, tmp_path / "m", rows)

    # TensorFlow's reader puts slices together for some types only.
    bundle = assert_as_tensorflow(tf, tmp_path / "m", unreadable={"w"})

    assert bundle.read("w").tolist() == array.tolist()
    try:
        theirs = tf.train.load_checkpoint(str(tmp_path / "m")).get_tensor("w")
    except Exception:
        return
    assert theirs.tolist() == array.tolist()


@pytest.mark.parametrize(
    ("specs", "sizes", "problem"),
    [
        (["4 3 0,1:-", "4 3 2,2:-"], [1, 2], "no slice of it holds 1,1:-"),
        (["4 3 0,2:-", "4 3 1,3:-"], [2, 3], "its slices 0,2:- and 1,3:- overlap"),
    ],
)
def test_gaps_and_overlaps_that_tensorflow_refuses_too(tf, tmp_path, specs, sizes, problem):
    rows = [("w", spec, tf.zeros([size, 3])) for spec, size in zip(specs, sizes, strict=True)]
    save(tf, tmp_path / "m", rows)

    with pytest.raises(CorruptTensorError, match=problem):
        opened(tmp_path / "m").read("w")
    with pytest.raises(Exception, match=r"sufficient slices|Overlapping slices"):
        tf.train.load_checkpoint(str(tmp_path / "m")).get_tensor("w")


@pytest.mark.parametrize("axis", [0, 1])
def test_partitioned_variables(tf, tmp_path, axis):
    v1 = tf.compat.v1
    partitioners = {
        "fixed": v1.fixed_size_partitioner(3, axis=axis),
        "variable": v1.variable_axis_size_partitioner(max_shard_bytes=100, axis=axis),
    }
    value = np.arange(20 * 14, dtype="f4").reshape(20, 14)

    def initial(shape, dtype=None, partition_info=None):
        (row, column), (rows, columns) = partition_info.var_offset, shape
        return tf.constant(value[row : row + rows, column : column + columns])

    with tf.Graph().as_default(), v1.Session() as session:
        for name, partitioner in partitioners.items():
            v1.get_variable(name, [20, 14], initializer=initial, partitioner=partitioner)
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(sharded=True)
        prefix = saver.save(session, str(tmp_path / "m"), write_meta_graph=False)

    bundle = assert_as_tensorflow(tf, prefix)

    assert len(bundle.tensors["fixed"].slices) == 3
    assert len(bundle.tensors["variable"].slices) > 10
    part = (Extent(3, 9), Extent(2, 11))
    for name in partitioners:
        np.testing.assert_array_equal(bundle.read(name, region=part), value[3:12, 2:13])


def test_a_variable_that_tensorflow_2_split_over_shards(tf, tmp_path):
    variable = tf.Variable(tf.reshape(tf.range(4000, dtype=tf.float32), [100, 40]))
    text = tf.Variable(["one", "two"])
    policy = tf.train.experimental.MaxShardSizePolicy(max_shard_size=3000)
    options = tf.train.CheckpointOptions(experimental_sharding_callback=policy)
    prefix = tf.train.Checkpoint(v=variable, t=text).write(str(tmp_path / "m"), options=options)

    bundle = assert_as_tensorflow(tf, prefix)

    assert bundle.num_shards > 4
    assert len(bundle.tensors["v/.ATTRIBUTES/VARIABLE_VALUE"].slices) > 4


def test_variants(tf, tmp_path):
    boxes = tf.raw_ops.TensorListFromTensor(
        tensor=tf.constant([[1.0, 2.0], [3.0, 4.0]]), element_shape=tf.constant([2])
    )
    save(tf, tmp_path / "m", [("v", "", boxes), ("w", "", tf.stack([boxes, boxes]))])

    bundle = opened(tmp_path / "m")

    assert bundle.tensors["v"].data_type.name == "variant"
    (both, other) = bundle.read("w").tolist()
    assert both == other == bundle.read("v").item()
    assert b"tensorflow::TensorList" in both


def test_a_big_endian_bundle(tf, tmp_path):
    names = ["float32", "int16", "complex64", "uint8", "float64", "bool"]
    save(tf, tmp_path / "m", [(name, "", values(tf, name, (3, 2))) for name in names])
    path = tmp_path / "m.index"
    rows = dict(read_table(path.read_bytes()))
    rows[b""] = BundleHeader(num_shards=1, endianness=BundleHeader.BIG).SerializeToString()
    path.write_bytes(write_table(rows.items()))

    bundle = opened(tmp_path / "m")
    reader = tf.train.load_checkpoint(str(tmp_path / "m"))

    for name in names:
        np.testing.assert_array_equal(bundle.read(name, verify=True), reader.get_tensor(name))


def test_slices_that_no_tensor_lists_are_read_by_their_keys(tf, tmp_path):
    save(tf, tmp_path / "m", [("w", "2 0,1", tf.constant([1])), ("w", "2 1,1", tf.constant([2]))])
    path = tmp_path / "m.index"
    rows = dict(read_table(path.read_bytes()))
    del rows[b"w"]
    path.write_bytes(write_table(rows.items()))

    bundle = opened(tmp_path / "m")

    assert [bundle.read(name).tolist() for name in bundle.tensors] == [[1], [2]]
    with pytest.raises(UnicodeDecodeError):  # TensorFlow lists them too, and cannot hand them over
        tf.train.load_checkpoint(str(tmp_path / "m")).get_variable_to_shape_map()


shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
tensors = st.dictionaries(
    st.text(min_size=1, max_size=20).filter(lambda name: name[0] != "\0"),
    st.tuples(st.sampled_from(STORED), shapes, st.integers(0, 3)),
    min_size=1,
    max_size=5,
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tensors)
def test_random_bundles(tf, wanted):
    with tempfile.TemporaryDirectory() as scratch:
        rows = []
        for name, (kind, shape, cut) in wanted.items():
            tensor = values(tf, kind, shape)
            if shape and 0 < cut < shape[0] and kind == "float32":
                dims = " ".join(map(str, shape))
                rest = ":-" * (len(shape) - 1)
                spans = itertools.pairwise([0, cut, shape[0]])
                rows += [(name, f"{dims} {a},{b - a}{rest}", tensor[a:b]) for a, b in spans]
            else:
                rows.append((name, "", tensor))
        save(tf, f"{scratch}/m", rows)
        assert_as_tensorflow(tf, f"{scratch}/m")
