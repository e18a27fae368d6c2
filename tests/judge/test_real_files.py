"""What others have written, with versions of TensorFlow from 1.4 to 2.15, read as TensorFlow reads it."""

from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from google.protobuf import json_format, text_format
from judge.real_files import CHECKPOINTS, PACKAGES, SAVED_MODELS, RealFile, RealFiles

import ckptd_client
from ckptd.cli import main
from ckptd.errors import FormatError
from ckptd.formats.bundle_writer import encode_bundle
from ckptd.formats.dtypes import STRING
from ckptd.formats.freezing import freeze
from ckptd.formats.object_graph import OBJECT_GRAPH_KEY
from ckptd.formats.saved_model import assets_of, read_saved_model, variables_of

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    return RealFiles(tmp_path_factory.mktemp("packages"))


def test_there_are_ten_files_of_four_origins():
    files = CHECKPOINTS + SAVED_MODELS

    assert len(files) >= 10
    assert len({file.package for file in files}) >= 4
    assert {file.package for file in files} == set(PACKAGES)
    assert all(file.about for file in files)


def prefix_of(real, file):
    path = real.path(file)
    return path / "variables" / "variables" if file in SAVED_MODELS else path


def with_suffix(prefix, suffix):
    return prefix.with_name(prefix.name + suffix)


@pytest.mark.parametrize("file", CHECKPOINTS + SAVED_MODELS, ids=str)
def test_tensors_are_those_that_tensorflow_reads(tf, real, file):
    prefix = prefix_of(real, file)
    theirs = tf.train.load_checkpoint(str(prefix))
    dtypes = theirs.get_variable_to_dtype_map()

    assert ckptd_client.checkpoint_exists(prefix)
    assert ckptd_client.list_variables(prefix) == tf.train.list_variables(str(prefix))
    with ckptd_client.load_checkpoint(prefix, verify=True) as ours:
        assert ours.get_variable_to_dtype_map() == dtypes
        for name in dtypes:
            same(ours.get_tensor(name), theirs.get_tensor(name))


def same(ours: Any, theirs: Any) -> None:
    """Check that two values are the same to the bit, NaNs too."""
    assert type(ours) is type(theirs)
    if isinstance(ours, (np.ndarray, np.generic)):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.dtype == object or ours.tobytes() == theirs.tobytes()
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("file", CHECKPOINTS + SAVED_MODELS, ids=str)
def test_every_checksum_is_right(real, file):
    ended = CliRunner().invoke(main, ["verify", str(prefix_of(real, file))])

    assert ended.exit_code == 0, ended.output


IN_ORDER_OF_NAMES = [
    file for file in CHECKPOINTS + SAVED_MODELS if not file.about.startswith("Keras")
]


@pytest.mark.parametrize("file", IN_ORDER_OF_NAMES, ids=str)
def test_written_again_they_are_the_same_bytes(real, file):
    prefix = prefix_of(real, file)
    with ckptd_client.load_checkpoint(prefix) as reader:
        index, data = encode_bundle(dict(reader))

    assert index == with_suffix(prefix, ".index").read_bytes()
    assert data == with_suffix(prefix, ".data-00000-of-00001").read_bytes()


@pytest.mark.parametrize("file", CHECKPOINTS, ids=str)
def test_meta_graphs_say_what_tensorflow_reads_in_them(tf, real, file):
    prefix = prefix_of(real, file)
    theirs = tf.compat.v1.MetaGraphDef.FromString(with_suffix(prefix, ".meta").read_bytes())

    ours = ckptd_client.import_meta_graph(prefix)

    assert ours.tensorflow_version == theirs.meta_info_def.tensorflow_version
    assert ours.producer == theirs.graph_def.versions.producer
    assert [node.name for node in ours.nodes] == [node.name for node in theirs.graph_def.node]
    assert ours.to_text() == text_format.MessageToString(theirs)
    assert ours.to_bytes() == theirs.SerializeToString(deterministic=True)
    with ckptd_client.load_checkpoint(prefix) as reader:
        stored = {name: reader.stored(name) for name in reader}
    assert {tensor.name for tensor in ours.saved_tensors} == stored.keys()


def test_a_meta_graph_as_json(tf, real):
    path = with_suffix(prefix_of(real, CHECKPOINTS[0]), ".meta")
    theirs = tf.compat.v1.MetaGraphDef.FromString(path.read_bytes())

    ours = json_format.Parse(
        ckptd_client.import_meta_graph(path).to_json(), tf.compat.v1.MetaGraphDef()
    )

    assert ours == theirs


