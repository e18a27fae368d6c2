"""The object graph says which object each tensor belongs to, as TensorFlow wrote it."""

import contextlib
import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptd.errors import CorruptGraphError
from ckptd.formats.messages import TrackableObjectGraph
from ckptd.formats.object_graph import (
    OBJECT_GRAPH_KEY,
    STEP_PATHS,
    Slot,
    TreeLine,
    path_of_key,
    read_object_graph,
    unescape,
)

VALUE = ".ATTRIBUTES/VARIABLE_VALUE"


def node(children=(), key=None, name="", slots=(), attribute="VARIABLE_VALUE"):
    """A node: edges (name, node), the key of its variable, and slots (variable, name, slot)."""
    return {
        "children": [{"local_name": edge, "node_id": to} for edge, to in children],
        "attributes": []
        if key is None
        else [{"name": attribute, "full_name": name, "checkpoint_key": key}],
        "slot_variables": [
            {
                "original_variable_node_id": variable,
                "slot_name": slot,
                "slot_variable_node_id": slot_variable,
            }
            for variable, slot, slot_variable in slots
        ],
    }


def serialized(*nodes):
    return TrackableObjectGraph(nodes=nodes).SerializeToString()


def graph(*nodes):
    return read_object_graph(serialized(*nodes))


SHARED = [
    node([("model", 1), ("best", 3), ("step", 2), ("save_counter", 4)]),
    node([("kernel", 3), ("parent", 0), ("self", 1)]),
    node(key=f"step/{VALUE}", name="Variable"),
    node(key=f"best/{VALUE}", name="net/kernel"),
    node(key=f"save_counter/{VALUE}"),
]


def test_a_shared_variable_has_its_first_path_and_aliases():
    found = graph(*SHARED)

    assert list(found.variables) == ["step", "best", "save_counter"]
    best = found.variables["best"]
    assert best.aliases == ("model/kernel",)
    assert best.full_name == "net/kernel"
    assert best.slot is None
    assert found.by_key[f"best/{VALUE}"] is best
    assert found.find("model/kernel") is best
    assert found.find("best") is best
    assert found.find("kernel") is None
    assert found.save_counter is found.variables["save_counter"]
    assert found.step is found.variables["step"]
    assert [found.path(n) for n in range(5)] == ["", "model", "step", "best", "save_counter"]


def test_the_tree_shows_each_node_once_and_ends_in_a_cycle():
    assert list(graph(*SHARED).tree()) == [
        TreeLine(0, "", 0, is_alias=False),
        TreeLine(1, "model", 1, is_alias=False),
        TreeLine(2, "kernel", 3, is_alias=True),
        TreeLine(2, "parent", 0, is_alias=True),
        TreeLine(2, "self", 1, is_alias=True),
        TreeLine(1, "best", 3, is_alias=False),
        TreeLine(1, "step", 2, is_alias=False),
        TreeLine(1, "save_counter", 4, is_alias=False),
    ]


def test_two_edges_of_one_name_are_one_path_and_its_alias():
    found = graph(node([("v", 1), ("v", 1)]), node(key=f"v/{VALUE}"))

    assert found.variables["v"].aliases == ("v",)
    assert [line.is_alias for line in found.tree()] == [False, False, True]


def test_names_with_slashes_that_come_to_one_path_stay_apart():
    found = graph(
        node([("d", 1), ("d/x", 2), ("d.Sx", 4)]),
        node([("x", 3)]),
        node(key=f"d.Sx/{VALUE}"),
        node(key=f"d/x/{VALUE}"),
        node(key=f"d..Sx/{VALUE}"),
    )

    assert list(found.variables) == ["d/x", "d/x" + f"/{VALUE}", "d.Sx"]
    assert {v.checkpoint_key for v in found.variables.values()} == set(found.by_key)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x.Sy", "x/y"),
        ("p..q", "p.q"),
        ("..S", ".S"),
        ("...S", "./"),
        (".", "."),
        (".T", ".T"),
        ("", ""),
    ],
)
def test_escapes_are_undone(name, expected):
    assert unescape(name) == expected


