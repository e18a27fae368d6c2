"""What a graph says of its tensors is never other than what TensorFlow finds when it imports them."""

from contextlib import suppress
from itertools import product
from typing import Any

import pytest

from ckptd.formats import graph_shapes
from ckptd.formats.graph_file import read_graph
from ckptd.formats.meta_graph import read_meta_graph
from ckptd.formats.op_outputs import usual_ops

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]


def sizes_of(shape):
    return None if shape.rank is None else tuple(shape.as_list())


def assert_agrees(ours, theirs):
    """Whatever we state, TensorFlow states."""
    assert ours.data_type is None or ours.data_type.name == theirs.dtype.base_dtype.name, ours
    sizes = sizes_of(theirs.shape)
    if ours.shape is not None:
        assert sizes is not None, ours
        assert len(ours.shape) == len(sizes), (ours, sizes)
        assert all(a in {None, b} for a, b in zip(ours.shape, sizes, strict=True)), (ours, sizes)


def judged(tf, graph, op_defs=True, shapes=False):
    """Return the shapes of every tensor, ours and theirs, after checking that they agree."""
    v1 = tf.compat.v1
    graph_def = graph.as_graph_def(add_shapes=shapes)
    read: Any
    if op_defs:
        with graph.as_default():
            meta = v1.train.export_meta_graph(graph_def=graph_def, graph=graph)
        read = read_meta_graph(meta.SerializeToString())
    else:
        read = read_graph(graph_def.SerializeToString())
    found = {}
    with tf.Graph().as_default() as imported:
        tf.import_graph_def(graph_def, name="")
        for op in imported.get_operations():
            for theirs in op.outputs:
                ours = read.get_tensor_by_name(theirs.name)
                assert (ours.name, ours.node, ours.op) == (theirs.name, op.name, op.type)
                assert_agrees(ours, theirs)
                found[theirs.name] = (ours.shape, sizes_of(theirs.shape))
    return found


def convolutional(tf):
    v1 = tf.compat.v1
    image = v1.placeholder(tf.float32, [None, 28, 28, 3], name="image")
    label = v1.placeholder(tf.int64, [None], name="label")
    padded = tf.pad(image, [[0, 0], [3, 3], [2, 1], [0, 0]])
    kernel = v1.get_variable("kernel", [5, 5, 3, 8], use_resource=False)
    hidden = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(padded, kernel, 2, "VALID"), tf.zeros([8])))
    hidden = v1.nn.fused_batch_norm(hidden, tf.ones([8]), tf.zeros([8]))[0]
    hidden = tf.nn.max_pool2d(hidden, 3, 2, "SAME")
    hidden = tf.nn.depthwise_conv2d(hidden, tf.zeros([3, 3, 8, 2]), [1, 1, 1, 1], "SAME")
    hidden = tf.nn.avg_pool2d(hidden, 2, 2, "VALID")
    flat = tf.reshape(hidden, [tf.shape(hidden)[0], -1])
    logits = tf.matmul(flat, tf.zeros([3 * 4 * 16, 10]))
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits)
    right = tf.equal(tf.argmax(logits, 1), label)
    tf.reduce_mean(tf.cast(right, tf.float32), name="accuracy")
    v1.train.AdamOptimizer().minimize(tf.reduce_mean(loss))
    tf.one_hot(label, 10)
    tf.nn.top_k(logits, 3)


def recurrent(tf):
    v1 = tf.compat.v1
    words = v1.placeholder(tf.int32, [4, None], name="words")
    table = v1.get_variable("table", [100, 16], use_resource=True)
    embedded = tf.nn.embedding_lookup(table, words)
    state = tf.zeros([4, 16])
    for part in tf.split(embedded[:, :6], 3, axis=1):
        both = tf.concat([tf.reduce_sum(part, 1), state], 1)
        state = tf.tanh(tf.matmul(both, tf.ones([32, 16])))
    tf.while_loop(
        lambda i, _: i < 3, lambda i, x: (i + 1, x * 2), [0, tf.ones([4, 2])], back_prop=False
    )
    tf.cond(tf.reduce_any(words > 3), lambda: tf.ones([2]), lambda: tf.zeros([3]))
    tf.transpose(embedded, [1, 0, 2], name="by_time")
    tf.gather(embedded, [0, 1], axis=2)


