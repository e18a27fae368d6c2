"""`ckptd export`: every direction, nothing half, and what is lost is told."""

import os

import ml_dtypes
import numpy as np
import pytest
from judge.loading import load_tensorflow
from safetensors.numpy import load_file
from tensor_files import data_file, flip, save_bundle

from ckptd.formats.messages import TrackableObjectGraph
from ckptd.formats.meta_graph import Node, encode_meta_graph, read_meta_graph
from ckptd.formats.object_graph import OBJECT_GRAPH_KEY
from ckptd.formats.partitions import Partitioned
from ckptd_client.comparing import Change, compare
from ckptd_client.opening import open_checkpoint

TENSORS = {
    "b": np.array([1, -2], ml_dtypes.bfloat16),
    "f8": np.array([1, 2, 3], ml_dtypes.float8_e4m3fn),
    "i": np.arange(6, dtype=np.int64).reshape(2, 3),
    "part": np.arange(40, dtype=np.float32).reshape(10, 4),
    "scalar": np.float64(2.5),
}
STRINGS = {"s": np.array([b"a", b"bc"], object)}


@pytest.fixture(scope="module")
def tf():
    return load_tensorflow()


@pytest.fixture
def checkpoint(tmp_path):
    tensors = TENSORS | STRINGS | {"part": Partitioned(TENSORS["part"], (3, 1))}
    return save_bundle(tmp_path / "m", tensors, num_shards=2)


def changes(one, other):
    with open_checkpoint(one) as before, open_checkpoint(other) as after:
        return {
            d.name: d.change
            for d in compare(before.source, after.source)
            if d.change is not Change.SAME
        }


@pytest.mark.parametrize("way", ["a.npz", "a.safetensors", "copy"])
def test_there_and_back_is_the_same(ckptd, checkpoint, tmp_path, way, valid):
    there = ckptd("export", checkpoint, "--output", tmp_path / way, "--skip-unsupported", "--json")
    back = ckptd("export", tmp_path / way, "--output", tmp_path / "back", "--shards", 3)

    valid(there.document)
    lost = {"s": Change.VANISHED} if way == "a.safetensors" else {}
    assert there.status == (3 if lost else 0)
    assert [each["name"] for each in there.document["left_out"]] == list(lost)
    assert back.status == 0
    assert changes(checkpoint, tmp_path / "back") == lost
    assert data_file(tmp_path / "back", 2, 3).exists()


def test_numpy_and_safetensors_read_what_is_written(ckptd, checkpoint, tmp_path):
    ckptd("export", checkpoint, "-o", tmp_path / "a.npz")
    ckptd("export", checkpoint, "-o", tmp_path / "a.safetensors", "--skip-unsupported")

    with np.load(tmp_path / "a.npz") as loaded:
        assert loaded["s"].tolist() == [b"a", b"bc"]
        assert loaded["b"].dtype == np.uint16
        assert np.array_equal(loaded["part"], TENSORS["part"])
    plain = ckptd("export", checkpoint, "b", "part", "-o", tmp_path / "b.safetensors")
    assert plain.status == 0
    loaded = load_file(tmp_path / "b.safetensors")
    assert loaded["b"].dtype == ml_dtypes.bfloat16
    assert np.array_equal(loaded["part"], TENSORS["part"])


def test_a_checkpoint_in_the_older_format_and_what_that_cannot_hold(ckptd, checkpoint, tmp_path):
    refused = ckptd("export", checkpoint, "-o", tmp_path / "old", "--v1")
    done = ckptd("export", checkpoint, "-o", tmp_path / "old", "--v1", "--skip-unsupported")

    assert refused.status == 1
    assert "V1 format has nothing for bfloat16 (and 1 more tensor)" in refused.err
    assert done.status == 3
    assert set(changes(checkpoint, tmp_path / "old")) == {"b", "f8"}


def test_quantized_types_keep_their_type(ckptd, tmp_path):
    prefix = save_bundle(
        tmp_path / "m", {"q": np.arange(3, dtype=np.int8)}, data_types={"q": "qint8"}
    )
    ckptd("export", prefix, "-o", tmp_path / "a.npz")
    ckptd("export", tmp_path / "a.npz", "-o", tmp_path / "back")

    with open_checkpoint(tmp_path / "back") as opened:
        assert opened.source.tensors["q"].data_type.name == "qint8"


def test_a_selection_under_other_names(ckptd, checkpoint, tmp_path):
    ended = ckptd(
        *("export", checkpoint, "[is]*", "part"),
        *("--rename", "part=a=b", "--rename", "s=i2", "--output", tmp_path / "new"),
    )

    assert ended.status == 0
    with open_checkpoint(tmp_path / "new") as opened:
        assert list(opened.source.tensors) == ["a=b", "i", "i2", "scalar"]
        assert np.array_equal(opened.read("a=b"), TENSORS["part"])


