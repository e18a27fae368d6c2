"""What `freeze` makes of a graph, imported and run by TensorFlow, computes what the graph did."""

import numpy as np
import pytest
from click.testing import CliRunner

from ckptd.cli import main
from ckptd.errors import FormatError, NoSuchTensorError
from ckptd.formats.freezing import constants_of, freeze
from ckptd.formats.messages import GraphDef, MetaGraphDef, SavedModel
from ckptd_client.opening import open_checkpoint

pytestmark = pytest.mark.tensorflow

FEED = np.array([[1.0, 2.0], [-3.0, 0.5], [0.0, 7.0]], np.float32)


def frozen_with(prefix, meta_graph, outputs, **options):
    """Freeze with a checkpoint that ckptd reads."""
    with open_checkpoint(prefix) as opened:
        return freeze(meta_graph, opened.read, outputs, **options)


def nothing(name):
    raise NoSuchTensorError(name)


def run(tf, graph_def, outputs, feed):
    """Import a frozen graph with nothing else, and run it."""
    v1 = tf.compat.v1
    theirs = v1.GraphDef.FromString(graph_def.SerializeToString(deterministic=True))
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        v1.import_graph_def(theirs, name="")
        return session.run(outputs, feed)


class Saved:
    """A graph that was run once and saved: what it computed, and what lies on disk."""

    def __init__(self, tf, tmp_path, build, feed=None, *, saver=None, change=None):
        v1 = tf.compat.v1
        self.tf = tf
        self.feed = {"x:0": FEED} if feed is None else feed
        with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
            v1.set_random_seed(1)
            outputs = build()
            self.outputs = [each.name for each in outputs]
            if feed is None and "x" not in {each.name for each in graph.get_operations()}:
                self.feed = {}
            saving = v1.train.Saver() if saver is None else saver()
            for each in v1.global_variables():  # an average's initial value is its variable's
                session.run(each.initializer)
            if change is not None:
                change(session)
            self.prefix = saving.save(session, str(tmp_path / "m"))
            saving.restore(session, self.prefix)
            self.expected = session.run(self.outputs, self.feed)
            self.meta_graph = MetaGraphDef.FromString((tmp_path / "m.meta").read_bytes())
            names = [each.op.name for each in outputs]
            self.theirs = v1.graph_util.convert_variables_to_constants(
                session, graph.as_graph_def(), names
            )

    def frozen(self, **options):
        return frozen_with(self.prefix, self.meta_graph, self.outputs, **options)

    def check(self, *, theirs_runs=True):
        frozen = self.frozen()
        assert not any("Variable" in node.op or node.op == "VarHandleOp" for node in frozen.node)
        for ours, original in zip(
            run(self.tf, frozen, self.outputs, self.feed), self.expected, strict=True
        ):
            np.testing.assert_array_equal(ours, original)
        if theirs_runs:
            theirs = GraphDef.FromString(self.theirs.SerializeToString())
            for their, original in zip(
                run(self.tf, theirs, self.outputs, self.feed), self.expected, strict=True
            ):
                np.testing.assert_array_equal(their, original)
        again = self.frozen()
        assert again.SerializeToString(deterministic=True) == frozen.SerializeToString(
            deterministic=True
        )
        return frozen


@pytest.fixture(params=[False, True], ids=["reference", "resource"])
def resource(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["switch", "functions"])
def control_flow(request, tf):
    v1 = tf.compat.v1
    before = v1.control_flow_v2_enabled()
    (v1.enable_control_flow_v2 if request.param else v1.disable_control_flow_v2)()
    yield request.param
    (v1.enable_control_flow_v2 if before else v1.disable_control_flow_v2)()


def placeholder(tf, shape=(None, 2), name="x"):
    return tf.compat.v1.placeholder(tf.float32, shape, name=name)


def variable(tf, name, value, *, resource):
    return tf.compat.v1.get_variable(
        name, initializer=np.asarray(value, np.float32), use_resource=resource
    )