@pytest.mark.parametrize("file", SAVED_MODELS, ids=str)
def test_saved_models_say_what_tensorflow_reads_in_them(tf, real, file):
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    path = real.path(file)
    data = (path / "saved_model.pb").read_bytes()
    theirs = SavedModel.FromString(data)

    ours = read_saved_model(data)

    assert len(ours.meta_graphs) == len(theirs.meta_graphs)
    for mine, other in zip(ours.meta_graphs, theirs.meta_graphs, strict=True):
        assert mine.tags == tuple(other.meta_info_def.tags)
        assert mine.tensorflow_version == other.meta_info_def.tensorflow_version
        assert mine.signatures.keys() == set(other.signature_def)
        for key, signature in mine.signatures.items():
            expected = other.signature_def[key]
            assert signature.method == expected.method_name
            assert described(signature.inputs) == told(expected.inputs)
            assert described(signature.outputs) == told(expected.outputs)
        for asset in assets_of(mine):
            assert (path / "assets" / asset.file).is_file()
            assert mine.get_tensor_by_name(asset.tensor).data_type == STRING


def described(tensors):
    return {key: (each.names, each.data_type.number, each.shape) for key, each in tensors.items()}


def told(tensors):
    """Return the same of TensorFlow's own description of inputs or outputs."""
    return {
        key: (
            (info.name,)
            if info.HasField("name")
            else (
                info.coo_sparse.values_tensor_name,
                info.coo_sparse.indices_tensor_name,
                info.coo_sparse.dense_shape_tensor_name,
            ),
            info.dtype,
            None
            if info.tensor_shape.unknown_rank
            else tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim),
        )
        for key, info in tensors.items()
    }


TREES = [file for file in SAVED_MODELS if "Estimator" not in file.about]


@pytest.mark.parametrize("file", TREES, ids=str)
def test_every_variable_of_a_tree_is_where_its_path_leads(tf, real, file):
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    prefix = prefix_of(real, file)
    data = tf.train.load_checkpoint(str(prefix)).get_tensor(OBJECT_GRAPH_KEY)
    nodes = TrackableObjectGraph.FromString(data).nodes
    keys = {
        number: attribute.checkpoint_key
        for number, node in enumerate(nodes)
        for attribute in node.attributes
        if attribute.name == "VARIABLE_VALUE"
    }
    with ckptd_client.load_checkpoint(prefix) as reader:
        assert reader.object_graph is not None
        variables = reader.object_graph.variables
        assert {each.node: each.checkpoint_key for each in variables.values()} == keys
        assert set(keys.values()) == set(reader) - {OBJECT_GRAPH_KEY}
        for path, variable in variables.items():
            same(reader.get_tensor(path), reader.get_tensor(variable.checkpoint_key))

    slots = {slot.slot_variable_node_id for node in nodes for slot in node.slot_variables}
    assert {each.node for each in variables.values() if each.slot is not None} == slots
    for path, variable in variables.items():
        for way in (path, *variable.aliases) if variable.slot is None else variable.aliases:
            assert led_to(nodes, way) == variable.node


def led_to(nodes, path):
    """Return the node that a path leads to from the root, as TensorFlow's own message has it."""
    number = 0
    for name in path.split("/"):
        (number,) = (each.node_id for each in nodes[number].children if each.local_name == name)
    return number


@pytest.mark.parametrize("file", TREES, ids=str)
def test_a_models_tree_knows_the_keys_of_its_bundle(real, file):
    model = read_saved_model((real.path(file) / "saved_model.pb").read_bytes())
    (meta_graph,) = model.meta_graphs
    variables = variables_of(meta_graph)

    with ckptd_client.load_checkpoint(real.path(file)) as reader:
        assert {each.key for each in variables} == set(reader) - {OBJECT_GRAPH_KEY}
        for each in variables:
            stored = reader.stored(each.key)
            assert stored is not None
            assert (each.data_type, each.shape) == (stored.data_type, stored.shape)


# Frozen without TensorFlow, and run by it beside what they were made of.


def session_for(tf, graph):
    """Return a session that computes what the graph says, as it says it: nothing is rewritten."""
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = -1
    return tf.compat.v1.Session(graph=graph, config=config)


def frozen(path, meta_graph, outputs):
    with ckptd_client.open_checkpoint(path) as opened:
        return freeze(meta_graph.message, opened.read, outputs)