@given(st.text(alphabet="./Sa", max_size=12))
def test_every_name_can_be_escaped_and_back(name):
    escaped = name.replace(".", "..").replace("/", ".S")

    assert unescape(escaped) == name
    assert path_of_key(f"a/{escaped}/{VALUE}") == f"a/{name}"


def test_slots_that_an_optimizer_lists():
    found = graph(
        node([("net", 1), ("opt", 2)]),
        node([("k", 3)]),
        node(slots=[(3, "m", 4)]),
        node(key=f"net/k/{VALUE}"),
        node(key=f"net/k/.OPTIMIZER_SLOT/opt/m/{VALUE}"),
    )

    slot = found.variables["net/k/.OPTIMIZER_SLOT/opt/m"]
    assert slot.slot == Slot("opt", "m", "net/k")
    assert found.path(4) is None
    assert found.variables["net/k"].slot is None


def test_slots_that_only_their_key_tells():
    found = graph(node(), node(key=f"a.Sb/.OPTIMIZER_SLOT/o..p/t/v/{VALUE}"))

    assert found.variables["a/b/.OPTIMIZER_SLOT/o.p/t/v"].slot == Slot("o.p/t", "v", "a/b")


def test_slots_that_only_their_names_tell():
    # As Keras 2.11 to 2.15 write them.
    found = graph(
        node([("model", 1), ("optimizer", 2)]),
        node([("k", 3), ("one", 6), ("other", 7)]),
        node([("_variables", 4), ("_iterations", 8)]),
        node(key="k", name="dense/kernel"),
        node([("0", 8), ("1", 5), ("2", 9)]),
        node(key="m", name="Adam/m/dense/kernel"),
        node(key="one", name="twice"),
        node(key="other", name="twice"),
        node(key="i", name="iteration"),
        node(key="t", name="Adam/m/twice"),
    )

    assert {v.path: v.slot for v in found.variables.values() if v.slot} == {
        "optimizer/_variables/1": Slot("optimizer", "m", "model/k")
    }


def test_configuration_is_no_variable():
    key = "layer/.ATTRIBUTES/OBJECT_CONFIG_JSON"
    found = graph(node([("layer", 1)]), node(key=key, attribute="OBJECT_CONFIG_JSON"))

    assert not found.variables
    assert found.configuration_keys == {key}
    assert found.nodes[1].attributes[0].is_configuration


@pytest.mark.parametrize("path", STEP_PATHS)
def test_the_step_is_found(path):
    names = path.split("/")
    nodes = [node([(name, n + 1)]) for n, name in enumerate(names)]
    found = graph(*nodes, node(key="i"))

    assert found.step is found.variables[path]


def test_there_may_be_no_step_and_no_counter():
    found = graph(node([("v", 1)]), node(key="v"))

    assert found.step is None
    assert found.save_counter is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "object graph: has no nodes, not even the root"),
        (b"\xff", "object graph: does not parse"),
        (serialized(node([("a", 1)])), "node 0: 'a' of it is node 1, and there are 1 nodes"),
        (serialized(node([("a\n", -1)])), r"node 0: 'a\\\\n' of it is node -1"),
        (serialized(node(slots=[(7, "m", 0)])), "node 0: the variable of a slot is node 7"),
        (serialized(node(slots=[(0, "m", 7)])), "node 0: a slot variable is node 7"),
        (
            serialized(node(), node(key="a"), node(key="a")),
            "node 2: its variable, stored as 'a', is there already",
        ),
        (
            serialized({"attributes": [node(key=key)["attributes"][0] for key in "ab"]}),
            "node 0: its variable, stored as 'b', is there already",
        ),
    ],
)
def test_what_is_no_graph_is_named(data, reason):
    with pytest.raises(CorruptGraphError, match=reason):
        read_object_graph(data)


def chain(length):
    return [
        *(node([("x" * 10, n + 1)], key=str(n)) for n in range(length)),
        node(key=str(length)),
    ]


def one_long_name(length):
    return [
        node([("x" * length, 1)]),
        node([(str(n), n + 2) for n in range(length)]),
        *(node(key=str(n)) for n in range(length)),
    ]