def test_the_sum_of_the_tutorial(tf, tmp_path, resource):
    def build():
        v1 = variable(tf, "v1", [1.0, 2.0], resource=resource)
        v2 = variable(tf, "v2", [3.0, 4.0], resource=resource)
        return [tf.add(v1, v2, name="add")]

    saved = Saved(tf, tmp_path, build)
    frozen = saved.check()

    kept = {node.name: node.op for node in frozen.node}
    assert kept == {node.name: node.op for node in saved.theirs.node}
    assert frozen.versions.producer == saved.meta_graph.graph_def.versions.producer
    assert sorted(constants_of(frozen)) == ["v1", "v2"]
    assert sorted(constants_of(GraphDef.FromString(saved.theirs.SerializeToString()))) == [
        "v1",
        "v2",
    ]


def test_variables_saved_under_other_names(tf, tmp_path, resource):
    made = {}

    def build():
        made["a"] = variable(tf, "other-v1", [1.0, 2.0], resource=resource)
        made["b"] = variable(tf, "other-v2", [3.0, 4.0], resource=resource)
        return [made["a"] * 10.0 + made["b"]]

    Saved(
        tf,
        tmp_path,
        build,
        saver=lambda: tf.compat.v1.train.Saver({"other-v2": made["a"], "v2": made["b"]}),
    ).check()


def test_a_moving_average_in_place_of_its_variable(tf, tmp_path, resource):
    made = {}

    def build():
        made["v"] = variable(tf, "v", [1.0, 2.0], resource=resource)
        made["ema"] = tf.compat.v1.train.ExponentialMovingAverage(0.5)
        made["apply"] = made["ema"].apply([made["v"]])
        return [placeholder(tf) * made["v"]]

    def change(session):
        session.run(made["v"].assign([5.0, 6.0]))
        session.run(made["apply"])

    saved = Saved(
        tf,
        tmp_path,
        build,
        change=change,
        saver=lambda: tf.compat.v1.train.Saver(made["ema"].variables_to_restore()),
    )
    assert set(constants_of(saved.check())) == {"v"}


def test_partitioned_variables(tf, tmp_path, resource):
    def build():
        with tf.compat.v1.variable_scope(
            "s", partitioner=tf.compat.v1.fixed_size_partitioner(3), use_resource=resource
        ):
            w = tf.compat.v1.get_variable("w", [7, 2], initializer=tf.random_normal_initializer())
        return [tf.matmul(placeholder(tf), tf.convert_to_tensor(w), transpose_b=True)]

    frozen = Saved(tf, tmp_path, build).check()
    assert {name: each.shape for name, each in constants_of(frozen).items()} == {
        "s/w/part_0": (3, 2),
        "s/w/part_1": (2, 2),
        "s/w/part_2": (2, 2),
    }


def test_a_reference_and_a_value_meet_where_a_condition_ends(tf, tmp_path):
    def build():
        v = variable(tf, "v", [1.0, 2.0], resource=False)
        x = placeholder(tf)
        value_if_false = tf.raw_ops.Switch(data=x[0], pred=x[0, 0] > 0)[0]
        reference_if_true = tf.raw_ops.RefSwitch(data=v._variable, pred=x[0, 0] > 0)[1]
        return [tf.raw_ops.Merge(inputs=[value_if_false, reference_if_true])[0] * 1.0]

    Saved(tf, tmp_path, build).check(theirs_runs=False)


def test_loops_and_conditions(tf, tmp_path, resource, control_flow):
    def build():
        x = placeholder(tf)
        w = variable(tf, "w", [[1.0, 0.5], [0.0, 2.0]], resource=resource)
        table = variable(tf, "table", np.arange(10).reshape(5, 2), resource=resource)

        def body(i, a):
            return i + 1, tf.matmul(a, w) + tf.gather(table, [i])

        x = tf.while_loop(lambda i, a: i < 3, body, [0, x])[1]
        x = tf.cond(tf.reduce_sum(x) > 0, lambda: x + w[0], lambda: x - w[1])
        return [tf.identity(x, name="out"), tf.cond(x[0, 0] > 1e9, lambda: x + w[0], lambda: x)]

    # TensorFlow's own converter has no answer to tables of resource variables in loops.
    Saved(tf, tmp_path, build).check(theirs_runs=not resource)