def test_a_name_with_an_equals_sign_is_found(ckptd, tmp_path):
    prefix = save_bundle(tmp_path / "m", {"a=b": np.zeros(1)})
    ended = ckptd("export", prefix, "--rename", "a=b=c", "-o", tmp_path / "n")

    assert ended.status == 0
    with open_checkpoint(tmp_path / "n") as opened:
        assert list(opened.source.tensors) == ["c"]


@pytest.mark.parametrize("output", ["a.npz", "a.safetensors", "copy", "old"])
def test_damage_stops_it_and_leaves_nothing(ckptd, checkpoint, tmp_path, output):
    with open_checkpoint(checkpoint) as opened:
        shard = opened.source.tensors["i"].shards[0]
    flip_tensor(checkpoint, TENSORS["i"], shard)
    before = set(os.listdir(tmp_path))
    options = ["--v1"] if output == "old" else []

    ended = ckptd("export", checkpoint, "i", "part", "-o", tmp_path / output, *options)

    assert ended.status == 1
    assert "tensor 'i'" in ended.err
    assert "checksum" in ended.err
    assert set(os.listdir(tmp_path)) == before


def flip_tensor(prefix, array, shard, num_shards=2):
    file = data_file(prefix, shard, num_shards)
    flip(file, file.read_bytes().index(array.tobytes()) + 8)


@pytest.mark.parametrize("output", ["a.npz", "a.safetensors", "copy"])
def test_what_is_intact_is_saved_elsewhere(ckptd, checkpoint, tmp_path, output, valid):
    with open_checkpoint(checkpoint) as opened:
        shard = opened.source.tensors["i"].shards[0]
    flip_tensor(checkpoint, TENSORS["i"], shard)

    ended = ckptd(
        *("export", checkpoint, "-o", tmp_path / output, "--json"),
        *("--skip-damaged", "--skip-unsupported"),
    )

    assert ended.status == 3
    valid(ended.document)
    assert [each["name"] for each in ended.document["lost"]] == ["i"]
    assert "checksum" in ended.document["lost"][0]["reason"]
    assert "i" not in ended.document["tensors"]
    assert "part" in ended.document["tensors"]


def test_a_missing_shard_loses_what_lay_in_it(ckptd, checkpoint, tmp_path):
    data_file(checkpoint, 1, 2).unlink()

    whole = ckptd("export", checkpoint, "-o", tmp_path / "copy")
    rest = ckptd("export", checkpoint, "-o", tmp_path / "copy", "--skip-damaged")

    assert whole.status == 1
    assert rest.status == 3
    assert any(line.startswith("lost") for line in rest.out.splitlines())
    with open_checkpoint(tmp_path / "copy") as opened:
        assert opened.source.tensors


def test_what_a_damaged_index_still_tells_is_saved(ckptd, tmp_path, valid):
    names = [f"layer{n:05}/kernel/with/a/long/name" for n in range(6000)]
    prefix = save_bundle(tmp_path / "m", {name: np.ones(1) for name in names})
    flip(tmp_path / "m.index", 1000)

    whole = ckptd("export", prefix, "-o", tmp_path / "a.npz")
    rest = ckptd("export", prefix, "-o", tmp_path / "a.npz", "--skip-damaged", "--json")

    assert whole.status == 1
    assert rest.status == 3
    valid(rest.document)
    assert names[-1] in rest.document["tensors"]
    assert any("lost with it" in problem for problem in rest.document["problems"])


def test_nothing_intact_is_a_failure(ckptd, tmp_path):
    prefix = save_bundle(tmp_path / "m", {"a": np.ones(3)})
    data_file(prefix).unlink()

    ended = ckptd("export", prefix, "-o", tmp_path / "copy", "--skip-damaged")

    assert ended.status == 1
    assert "no tensor is left to write" in ended.err


@pytest.mark.parametrize("output", ["a.npz", "a.safetensors", "copy", "x.json"])
def test_what_is_there_is_replaced_only_by_force(ckptd, tmp_path, output):
    prefix = save_bundle(tmp_path / "m", {"a": np.ones(3)})
    meta = tmp_path / "g.meta"
    meta.write_bytes(encode_meta_graph([Node("a", "NoOp")]))
    source = meta if output.endswith("json") else prefix
    first = ckptd("export", source, "-o", tmp_path / output)

    again = ckptd("export", source, "-o", tmp_path / output)
    forced = ckptd("export", source, "-o", tmp_path / output, "--force")

    assert [first.status, again.status, forced.status] == [0, 1, 0]
    assert "--force replaces it" in again.err