def reshaping(tf):
    v1 = tf.compat.v1
    x = v1.placeholder(tf.float32, [None, 6, 4], name="x")
    any_rank = v1.placeholder(tf.float32, name="any_rank")
    known = tf.zeros([2, 3, 4])
    tf.reshape(x, [-1, 24])
    tf.reshape(known, [4, -1])
    tf.reshape(x, [tf.shape(x)[0], -1])
    tf.reshape(known, v1.placeholder(tf.int32, [2]))
    tf.reshape(any_rank, [-1])
    tf.expand_dims(x, -1)
    tf.squeeze(tf.zeros([1, 3, 1]))
    tf.squeeze(tf.zeros([1, 3, 1]), [2])
    tf.squeeze(v1.placeholder(tf.float32, [None, 1]))
    tf.stack([known, known], axis=2)
    tf.unstack(x, axis=1)
    tf.tile(x, [2, 1, 3])
    tf.slice(x, [0, 1, 0], [-1, 2, -1])
    tf.fill([3, 2], 1.0)
    tf.random.uniform([tf.shape(x)[0], 5])
    tf.concat([x, tf.zeros([1, 6, 4])], 0)
    tf.concat([x, tf.zeros([1, 6, 5])], 2)
    tf.concat([x, any_rank], 1)
    tf.transpose(x)
    tf.transpose(x, v1.placeholder(tf.int32, [3]))
    tf.transpose(any_rank, [2, 0, 1])
    tf.transpose(any_rank, [0])
    tf.argmax(x, -1)
    tf.argmax(x, v1.placeholder(tf.int32, []))
    tf.where(known > 0, known, known)
    v1.where(v1.placeholder(tf.bool, [2]), known, known)
    tf.image.resize(tf.zeros([1, 8, 8, 3]), [16, 24])
    tf.add_n([x, v1.placeholder(tf.float32, [7, None, None])])
    tf.matmul(any_rank, tf.zeros([3, 4]))
    tf.matmul(x, tf.zeros([4, 5]))
    tf.nn.bias_add(any_rank, tf.zeros([3]))
    tf.nn.bias_add(v1.placeholder(tf.float32, [None, None]), tf.zeros([3]))
    tf.matmul(x, x, transpose_b=True)
    tf.identity_n([x, known])
    tf.broadcast_to(known, [5, 2, 3, 4])
    tf.range(5)
    tf.gather(x, v1.placeholder(tf.int32, [None, 2]), axis=1, batch_dims=0)
    tf.gather(x, v1.placeholder(tf.int32, [None, 2]), axis=1, batch_dims=1)
    v1.placeholder_with_default(known, [None, 3, None])
    v1.placeholder(tf.float32, [])
    tf.nn.softmax_cross_entropy_with_logits(tf.zeros([2, 3]), tf.zeros([2, 3]))
    tf.nn.softmax_cross_entropy_with_logits(tf.zeros([1, 3]), tf.zeros([2, 3]))
    tf.cumsum(x, 1)
    tf.equal(x, 3.0)


def slicing(tf):
    v1 = tf.compat.v1
    x = v1.placeholder(tf.float32, [5, None, 7, 3], name="x")
    begin = v1.placeholder(tf.int32, [], name="begin")
    for part in (
        x[1],
        x[1:3],
        x[-1:],
        x[::-2],
        x[4:1:-1],
        x[..., 0],
        x[..., 1:, :],
        x[:, tf.newaxis],
        x[tf.newaxis, ..., tf.newaxis, 2],
        x[0, ..., 0],
        x[begin],
        x[begin:],
        x[:, :, begin:5],
        x[9:],
        tf.shape(x)[1:3],
        tf.shape(x)[::2],
        tf.zeros(tf.shape(x)[2:]),
        tf.zeros(tf.shape(x)[1:-1]),
        tf.zeros([tf.shape(x)[-1], tf.shape(x)[1]]),
        *(
            tf.zeros(tf.shape(x)[bounds])
            for bounds in (
                slice(begin, None),
                slice(None, begin),
                slice(begin, 2),
                slice(1, begin),
                slice(None, None, begin),
            )
        ),
    ):
        tf.identity(part)


def broadcasting(tf):
    v1 = tf.compat.v1
    shapes = [
        [],
        [1],
        [3],
        [None],
        [2, 1],
        [2, 3],
        [None, 1],
        [None, 3],
        [0, 3],
        [None, None],
        None,
    ]
    inputs = [v1.placeholder(tf.float32, shape) for shape in shapes]
    for one, other in product(inputs, inputs):
        with suppress(ValueError):  # 0 and 2 do not go together
            tf.where(one > other, one + other, tf.zeros([]))