def test_a_convolution_with_batch_normalization(tf, tmp_path, resource):
    v1 = tf.compat.v1

    def build():
        x = placeholder(tf, (None, 8, 8, 3))
        kernel = variable(
            tf, "k", np.random.default_rng(0).normal(size=(3, 3, 3, 4)), resource=resource
        )
        scale, offset, mean, var = (
            variable(tf, name, np.linspace(1, 2, 4), resource=resource)
            for name in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        y = tf.nn.conv2d(x, kernel, 1, "SAME")
        y = v1.nn.fused_batch_norm(y, scale, offset, mean, var, is_training=False)[0]
        loss = tf.reduce_mean(y)
        v1.train.AdamOptimizer().minimize(loss)
        return [tf.nn.relu(y, name="y")]

    feed = {"x:0": np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)}
    saved = Saved(tf, tmp_path, build, feed)
    frozen = saved.check()
    assert {n.name for n in frozen.node} == {n.name for n in saved.theirs.node}


def test_every_way_to_read_a_variable(tf, tmp_path, resource):
    def build():
        v1 = tf.compat.v1
        v = variable(tf, "v", np.arange(24).reshape(2, 4, 3), resource=resource)
        rows = tf.constant([[1, 0], [3, 3]])
        return [
            tf.gather(v, [1, 0]),
            tf.gather(v, rows, batch_dims=1) if resource else tf.gather(v, rows, axis=1),
            tf.gather_nd(v, [[1, 2], [0, 0]]),
            tf.shape(v),
            v1.is_variable_initialized(v),
            tf.nn.embedding_lookup(v, [0]),
            v.read_value(),
            v[1, 2:3],
            tf.stop_gradient(v),
        ]

    Saved(tf, tmp_path, build).check(theirs_runs=False)


@pytest.mark.parametrize(
    "dtype",
    ["float64", "int32", "int64", "uint8", "bool", "complex64", "float16", "bfloat16", "string"],
)
def test_every_kind_of_value(tf, tmp_path, dtype):
    values = ["a", "", "\0b"] if dtype == "string" else [0, 1, 1]

    def build():
        v = tf.compat.v1.get_variable(
            "v",
            initializer=tf.constant(values, dtype) if dtype == "string" else tf.cast(values, dtype),
            use_resource=dtype != "string",
        )
        s = tf.compat.v1.get_variable("s", initializer=tf.cast(3, tf.int64), use_resource=True)
        return [tf.identity(v), tf.identity(s)]

    Saved(tf, tmp_path, build).check()


def test_what_writes_to_a_variable_is_refused(tf, tmp_path, resource):
    def build():
        v = variable(tf, "v", [1.0], resource=resource)
        with tf.control_dependencies([tf.compat.v1.assign_add(v, [1.0], name="step")]):
            return [tf.identity(v.read_value(), name="out")]

    saved = Saved(tf, tmp_path, build)
    with pytest.raises(
        FormatError,
        match=r"cannot freeze node .* writes to variable 'v', .*; output 'out' needs it",
    ):
        saved.frozen()


def test_a_lookup_table_is_refused(tf, tmp_path):
    def build():
        table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(["a"], [1]), -1, name="words"
        )
        variable(tf, "v", [1.0], resource=True)
        return [tf.identity(table.lookup(tf.constant(["a"])), name="found")]

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        build()
        meta_graph = MetaGraphDef.FromString(
            v1.train.export_meta_graph(graph=graph).SerializeToString()
        )
    with pytest.raises(FormatError, match=r"lookup table.*output 'found' needs it by way of"):
        freeze(meta_graph, nothing, ["found"])


