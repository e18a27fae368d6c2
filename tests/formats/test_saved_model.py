"""SavedModels that TensorFlow wrote, read without it."""

import pytest

from ckptd.errors import CorruptGraphError, NoSuchTensorError
from ckptd.formats.graph_file import GraphFile, GraphKind, what_is
from ckptd.formats.messages import MetaGraphDef
from ckptd.formats.meta_graph import MetaGraph, read_meta_graph
from ckptd.formats.saved_model import (
    VARIABLES_PREFIX,
    Asset,
    assets_of,
    read_fingerprint,
    read_saved_model,
    variables_of,
)


@pytest.fixture(scope="module")
def built(tf, tmp_path_factory):
    """S17: a SavedModel of TensorFlow 1, of two meta graphs, binary and text."""
    v1 = tf.compat.v1
    path = tmp_path_factory.mktemp("built")
    vocabulary = path / "words.txt"
    vocabulary.write_text("a\nb\n")
    builder = v1.saved_model.Builder(str(path / "model"))
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        w = v1.get_variable("w", [2, 3], use_resource=True)
        y = tf.matmul(x, w, name="y")
        asset = tf.constant(str(vocabulary), name="vocabulary")
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, asset)
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.signature_def_utils.predict_signature_def({"x": x}, {"y": y})
        builder.add_meta_graph_and_variables(
            session,
            ["cpu_server_1"],
            signature_def_map={"serving_default": signature},
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
        )
        builder.add_meta_graph(["train", "gpu"])
    builder.save()
    builder.save(as_text=True)
    return path / "model"


@pytest.fixture(scope="module")
def saved(tf, tmp_path_factory):
    """A SavedModel of TensorFlow 2."""
    path = tmp_path_factory.mktemp("saved")

    def layer():
        made = tf.Module()
        made.kernel = tf.Variable(tf.ones([2, 3]), name="kernel")
        made.table = {"x.y/z": tf.Variable([1, 2], name="odd", trainable=False)}
        return made

    model = tf.Module()
    model.first = model.once_more = layer()
    model.parts = [tf.Variable("s"), layer()]
    model.call = tf.function(
        lambda x: {"y": x @ model.first.kernel},
        input_signature=[tf.TensorSpec([None, 2], name="x")],
    )
    tf.saved_model.save(model, str(path), signatures=model.call.get_concrete_function())
    return path


pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]


def test_what_tensorflow_1_built(tf, built):
    model = read_saved_model((built / "saved_model.pb").read_bytes())

    assert model.schema_version == 1
    assert model.tags == (("cpu_server_1",), ("train", "gpu"))
    served = model.meta_graph(["cpu_server_1"])
    assert served.signatures["serving_default"].inputs["x"].names == ("x:0",)
    assert served.signatures["serving_default"].method == "tensorflow/serving/predict"
    assert served.get_tensor_by_name("y:0").shape == (None, 3)
    assert [(each.name, each.shape) for each in served.saved_tensors] == [("w", (2, 3))]
    assert served.saver is not None
    assert served.saver.sharded
    assert assets_of(served) == (Asset("words.txt", "vocabulary:0"),)
    assert variables_of(served) == ()
    assert model.meta_graph(["gpu", "train"]) is model.meta_graphs[1]
    with pytest.raises(NoSuchTensorError, match="'serve'; there is 'cpu_server_1' or 'train, gpu'"):
        model.meta_graph(["serve"])
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.loader.load(session, ["cpu_server_1"], str(built))
        assert [op.name for op in graph.get_operations()] == [node.name for node in served.nodes]


def test_the_text_form_is_the_same_model(tf, built):
    from google.protobuf import text_format
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    binary, text = ((built / f"saved_model.{end}").read_bytes() for end in ("pb", "pbtxt"))
    model = read_saved_model(binary)

    assert read_saved_model(text).message == model.message
    assert model.to_text() == text_format.MessageToString(SavedModel.FromString(binary))
    assert '"saved_model_schema_version": "1"' in model.to_json()


