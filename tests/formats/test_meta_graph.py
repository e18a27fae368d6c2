"""A meta graph read without TensorFlow says what TensorFlow wrote; one written is one it imports."""

import time

import numpy as np
import pytest

from ckptd.errors import CorruptGraphError, NoSuchTensorError
from ckptd.formats.dtypes import BY_NAME, DataType
from ckptd.formats.graph import Attributes, FunctionCall
from ckptd.formats.graph_collections import Packed, Saver, Variable
from ckptd.formats.graph_file import read_graph
from ckptd.formats.messages import AttrValue, MetaGraphDef, TensorProto
from ckptd.formats.meta_graph import MetaGraph, Node, encode_meta_graph, read_meta_graph
from ckptd.formats.near_names import near_names
from ckptd.formats.saved_tensors import SavedTensor, parse_shape_and_slice
from ckptd.formats.tensor_proto import decode_tensor
from ckptd.formats.tensors import Extent

NODES = [Node("layer/w", "NoOp"), Node("layer/b", "NoOp"), Node("save", "NoOp", ("^layer/w",))]
FLOAT = BY_NAME["float32"]


def test_equal_graphs_have_equal_bytes():
    assert encode_meta_graph(NODES) == encode_meta_graph(list(NODES))
    assert encode_meta_graph(NODES) != encode_meta_graph(NODES[:2])


def test_what_is_written_is_read():
    attributes = Attributes({"dtype": AttrValue(type=1), "names": AttrValue(s=b"a")})
    nodes = [*NODES, Node("x", "Placeholder", (), "/device:CPU:0", attributes)]

    assert list(read_meta_graph(encode_meta_graph(nodes)).nodes) == nodes


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_tensorflow_imports_it(tf, tmp_path):
    path = tmp_path / "m-1.meta"
    path.write_bytes(encode_meta_graph(NODES))

    with tf.Graph().as_default() as graph:
        tf.compat.v1.train.import_meta_graph(str(path))

    assert [op.name for op in graph.get_operations()] == [node.name for node in NODES]


def feeding(tf):
    """The graph of row S18: two placeholders, a variable."""
    v1 = tf.compat.v1
    w1, w2 = v1.placeholder(tf.float32, name="w1"), v1.placeholder(tf.float32, name="w2")
    bias = v1.Variable(2.0, name="bias", use_resource=False)
    tf.multiply(tf.add(w1, w2), bias, name="op_to_restore")


def partitioned(tf):
    """Slices, both kinds of variables, and a collection of each kind."""
    v1 = tf.compat.v1
    split = v1.fixed_size_partitioner(3)
    v1.get_variable("p", [10, 3], partitioner=split, use_resource=False)
    v1.get_variable("r", [4, 3], tf.float64, use_resource=True)
    v1.train.create_global_step()
    for value in (3, -4):
        v1.add_to_collection("ints", value)
    v1.add_to_collection("floats", 0.1)
    v1.add_to_collection("strings", "größe\x01")
    v1.add_to_collection("tensors", tf.constant([1, 2], name="c"))


def others(tf):
    """Functions, constants of all kinds, floats that are hard to print, and a second saver."""
    v1 = tf.compat.v1
    a = v1.get_variable("a", initializer=tf.constant([0.1, 1e-7, 3.4e38]), use_resource=True)
    v1.get_variable("b", initializer=tf.constant("text"), use_resource=False)
    tf.cond(tf.reduce_any(a > 0), lambda: a * np.float32(np.nan), lambda: a / np.float32(np.inf))
    tf.constant([1 + 2j, 3e-300], tf.complex128)
    tf.constant(np.arange(6, dtype=np.float16).reshape(2, 3))
    tf.constant([b"a\0b", "ü".encode(), b"\xff\xfe"])
    tf.constant(2**62, tf.int64)
    v1.add_to_collection("savers", v1.train.Saver({"other/a": a}, max_to_keep=1))


GRAPHS = [feeding, partitioned, others]
SAVERS = [{}, {"sharded": True}, {"write_version": 1}, {"write_version": 1, "sharded": True}]


@pytest.fixture(scope="module", params=GRAPHS, ids=lambda build: build.__name__)
def build(request):
    return request.param