@pytest.mark.parametrize(
    "options", [{"write_version": 1}, {"sharded": True}, {"reshape": True}], ids=str
)
def test_every_kind_of_saver(tf, tmp_path, resource, options):
    def build():
        with tf.device("/cpu:0"):
            a = variable(tf, "a", [[1.0, 2.0]], resource=resource)
        return [placeholder(tf) * a + variable(tf, "b", 3.0, resource=resource)]

    Saved(tf, tmp_path, build, saver=lambda: tf.compat.v1.train.Saver(**options)).check()


def test_references_that_go_through_control_flow_themselves(tf, tmp_path):
    raw = tf.raw_ops

    def build():
        a, b = (variable(tf, name, FEED, resource=False) for name in "ab")
        yes = raw.RefSwitch(data=a._ref(), pred=tf.constant(value=True))[1]
        entered = raw.RefExit(data=raw.RefEnter(data=b._ref(), frame_name="frame"))
        return [
            tf.identity(yes),
            tf.identity(raw.RefIdentity(input=b._ref())),
            tf.identity(entered),
        ]

    Saved(tf, tmp_path, build).check(theirs_runs=False)


def test_functions_in_a_graph_of_tensorflow_1(tf, tmp_path):
    def build():
        w = variable(tf, "w", [[1.0, 0.5], [0.0, 2.0]], resource=True)
        b = variable(tf, "b", [1.0, 2.0], resource=True)

        @tf.function
        def layer(x, v):
            return tf.matmul(x, w) + v

        @defun.Defun(tf.float32)
        def double(x):
            return x * 2.0

        x = placeholder(tf)
        return [double(layer(x, b)), layer(x, b[:1]), layer(x, b)]

    from tensorflow.python.framework import function as defun

    Saved(tf, tmp_path, build).check()


def test_an_object_based_checkpoint_of_a_graph_of_tensorflow_1(tf, tmp_path):
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session() as session:
        w = variable(tf, "scope/w", [1.0, 2.0], resource=True)
        y = tf.multiply(w, 2.0, name="y")
        theirs = v1.train.export_meta_graph(graph=graph)  # knows nothing of the checkpoint
        session.run(w.initializer)
        prefix = v1.train.Checkpoint(weights=w).save(str(tmp_path / "m"), session=session)
        expected = session.run(y)
    meta_graph = MetaGraphDef.FromString(theirs.SerializeToString())

    found = run(tf, frozen_with(prefix, meta_graph, ["y"]), "y:0", {})
    np.testing.assert_array_equal(found, expected)


def test_the_verb_as_the_tutorial_goes_on(tf, tmp_path):
    def build():
        w1, w2 = (placeholder(tf, (), name) for name in ("w1", "w2"))
        return [tf.multiply(w1 + w2, variable(tf, "bias", 2.0, resource=False), "op_to_restore")]

    saved = Saved(tf, tmp_path, build, {"w1:0": 13.0, "w2:0": 17.0})
    output = tmp_path / "combined_model.pb"
    ended = CliRunner().invoke(
        main, ["freeze", saved.prefix, "--output", str(output), "op_to_restore"]
    )

    assert ended.exit_code == 0, ended.output
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        graph_def = v1.GraphDef.FromString(output.read_bytes())
        names = ["w1:0", "w2:0", "op_to_restore:0"]
        w1, w2, restored = v1.import_graph_def(graph_def, return_elements=names)
        assert session.run(restored, {w1: 13.0, w2: 17.0}) == saved.expected[0] == 60.0


# SavedModels.


def saved_model(path):
    (meta_graph,) = SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs
    return meta_graph


