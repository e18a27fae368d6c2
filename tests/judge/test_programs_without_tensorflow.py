"""The programs of tutorials and scripts, with TensorFlow on one side and ckptd on the other.

What TensorFlow has saved, ckptd reads and restores; what ckptd has saved, TensorFlow does, which
judges both. tests/judge/test_saver_programs.py has those programs that save many times.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from judge.keeping import seen
from judge.reader import files_in

import ckptd_client
from ckptd.checkpoints.inventory import Format
from ckptd.cli import main
from ckptd.errors import NoSuchCheckpointError, NoSuchTensorError, RestoreError
from ckptd.formats.freezing import constants_of
from ckptd.formats.graph_file import read_graph
from ckptd.formats.partitions import Partitioned
from ckptd.formats.saved_model import read_saved_model
from ckptd.formats.state_file import StateFile, format_state_file
from ckptd_client.restoring import Outcome

pytestmark = pytest.mark.tensorflow

V1 = 1
VALUES: Mapping[str, Any] = {
    "v1": np.array([1.0, 2.0, 3.0], np.float32),
    "v2": np.array([10.0, 20.0, 30.0], np.float32),
    "scope/steps": np.int64(1000),
}


@contextmanager
def new_session(tf: Any) -> Iterator[Any]:
    """Make a graph of its own the default, with two devices for savers that shard."""
    config = tf.compat.v1.ConfigProto(device_count={"CPU": 2})
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph, config=config) as s:
        yield s


def make_variables(tf: Any, values: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """Make a variable for each value, on one device after the other; ``v1`` and ``v2`` are added."""
    variables = {}
    for number, (name, value) in enumerate(values.items()):
        with tf.device(f"/cpu:{number % 2}"):
            variables[name] = tf.compat.v1.get_variable(
                name, initializer=tf.constant(value), use_resource=False, **options
            )
    if {"v1", "v2"} <= values.keys():
        tf.add(variables["v1"], variables["v2"], name="add")
    return variables


def saved_by_tensorflow(
    tf: Any, path: Path, values: Mapping[str, Any] = VALUES, **options: Any
) -> str:
    """Save `values` by a `Saver` with `options`."""
    v1 = tf.compat.v1
    path.parent.mkdir(exist_ok=True)
    with new_session(tf) as session:
        make_variables(tf, values)
        session.run(v1.global_variables_initializer())
        return str(v1.train.Saver(**options).save(session, str(path)))


def restored_by_tensorflow(
    tf: Any, prefix: str, values: Mapping[str, Any] = VALUES, **options: Any
) -> dict[str, Any]:
    """Build variables like `values` again, and restore them without initializing them."""
    with new_session(tf) as session:
        variables = make_variables(tf, empty(values), **options)
        tf.compat.v1.train.Saver().restore(session, prefix)
        return {
            name: session.run(tf.convert_to_tensor(variable))
            for name, variable in variables.items()
        }


def empty(values: Mapping[str, Any] = VALUES) -> dict[str, Any]:
    """Return an array of zeros for each value."""
    return {name: np.zeros_like(np.asarray(value)) for name, value in values.items()}


def assert_same(found: Mapping[str, Any], expected: Mapping[str, Any] = VALUES) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


# A model saved, and built and restored again.

WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "V1": ({"write_version": V1}, {"version": "v1"}),
    "V2": ({}, {}),
    "V1, sharded": (
        {"write_version": V1, "sharded": True},
        {"version": "v1", "num_shards": 2, "shards": {"v1": 0, "v2": 1, "scope/steps": 0}},
    ),
    "V2, sharded": (
        {"sharded": True},
        {"num_shards": 2, "shards": {"v1": 0, "v2": 1, "scope/steps": 0}},
    ),
}
FILES = {
    "V1": {"model.ckpt"},
    "V2": {"model.ckpt.index", "model.ckpt.data-00000-of-00001"},
    "V1, sharded": {"model.ckpt-00000-of-00002", "model.ckpt-00001-of-00002"},
    "V2, sharded": {
        "model.ckpt.index",
        "model.ckpt.data-00000-of-00002",
        "model.ckpt.data-00001-of-00002",
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_a_model_that_tensorflow_saved_is_restored(tf, tmp_path, way):
    prefix = saved_by_tensorflow(tf, tmp_path / "save" / "model.ckpt", **WAYS[way][0])
    model = empty()

    report = ckptd_client.restore(prefix, model)

    assert_same(model)
    assert (set(report.restored), report.unused) == (set(VALUES), ())
    assert files_in(tmp_path / "save") == {"checkpoint", "model.ckpt.meta", *FILES[way]}
    (checkpoint,) = seen(tmp_path / "save").survey.inventory.checkpoints
    assert checkpoint.format is (Format.V1 if "V1" in way else Format.V2)
    assert checkpoint.global_step is None


@pytest.mark.parametrize("way", WAYS)
def test_a_model_that_ckptd_saved_is_restored(tf, tmp_path, way):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    saved_by_tensorflow(tf, theirs / "model.ckpt", **WAYS[way][0])

    prefix = ckptd_client.save_checkpoint(ours / "model.ckpt", VALUES, **WAYS[way][1])

    assert_same(restored_by_tensorflow(tf, prefix))
    assert files_in(ours) == FILES[way]
    for name in FILES[way]:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


@pytest.mark.parametrize("version", ["v2", "v1"])
def test_a_partitioned_variable_is_restored_from_either(tf, tmp_path, version):
    v1 = tf.compat.v1
    whole = {"w": np.arange(20, dtype=np.float32).reshape(10, 2)}
    partitioner = v1.fixed_size_partitioner(3)
    with new_session(tf) as session:
        make_variables(tf, whole, partitioner=partitioner)
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(write_version={"v1": 1, "v2": 2}[version])
        theirs = saver.save(session, str(tmp_path / "theirs"))
    model = empty(whole)

    ckptd_client.restore(theirs, model)
    ours = ckptd_client.save_checkpoint(
        tmp_path / "ours", {"w": Partitioned(model["w"], [3, 1])}, version=version
    )

    assert_same(model, whole)
    with ckptd_client.open_checkpoint(theirs) as one, ckptd_client.open_checkpoint(ours) as other:
        assert one.tensors == other.tensors
    assert_same(restored_by_tensorflow(tf, ours, whole, partitioner=partitioner), whole)
    assert_same(restored_by_tensorflow(tf, ours, whole), whole)  # in one piece


# Some of the variables, and other names.


def test_some_variables_that_tensorflow_saved(tf, tmp_path):
    v1 = tf.compat.v1
    with new_session(tf) as session:
        variables = make_variables(tf, VALUES)
        session.run(v1.global_variables_initializer())
        prefix = v1.train.Saver([variables["v1"]]).save(session, str(tmp_path / "m"))
    model = empty()

    report = ckptd_client.restore(prefix, {"v1": model["v1"]})

    assert report.restored == ("v1",)
    assert_same(model, empty() | {"v1": VALUES["v1"]})
    with pytest.raises(RestoreError, match=r"2 of 3 variables cannot be restored"):
        ckptd_client.restore(prefix, empty())


def test_some_variables_that_ckptd_saved(tf, tmp_path):
    v1 = tf.compat.v1
    prefix = ckptd_client.save_checkpoint(tmp_path / "m", {"v1": VALUES["v1"]})

    with new_session(tf) as session:
        variables = make_variables(tf, empty())
        v1.train.Saver([variables["v1"]]).restore(session, prefix)
        np.testing.assert_array_equal(session.run(variables["v1"]), VALUES["v1"])
        with pytest.raises(tf.errors.FailedPreconditionError, match="uninitialized value"):
            session.run(variables["v2"])
        with pytest.raises(tf.errors.NotFoundError, match="scope/steps not found in checkpoint"):
            v1.train.Saver().restore(session, prefix)


def test_other_names_for_what_tensorflow_saved(tf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prefix = saved_by_tensorflow(tf, Path("m"), {name: VALUES[name] for name in ("v1", "v2")})
    model = {"other-v1": np.zeros(3, np.float32), "other/v2": np.zeros(3, np.float32)}

    with pytest.raises(RestoreError) as caught:
        ckptd_client.restore(prefix, model)
    assert str(caught.value).splitlines() == [
        "m: 2 of 2 variables cannot be restored, and no variable was changed",
        "  missing      other-v1",
        "  missing      other/v2",
        "  not used     v1",
        "  not used     v2",
        "With partial=True the others are restored.",
    ]
    with pytest.raises(NoSuchTensorError, match=r"^m: no tensor 'other-v1' among 2$"):
        ckptd_client.load_variable(prefix, "other-v1")

    ckptd_client.restore(prefix, {"v1": model["other-v1"], "v2": model["other/v2"]})
    assert_same(model, {"other-v1": VALUES["v1"], "other/v2": VALUES["v2"]})


def test_other_names_for_what_ckptd_saved(tf, tmp_path):
    v1 = tf.compat.v1
    model = {"other-v1": VALUES["v1"], "other-v2": VALUES["v2"]}
    prefix = ckptd_client.save_checkpoint(
        tmp_path / "m", {name.removeprefix("other-"): value for name, value in model.items()}
    )

    with new_session(tf) as session:
        variables = make_variables(tf, empty(model))
        with pytest.raises(tf.errors.NotFoundError, match="other-v1 not found in checkpoint"):
            v1.train.Saver().restore(session, prefix)
        saver = v1.train.Saver({"v1": variables["other-v1"], "v2": variables["other-v2"]})
        saver.restore(session, prefix)
        assert_same({name: session.run(each) for name, each in variables.items()}, model)


def test_the_averages_of_a_training_are_loaded_into_the_plain_arrays(tf, tmp_path):
    v1 = tf.compat.v1
    with new_session(tf) as session:
        v = v1.get_variable("v", initializer=np.float32(0))
        v1.get_variable("b", initializer=np.float32(5))
        average = tf.train.ExponentialMovingAverage(0.99)
        maintain = average.apply([v])
        session.run(v1.global_variables_initializer())
        session.run(v.assign(10.0))
        session.run(maintain)
        shadow, plain = session.run([average.average(v), v])
        prefix = v1.train.Saver().save(session, str(tmp_path / "m"))
        theirs = {key: each.op.name for key, each in average.variables_to_restore([v]).items()}
    model = {"v": np.zeros((), np.float32), "b": np.zeros((), np.float32)}

    names = ckptd_client.average_names(prefix, model)
    report = ckptd_client.restore(prefix, {names[name]: array for name, array in model.items()})

    assert {key: name for name, key in names.items()} == theirs
    assert model["v"] == shadow == pytest.approx(0.1)
    assert model["v"] != plain
    assert model["b"] == 5
    assert report.unused == ("v",)


def test_averages_that_ckptd_saved_are_loaded_into_the_plain_variables(tf, tmp_path):
    v1 = tf.compat.v1
    tensors = {"v": np.float32(10), "v/ExponentialMovingAverage": np.float32(4.5)}
    prefix = ckptd_client.save_checkpoint(tmp_path / "m", tensors)

    with new_session(tf) as session:
        v = v1.get_variable("v", initializer=np.float32(0))
        average = tf.train.ExponentialMovingAverage(0.99)
        v1.train.Saver(average.variables_to_restore()).restore(session, prefix)
        assert session.run(v) == 4.5


# The newest checkpoint.


def test_the_newest_that_tensorflow_saved(tf, tmp_path):
    v1 = tf.compat.v1
    with new_session(tf) as session:
        step = v1.get_variable("step", initializer=np.int64(0))
        saver = v1.train.Saver()
        for number in (10, 20):
            session.run(step.assign(number))
            saver.save(session, str(tmp_path / "m"), global_step=number)
    found = np.zeros((), np.int64)

    latest = ckptd_client.latest_checkpoint(tmp_path)

    assert latest == tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "m-20")
    for path in (latest, tmp_path):
        found.fill(0)
        assert ckptd_client.restore(path, {"step": found}).prefix == latest
        assert found == 20


@pytest.mark.parametrize("absolute", [True, False])
def test_the_newest_that_ckptd_saved(tf, tmp_path, absolute):
    for number in (10, 20):
        ckptd_client.save_checkpoint(tmp_path / "m", {"step": np.int64(number)}, global_step=number)
    paths = tuple(str(tmp_path / f"m-{n}") if absolute else f"m-{n}" for n in (10, 20))
    state = StateFile(model_checkpoint_path=paths[-1], all_model_checkpoint_paths=paths)
    (tmp_path / "checkpoint").write_bytes(format_state_file(state))

    with new_session(tf) as session:
        step = tf.compat.v1.get_variable("step", initializer=np.int64(0))
        saver = tf.compat.v1.train.Saver()
        latest = tf.train.latest_checkpoint(str(tmp_path))
        saver.restore(session, latest)
        assert latest == str(tmp_path / "m-20")
        assert session.run(step) == 20


def nothing(path: Path) -> None:
    path.rmdir()


def no_data(path: Path) -> None:
    ckptd_client.save_checkpoint(path / "m-1", VALUES)
    (path / "m-1.data-00000-of-00001").unlink()


def data_cut_short(path: Path) -> None:
    ckptd_client.save_checkpoint(path / "m-1", VALUES)
    os.truncate(path / "m-1.data-00000-of-00001", 3)
    (path / "checkpoint").write_text('model_checkpoint_path: "m-1"\n')


def only_events(path: Path) -> None:
    (path / "events.out.tfevents.1").write_bytes(b"")


def others(path: Path) -> None:
    ckptd_client.save_checkpoint(path / "m", VALUES, global_step=3)


NOTHING_THERE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no directory": (
        nothing,
        "there is no run.index, and no V1 file run, in .; that directory is empty",
    ),
    "an empty directory": (lambda _: None, "it has no state file ('checkpoint'); it is empty"),
    "only other files": (
        only_events,
        "it has no state file ('checkpoint'); it holds no checkpoint, only events.out.tfevents.1",
    ),
    "no data": (
        no_data,
        "it has no state file ('checkpoint'); nothing in it is complete: m-1: shard 0 of 1 is missing",
    ),
    "data cut short": (
        data_cut_short,
        "its state file names m-1, but it is not complete: shard 0 of 1 is short: 3 of 32 bytes",
    ),
    "not named": (
        others,
        "it has no state file ('checkpoint'); complete is m-3; open one of them by its prefix",
    ),
}


@pytest.mark.parametrize(("make", "text"), NOTHING_THERE.values(), ids=NOTHING_THERE)
def test_where_nothing_can_be_restored_the_directory_is_told(tf, tmp_path, monkeypatch, make, text):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    make(Path("run"))

    if make is not data_cut_short:  # TensorFlow looks for files of that name only
        with new_session(tf) as session:
            make_variables(tf, VALUES)
            saver = tf.compat.v1.train.Saver()
            with pytest.raises(ValueError, match="Can't load save_path when it is None"):
                saver.restore(session, tf.train.latest_checkpoint("run"))
    with pytest.raises(
        NoSuchCheckpointError, match=r"^cannot open a checkpoint at None: .* directory"
    ):
        ckptd_client.restore(ckptd_client.latest_checkpoint("run"), empty())
    with pytest.raises(NoSuchCheckpointError) as caught:
        ckptd_client.restore("run", empty())
    assert f"at run: {text}" in str(caught.value)


# The graph.


def test_a_meta_graph_as_text(tf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    v1 = tf.compat.v1
    with new_session(tf):
        make_variables(tf, VALUES)
        v1.train.Saver().export_meta_graph("combined.json", as_text=True)
    text = Path("combined.json").read_text()

    ours = ckptd_client.import_meta_graph("combined.json")
    ckptd_client.export_meta_graph("again.json", ours, as_text=True)

    assert Path("again.json").read_text() == ours.to_text() == text
    assert {"meta_info_def", "graph_def", "saver_def", "collection_def"} <= {
        line.removesuffix(" {") for line in text.splitlines()
    }
    assert ours.saver is not None
    assert ours.saver._asdict() == {
        "filename_tensor": "save/Const:0",
        "save_tensor": "save/control_dependency:0",
        "restore_op": "save/restore_all",
        "max_to_keep": 5,
        "keep_checkpoint_every_n_hours": 10000.0,
        "sharded": False,
        "version": "V2",
    }
    assert {each.name for each in ours.saved_tensors} == set(VALUES)
    assert ours.collections.keys() == {"variables", "trainable_variables"}
    document = json.loads(ours.to_json())
    assert document["saver_def"]["filename_tensor_name"] == "save/Const:0"
    assert document["meta_info_def"]["tensorflow_version"] == tf.__version__


@pytest.mark.parametrize("as_text", [True, False])
def test_a_graph_and_a_checkpoint_that_ckptd_wrote(tf, tmp_path, as_text):
    saved_by_tensorflow(tf, tmp_path / "theirs")
    graph = ckptd_client.import_meta_graph(tmp_path / "theirs.meta")
    prefix = ckptd_client.save_checkpoint(tmp_path / "ours", VALUES, meta_graph=graph.to_bytes())
    meta = f"{prefix}.meta"
    assert Path(meta).read_bytes() == (tmp_path / "theirs.meta").read_bytes()
    if as_text:
        meta = f"{tmp_path}/ours.pbtxt"
        ckptd_client.export_meta_graph(meta, graph, as_text=True)

    with new_session(tf) as session:
        saver = tf.compat.v1.train.import_meta_graph(meta)
        saver.restore(session, prefix)
        add = session.graph.get_tensor_by_name("add:0")
        assert session.run(add).tolist() == [11.0, 22.0, 33.0]
        ours = graph.get_tensor_by_name("add:0")
        assert (ours.node, ours.shape) == (add.op.name, tuple(add.shape))
        assert ours.data_type is not None
        assert ours.data_type.number == add.dtype.as_datatype_enum


def test_a_reader_by_either(tf, tmp_path):
    theirs = saved_by_tensorflow(tf, tmp_path / "theirs")
    ours = ckptd_client.save_checkpoint(tmp_path / "ours", VALUES)

    for prefix in (theirs, ours):
        for reader in (
            tf.train.load_checkpoint(prefix),
            tf.compat.v1.train.NewCheckpointReader(prefix),
            ckptd_client.NewCheckpointReader(prefix),
        ):
            assert reader.get_variable_to_shape_map() == {"v1": [3], "v2": [3], "scope/steps": []}
            np.testing.assert_array_equal(reader.get_tensor("v1"), VALUES["v1"])
            assert reader.get_tensor("scope/steps") == 1000


def test_a_frozen_graph_that_ckptd_made(tf, tmp_path):
    prefix = saved_by_tensorflow(tf, tmp_path / "m")
    output = tmp_path / "combined_model.pb"

    ended = CliRunner().invoke(main, ["freeze", prefix, "--output", str(output), "add"])

    assert ended.exit_code == 0, ended.output
    v1 = tf.compat.v1
    with new_session(tf) as session:
        graph_def = v1.GraphDef.FromString(output.read_bytes())
        (add,) = v1.import_graph_def(graph_def, return_elements=["add:0"])
        assert session.run(add).tolist() == [11.0, 22.0, 33.0]


def test_a_checkpoint_out_of_a_frozen_graph_that_tensorflow_made(tf, tmp_path):
    v1 = tf.compat.v1
    with new_session(tf) as session:
        make_variables(tf, VALUES)
        session.run(v1.global_variables_initializer())
        frozen = v1.graph_util.convert_variables_to_constants(
            session, session.graph.as_graph_def(), ["add", "scope/steps/read"]
        )
    graph = read_graph(frozen.SerializeToString())

    prefix = ckptd_client.save_checkpoint(tmp_path / "m", constants_of(graph.message))

    assert_same(restored_by_tensorflow(tf, prefix))


def test_a_saved_model_that_tensorflow_built(tf, tmp_path):
    export = built_model(tf, tmp_path)
    model = empty()

    (meta_graph,) = read_saved_model((export / "saved_model.pb").read_bytes()).meta_graphs
    ckptd_client.restore(export, model)

    assert_same(model)
    assert meta_graph.tags == ("cpu_server_1",)
    assert meta_graph.get_tensor_by_name("add:0").shape == (3,)
    assert [each.name for each in seen(tmp_path).survey.inventory.strangers] == ["export"]
    assert not seen(export).survey.inventory.checkpoints


def built_model(tf: Any, tmp_path: Path) -> Path:
    v1 = tf.compat.v1
    with new_session(tf) as session:
        make_variables(tf, VALUES)
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(tmp_path / "export"))
        builder.add_meta_graph_and_variables(session, ["cpu_server_1"])
        builder.save()
    return tmp_path / "export"


def test_the_variables_of_a_saved_model_written_by_ckptd(tf, tmp_path):
    export = built_model(tf, tmp_path)
    values = {**VALUES, "v1": VALUES["v1"] * 100}

    ckptd_client.save_checkpoint(export / "variables" / "variables", values)

    with new_session(tf) as session:
        tf.compat.v1.saved_model.loader.load(session, ["cpu_server_1"], str(export))
        assert session.run("add:0").tolist() == [110.0, 220.0, 330.0]


def test_a_graph_that_is_restored_fed_and_added_to(tf, tmp_path):
    v1 = tf.compat.v1
    with new_session(tf) as session:
        w1, w2 = (v1.placeholder(tf.float32, name=name) for name in ("w1", "w2"))
        bias = v1.get_variable("bias", initializer=np.float32(2))
        operation = tf.multiply(tf.add(w1, w2), bias, name="op_to_restore")
        session.run(v1.global_variables_initializer())
        assert session.run(operation, {w1: 4, w2: 8}) == 24.0
        theirs = v1.train.Saver().save(session, str(tmp_path / "theirs"), global_step=1000)

    graph = ckptd_client.import_meta_graph(theirs)
    with ckptd_client.load_checkpoint(theirs) as reader:
        assert {name: float(value) for name, value in reader.items()} == {"bias": 2.0}
        ours = ckptd_client.save_checkpoint(
            tmp_path / "ours", reader, global_step=1000, meta_graph=graph.to_bytes()
        )
    tensor = graph.get_tensor_by_name("op_to_restore:0")
    assert (tensor.op, tensor.index, tensor.shape) == ("Mul", 0, None)

    assert ours == str(tmp_path / "ours-1000")
    with new_session(tf) as session:
        saver = v1.train.import_meta_graph(f"{ours}.meta")
        saver.restore(session, ours)
        restored = session.graph.get_tensor_by_name("op_to_restore:0")
        assert session.run(restored, {"w1:0": 13, "w2:0": 17}) == 60.0
        doubled = tf.multiply(restored, 2)
        assert session.run(doubled, {"w1:0": 13, "w2:0": 17}) == 120.0


# Fine-tuning.

RANDOM = np.random.default_rng(0)
PRETRAINED: Mapping[str, Any] = {
    "fc6/weights": RANDOM.normal(size=(4, 8)).astype(np.float32),
    "fc7/weights": RANDOM.normal(size=(8, 8)).astype(np.float32),
    "fc8/weights": RANDOM.normal(size=(8, 1000)).astype(np.float32),
}
NEW: Mapping[str, Any] = {
    "new/weights": np.zeros((8, 2), np.float32),
    "new/biases": np.zeros(2, np.float32),
}


def fc7(tf: Any, variables: Mapping[str, Any]) -> Any:
    hidden = tf.nn.relu(tf.matmul(tf.ones([1, 4]), variables["fc6/weights"]))
    return tf.nn.relu(tf.matmul(hidden, variables["fc7/weights"]), name="fc7")


def pretrained_by_tensorflow(tf: Any, path: Path) -> str:
    v1 = tf.compat.v1
    with new_session(tf) as session:
        variables = make_variables(tf, PRETRAINED)
        tf.matmul(fc7(tf, variables), variables["fc8/weights"], name="fc8")
        session.run(v1.global_variables_initializer())
        return str(v1.train.Saver().save(session, str(path)))


def test_another_models_weights_to_begin_from_and_tensorflow_goes_on(tf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prefix = pretrained_by_tensorflow(tf, Path("vgg"))
    model = {name: PRETRAINED[name] * 0 for name in ("fc6/weights", "fc7/weights")}
    model |= {name: value.copy() for name, value in NEW.items()}

    report = ckptd_client.restore(prefix, model, partial=True)
    final = ckptd_client.save_checkpoint(Path("tuned"), model, global_step=1)

    assert str(report).splitlines() == [
        "vgg: 2 of 4 variables restored",
        "  missing      new/weights: did you mean 'fc8/weights' or 'fc7/weights' or 'fc6/weights'?",
        "  missing      new/biases",
        "  not used     fc8/weights",
    ]
    old = {name: PRETRAINED[name] for name in report.restored}
    assert_same(restored_by_tensorflow(tf, final, model), {**old, **NEW})


def test_what_does_not_fit_the_new_model_is_told_and_left_as_it_was(tf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prefix = pretrained_by_tensorflow(tf, Path("vgg"))
    model: dict[str, Any] = {
        "fc6/weights": np.zeros((4, 8), np.float32),
        "fc7/weights": np.zeros((8, 8), np.float16),
        "fc8/weights": np.zeros((8, 2), np.float32),
        "fc9/weights": np.zeros((2, 2), np.float32),
    }

    report = ckptd_client.restore(prefix, model, partial=True)

    assert str(report).splitlines() == [
        "vgg: 1 of 4 variables restored",
        "  other type   fc7/weights: float32 in the checkpoint, float16 here",
        "  other shape  fc8/weights: [8, 1000] in the checkpoint, [8, 2] here",
        "  missing      fc9/weights: did you mean 'fc8/weights' or 'fc7/weights' or 'fc6/weights'?",
    ]
    assert [each.outcome for each in report.unmatched] == [
        Outcome.OTHER_TYPE,
        Outcome.OTHER_SHAPE,
        Outcome.MISSING,
    ]
    assert not any(model[each.name].any() for each in report.unmatched)
    np.testing.assert_array_equal(model["fc6/weights"], PRETRAINED["fc6/weights"])


def test_weights_that_ckptd_saved_are_trained_further_by_tensorflow(tf, tmp_path):
    v1 = tf.compat.v1
    graph = ckptd_client.import_meta_graph(pretrained_by_tensorflow(tf, tmp_path / "theirs"))
    prefix = ckptd_client.save_checkpoint(
        tmp_path / "ours", PRETRAINED, meta_graph=graph.to_bytes()
    )

    with new_session(tf) as session:
        saver = v1.train.import_meta_graph(f"{prefix}.meta")
        features = tf.stop_gradient(session.graph.get_tensor_by_name("fc7:0"))
        new = make_variables(tf, NEW)
        logits = tf.matmul(features, new["new/weights"]) + new["new/biases"]
        loss = tf.reduce_mean(
            tf.nn.softmax_cross_entropy_with_logits(labels=[[0.0, 1.0]], logits=logits)
        )
        train = v1.train.GradientDescentOptimizer(0.1).minimize(loss)
        session.run(v1.global_variables_initializer())
        saver.restore(session, prefix)
        before = session.run(loss)
        session.run(train)
        assert session.run(loss) < before
        final = v1.train.Saver().save(session, str(tmp_path / "final"))
        trained = session.run(new)

    assert dict(ckptd_client.list_variables(final)).keys() == {*PRETRAINED, *NEW}
    model = empty({**PRETRAINED, **NEW})
    ckptd_client.restore(final, model)
    assert_same(model, {**PRETRAINED, **trained})
    assert trained["new/biases"].any()