@pytest.fixture(scope="module", params=SAVERS, ids=str)
def written(tf, build, request, tmp_path_factory):
    """What TensorFlow writes of one graph: the directory, with m.meta, m.json, g.pbtxt, g.pb, m."""
    v1 = tf.compat.v1
    path = tmp_path_factory.mktemp("written")
    with tf.Graph().as_default() as graph, v1.Session() as session:
        build(tf)
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(**request.param)
        saver.save(session, str(path / "m"))
        saver.export_meta_graph(str(path / "m.json"), as_text=True)
        tf.io.write_graph(graph.as_graph_def(), str(path), "g.pbtxt")
        tf.io.write_graph(graph.as_graph_def(), str(path), "g.pb", as_text=False)
    return path


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
class TestAsTensorFlowWritesIt:
    def test_the_forms_are_its_own_byte_for_byte(self, written):
        """S14: the text, from the binary and back."""
        binary, text = (written / "m.meta").read_bytes(), (written / "m.json").read_bytes()
        meta_graph = read_meta_graph(binary)

        assert meta_graph.to_bytes() == binary
        assert meta_graph.to_text().encode() == text
        assert read_meta_graph(text).to_bytes() == binary
        graph = read_graph((written / "g.pb").read_bytes())
        assert graph.to_bytes() == (written / "g.pb").read_bytes()
        assert graph.to_text().encode() == (written / "g.pbtxt").read_bytes()
        assert read_graph((written / "g.pbtxt").read_bytes()).message == graph.message

    def test_its_json_parser_reads_ours(self, tf, written):
        from google.protobuf import json_format

        binary = (written / "m.meta").read_bytes()
        theirs = tf.compat.v1.MetaGraphDef()
        json_format.Parse(read_meta_graph(binary).to_json(), theirs)
        assert theirs.SerializeToString(deterministic=True) == binary

    def test_the_saved_tensors_are_those_in_the_checkpoint(self, tf, written):
        meta_graph = read_meta_graph((written / "m.meta").read_bytes())
        saver = meta_graph.saver
        assert saver is not None
        shards = "m-?????-of-?????" if saver.sharded and saver.version == "V1" else "m"
        reader = tf.compat.v1.train.NewCheckpointReader(str(written / shards))
        shapes = reader.get_variable_to_shape_map()
        types = reader.get_variable_to_dtype_map()

        assert {each.name for each in meta_graph.saved_tensors} == set(shapes)
        for each in meta_graph.saved_tensors:
            assert list(each.shape or ()) == shapes[each.name]
            assert each.data_type.name == types[each.name].name
            assert meta_graph.get_tensor_by_name(each.source).data_type == each.data_type

    def test_the_saver_is_the_one_that_it_had(self, tf, written):
        theirs = tf.compat.v1.MetaGraphDef.FromString((written / "m.meta").read_bytes()).saver_def
        ours = read_meta_graph((written / "m.meta").read_bytes()).saver

        assert ours == Saver(
            theirs.filename_tensor_name, theirs.save_tensor_name, theirs.restore_op_name,
            5, 10000.0, theirs.sharded, {1: "V1", 2: "V2"}[theirs.version],
        )  # fmt: skip

    def test_operations_are_those_of_its_graph(self, tf, written):
        meta_graph = read_meta_graph((written / "m.meta").read_bytes())
        with tf.Graph().as_default() as graph:
            tf.compat.v1.train.import_meta_graph(str(written / "m.meta"))

        for node, op in zip(meta_graph.nodes, graph.get_operations(), strict=True):
            assert (node.name, node.op, node.device) == (op.name, op.type, op.device)
            for name, value in node.attributes.items():
                if name == "_output_shapes":  # taken in by the import
                    continue
                theirs = op.get_attr(name)
                if isinstance(value, DataType):
                    assert value.name == theirs.base_dtype.name
                if isinstance(value, bool | int | bytes):
                    assert value == theirs
                if isinstance(value, TensorProto):
                    assert decode_tensor(value, name).shape == tuple(
                        dim.size for dim in theirs.tensor_shape.dim
                    )
            assert meta_graph.graph.node(node.name) == node
        assert meta_graph.tensorflow_version == tf.__version__
        assert meta_graph.producer == graph.graph_def_versions.producer
        assert set(meta_graph.stripped_ops) >= {node.op for node in meta_graph.nodes}


