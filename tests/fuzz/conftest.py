"""What a damaged file may cost, and TensorFlow's own files to damage."""

import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from judge.loading import load_tensorflow

_SECONDS: Final = 5.0
"""Of this thread's own time for one file of 64 KiB, on a slow host and with every allocation traced."""
_MEMORY: Final = 64 << 20
_MEMORY_PER_BYTE: Final = 64

Bounded = Callable[..., AbstractContextManager[None]]


@pytest.fixture(scope="session")
def bounded() -> Bounded:
    """Fail what takes too long, or too much memory, for a file of so many bytes."""

    @contextmanager
    def bound(size: int, *, seconds: float = _SECONDS, more_memory: int = 0) -> Iterator[None]:
        tracemalloc.start()
        begun = time.thread_time()
        try:
            yield
        finally:
            taken = time.thread_time() - begun
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert taken < seconds, f"{taken:.1f} s for {size:,} bytes"
        most = _MEMORY + _MEMORY_PER_BYTE * size + more_memory
        assert peak < most, f"{peak >> 20:,} MiB for {size:,} bytes"

    return bound


@pytest.fixture(scope="session")
def tensorflow_files(
    tmp_path_factory: pytest.TempPathFactory,
) -> Mapping[str, Sequence[bytes]]:
    """Return small files that TensorFlow wrote, by the target that reads them."""
    tf = load_tensorflow()
    folder = tmp_path_factory.mktemp("tensorflow")
    _save(tf, folder / "v2", version=2)
    _save(tf, folder / "v1", version=1)
    _save_model(tf, folder / "model")
    _save_objects(tf, folder / "objects")
    bundles = [
        Path(f"{prefix}.index").read_bytes() + Path(f"{prefix}.data-00000-of-00001").read_bytes()
        for prefix in (folder / "v2", folder / "objects-1", folder / "model/variables/variables")
    ]
    meta = (folder / "v2.meta").read_bytes()
    model = (folder / "model/saved_model.pb").read_bytes()
    return {
        "bundle": bundles,
        "verification": bundles,
        "v1": [(folder / "v1").read_bytes()],
        "meta_graph": [meta],
        "freezing": [meta],
        "saved_model": [model],
        "graph_file": [(folder / "graph.pb").read_bytes()],
        "state_file": [(folder / "checkpoint").read_bytes()],
    }


def _save(tf: Any, prefix: Path, *, version: int) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session() as session:
        w = v1.get_variable("w", initializer=[[1.0, 2.0], [3.0, 4.0]], use_resource=version == 2)
        v1.get_variable("names", initializer=tf.constant(["a", "bc"]))
        v1.get_variable("parts", [4, 2], partitioner=v1.fixed_size_partitioner(2))
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        tf.matmul(x, w, name="op_to_restore")
        session.run(v1.global_variables_initializer())
        v1.train.Saver(write_version=version).save(session, str(prefix))
        (prefix.parent / "graph.pb").write_bytes(graph.as_graph_def().SerializeToString())


def _save_model(tf: Any, folder: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("w", initializer=[[1.0], [2.0]], use_resource=True)
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        y = tf.matmul(x, w)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder), {"x": x}, {"y": y})


def _save_objects(tf: Any, prefix: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        w = v1.get_variable("w", initializer=[1.0, 2.0], use_resource=True)
        checkpoint = v1.train.Checkpoint(w=w)
        session.run(w.initializer)
        checkpoint.save(str(prefix), session=session)
