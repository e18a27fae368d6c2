"""The programs that people write around TensorFlow's ways to save, made small.

Each has two variables, `w` and `b`, that say at which step they were saved, and remembers what it
has saved under which name.
"""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

Values = Mapping[str, Any]


def values_at(step: int) -> dict[str, Any]:
    """Return what the variables hold at a step."""
    return {"w": np.full(4, float(step), np.float32), "b": np.arange(4, dtype=np.float32) * step}


class SaverProgram:
    """Saves by `tf.compat.v1.train.Saver`; `sum` adds the two variables.

    Each variable has a device of its own, so that ``sharded=True`` makes two shards. Saves up to
    step `graph_until` write a meta graph.
    """

    def __init__(
        self,
        tf: Any,
        path: Path,
        *,
        name: str = "m",
        latest_filename: str | None = None,
        with_step: bool = True,
        graph_until: float = float("inf"),
        save_debug_info: bool = False,
        **options: Any,
    ) -> None:
        self.path = path
        self.saved: dict[str, Values] = {}
        self.latest_filename = latest_filename
        self.has_graph = False
        self._tf = tf
        self._name = name
        self._with_step = with_step
        self._graph_until = graph_until
        self._save_debug_info = save_debug_info
        self._open = ExitStack()
        v1 = tf.compat.v1
        with tf.Graph().as_default() as graph:
            variables = {}
            for device, (key, value) in enumerate(values_at(0).items()):
                with tf.device(f"/cpu:{device}"):
                    variables[key] = v1.get_variable(key, initializer=value)
            tf.add(variables["w"], variables["b"], name="sum")
            self._set = [
                (v1.placeholder(tf.float32, [4], f"new_{key}"), variable, key)
                for key, variable in variables.items()
            ]
            self._assign = [v1.assign(variable, new) for new, variable, _ in self._set]
            self.saver = v1.train.Saver(**options)
            self._session = two_devices(tf, graph)
            self._open.callback(self._session.close)
            self._session.run(v1.global_variables_initializer())

    def __enter__(self) -> "SaverProgram":  # noqa: PYI034 (Self is in typing from Python 3.11 on)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()

    def save(self, step: int) -> str:
        """Save, and return the checkpoint's name."""
        values = values_at(step)
        with_graph = step <= self._graph_until
        with self._session.graph.as_default():
            self._session.run(self._assign, {new: values[key] for new, _, key in self._set})
            path = self.saver.save(
                self._session,
                str(self.path / self._name),
                global_step=step if self._with_step else None,
                latest_filename=self.latest_filename,
                write_meta_graph=with_graph,
                save_debug_info=self._save_debug_info,
            )
        self.has_graph |= with_graph
        name = checkpoint_name(path)
        self.saved[name] = values
        return name

    def restore(self, path: str) -> dict[str, Any]:
        """Restore the variables, without initializing them, and return what they hold."""
        with self._session.graph.as_default():
            self.saver.restore(self._session, path)
            return {key: self._session.run(variable) for _, variable, key in self._set}


class CheckpointProgram:
    """Saves by `tf.train.Checkpoint`, its `save` or its `write`."""

    latest_filename: str | None = None
    has_graph = False

    def __init__(self, tf: Any, path: Path, *, write: bool = False) -> None:
        self.path = path
        self.saved: dict[str, Values] = {}
        self._write = write
        self.variables = {key: tf.Variable(value) for key, value in values_at(0).items()}
        self.checkpoint = tf.train.Checkpoint(**self.variables)

    def __enter__(self) -> "CheckpointProgram":  # noqa: PYI034 (Self is in typing from Python 3.11 on)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def save(self, step: int) -> str:
        """Save, and return the checkpoint's name."""
        values = values_at(step)
        for key, variable in self.variables.items():
            variable.assign(values[key])
        name = checkpoint_name(self._save(step))
        self.saved[name] = {f"{key}/.ATTRIBUTES/VARIABLE_VALUE": v for key, v in values.items()}
        return name

    def _save(self, step: int) -> str:
        if self._write:
            return str(self.checkpoint.write(str(self.path / f"m-{step}")))
        return str(self.checkpoint.save(str(self.path / "m")))


class ManagerProgram(CheckpointProgram):
    """Saves by `tf.train.CheckpointManager`."""

    def __init__(self, tf: Any, path: Path, *, max_to_keep: int | None, **options: Any) -> None:
        super().__init__(tf, path)
        self._tf = tf
        self.restart(max_to_keep=max_to_keep, **options)

    def restart(self, *, max_to_keep: int | None, **options: Any) -> None:
        """Go on with a new manager, which knows what the state file says."""
        self.manager = self._tf.train.CheckpointManager(
            self.checkpoint, str(self.path), max_to_keep, checkpoint_name="m", **options
        )

    def _save(self, step: int) -> str:
        return str(self.manager.save(checkpoint_number=step))


def two_devices(tf: Any, graph: Any) -> Any:
    """Return a session that has two devices."""
    config = tf.compat.v1.ConfigProto(device_count={"CPU": 2})
    return tf.compat.v1.Session(graph=graph, config=config)


def checkpoint_name(path: str) -> str:
    """Return the name of the checkpoint at a path that TensorFlow gives, V1's pattern included."""
    return os.path.basename(path).partition("-?????-of-")[0]