@pytest.mark.parametrize("nodes", [chain(5000), one_long_name(5000)], ids=["deep", "long name"])
def test_paths_that_would_fill_the_memory_are_refused(nodes):
    with pytest.raises(CorruptGraphError, match="bytes, and the paths of its variables take"):
        graph(*nodes)


def test_a_deep_graph_without_variables_is_a_graph():
    found = graph(*(node([("x", n + 1)]) for n in range(20_000)), node(key="v"))

    assert len(found.find("/".join("x" * 20_000)).path) == 39_999
    assert sum(1 for _ in found.tree()) == 20_001


@pytest.mark.parametrize(
    "shared",
    [
        {"_variables", "_iterations"},
        {"_variables", "_trainable_variables"},
        {"_trainable_variables"},
        {"_m"},
    ],
    ids=lambda names: "+".join(sorted(names)),
)
def test_a_list_that_all_optimizers_claim_is_looked_at_once(shared):
    count = 3000
    common = count + 1
    edges = sorted(
        shared
        | {"_variables", "_iterations" if "_iterations" in shared else "_trainable_variables"}
    )
    own = itertools.count(common + 1)
    data = serialized(
        node([(str(n), n + 1) for n in range(count)]),
        *(
            node([(name, common if name in shared else next(own)) for name in edges])
            for _ in range(count)
        ),
        node([(str(n), 0) for n in range(40_000)]),
        *(node([("0", 0)]) for _ in range(2 * count)),
    )
    started = time.process_time()

    read_object_graph(data)

    assert time.process_time() - started < 1


GRAPH = serialized(
    *SHARED,
    node([("_variables", 6), ("_iterations", 2)], slots=[(3, "m", 7)]),
    node([("0", 7)]),
    node(key=f"best/.OPTIMIZER_SLOT/o/m/{VALUE}"),
)