@pytest.fixture(scope="module")
def exported(tf):
    """Return the meta graph of a graph that `build` makes."""

    def export(build, **options):
        v1 = tf.compat.v1
        with tf.Graph().as_default():
            build(tf)
            saver = v1.train.Saver(**options)
            return read_meta_graph(saver.export_meta_graph().SerializeToString())

    return export


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_collections_are_decoded(exported):
    collections = exported(partitioned).collections

    assert collections["ints"] == (3, -4)
    assert collections["floats"] == (pytest.approx(0.1),)
    assert collections["strings"] == ("größe\x01".encode(),)
    assert collections["tensors"] == ("c:0",)
    assert [each.name for each in collections["global_step"]] == ["global_step:0"]
    part = collections["variables"][1]
    assert part == Variable(
        name="p/part_1:0", initializer="p/part_1/Assign", trainable=True, is_resource=False,
        initial_value="p/part_1/Initializer/random_uniform:0", snapshot="p/part_1/read:0",
        part_of="p", full_shape=(10, 3), region=(Extent(4, 3), Extent(0, 3)),
    )  # fmt: skip
    assert collections["trainable_variables"][-1].is_resource


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_the_slices_of_partitioned_variables(exported):
    saved = [each for each in exported(partitioned).saved_tensors if each.name == "p"]

    rows = [Extent(0, 4), Extent(4, 3), Extent(7, 3)]
    assert saved == [
        SavedTensor("p", FLOAT, (10, 3), (row, Extent(0, 3)), f"p/part_{number}/read:0")
        for number, row in enumerate(rows)
    ]


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_every_saver_says_what_it_saves(exported):
    meta_graph = exported(others)

    first, second = meta_graph.savers
    assert first == meta_graph.saver
    assert meta_graph.saved_tensors_of(first) == meta_graph.saved_tensors
    assert [each.name for each in meta_graph.saved_tensors] == ["a", "b"]
    assert [each.name for each in meta_graph.saved_tensors_of(second)] == ["other/a"]
    assert second.max_to_keep == 1
    assert meta_graph.collections["savers"] == (second,)
    assert meta_graph.saved_tensors_of(first._replace(max_to_keep=77)) == ()


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_without_saving_operations_the_restoring_ones_tell(exported):
    meta_graph = exported(partitioned)
    before = meta_graph.saved_tensors
    message = MetaGraphDef()
    message.CopyFrom(meta_graph.message)
    message.saver_def.save_tensor_name = ""

    after = MetaGraph(message).saved_tensors

    whole = [each._replace(shape=None) if each.region is None else each for each in before]
    assert list(after) == [each._replace(source="") for each in whole]
    message.ClearField("saver_def")
    assert MetaGraph(message).saved_tensors == ()
    assert MetaGraph(message).saver is None


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_an_any_is_spelled_out_as_tensorflow_does(tf):
    v1 = tf.compat.v1
    theirs = v1.MetaGraphDef()
    theirs.meta_info_def.any_info.Pack(v1.train.SaverDef(max_to_keep=3))
    packed = theirs.collection_def["any"].any_list.value
    packed.add().Pack(v1.GraphDef(node=[v1.NodeDef(name="a", op="NoOp")]))
    packed.add().Pack(tf.TensorShape([2, None]).as_proto())
    unknown = packed.add(type_url="type.example.com/some.Type", value=b"\xff\x00")
    from google.protobuf import json_format, text_format

    ours = read_meta_graph(theirs.SerializeToString())

    assert ours.to_text() == text_format.MessageToString(theirs)
    text = text_format.MessageToString(theirs).encode()
    assert read_meta_graph(text).message == ours.message
    assert ours.collections["any"][-1] == Packed("type.example.com/some.Type", b"\xff\x00")
    assert '"@type": "type.example.com/some.Type",\n' in ours.to_json()
    assert '"value": "/wA="' in ours.to_json()
    packed.remove(unknown)
    again = json_format.Parse(MetaGraph(read(theirs)).to_json(), v1.MetaGraphDef())
    assert again == theirs


def read(theirs):
    return MetaGraphDef.FromString(theirs.SerializeToString())


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("op_to_restore", "'op_to_restore' refers to an operation.*did you mean 'op_to_restore:0'"),
        ("op_to_restor:0", "no operation 'op_to_restor'; did you mean 'op_to_restore'"),
        ("Sub:0", "no operation 'Sub'$"),
        ("op_to_restore:1", r"operation 'op_to_restore' \(Mul\) has one output, :0"),
        ("save/RestoreV2:7", r"\(RestoreV2\) has one output"),
        ("save/restore_all:0", r"\(NoOp\) has no outputs"),
        ("nothing/like/it", "not the name of a tensor.*'add:0'"),
        ("a:b:0", "not the name of a tensor"),
        ("op_to_restore:-1", "not the name of a tensor"),
        ("op_to_restore: 0", "not the name of a tensor"),
        ("^op_to_restore", "control input"),
        ("", "not the name of a tensor"),
        ("x\x1b[2J:0", r"no operation 'x.+x1b.2J'"),
    ],
)
def test_a_name_that_is_no_tensors_is_refused_with_the_reason(tf, exported, name, says):
    meta_graph = exported(feeding)

    with pytest.raises(NoSuchTensorError, match=says):
        meta_graph.get_tensor_by_name(name)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_signatures_say_how_a_model_is_called(tf):
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        sparse = v1.sparse_placeholder(tf.int64, [2, 2], name="s")
        info = v1.saved_model.utils.build_tensor_info
        signature = v1.saved_model.signature_def_utils.build_signature_def(
            {"x": info(x), "s": info(sparse)}, {"y": info(x * 2)}, "some/method"
        )
        meta = v1.train.export_meta_graph()
        meta.signature_def["serve"].CopyFrom(signature)

    found = read_meta_graph(meta.SerializeToString()).signatures["serve"]

    assert found.method == "some/method"
    assert list(found.inputs) == ["s", "x"]
    assert found.inputs["x"] == ("tensor", ("x:0",), FLOAT, (None, 3))
    assert found.inputs["s"].kind == "sparse"
    assert found.inputs["s"].names == ("s/values:0", "s/indices:0", "s/shape:0")
    assert found.outputs["y"].names == ("mul:0",)


