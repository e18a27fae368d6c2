"""`ckptd inspect`: what is there, what is in it, and what changed."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from judge.loading import load_tensorflow
from tensor_files import data_file, flip, save_bundle

from ckptd.formats.messages import GraphDef, TrackableObjectGraph
from ckptd.formats.meta_graph import Node, encode_meta_graph
from ckptd.formats.object_graph import OBJECT_GRAPH_KEY
from ckptd.formats.partitions import Partitioned
from ckptd.formats.state_file import StateFile, format_state_file
from ckptd_client.opening import open_checkpoint
from ckptd_client.writing import save_checkpoint

EVIL = "evil\nckptd: all is well\x1b[2J"
ESCAPED = "evil\\nckptd: all is well\\x1b[2J"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


@pytest.fixture(scope="module")
def tf():
    return load_tensorflow()


@pytest.fixture
def run(tmp_path):
    """A model directory with two checkpoints, of two shards each."""
    for step in (6000, 7000):
        tensors = {
            "dense/bias": np.array([1, np.nan, 0, step], np.float32),
            "dense/kernel": Partitioned(np.full((8, 3), step, np.float32), (2, 1)),
            "global_step": np.int64(step),
            "labels": np.array([b"cat", b"horse"], object),
        }
        save_bundle(tmp_path / "run" / f"m-{step}", tensors, num_shards=2)
    state = StateFile(
        model_checkpoint_path="m-7000", all_model_checkpoint_paths=("m-6000", "m-7000")
    )
    (tmp_path / "run" / "checkpoint").write_bytes(format_state_file(state))
    return tmp_path / "run"


@pytest.fixture
def objects(tmp_path):
    """A checkpoint of objects: a layer, its optimizer with a slot, a save counter."""
    slot = f"layer/kernel/.OPTIMIZER_SLOT/optimizer/m{VALUE}"

    def stored(key):
        return [{"name": "VARIABLE_VALUE", "full_name": key, "checkpoint_key": key}]

    graph = TrackableObjectGraph(
        nodes=[
            {
                "children": [
                    {"node_id": 1, "local_name": "layer"},
                    {"node_id": 2, "local_name": "optimizer"},
                    {"node_id": 3, "local_name": "save_counter"},
                    {"node_id": 1, "local_name": "alias"},
                ]
            },
            {"children": [{"node_id": 4, "local_name": "kernel"}]},
            {
                "slot_variables": [
                    {"original_variable_node_id": 4, "slot_name": "m", "slot_variable_node_id": 5}
                ]
            },
            {"attributes": stored(f"save_counter{VALUE}")},
            {"attributes": stored(f"layer/kernel{VALUE}")},
            {"attributes": stored(slot)},
        ]
    )
    tensors = {
        OBJECT_GRAPH_KEY: np.array(graph.SerializeToString(), object),
        f"layer/kernel{VALUE}": np.ones((2, 2), np.float32),
        slot: np.zeros((2, 2), np.float32),
        f"save_counter{VALUE}": np.int64(3),
    }
    return save_bundle(tmp_path / "ckpt-3", tensors)


def test_a_directory_shows_its_newest_checkpoint(ckptd, run):
    ended = ckptd("inspect", run)

    assert ended.status == 0
    first, *others = ended.out.splitlines()
    assert first.split("; ") == [
        f"{run}: V2 checkpoint, global_step 7000: 4 tensors, 29 parameters, 134 B",
        f"{run}/m-7000: 3 files, 2 shards, {size_of(run, 'm-7000')} B",
        "the newest of 2 complete checkpoints: `ckptd list` shows them",
    ]
    assert others == TENSORS


TENSORS = [
    "tensor  16 B  float32  [4]        0     dense/bias",
    "tensor  96 B  float32  [8, 3]  0, 1  2  dense/kernel",
    "tensor   8 B  int64    []         1     global_step",
    "tensor  14 B  string   [2]        1     labels",
]


def size_of(run, name):
    return sum(p.stat().st_size for p in run.iterdir() if p.name.startswith(name))


@pytest.mark.parametrize("name", ["m-7000", "m-7000.index", "m-7000.data-00001-of-00002"])
def test_a_checkpoint_is_found_by_its_prefix_and_by_its_files(ckptd, run, name):
    assert ckptd("inspect", run / name).out.splitlines()[1:] == TENSORS


def test_a_terminal_gets_a_table(terminal, run):
    ended = terminal("inspect", run / "m-7000", "--no-color", "--statistics")

    lines = ended.out.splitlines()
    assert max(map(len, lines)) <= 80
    start = lines.index("TENSORS  4 tensors")
    assert lines[start:] == [
        "TENSORS  4 tensors",
        "  size  dtype    shape   shard  slices  name",
        "  16 B  float32  [4]         0          dense/bias",
        "  96 B  float32  [8, 3]   0, 1       2  dense/kernel",
        "   8 B  int64    []          1          global_step",
        "  14 B  string   [2]         1          labels",
        "",
        "STATISTICS  of the finite elements",
        "   min   max     mean  zeros  NaN  of       name",
        "     0  7000  2333.67      1    1           dense/bias",
        "  7000  7000     7000      0    0           dense/kernel",
        "  7000  7000     7000      0    0           global_step",
        "     3     5        4      0    0  lengths  labels",
    ]


def test_the_json_is_as_its_schema_says(ckptd, run, valid):
    document = ckptd("inspect", run / "m-7000", "--json", "--statistics", "--value").document

    valid(document)
    assert document["format"] == "V2"
    assert document["counters"] == {"global_step": 7000}
    assert document["totals"] == {"tensors": 4, "parameters": 29, "bytes": 134}
    by_name = {tensor["name"]: tensor for tensor in document["tensors"]}
    assert by_name["dense/bias"]["statistics"]["nans"] == 1
    assert by_name["dense/bias"]["value"] == [1, None, 0, 7000]
    assert by_name["dense/kernel"]["slices"] == [[[0, 4], [0, 3]], [[4, 4], [0, 3]]]
    assert by_name["labels"]["value"] == ["cat", "horse"]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["dense/*"], ["dense/bias", "dense/kernel"]),
        (["*e*"], ["dense/bias", "dense/kernel", "global_step", "labels"]),
        (["labels", "*bias"], ["dense/bias", "labels"]),
        (["DENSE/*", "l?bels"], ["labels"]),
        (["[gl]*"], ["global_step", "labels"]),
    ],
)
def test_patterns_select_by_the_whole_name(ckptd, run, patterns, names):
    ended = ckptd("inspect", run / "m-7000", *patterns, "--json")

    assert [tensor["name"] for tensor in ended.document["tensors"]] == names


def test_a_name_that_looks_like_a_pattern_is_a_name(ckptd, tmp_path):
    prefix = save_bundle(tmp_path / "m", {"a[0]": np.zeros(1), "a0": np.zeros(1)})
    document = ckptd("inspect", prefix, "a[0]", "--json").document

    assert {tensor["name"] for tensor in document["tensors"]} == {"a[0]", "a0"}


def test_a_pattern_that_matches_nothing_is_told_with_what_comes_near(ckptd, run):
    ended = ckptd("inspect", run / "m-7000", "kernel")

    assert ended.status == 1
    assert "none of its 4 tensors is named 'kernel'; did you mean 'dense/kernel'?" in ended.err


def test_values_are_shown_and_large_ones_are_not(ckptd, tmp_path):
    tensors = {
        "big": np.zeros(1001),
        "c": np.array([1 + 2j]),
        "e": np.zeros((0, 2)),
        "f": np.float32(0.1),
        "s": np.array([b"a\n\xff", b"x" * 300], object),
    }
    lines = ckptd("inspect", save_bundle(tmp_path / "m", tensors), "--value").out.splitlines()

    values = [line.removeprefix("value   ") for line in lines if line.startswith("value")]
    assert values[:4] == [
        "big = (1,001 elements; 1,000 at most are shown: `ckptd export` writes them all)",
        "c = [[1, 2]]",
        "e = []",
        "f = 0.100000001",
    ]
    assert "(300 bytes)" in values[4]
    assert "\\udcff" in values[4]


def test_objects_are_shown_by_their_paths(ckptd, objects):
    lines = ckptd("inspect", objects, "*kernel").out.splitlines()

    assert "save_counter 3" in lines[0]
    assert lines[1:] == [
        "tensor  16 B  float32  [2, 2]     layer/kernel",
        "tensor  16 B  float32  [2, 2]  m  layer/kernel",
    ]
    assert ckptd("inspect", objects, "alias/kernel").status == 1


def test_objects_are_shown_as_a_tree(ckptd, objects, valid):
    lines = ckptd("inspect", objects, "--tree").out.splitlines()
    document = ckptd("inspect", objects, "--tree", "--json").document

    assert lines[1:] == [
        "object  (root)",
        "object    layer",
        "object      kernel  float32 [2, 2]",
        "object    optimizer",
        "object    save_counter  int64 []",
        "object    alias -> layer",
    ]
    valid(document)
    assert document["objects"][2]["keys"] == [f"layer/kernel{VALUE}"]
    slot = next(tensor["slot"] for tensor in document["tensors"] if tensor["slot"])
    assert slot == {"name": "m", "of": "layer/kernel"}


def test_a_tree_leaves_out_what_leads_to_no_tensor(ckptd, tmp_path):
    def holding(**children):
        return {"children": [{"node_id": n, "local_name": name} for name, n in children.items()]}

    key = f"model/w{VALUE}"
    stored = {"name": "VARIABLE_VALUE", "full_name": "w", "checkpoint_key": key}
    nodes = [
        holding(_losses=3, model=1, _more=3, again=1),
        holding(_tracked=2, w=4, loop=0),
        holding(deep=5),
        holding(),
        {"attributes": [stored]},
        holding(up=3, w=4),
    ]
    graph = TrackableObjectGraph(nodes=nodes).SerializeToString()
    tensors = {OBJECT_GRAPH_KEY: np.array(graph, object), key: np.ones(2, np.float32)}
    prefix = save_bundle(tmp_path / "ckpt-1", tensors)

    assert ckptd("inspect", prefix, "--tree").out.splitlines()[1:] == [
        "object  (root)",
        "object    model",
        "object      _tracked",
        "object        deep",
        "object          w -> model/w",
        "object      w  float32 [2]",
        "object      loop -> (root)",
        "object    again -> model",
    ]
    objects = ckptd("inspect", prefix, "--tree", "--json").document["objects"]
    assert "_losses" in [each["name"] for each in objects]


def test_the_graph_of_objects_is_no_value(ckptd, objects):
    lines = ckptd("inspect", objects, "--value", "--statistics").out.splitlines()

    names = [line for line in lines if line.startswith(("value", "statistics"))]
    assert len(names) == 6
    assert not any(OBJECT_GRAPH_KEY in line for line in names)


def test_a_difference_is_told_by_paths_and_selected_by_them(ckptd, objects, valid):
    later = objects.with_name("ckpt-4")
    for suffix in (".index", ".data-00000-of-00001"):
        shutil.copy(f"{objects}{suffix}", f"{later}{suffix}")
    with open_checkpoint(objects) as opened:
        tensors = {name: opened.read(name).copy() for name in opened.tensors}
    tensors[f"layer/kernel{VALUE}"] += 1
    save_bundle(later, tensors)

    ended = ckptd("inspect", objects, "layer/k*", "--diff", later)
    document = ckptd("inspect", objects, "layer/k*", "--diff", later, "--json").document

    assert ended.out.splitlines() == [
        f"{objects} -> {later}: 2 tensors: 1 the same, 1 changed",
        "changed  4 of 4  1  1  layer/kernel",
    ]
    valid(document)
    (difference,) = document["differences"]
    assert (difference["name"], difference["path"]) == (f"layer/kernel{VALUE}", "layer/kernel")


def test_a_bare_graph_says_where_it_begins_and_ends(ckptd, tmp_path, valid):
    graph = GraphDef()
    for name, op, *read in (
        ("x", "Placeholder"),
        ("w", "Const"),
        ("y", "Identity", "x", "^w"),
        ("done", "NoOp", "^y"),
        ("z", "Neg", "x:0"),
    ):
        node = graph.node.add(name=name, op=op, input=read)
        if op != "NoOp":
            node.attr["dtype" if op in {"Placeholder", "Const"} else "T"].type = 1
    graph.node[0].attr["shape"].shape.dim.add(size=-1)
    graph.node[1].attr["value"].tensor.tensor_content = bytes(100)
    path = tmp_path / "f.pb"
    path.write_bytes(graph.SerializeToString())

    ended = ckptd("inspect", path)
    document = ckptd("inspect", path, "--json").document

    assert ended.out.splitlines()[1:4] == [
        "producer 0, 5 operations, 1 constant, 102 B",
        "input      float32  [?]  x:0",
        "output     float32  [?]  z:0",
    ]
    valid(document)
    (graph,) = document["graphs"]
    assert graph["inputs"] == [{"tensor": "x:0", "dtype": "float32", "shape": [None]}]
    assert [each["tensor"] for each in graph["outputs"]] == ["z:0"]
    assert graph["constants"] == {"count": 1, "bytes": 102}


def test_a_tree_of_names_alone_is_refused(ckptd, run):
    ended = ckptd("inspect", run / "m-7000", "--tree")

    assert ended.status == 2
    assert "has no object graph" in ended.err


def test_a_damaged_tensor_is_told_and_the_rest_shown(ckptd, run, valid):
    flip(data_file(run / "m-7000", 0, 2), 0)

    unread = ckptd("inspect", run / "m-7000")
    ended = ckptd("inspect", run / "m-7000", "--statistics")
    document = ckptd("inspect", run / "m-7000", "--statistics", "--json")

    assert unread.status == 0
    assert ended.status == 1
    damaged = [line for line in ended.out.splitlines() if line.startswith("damaged")]
    assert len(damaged) == 1
    assert "checksum" in damaged[0]
    assert len([line for line in ended.out.splitlines() if line.startswith("tensor")]) == 4
    assert document.status == 1
    valid(document.document)
    assert [bool(t["problem"]) for t in document.document["tensors"]].count(True) == 1


def test_a_missing_shard_and_one_cut_short_are_told_without_reading(ckptd, run):
    data_file(run / "m-7000", 1, 2).unlink()
    cut = data_file(run / "m-6000", 0, 2)
    cut.write_bytes(cut.read_bytes()[:10])

    missing = ckptd("inspect", run / "m-7000")
    short = ckptd("inspect", run / "m-6000")

    assert (missing.status, short.status) == (1, 1)
    assert "problem  m-7000.data-00001-of-00002 is missing; it holds 3 tensors" in missing.out
    assert ", 1 problem; " in missing.out
    assert "\ndamaged" not in missing.out  # it is told once
    assert ", 2 damaged; " in short.out
    assert "dense/bias" in missing.out
    assert any(line.startswith("damaged") for line in short.out.splitlines())


def test_many_damaged_ones_are_folded_on_a_terminal(terminal, tmp_path):
    prefix = save_bundle(tmp_path / "m", {f"t{n:02}": np.ones(4) for n in range(30)})
    cut = data_file(prefix)
    cut.write_bytes(cut.read_bytes()[:32])

    lines = terminal("inspect", prefix, "--no-color").out.splitlines()

    assert any(" 29 damaged" in line for line in lines)
    start = lines.index("DAMAGED  29 tensors: cannot be read as the checkpoint promises")
    assert "  ... and 19 more: --all shows them" in lines[start:]


def test_a_data_file_that_is_none_is_told_once(ckptd, run, objects):
    for prefix, num_shards, count in ((run / "m-7000", 2, 2), (objects, 1, 4)):
        file = data_file(prefix, 0, num_shards)
        file.unlink()
        file.mkdir()

        ended = ckptd("inspect", prefix)

        assert ended.status == 1
        (problem,) = [line for line in ended.out.splitlines() if str(file) in line]
        assert problem.startswith("problem")
        assert problem.endswith(f"; it holds {count} tensors")
        assert "is missing" not in ended.out


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_data_file_that_may_not_be_read_exits_with_12(ckptd, run):
    file = data_file(run / "m-7000", 0, 2)
    file.chmod(0)

    ended = ckptd("inspect", run / "m-7000", "--json")

    assert ended.status == 12
    reason = f"cannot map {file}: Permission denied"
    assert ended.document["problems"] == [f"{reason}; it holds 2 tensors"]


def test_no_name_of_a_tensor_can_forge_a_line(ckptd, terminal, tmp_path):
    tensors = {EVIL: np.zeros(2), "x" * 5000: np.zeros(1)}
    prefix = save_bundle(tmp_path / "m", tensors)

    piped = ckptd("inspect", prefix, "--statistics", "--value")
    drawn = terminal("inspect", prefix, "--no-color")
    other = ckptd("inspect", prefix, EVIL + "x")

    for text in (piped.out, drawn.out, other.err):
        assert "\x1b" not in text
        assert not any(line.startswith("ckptd: all is") for line in text.splitlines())
    assert ESCAPED in piped.out
    assert max(map(len, drawn.out.splitlines())) <= 80


def test_a_long_name_costs_its_own_line_only(ckptd, tmp_path):
    tensors = {f"t{n}": np.zeros(1) for n in range(50)} | {"n" * 50_000: np.zeros(1)}
    ended = ckptd("inspect", save_bundle(tmp_path / "m", tensors))

    assert len(ended.out) < 60_000


def test_a_v1_checkpoint_is_one(ckptd, tmp_path):
    save_checkpoint(
        tmp_path / "old", {"a": np.arange(3.0), "s": np.array([b"x"], object)}, version="v1"
    )
    ended = ckptd("inspect", tmp_path / "old", "a", "--value")

    assert "V1 checkpoint: 1 of 2 tensors" in ended.out
    assert "value   a = [0, 1, 2]" in ended.out


def test_a_state_file_says_what_it_says(ckptd, run, valid):
    ended = ckptd("inspect", run / "checkpoint")

    assert ended.out.splitlines() == [
        f"{run}/checkpoint: state file: m-7000 is the newest, of 2 checkpoints named",
        "named  ?  m-6000",
        "named  ?  m-7000",
    ]
    valid(ckptd("inspect", run / "checkpoint", "--json").document)


def test_other_files_of_tensors_are_shown_too(ckptd, tmp_path, valid):
    from safetensors.numpy import save_file

    arrays = {"w": np.ones((2, 3), np.float32)}
    np.savez(tmp_path / "a.npz", w=arrays["w"])
    save_file(arrays, tmp_path / "a.safetensors")

    for name in ("a.npz", "a.safetensors"):
        document = ckptd("inspect", tmp_path / name, "--json", "--statistics").document
        valid(document)
        assert document["what"] == name.split(".")[1]
        assert document["tensors"][0]["statistics"]["mean"] == 1


def test_a_meta_graph_says_what_it_holds(ckptd, tmp_path, valid):
    path = tmp_path / "m.meta"
    path.write_bytes(encode_meta_graph([Node("a", "NoOp"), Node("b", "NoOp"), Node("c", "Const")]))

    ended = ckptd("inspect", path)

    assert ended.out.splitlines() == [
        f"{path}: meta graph: {path.stat().st_size} B",
        "written by an unknown writer; producer 27, 3 operations",
        "operation  2  NoOp",
        "operation  1  Const",
    ]
    valid(ckptd("inspect", path, "--json").document)


@pytest.mark.tensorflow
def test_graphs_of_tensorflow_are_told(ckptd, tmp_path, valid, tf):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (None, 3), name="x")
        w = v1.get_variable("w", initializer=np.ones((3, 2), np.float32))
        y = tf.matmul(x, w, name="y")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "m"))
        v1.saved_model.simple_save(session, str(tmp_path / "model"), {"in": x}, {"out": y})
    meta, model = tmp_path / "m.meta", tmp_path / "model"

    told = ckptd("inspect", meta).out
    shown = " ".join(ckptd("inspect", model, "--statistics").out.split())
    tensor = ckptd("inspect", meta, "--tensor", "y:0")
    none = ckptd("inspect", meta, "--tensor", "z:0")

    assert f"written by TensorFlow {tf.__version__}" in told
    assert "saved       float32  [3, 2]    w" in told
    assert "restore_op" in told
    assert "serving_default in " in shown
    assert "tensor 24 B float32 [3, 2] w" in shown
    assert "statistics 1 1 1 w" in shown
    assert "has no object graph" in ckptd("inspect", model, "--tree").err
    assert "w" in ckptd("inspect", model / "variables").out
    assert tensor.out == "y:0: float32 [?, 2], output 0 of y (MatMul)\n"
    assert none.status == 1
    for arguments in ((meta,), (model,), (meta, "--tensor", "y:0"), (model, "--statistics")):
        valid(ckptd("inspect", *arguments, "--json").document)


@pytest.mark.tensorflow
def test_the_variables_of_a_saved_model_are_shown_as_a_tree(ckptd, tmp_path, valid, tf):
    module, model = tf.Module(), tmp_path / "model"
    module.inner = tf.Module()
    module.inner.w = tf.Variable([1.0, 2.0])
    tf.saved_model.save(module, str(model))

    tree = ["object  (root)", "object    inner", "object      w  float32 [2]"]
    for path in (model, model / "saved_model.pb", model / "variables"):
        first, *lines = ckptd("inspect", path, "--tree").out.splitlines()
        assert lines == tree
        assert first.startswith(f"{path}: V2 checkpoint: 2 tensors, 2 parameters, ")
        assert "newest" not in first
        valid(ckptd("inspect", path, "--tree", "--json").document)


def test_a_difference_is_told_the_greatest_first(ckptd, run, valid):
    ended = ckptd("inspect", run / "m-6000", "--diff", run / "m-7000")

    assert ended.status == 0
    assert ended.out.splitlines() == [
        f"{run}/m-6000 -> {run}/m-7000: 4 tensors: 1 the same, 3 changed",
        "changed  24 of 24  1000  0.166667  dense/kernel",
        "changed    1 of 1  1000  0.166667  global_step",
        "changed    1 of 4  1000  0.166667  dense/bias",
    ]
    document = ckptd("inspect", run / "m-6000", "--diff", run / "m-7000", "--json").document
    valid(document)
    assert document["same"] == 1


def test_a_difference_of_kinds(ckptd, tmp_path, valid):
    before = {"gone": np.zeros(1), "shape": np.zeros(2), "type": np.zeros(2), "bad": np.zeros(4)}
    after = {"new": np.zeros(3), "shape": np.zeros(3), "type": np.zeros(2, int), "bad": np.zeros(4)}
    one, other = (save_bundle(tmp_path / f"m-{n}", t) for n, t in enumerate((before, after)))
    flip(data_file(other), 0)

    ended = ckptd("inspect", one, "--diff", other)

    assert ended.status == 1
    words = [line.split()[0] for line in ended.out.splitlines()[1:]]
    assert words == ["reshaped", "retyped", "appeared", "vanished", "unreadable"]
    valid(ckptd("inspect", one, "--diff", other, "--json").document)
    assert ckptd("inspect", one, "new", "--diff", other).status == 0


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ((), 2),
        (("MISSING",), 13),
        (("",), 13),
        (("RUN/m-7000", "--diff", "MISSING"), 13),
        (("RUN/m-7000", "--diff", "RUN/m-6000", "--tree"), 2),
        (("RUN/m-7000", "--diff", "RUN/m-6000", "--statistics"), 2),
        (("RUN/m-7000", "--tensor", "a:0"), 2),
        (("RUN/m-7000", "--diff"), 2),
        (("RUN/m-7000", "--diff", "RUN/m-6000", "nothing"), 1),
        (("RUN/junk",), 1),
        (("RUN/junk.npz",), 1),
        (("RUN/junk.safetensors",), 1),
        (("RUN/junk.meta",), 1),
        (("RUN/junk.pb",), 1),
        (("RUN/junk.meta", "--tree"), 2),
        (("RUN/junk.meta", "--value"), 2),
        (("RUN/junk.pb", "--statistics"), 2),
        (("RUN/junk.index",), 1),
        (("RUN/fifo",), 1),
        (("a\0b",), 13),
    ],
)
def test_what_cannot_be_shown_has_its_exit_status(ckptd, run, tmp_path, arguments, status):
    for suffix in ("", ".npz", ".safetensors", ".meta", ".pb", ".index"):
        (run / f"junk{suffix}").write_bytes(b"\xff junk \x00" * 9)
    os.mkfifo(run / "fifo")
    places = {"RUN": str(run), "MISSING": str(tmp_path / "missing")}
    given = [
        next((each.replace(k, v, 1) for k, v in places.items() if each.startswith(k)), each)
        for each in arguments
    ]

    ended = ckptd("inspect", *given)

    assert ended.status == status
    assert ended.err.startswith("ckptd")
    assert "Traceback" not in ended.err


def test_nothing_is_changed(ckptd, run):
    def seen():
        return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in run.iterdir()}

    before = seen()
    ckptd("inspect", run, "--statistics", "--value")

    assert seen() == before


def test_it_imports_neither_the_daemon_nor_a_keeper(run, environment):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ckptd", "inspect", run / "m-7000"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}

    assert "ckptd_client.opening" in imported
    unneeded = {"watchdog", "apscheduler", "structlog", "yaml", "rich", "ckptd.keeper.keeper"}
    assert not imported & unneeded
