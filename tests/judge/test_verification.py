"""What TensorFlow saves is whole, and TensorFlow refuses what ckptd calls damaged."""

from typing import Any

import numpy as np
import pytest

from ckptd.checkpoints.inventory import take_inventory
from ckptd.keeper.inspector import DirectoryInspector
from ckptd.keeper.verification import verify_checkpoint
from ckptd.storage.disk import open_model_directory

pytestmark = pytest.mark.tensorflow

TENSORS: dict[str, Any] = {
    "b": np.arange(6, dtype=np.float64).reshape(2, 3),
    "c": np.array([1 + 2j], np.complex64),
    "empty": np.zeros([0, 3], np.float32),
    "flag": np.array(True),
    "text": np.array([b"hello", b"", b"z" * 1000], object),
}


def verified(path, name="m-1"):
    directory = open_model_directory(str(path))
    try:
        found = take_inventory(directory.list(), DirectoryInspector(directory), named=[name])
        return verify_checkpoint(found.by_name()[name], directory.read_through, meta_graph=True)
    finally:
        directory.close()


def save(tf, path, *, version, sharded):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        for name, value in TENSORS.items():
            v1.get_variable(name, initializer=value)
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(write_version=version, sharded=sharded)
        saver.save(session, str(path / "m-1"))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("sharded", [False, True])
def test_what_a_saver_saves_is_whole(tf, tmp_path, version, sharded):
    save(tf, tmp_path, version=version, sharded=sharded)

    found = verified(tmp_path)

    assert (found.damages, found.graph_damage, found.tensors) == ((), None, len(TENSORS))


def test_a_partitioned_variable_is_whole(tf, tmp_path):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        cut = v1.fixed_size_partitioner(3)
        v1.get_variable("w", [7, 7], partitioner=cut)
        session.run(v1.global_variables_initializer())
        v1.train.Saver(sharded=True).save(session, str(tmp_path / "m-1"))

    assert (verified(tmp_path).damages, verified(tmp_path).tensors) == ((), 1)


def test_variants_are_whole_until_a_bit_of_them_flips(tf, tmp_path):
    lists = tf.raw_ops.TensorListFromTensor(tensor=np.eye(3, dtype=np.float32), element_shape=[3])
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "m-1"), tensor_names=["v"], shape_and_slices=[""], tensors=[lists]
    )
    assert verified(tmp_path).damages == ()

    data = tmp_path / "m-1.data-00000-of-00001"
    whole = data.read_bytes()
    for at in range(len(whole)):
        data.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert [damage.tensor for damage in verified(tmp_path).damages] == ["v"]


def test_tensorflow_refuses_just_the_tensor_that_is_called_damaged(tf, tmp_path):
    save(tf, tmp_path, version=2, sharded=False)
    data = tmp_path / "m-1.data-00000-of-00001"
    whole = data.read_bytes()
    called = set()
    for at in [*range(0, 80, 4), *range(80, len(whole), 97)]:
        data.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        (damage,) = verified(tmp_path).damages
        called.add(damage.tensor)

        reader = tf.train.load_checkpoint(str(tmp_path / "m-1"))
        for other in TENSORS.keys() - {damage.tensor}:
            reader.get_tensor(other)
        with pytest.raises(Exception, match=r"[Cc]hecksum|sum of lengths|Read less"):
            reader.get_tensor(damage.tensor)
    assert called == TENSORS.keys() - {"empty"}