def test_sharded_v1_is_not_replaced_either(ckptd, checkpoint, tmp_path):
    arguments = ("export", checkpoint, "i", "-o", tmp_path / "old", "--v1", "--shards", 2)

    assert ckptd(*arguments).status == 0
    assert ckptd(*arguments).status == 1


def test_a_graph_of_objects_goes_along_only_with_all_it_names(ckptd, tmp_path):
    tensors = {OBJECT_GRAPH_KEY: np.array(b"graph\0", object), "a": np.zeros(1)}
    prefix = save_bundle(tmp_path / "m", tensors)

    whole = ckptd("export", prefix, "-o", tmp_path / "copy", "--json").document
    named = ckptd("export", prefix, "-o", tmp_path / "n", "--rename", "a=b", "--json").document
    npz = ckptd("export", prefix, "-o", tmp_path / "a.npz", "--json").document

    assert whole["tensors"] == [OBJECT_GRAPH_KEY, "a"]
    assert (named["tensors"], npz["tensors"]) == (["b"], ["a"])
    assert "object graph" in npz["notes"][0]


def test_tensors_of_objects_are_selected_by_their_paths(ckptd, tmp_path):
    stored = {"name": "VARIABLE_VALUE", "full_name": "w", "checkpoint_key": "m/w/.ATTRIBUTES/V"}
    graph = TrackableObjectGraph(
        nodes=[
            {"children": [{"node_id": 1, "local_name": "m"}]},
            {"children": [{"node_id": 2, "local_name": "w"}]},
            {"attributes": [stored]},
        ]
    )
    tensors = {
        OBJECT_GRAPH_KEY: np.array(graph.SerializeToString(), object),
        "m/w/.ATTRIBUTES/V": np.ones(2, np.float32),
        "other": np.zeros(1),
    }
    prefix = save_bundle(tmp_path / "ckpt-1", tensors)

    ended = ckptd("export", prefix, "m/w", "-o", tmp_path / "a.npz", "--json")
    missed = ckptd("export", prefix, "w", "-o", tmp_path / "b.npz")

    assert ended.document["tensors"] == ["m/w/.ATTRIBUTES/V"]
    assert "did you mean 'm/w'?" in missed.err


def test_a_meta_graph_goes_through_its_forms(ckptd, tmp_path, valid):
    meta = tmp_path / "m.meta"
    data = encode_meta_graph([Node("a", "NoOp"), Node("b", "Identity", ("a",))])
    meta.write_bytes(data)

    for source, output in (("m.meta", "m.pbtxt"), ("m.pbtxt", "n.meta"), ("n.meta", "n.json")):
        ended = ckptd("export", tmp_path / source, "-o", tmp_path / output, "--json")
        assert ended.status == 0
        valid(ended.document)

    assert (tmp_path / "n.meta").read_bytes() == data
    assert (tmp_path / "n.json").read_text() == read_meta_graph(data).to_json()


@pytest.mark.tensorflow
def test_tensorflow_restores_what_is_exported(ckptd, checkpoint, tmp_path, tf):
    np.savez(tmp_path / "a.npz", w=np.arange(4.0), s=np.array(["x", "yy"]))

    ckptd("export", tmp_path / "a.npz", "-o", tmp_path / "new", "--shards", 2)
    ckptd("export", checkpoint, "part", "-o", tmp_path / "old", "--v1")
    new, old = (tf.train.load_checkpoint(str(tmp_path / name)) for name in ("new", "old"))

    assert new.get_tensor("w").tolist() == [0, 1, 2, 3]
    assert new.get_tensor("s").tolist() == [b"x", b"yy"]
    assert np.array_equal(old.get_tensor("part"), TENSORS["part"])