def check_saved_model(tf, path, feed, signature="serving_default"):
    """Freeze a signature; TensorFlow's own loader says what it computes."""
    meta_graph = saved_model(path)
    told = meta_graph.signature_def[signature]
    names = {key: info.name for key, info in told.outputs.items()}
    frozen = frozen_with(path, meta_graph, [*names.values()])
    found = run(tf, frozen, names, {told.inputs[key].name: value for key, value in feed.items()})
    loaded = tf.saved_model.load(str(path))
    expected = loaded.signatures[signature](**{k: tf.constant(v) for k, v in feed.items()})
    assert found.keys() == expected.keys()
    for key, value in found.items():
        np.testing.assert_array_equal(value, expected[key].numpy())
    assert not any(node.op in {"VarHandleOp", "RestoreV2", "SaveV2"} for node in frozen.node)
    called = {f.signature.name for f in frozen.library.function}
    assert not any("traced_" in name for name in called)
    return frozen


def test_a_module_with_functions_inside_functions(tf, tmp_path):
    model = tf.Module()
    model.w = tf.Variable(np.eye(2, dtype=np.float32) * 1.5, name="w")
    model.table = tf.Variable(np.arange(10, dtype=np.float32).reshape(5, 2))
    model.b = tf.Variable([1.0, -1.0])

    @tf.function
    def inner(x, w):
        return tf.matmul(x, w) + model.b

    @tf.function(input_signature=[tf.TensorSpec([None, 2])])
    def outer(x):
        x = tf.while_loop(
            lambda x: tf.reduce_sum(x) < 100.0, lambda x: [inner(x, model.w) + 1], [x]
        )[0]
        x = tf.cond(tf.reduce_sum(x) > 0, lambda: x + model.b, lambda: x)
        x = tf.switch_case(tf.cast(x[0, 0], tf.int32) % 2, [lambda: x + model.w[0], lambda: x])
        return {"y": x + tf.nn.embedding_lookup(model.table, [1, 2, 3]), "n": tf.shape(x)}

    tf.saved_model.save(model, str(tmp_path / "sm"), signatures=outer)
    frozen = check_saved_model(tf, tmp_path / "sm", {"x": FEED})
    assert {each.shape for each in constants_of(frozen).values()} == {(2, 2), (5, 2), (2,)}


def test_tensorflow_s_own_converter_of_functions_agrees(tf, tmp_path):
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model = tf.Module()
    model.w = tf.Variable(np.eye(2, dtype=np.float32) * 1.5)
    model.v = tf.Variable([1.0, -1.0])
    inner = tf.function(lambda x: tf.nn.relu(tf.matmul(x, model.w)) + model.v)
    outer = tf.function(
        lambda x: inner(inner(x)), input_signature=[tf.TensorSpec([None, 2], name="x")]
    )
    tf.saved_model.save(model, str(tmp_path / "sm"), signatures=outer)

    frozen = check_saved_model(tf, tmp_path / "sm", {"x": FEED})

    (theirs,) = convert_variables_to_constants_v2(outer.get_concrete_function())(tf.constant(FEED))
    (ours,) = run(tf, frozen, ["StatefulPartitionedCall:0"], {"serving_default_x:0": FEED})
    np.testing.assert_array_equal(ours, theirs)


def test_a_keras_model_that_was_exported(tf, tmp_path):
    keras = tf.keras
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            keras.layers.Embedding(10, 4),
            keras.layers.LSTM(3),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.export(str(tmp_path / "sm"), verbose=False)
    (name,) = saved_model(tmp_path / "sm").signature_def["serving_default"].inputs
    check_saved_model(tf, tmp_path / "sm", {name: np.arange(12, dtype=np.int32).reshape(2, 6) % 10})


def test_a_saved_model_of_tensorflow_1(tf, tmp_path, resource):
    v1 = tf.compat.v1
    path = tmp_path / "sm"
    with tf.Graph().as_default(), v1.Session() as session:
        x = placeholder(tf)
        y = tf.add(x, variable(tf, "v", [1.0, 2.0], resource=resource), name="y")
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(path))
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder.add_meta_graph_and_variables(
            session, ["cpu_server_1"], {"serving_default": signature}
        )
        builder.save()
    check_saved_model(tf, path, {"x": FEED})
