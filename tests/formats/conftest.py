"""TensorFlow as the judge of formats."""

import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tf() -> Any:
    """TensorFlow itself, imported late: it takes seconds, and only some tests need it."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
    return tf


@pytest.fixture
def saver(tf: Any) -> Callable[..., str]:
    """Save tensors with tf.compat.v1.train.Saver; returns the prefix."""

    def save(tensors: Mapping[str, Any], prefix: str, *, version: int = 2, **options: Any) -> str:
        v1 = tf.compat.v1
        with tf.Graph().as_default(), v1.Session() as session:
            for name, value in tensors.items():
                v1.get_variable(name, initializer=value)
            session.run(v1.global_variables_initializer())
            saver = v1.train.Saver(write_version=version, **options)
            return str(saver.save(session, prefix, write_meta_graph=False))

    return save
