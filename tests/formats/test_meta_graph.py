"""A meta graph written without TensorFlow is one that TensorFlow imports."""

import pytest

from ckptd.formats.meta_graph import Node, encode_meta_graph

NODES = [Node("layer/w", "NoOp"), Node("layer/b", "NoOp"), Node("save", "NoOp", ("^layer/w",))]


def test_equal_graphs_have_equal_bytes():
    assert encode_meta_graph(NODES) == encode_meta_graph(list(NODES))
    assert encode_meta_graph(NODES) != encode_meta_graph(NODES[:2])


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_tensorflow_imports_it(tmp_path):
    import tensorflow as tf

    path = tmp_path / "m-1.meta"
    path.write_bytes(encode_meta_graph(NODES))

    with tf.Graph().as_default() as graph:
        tf.compat.v1.train.import_meta_graph(str(path))

    assert [op.name for op in graph.get_operations()] == [node.name for node in NODES]