@pytest.mark.tensorflow
def test_a_saved_model_and_a_frozen_graph_give_their_weights(ckptd, tmp_path, tf):
    v1 = tf.compat.v1
    weights = np.arange(6, dtype=np.float32).reshape(3, 2)
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (None, 3), name="x")
        y = tf.matmul(x, v1.get_variable("w", initializer=weights), name="y")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "m"))
        v1.saved_model.simple_save(session, str(tmp_path / "model"), {"in": x}, {"out": y})
    ckptd("freeze", tmp_path / "m", "y", "--output", tmp_path / "f.pb")

    for source in ("model", "f.pb"):
        ended = ckptd("export", tmp_path / source, "-o", tmp_path / f"{source}.npz")
        assert ended.status == 0, ended.err
        with np.load(tmp_path / f"{source}.npz") as loaded:
            assert np.array_equal(loaded["w"], weights)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("M",), 2, "--output"),
        (("M", "-o", "DIR/x.npz", "--v1"), 2, "for checkpoints"),
        (("M", "-o", "DIR/x.safetensors", "--shards", "2"), 2, "for checkpoints"),
        (("M", "-o", "DIR/x", "--shards", "0"), 2, "--shards"),
        (("M", "-o", "DIR/x", "--shards", "100000"), 2, "--shards"),
        (("M", "-o", "DIR/x.index"), 2, "no name for an output"),
        (("M", "-o", "DIR/x.data-00000-of-00001"), 2, "no name for an output"),
        (("M", "-o", "DIR/x.pb"), 2, "no name for an output"),
        (("M", "-o", "DIR/x.tar"), 2, "no name for an output"),
        (("M", "-o", "DIR/x.tar.gz"), 2, "no name for an output"),
        (("M", "-o", "DIR/x.onnx"), 2, "no name for an output"),
        (("M", "-o", "DIR/"), 2, "no name for an output"),
        (("M", "-o", ""), 2, "no name for an output"),
        (("M", "-o", "DIR/x.json"), 2, "takes a graph"),
        (("DIR/g.meta", "-o", "DIR/x.npz"), 2, "holds no tensors"),
        (("DIR/g.meta", "-o", "DIR/x"), 2, "holds no tensors"),
        (("DIR/g.meta", "a*", "-o", "DIR/x.json"), 2, "for tensors"),
        (("DIR/g.meta", "-o", "DIR/x.json", "--skip-damaged"), 2, "for tensors"),
        (("M", "-o", "DIR/x.npz", "--rename", "i"), 2, "OLD=NEW"),
        (("M", "-o", "DIR/x.npz", "--rename", "i="), 2, "OLD=NEW"),
        (("M", "-o", "DIR/x.npz", "--rename", "i=part"), 2, "two tensors"),
        (("M", "b", "-o", "DIR/x.npz", "--rename", "i=j"), 2, "no PATTERN"),
        (("M", "-o", "DIR/x.npz", "--rename", "zz=j"), 1, "no tensor 'zz'"),
        (("M", "none*", "-o", "DIR/x.npz"), 1, "is named"),
        (("DIR/missing", "-o", "DIR/x.npz"), 13, "cannot open a checkpoint"),
        (("M", "-o", "DIR/missing/x.npz"), 13, "cannot open"),
        (("M", "-o", "DIR/a\0b.npz"), 1, "cannot"),
        (("DIR/junk.npz", "-o", "DIR/x"), 1, "not a sound zip"),
        (("DIR/junk.safetensors", "-o", "DIR/x"), 1, "not a sound safetensors"),
    ],
)
def test_what_makes_no_sense_is_told(ckptd, checkpoint, tmp_path, arguments, status, words):
    (tmp_path / "g.meta").write_bytes(encode_meta_graph([Node("a", "NoOp")]))
    (tmp_path / "junk.npz").write_bytes(b"junk")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    before = set(os.listdir(tmp_path))
    given = [str(checkpoint) if a == "M" else a.replace("DIR", str(tmp_path), 1) for a in arguments]

    ended = ckptd("export", *given)

    assert ended.status == status, ended.err
    assert words in ended.err
    assert "Traceback" not in ended.err
    assert set(os.listdir(tmp_path)) == before


@pytest.mark.tensorflow
def test_what_is_intact_of_objects_is_restored_by_tensorflow(ckptd, tmp_path, tf):
    def model(value):
        variables = {"a": tf.Variable([value, 2.0]), "b": tf.Variable([[3.0, value]])}
        return tf.train.Checkpoint(**variables), variables

    prefix = model(5.0)[0].write(str(tmp_path / "m"))
    data = data_file(tmp_path / "m")
    flip(data, data.read_bytes().index(np.array([3, 5], "f4").tobytes()))

    ended = ckptd("export", prefix, "-o", tmp_path / "copy", "--skip-damaged", "--json")
    restored, variables = model(0.0)
    restored.read(str(tmp_path / "copy")).expect_partial()

    assert ended.status == 3
    assert ended.document["notes"] == ["the object graph names only what is written"]
    assert variables["a"].numpy().tolist() == [5, 2]
    assert variables["b"].numpy().tolist() == [[3, 0]]


def test_objects_that_do_not_parse_go_with_what_is_damaged(ckptd, tmp_path):
    tensors = {OBJECT_GRAPH_KEY: np.array(b"graph\0", object), "a": np.ones(1), "b": np.zeros(9)}
    prefix = save_bundle(tmp_path / "m", tensors)
    data = data_file(tmp_path / "m")
    flip(data, data.read_bytes().index(np.ones(1).tobytes()))

    ended = ckptd("export", prefix, "-o", tmp_path / "copy", "--skip-damaged", "--json")

    assert ended.status == 3
    assert ended.document["tensors"] == ["b"]