def run_frozen(tf, graph_def, outputs, feed):
    v1 = tf.compat.v1
    theirs = v1.GraphDef.FromString(graph_def.SerializeToString())
    with tf.Graph().as_default() as graph, session_for(tf, graph) as session:
        v1.import_graph_def(theirs, name="")
        return session.run(outputs, feed)


RANDOM = np.random.default_rng(0)
TAGGER = "pos_var_scope_zh_1/"
LAYER = "dnn/input_from_feature_columns/input_layer/concat:0"


@pytest.mark.parametrize(
    ("file", "output", "feed"),
    [
        (CHECKPOINTS[1], "dnn/logits/BiasAdd:0", {LAYER: RANDOM.normal(size=(40, 3))}),
        (
            CHECKPOINTS[5],
            f"{TAGGER}pos_variables/ArgMax:0",
            {f"{TAGGER}input_data:0": RANDOM.integers(0, 5000, (1, 30))},
        ),
    ],
    ids=["tfx", "deepnlp"],
)
def test_a_frozen_checkpoint_computes_the_same(tf, real, file: RealFile, output, feed):
    v1 = tf.compat.v1
    prefix = prefix_of(real, file)
    graph_def = frozen(prefix, ckptd_client.import_meta_graph(prefix), [output])

    found = run_frozen(tf, graph_def, output, feed)

    with tf.Graph().as_default() as graph, session_for(tf, graph) as session:
        saver = v1.train.import_meta_graph(f"{prefix}.meta", clear_devices=True)
        saver.restore(session, str(prefix))
        same(found, session.run(output, feed))
    assert len(np.unique(found)) > 5  # the weights mattered


def penguin(tf):
    example = tf.train.Example()
    for name in ("culmen_length_mm", "culmen_depth_mm", "flipper_length_mm", "body_mass_g"):
        example.features.feature[name].float_list.value.append(1.0)
    return np.array([example.SerializeToString()])


@pytest.mark.parametrize(
    ("file", "feed"),
    [
        (SAVED_MODELS[0], lambda _: RANDOM.normal(size=(1, 43844, 1)).astype(np.float32)),
        (SAVED_MODELS[1], lambda _: np.array([b"def f(x):\n    return x", b"int main() {}"])),
        (SAVED_MODELS[3], penguin),
    ],
    ids=["basic-pitch", "guesslang", "tfx"],
)
def test_a_frozen_model_computes_the_same(tf, real, file: RealFile, feed):
    path = real.path(file)
    (meta_graph,) = read_saved_model((path / "saved_model.pb").read_bytes()).meta_graphs
    signature = meta_graph.signatures["serving_default"]
    outputs = {key: each.names[0] for key, each in signature.outputs.items()}
    (given,) = signature.inputs.values()
    fed = {given.names[0]: feed(tf)}

    found = run_frozen(tf, frozen(path, meta_graph, list(outputs.values())), outputs, fed)

    with tf.Graph().as_default() as graph, session_for(tf, graph) as session:
        # The newer loader takes no optimizer of Keras before TF 2.11.
        tf.compat.v1.saved_model.loader.load(session, ["serve"], str(path))
        expected = session.run(outputs, fed)
    assert found.keys() == expected.keys()
    for key, value in found.items():
        same(value, expected[key])


NORMALIZED = "res_layer1/branch1/conv1_bn/"


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (CHECKPOINTS[3], rf"it writes to variable '{NORMALIZED}pop_mean'.*'rnn_fnn_layer/BiasAdd'"),
        (CHECKPOINTS[4], rf"it writes to variable '{NORMALIZED}pop_mean'.*'rnn_fnn_layer/BiasAdd'"),
    ],
    ids=str,
)
def test_a_graph_that_goes_on_learning_is_not_frozen(real, file, problem):
    prefix = prefix_of(real, file)

    with pytest.raises(FormatError, match=problem):
        frozen(prefix, ckptd_client.import_meta_graph(prefix), ["rnn_fnn_layer/BiasAdd"])


@pytest.mark.parametrize(
    ("file", "signature"),
    [(SAVED_MODELS[2], "predict"), (SAVED_MODELS[4], "transform_signature")],
    ids=str,
)
def test_a_graph_with_a_vocabulary_is_not_frozen(real, file, signature):
    path = real.path(file)
    (meta_graph,) = read_saved_model((path / "saved_model.pb").read_bytes()).meta_graphs
    outputs = [
        name for each in meta_graph.signatures[signature].outputs.values() for name in each.names
    ]

    with pytest.raises(FormatError, match=r"cannot freeze node '.*hash_table'.* a lookup table"):
        frozen(path, meta_graph, outputs)
