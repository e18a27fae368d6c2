"""Meta graphs read and written where TensorFlow reads and writes them."""

import pytest

import ckptd_client.graphs as client
from ckptd.errors import (
    CorruptGraphError,
    NoSuchDirectoryError,
    NoSuchTensorError,
    NotFoundError,
    StorageError,
)
from ckptd.formats.meta_graph import MetaGraph, Node, encode_meta_graph, read_meta_graph

NODES = [Node("w", "NoOp"), Node("save", "NoOp", ("^w",))]


def test_what_is_exported_is_imported(tmp_path):
    meta_graph = read_meta_graph(encode_meta_graph(NODES))

    for name, as_text in (("m-1.meta", False), ("m-2.meta", True)):
        client.export_meta_graph(tmp_path / name, meta_graph, as_text=as_text)

        assert client.import_meta_graph(tmp_path / name).message == meta_graph.message
        assert client.import_meta_graph(str(tmp_path / name)).message == meta_graph.message
    assert (tmp_path / "m-1.meta").read_bytes() == encode_meta_graph(NODES)
    assert (tmp_path / "m-2.meta").read_text().startswith("graph_def {\n  node {\n    name: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m-1.meta", "m-2.meta"]


def test_a_prefix_is_as_good_as_the_file(tmp_path, monkeypatch):
    (tmp_path / "m-1.meta").write_bytes(encode_meta_graph(NODES))
    (tmp_path / "m-1").write_bytes(b"a V1 checkpoint's data")
    (tmp_path / "graph.txt").write_bytes(encode_meta_graph(NODES))
    monkeypatch.chdir(tmp_path)

    for path in ("m-1", "m-1.meta", "./m-1", "graph.txt"):
        assert [node.name for node in client.import_meta_graph(path).nodes] == ["w", "save"]


def test_an_existing_file_is_replaced_and_a_link_to_it_read(tmp_path):
    path = tmp_path / "m.meta"
    path.write_bytes(b"old")
    (tmp_path / "link.meta").symlink_to(path)

    client.export_meta_graph(path, read_meta_graph(encode_meta_graph(NODES)))

    assert len(client.import_meta_graph(tmp_path / "link.meta").nodes) == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "m.meta: not a meta graph: it is empty"),
        (b"\x08\x01\x12\x00", "m.meta: not a meta graph, but a SavedModel"),
        (b"graph_def {\n  node { label: 1 }\n}", "m.meta: .*line 2, column 10: .*label"),
    ],
)
def test_an_error_names_the_file_and_what_is_wrong(tmp_path, content, says):
    (tmp_path / "m.meta").write_bytes(content)

    with pytest.raises(CorruptGraphError, match=says):
        client.import_meta_graph(tmp_path / "m.meta")


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(NotFoundError, match=r"none\.meta"):
        client.import_meta_graph(tmp_path / "none.meta")
    with pytest.raises(StorageError):
        client.import_meta_graph(tmp_path)
    with pytest.raises(NoSuchDirectoryError):
        client.export_meta_graph(tmp_path / "none" / "m.meta", MetaGraph(read_message()))


def read_message():
    return read_meta_graph(encode_meta_graph(NODES)).message


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_s4_and_s18_a_graph_is_restored_from_what_we_exported(tf, tmp_path):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        w1, w2 = v1.placeholder(tf.float32, name="w1"), v1.placeholder(tf.float32, name="w2")
        bias = v1.Variable(2.0, name="bias")
        tf.multiply(tf.add(w1, w2), bias, name="op_to_restore")
        session.run(v1.global_variables_initializer())
        prefix = v1.train.Saver().save(session, str(tmp_path / "my-model"), global_step=1000)

    meta_graph = client.import_meta_graph(f"{prefix}.meta")
    tensor = meta_graph.get_tensor_by_name("op_to_restore:0")
    assert tensor.data_type is not None
    assert (tensor.op, tensor.data_type.name, tensor.shape) == ("Mul", "float32", None)
    assert [each.name for each in meta_graph.saved_tensors] == ["bias"]
    with pytest.raises(NoSuchTensorError, match="did you mean 'op_to_restore:0'"):
        meta_graph.get_tensor_by_name("op_to_restore")

    for as_text in (False, True):
        ours = str(tmp_path / f"ours-{as_text}.meta")
        client.export_meta_graph(ours, meta_graph, as_text=as_text)
        with tf.Graph().as_default() as graph, v1.Session() as session:
            v1.train.import_meta_graph(ours).restore(session, prefix)
            result = graph.get_tensor_by_name("op_to_restore:0")
            twice = tf.multiply(result, 2)
            assert session.run([result, twice], {"w1:0": 13, "w2:0": 17}) == [60.0, 120.0]
