"""`ckptd freeze`: a graph and its checkpoint as one file. TensorFlow judges it in tests/judge."""

import numpy as np
import pytest
from formats.graphs import FLOAT, STRING, handle, meta_graph_of, node, read_of, reference, restoring

from ckptd.formats.bundle_writer import encode_bundle
from ckptd.formats.freezing import constants_of
from ckptd.formats.messages import GraphDef, SavedModel

W = np.array([1.0, 2.0], np.float32)


def write_checkpoint(prefix, **tensors):
    """Write a checkpoint without a graph."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    index, data = encode_bundle(tensors)
    prefix.with_name(prefix.name + ".index").write_bytes(index)
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)


def graph(variable="w"):
    """A graph that adds a saved variable to what it is fed."""
    return meta_graph_of(
        node("x", "Placeholder", dtype=FLOAT, shape=[2]),
        *reference(variable, [2]),
        node("add", "AddV2", "x", f"{variable}/read", T=FLOAT),
        *restoring([(variable, "w", "")]),
    )


@pytest.fixture
def saved(tmp_path):
    """A checkpoint with its meta graph; returns the prefix."""
    prefix = tmp_path / "run" / "m-1"
    write_checkpoint(prefix, w=W)
    prefix.with_name("m-1.meta").write_bytes(graph().SerializeToString())
    return prefix


@pytest.fixture
def model(tmp_path):
    """A SavedModel of two graphs, for serving and for a GPU."""
    path = tmp_path / "model"
    write_checkpoint(path / "variables" / "variables", w=W)
    whole = SavedModel(saved_model_schema_version=1)
    for tags in (["serve"], ["serve", "gpu"]):
        meta_graph = whole.meta_graphs.add()
        meta_graph.graph_def.node.extend(
            [
                handle("w", [2]),
                read_of("read", "w"),
                node("y", "Neg", "read", T=FLOAT),
                node(f"only-{len(tags)}", "Neg", "read", T=FLOAT),
            ]
        )
        meta_graph.meta_info_def.tags.extend(tags)
        for name, output in (("serving_default", "y:0"), ("other", f"only-{len(tags)}:0")):
            meta_graph.signature_def[name].outputs["out"].name = output
    (path / "saved_model.pb").write_bytes(whole.SerializeToString())
    return path


def names_in(path):
    return [each.name for each in GraphDef.FromString(path.read_bytes()).node]


def test_a_checkpoint_and_its_meta_graph_become_one_file(ckptd, saved, tmp_path):
    output = tmp_path / "frozen.pb"

    ended = ckptd("freeze", saved, "--output", output, "add")

    assert ended.status == 0
    assert names_in(output) == ["x", "w", "w/read", "add"]
    np.testing.assert_array_equal(constants_of(GraphDef.FromString(output.read_bytes()))["w"], W)
    first, *rest = ended.out.splitlines()
    assert first == (
        f"{output}: {output.stat().st_size} B; 1 variable (8 B) is a constant now; "
        "4 nodes of 10 left"
    )
    assert [line.split() for line in rest] == [
        ["input", "x:0", "float32", "[2]"],
        ["output", "add:0", "float32", "[2]"],
    ]
    assert "tf.compat.v1.import_graph_def(graph_def, name='')" in ended.err
    assert str(output) in ended.err


def test_the_json_is_as_its_schema_says(ckptd, saved, tmp_path, valid):
    output = tmp_path / "frozen.pb"

    document = ckptd("freeze", saved, "--output", output, "add:0", "--json").document

    valid(document)
    assert document["path"] == str(output)
    assert document["bytes"] == output.stat().st_size
    assert document["nodes"] == 4
    assert document["variables"] == [{"tensor": "w", "dtype": "float32", "shape": [2], "bytes": 8}]
    assert document["inputs"] == [{"tensor": "x:0", "dtype": "float32", "shape": [2]}]
    assert document["outputs"] == [{"tensor": "add:0", "dtype": "float32", "shape": [2]}]


def test_strings_count_by_their_bytes(ckptd, tmp_path):
    write_checkpoint(tmp_path / "m", w=np.array([b"twelve bytes", b""], object))
    strings = meta_graph_of(*reference("w", [2], STRING), restore="")
    (tmp_path / "m.meta").write_bytes(strings.SerializeToString())

    output = tmp_path / "frozen.pb"
    document = ckptd("freeze", tmp_path / "m", "--output", output, "w/read", "--json").document

    assert document["variables"] == [{"tensor": "w", "dtype": "string", "shape": [2], "bytes": 12}]


def test_a_checkpoint_whose_shapes_are_others_is_named(ckptd, saved, tmp_path):
    parts = meta_graph_of(*reference("w", [2]), *restoring([("w", "w", "9 7,2")]))
    saved.with_name("m-1.meta").write_bytes(parts.SerializeToString())

    ended = ckptd("freeze", saved, "--output", tmp_path / "frozen.pb", "w/read")

    assert ended.status == 1
    assert "restores a part of [9] from tensor 'w'; in the checkpoint it is [2]" in ended.err


def test_the_same_input_gives_the_same_bytes(ckptd, saved, tmp_path):
    for name in ("a.pb", "b.pb"):
        ckptd("freeze", saved, "--output", tmp_path / name, "add")

    assert (tmp_path / "a.pb").read_bytes() == (tmp_path / "b.pb").read_bytes()


def test_a_graph_from_elsewhere(ckptd, saved, tmp_path):
    elsewhere = tmp_path / "other.meta"
    elsewhere.write_bytes(graph("renamed").SerializeToString())
    output = tmp_path / "frozen.pb"

    ckptd("freeze", saved, "--meta-graph", elsewhere, "--output", output, "add")

    assert names_in(output) == ["x", "renamed", "renamed/read", "add"]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ((), "y"),
        (("--signature", "other"), "only-1"),
        (("only-1:0",), "only-1"),
        (("--tag", "gpu", "--tag", "serve", "--signature", "other"), "only-2"),
    ],
)
def test_a_saved_model(ckptd, model, tmp_path, options, kept):
    output = tmp_path / "frozen.pb"

    ended = ckptd("freeze", model, "--output", output, *options)

    assert ended.status == 0, ended.err
    assert names_in(output) == ["w", "read", kept]


def test_a_saved_model_without_variables(ckptd, model, tmp_path):
    for path in (model / "variables").iterdir():
        path.unlink()
    output = tmp_path / "frozen.pb"

    ended = ckptd("freeze", model, "--output", output)

    assert ended.status == 1
    assert "variable 'w': the SavedModel has no variables" in ended.err
    assert not output.exists()


def test_an_existing_file_is_replaced_only_by_force(ckptd, saved, tmp_path):
    output = tmp_path / "frozen.pb"
    output.write_text("precious")

    ended = ckptd("freeze", saved, "--output", output, "add")

    assert ended.status == 1
    assert "--force" in ended.err
    assert output.read_text() == "precious"
    assert ckptd("freeze", saved, "--output", output, "add", "--force").status == 0
    assert names_in(output)[-1] == "add"


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("ad",), 1, "the graph has no operation 'ad'; did you mean 'add'?"),
        (("add:3",), 1, "no tensor 'add:3'"),
        ((), 2, "name the NODEs that are to be computed"),
        (("--signature", "serve"), 1, "has no signature 'serve' (it has: none)"),
        (("add", "--signature", "serve"), 2, "NODEs or --signature, not both"),
        (("add", "--tag", "serve"), 2, "--tag chooses among the graphs of a SavedModel"),
        (("add", "--meta-graph", "/no/such.meta"), 1, "/no/such.meta"),
    ],
)
def test_what_cannot_be_done_is_told_and_leaves_nothing(
    ckptd, saved, tmp_path, options, status, message
):
    ended = ckptd("freeze", saved, "--output", tmp_path / "frozen.pb", *options)

    assert (ended.status, ended.out) == (status, "")
    assert message in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_graphs_of_a_saved_model_that_are_not_there_are_told(ckptd, model, tmp_path):
    ended = ckptd("freeze", model, "--output", tmp_path / "frozen.pb", "--tag", "tpu")

    assert ended.status == 2
    assert "the tags tpu; its graphs have: serve; gpu, serve" in ended.err


def test_a_checkpoint_without_a_graph_says_how_to_name_one(ckptd, saved, tmp_path):
    saved.with_name("m-1.meta").unlink()

    ended = ckptd("freeze", saved, "--output", tmp_path / "frozen.pb", "add")

    assert ended.status == 1
    assert "no meta graph beside it; --meta-graph FILE names one" in ended.err


def test_a_damaged_graph_is_told_with_its_file(ckptd, saved, tmp_path):
    saved.with_name("m-1.meta").write_bytes(b"\xff\xff")

    ended = ckptd("freeze", saved, "--output", tmp_path / "frozen.pb", "add")

    assert ended.status == 1
    assert "m-1.meta" in ended.err


def test_damaged_weights_are_not_frozen(ckptd, saved, tmp_path):
    data = saved.with_name("m-1.data-00000-of-00001")
    data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])

    ended = ckptd("freeze", saved, "--output", tmp_path / "frozen.pb", "add")

    assert (ended.status, ended.out) == (1, "")
    assert "tensor 'w' at byte 0: checksum of its data does not match" in ended.err
    assert not (tmp_path / "frozen.pb").exists()


def test_a_directory_is_never_the_output(ckptd, saved, tmp_path):
    ended = ckptd("freeze", saved, "--output", tmp_path, "add", "--force")

    assert ended.status == 1
    assert "it is a directory" in ended.err


@pytest.mark.parametrize("name", ["frozen.pbtxt", "frozen.json"])
def test_a_name_that_promises_text_is_refused(ckptd, saved, tmp_path, name):
    ended = ckptd("freeze", saved, "--output", tmp_path / name, "add")

    assert ended.status == 2
    assert "a frozen graph is binary" in ended.err


def test_no_such_checkpoint(ckptd, tmp_path):
    ended = ckptd("freeze", tmp_path / "m-1", "--output", tmp_path / "frozen.pb", "add")

    assert ended.status == 13