def reducing(tf):
    v1 = tf.compat.v1
    inputs = [v1.placeholder(tf.float32, shape) for shape in ([2, 3, 4], [None, 3, None], None)]
    axis = v1.placeholder(tf.int32, [1])
    for each, keep, axes in product(inputs, [False, True], [0, -1, [0, 2], [], axis]):
        tf.reduce_sum(each, axes, keepdims=keep)


def channels_first(tf):
    v1 = tf.compat.v1
    paddings: list[Any] = ["SAME", "VALID", [(0, 0), (0, 0), (1, 1), (2, 2)]]
    for sizes, padding, stride in product(([9, 8], [None, 8], [1, 1]), paddings, (1, 2)):
        image = v1.placeholder(tf.float32, [None, 4, *sizes])  # type: ignore[misc]
        try:
            tf.nn.conv2d(
                image, tf.zeros([3, 2, 4, 6]), [1, 1, stride, stride], padding, data_format="NCHW"
            )
        except ValueError:
            continue  # a window larger than the image
        if isinstance(padding, str):
            tf.nn.max_pool2d(image, [1, 1, 2, 2], [1, 1, stride, stride], padding, "NCHW")
    image = v1.placeholder(tf.float32, [2, 20, 21, 4])
    for padding in ("SAME", "VALID"):
        tf.nn.conv2d(image, tf.zeros([3, 3, 4, 6]), 1, padding, dilations=[1, 2, 3, 1])
    tf.nn.conv2d(v1.placeholder(tf.float32), tf.zeros([3, 3, 4, 6]), 1, "SAME")


def variables(tf):
    v1 = tf.compat.v1
    ref = v1.get_variable("ref", [2, 3], use_resource=False)
    resource = v1.get_variable("resource", [4, 5], use_resource=True)
    v1.assign(ref, tf.zeros([2, 3]))
    v1.assign(ref, v1.placeholder(tf.float32))
    v1.assign(ref, tf.zeros([7]), validate_shape=False)
    v1.assign_add(ref, tf.zeros([2, 3]))
    resource.assign_add(tf.zeros([4, 5]))
    tf.shape(resource)
    resource.sparse_read([1, 2])
    v1.get_variable("loose", initializer=tf.zeros([3]), validate_shape=False, use_resource=False)
    v1.is_variable_initialized(ref)


GRAPHS = [
    convolutional, recurrent, reshaping, slicing, broadcasting, reducing, channels_first, variables,
]  # fmt: skip


@pytest.mark.parametrize("build", GRAPHS, ids=lambda build: build.__name__)
def test_every_tensor_has_the_type_and_shape_that_tensorflow_gives_it(tf, build):
    with tf.Graph().as_default() as graph:
        build(tf)

    found = judged(tf, graph)

    stated = sum(ours == theirs for ours, theirs in found.values())
    assert stated / len(found) > 0.8, {n: pair for n, pair in found.items() if pair[0] != pair[1]}


@pytest.mark.parametrize("build", GRAPHS[:2], ids=lambda build: build.__name__)
def test_a_bare_graph_says_as_much(tf, build):
    with tf.Graph().as_default() as graph:
        build(tf)

    judged(tf, graph, op_defs=False)
    found = judged(tf, graph, op_defs=False, shapes=True)
    assert [name for name, (ours, theirs) in found.items() if ours != theirs] == []


def test_the_usual_operations_are_tensorflows(tf):
    from tensorflow.python.framework import op_def_registry

    def outputs(op_def):
        defaults = {each.name: each.default_value.type for each in op_def.attr}
        return [
            (
                arg.type,
                arg.type_attr,
                arg.number_attr,
                arg.type_list_attr,
                defaults.get(arg.type_attr),
            )
            for arg in op_def.output_arg
        ]

    for name, ours in usual_ops().items():
        theirs = op_def_registry.get(name)
        for mine, other in zip(outputs(ours), outputs(theirs), strict=True):
            assert mine[:4] == other[:4], name
            assert (mine[4] or 0) == (other[4] or 0), name
    assert all(op_def_registry.get(name) is not None for name in graph_shapes._RULES)