def test_what_tensorflow_2_saved(tf, saved):
    model = read_saved_model((saved / "saved_model.pb").read_bytes())
    served = model.meta_graph(["serve"])

    signature = served.signatures["serving_default"]
    assert signature.inputs["x"].shape == (None, 2)
    assert signature.outputs["y"].shape == (None, 3)
    assert served.get_tensor_by_name("serving_default_x:0").shape == (None, 2)
    assert served.functions
    assert served.tensorflow_version == tf.__version__
    assert '"object_graph_def"' in model.to_json()


def test_its_variables_are_those_of_the_bundle(tf, saved):
    model = read_saved_model((saved / "saved_model.pb").read_bytes())
    reader = tf.train.load_checkpoint(str(saved / VARIABLES_PREFIX))
    shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()

    variables = {each.key: each for each in variables_of(model.meta_graphs[0])}

    assert set(variables) == set(shapes) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    for key, variable in variables.items():
        assert variable.data_type.name == types[key].name
        assert list(variable.shape or ()) == shapes[key]
    kernel = next(each for each in variables.values() if each.name == "kernel")
    assert kernel.trainable
    assert {each.path for each in variables.values()} == {
        *("first/kernel", "first/table/x..y.Sz"),
        *("parts/0", "parts/1/kernel", "parts/1/table/x..y.Sz"),
    }


def test_the_fingerprint(tf, saved):
    theirs = tf.saved_model.experimental.read_fingerprint(str(saved))

    ours = read_fingerprint((saved / "fingerprint.pb").read_bytes())

    assert ours.saved_model_checksum == theirs.saved_model_checksum
    assert ours.graph_def_program_hash == theirs.graph_def_program_hash
    assert ours.signature_def_hash == theirs.signature_def_hash
    assert ours.saved_object_graph_hash == theirs.saved_object_graph_hash
    assert ours.checkpoint_hash == theirs.checkpoint_hash
    with pytest.raises(CorruptGraphError, match="fingerprint"):
        read_fingerprint(b"\xff")


def test_a_saved_model_is_no_meta_graph_and_says_so(built):
    for name in ("saved_model.pb", "saved_model.pbtxt"):
        data = (built / name).read_bytes()
        assert what_is(data) == GraphFile(GraphKind.SAVED_MODEL, name.endswith("txt"))
        with pytest.raises(CorruptGraphError, match="not a meta graph, but a SavedModel"):
            read_meta_graph(data)


def test_slots_of_an_optimizer_are_variables_of_their_own():
    message = MetaGraphDef()
    root, variable, optimizer, slot = (message.object_graph_def.nodes.add() for _ in range(4))
    root.children.add(node_id=1, local_name="w")
    root.children.add(node_id=2, local_name="opt")
    variable.variable.name = "w"
    optimizer.slot_variables.add(
        original_variable_node_id=1, slot_name="m.1", slot_variable_node_id=3
    )
    slot.variable.name = "w/m"

    keys = [each.key for each in variables_of(MetaGraph(message))]

    end = "/.ATTRIBUTES/VARIABLE_VALUE"
    assert keys == [f"w{end}", f"w/.OPTIMIZER_SLOT/opt/m..1{end}"]
    root.children.add(node_id=9, local_name="none")
    with pytest.raises(CorruptGraphError, match="child 'none' with the number 9"):
        variables_of(MetaGraph(message))


def test_a_long_chain_of_variables_is_refused():
    message = MetaGraphDef()
    nodes = message.object_graph_def.nodes
    for number in range(700):
        node = nodes.add()
        node.variable.name = "v"
        node.children.add(node_id=number + 1, local_name="c" * 100)
    nodes.add()

    with pytest.raises(CorruptGraphError, match="20,000,000 characters"):
        variables_of(MetaGraph(message))