def test_attributes_are_read_as_values():
    message = MetaGraphDef()
    node = message.graph_def.node.add(name="n", op="Op")
    node.attr["i"].i = 3
    node.attr["list"].list.i.extend([1, 2])
    node.attr["empty"].list.SetInParent()
    node.attr["types"].list.type.extend([1, 107])
    node.attr["shape"].shape.dim.add(size=-1)
    node.attr["any_rank"].shape.unknown_rank = True
    node.attr["f"].func.name = "function"
    node.attr["f"].func.attr["T"].type = 3
    node.attr["nothing"].SetInParent()

    attributes = MetaGraph(message).nodes[0].attributes

    assert attributes["i"] == 3
    assert attributes["list"] == (1, 2)
    assert attributes["empty"] == ()
    assert [each.name for each in attributes["types"]] == ["float32", "string"]
    assert (attributes["shape"], attributes["any_rank"]) == ((None,), None)
    assert attributes["f"] == FunctionCall("function", Attributes(node.attr["f"].func.attr))
    assert attributes["nothing"] is None
    with pytest.raises(KeyError):
        attributes["none"]
    assert "none" not in node.attr


@pytest.mark.parametrize(
    "spec", ["3", "3 ", "3 0,4", "3 0,1:-", "3 1", "-1 0,1", "3 0,1,1", "x -", " "]
)
def test_what_is_no_shape_and_slice_is_refused(spec):
    with pytest.raises(ValueError):
        parse_shape_and_slice(spec)


def test_two_operations_of_one_name_are_a_contradiction():
    meta_graph = read_meta_graph(encode_meta_graph([NODES[0], NODES[0]]))

    assert len(meta_graph.nodes) == 2
    with pytest.raises(CorruptGraphError, match="two operations are named 'layer/w'"):
        meta_graph.get_tensor_by_name("layer/w:0")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("fc7", ["vgg/fc7", "fc77"]),
        ("vgg/conv1_1/kernl", ["vgg/conv1_1/kernel"]),
        ("vg/conv1_1/kernel", ["vgg/conv1_1/kernel"]),
        ("zzz", []),
    ],
)
def test_names_that_come_near(name, near):
    names = [
        *(f"scope_{number}/x" for number in range(5000)),
        "vgg/fc7",
        "vgg/conv1_1/kernel",
        "fc77",
    ]

    assert near_names(name, names)[: len(near)] == near


def test_a_graph_of_a_hundred_thousand_operations_is_open_at_once():
    data = encode_meta_graph(Node(f"layer_{number}", "NoOp") for number in range(100_000))

    begin = time.process_time()
    meta_graph = read_meta_graph(data)
    assert len(meta_graph.nodes) == 100_000
    assert meta_graph.graph.node("layer_99999") == meta_graph.nodes[-1]
    assert time.process_time() - begin < 3  # about 0.4 s


def test_a_shape_is_followed_through_any_depth():
    float_type = AttrValue(type=1)
    shape = AttrValue()
    shape.shape.dim.add(size=3)
    first = Node("n0", "Placeholder", (), "", Attributes({"dtype": float_type, "shape": shape}))
    attributes = Attributes({"T": float_type})
    chain = [
        Node(f"n{number}", "AddV2", (f"n{number - 1}",) * 2, "", attributes)
        for number in range(1, 10_000)
    ]

    tensor = read_meta_graph(encode_meta_graph([first, *chain])).get_tensor_by_name("n9999:0")

    assert (tensor.data_type, tensor.shape) == (FLOAT, (3,))


def test_a_circle_is_no_endless_way():
    attributes = Attributes({"T": AttrValue(type=1)})
    nodes = [Node("a", "Add", ("b", "b"), "", attributes), Node("b", "Neg", ("a",), "", attributes)]

    meta_graph = read_meta_graph(encode_meta_graph(nodes))

    assert [meta_graph.get_tensor_by_name(name).shape for name in ("a:0", "b:0")] == [None, None]


def test_a_meta_graph_is_shown_in_a_line():
    graph = read_meta_graph(encode_meta_graph([Node("a", "NoOp"), Node("b", "NoOp")]))

    assert repr(graph) == "<MetaGraph of 2 nodes, TensorFlow unknown>"
    assert repr(graph.graph) == "Graph()"