@given(st.binary(max_size=6), st.integers(0, len(GRAPH) - 1))
def test_mutated_bytes_are_a_graph_or_corrupt(data, position):
    with contextlib.suppress(CorruptGraphError):
        found = read_object_graph(GRAPH[:position] + data + GRAPH[position + len(data) :])
        assert sum(1 for _ in found.tree()) < 50


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.sampled_from(["a", "b", "_variables", "_m"]), st.integers(0, 7))),
            st.booleans(),
            st.lists(st.tuples(st.integers(0, 7), st.just("m"), st.integers(0, 7)), max_size=2),
        ),
        min_size=8,
        max_size=8,
    )
)
def test_any_graph_has_each_variable_once_under_its_paths(shape):
    nodes = [
        node(edges, f"k{n}" if has_value else None, slots=slots)
        for n, (edges, has_value, slots) in enumerate(shape)
    ]
    found = graph(*nodes)

    expected = [f"k{n}" for n, (_, has_value, _) in enumerate(shape) if has_value]
    assert [variable.checkpoint_key for variable in found.variables.values()] == expected
    for variable in found.variables.values():
        assert found.find(variable.path) is variable
        assert all(found.find(alias) is not None for alias in variable.aliases)
    lines = list(found.tree())
    shown = [line.node for line in lines if not line.is_alias]
    assert len(shown) == len(set(shown))
    assert set(shown) == {n for n in range(8) if found.path(n) is not None}


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
class TestTensorFlow:
    """Checkpoints that TensorFlow wrote."""

    def read(self, tf, prefix):
        reader = tf.train.load_checkpoint(prefix)
        found = read_object_graph(reader.get_tensor(OBJECT_GRAPH_KEY))
        stored = {name for name, _ in tf.train.list_variables(prefix)}
        assert set(found.by_key) == {name for name in stored if name.endswith(VALUE)}
        for variable in found.variables.values():
            assert variable.path == path_of_key(variable.checkpoint_key)
        return found

    def test_structures(self, tf, tmp_path):
        x = tf.Variable([1.0, 2.0], name="x")
        kept = tf.train.Checkpoint(
            d={"p.q": x, "x/y": [x, tf.Variable(1)]},
            t=(tf.Variable(2.0), (tf.Variable(3.0),)),
            step=tf.Variable(0, dtype=tf.int64),
        )

        found = self.read(tf, kept.save(str(tmp_path / "m")))

        assert set(found.variables) == {
            *("d/p.q", "d/x/y/1", "t/0", "t/1/0", "step", "save_counter"),
        }
        assert found.variables["d/p.q"].checkpoint_key == f"d/p..q/{VALUE}"
        assert found.variables["d/p.q"].aliases == ("d/x/y/0",)
        assert found.variables["d/x/y/1"].checkpoint_key == f"d/x.Sy/1/{VALUE}"
        assert found.variables["d/p.q"].full_name == "x"
        assert found.step is found.variables["step"]
        assert found.save_counter is found.variables["save_counter"]

    def test_a_module_that_holds_itself(self, tf, tmp_path):
        module = tf.Module(name="m")
        module.v = tf.Variable([1.0])
        module.again = module.v
        module.me = module

        found = self.read(tf, tf.train.Checkpoint(m=module).write(str(tmp_path / "m")))

        assert {v.path: v.aliases for v in found.variables.values()} == {"m/v": ("m/again",)}
        assert found.save_counter is None

    def test_the_optimizer_of_tensorflow_1(self, tf, tmp_path):
        v1 = tf.compat.v1
        with tf.Graph().as_default(), v1.Session() as session:
            kernel = v1.get_variable("net/kernel", initializer=[1.0], use_resource=True)
            optimizer = v1.train.AdamOptimizer()
            step = v1.train.get_or_create_global_step()
            optimizer.minimize(tf.reduce_sum(kernel * kernel), global_step=step)
            kept = v1.train.Checkpoint(
                opt=optimizer, net=v1.train.Checkpoint(k=kernel), global_step=step
            )
            session.run(v1.global_variables_initializer())
            prefix = kept.save(str(tmp_path / "m"), session=session)

        found = self.read(tf, prefix)

        assert {v.path: v.slot for v in found.variables.values() if v.slot} == {
            "net/k/.OPTIMIZER_SLOT/opt/m": Slot("opt", "m", "net/k"),
            "net/k/.OPTIMIZER_SLOT/opt/v": Slot("opt", "v", "net/k"),
        }
        assert found.variables["net/k"].full_name == "net/kernel"
        assert found.step is found.variables["global_step"]

    @pytest.mark.parametrize("compiled", [False, True])
    def test_keras_3(self, compiled, tf, tmp_path):
        keras = tf.keras
        model = keras.Sequential([keras.layers.Dense(2, name="first"), keras.layers.Dense(1)])
        model.build((None, 3))
        optimizer = keras.optimizers.Adam()
        optimizer.build(model.trainable_variables)
        if compiled:
            model.compile(optimizer=optimizer)
            kept = tf.train.Checkpoint(model)
        else:
            kept = tf.train.Checkpoint(model=model, optimizer=optimizer)

        found = self.read(tf, kept.save(str(tmp_path / "m")))

        slots = [variable.slot for variable in found.variables.values() if variable.slot]
        assert {(slot.optimizer, slot.name) for slot in slots} == {
            ("optimizer", "momentums"),
            ("optimizer", "velocities"),
        }
        for variable in found.variables.values():
            if variable.slot:
                trained = found.variables[variable.slot.variable]
                name = trained.full_name.replace("/", "_")
                kind = {"momentums": "momentum", "velocities": "velocity"}[variable.slot.name]
                assert variable.full_name.endswith(f"/{name}_{kind}")
        assert len(slots) == 8
        assert found.step.full_name.endswith("/iteration")
        assert any("_kernel" in alias for v in found.variables.values() for alias in v.aliases)

    def test_a_saved_model(self, tf, tmp_path):
        module = tf.Module()
        module.v = tf.Variable([1.0], name="v")
        module.f = tf.function(lambda: module.v * 2, input_signature=[])
        tf.saved_model.save(module, str(tmp_path / "s"))

        found = self.read(tf, str(tmp_path / "s/variables/variables"))

        assert list(found.variables) == ["v"]
