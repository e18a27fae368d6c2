"""What a program finds that reads a model directory with TensorFlow."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from judge.programs import Values, checkpoint_name, two_devices

from ckptd.checkpoints.inventory import OWN_DIRECTORY


class Program(Protocol):
    """Who has saved what is read."""

    path: Path
    saved: dict[str, Values]
    latest_filename: str | None
    has_graph: bool


def files_in(path: Path) -> set[str]:
    """Return the names in a model directory, less ckptd's own."""
    return set(os.listdir(path)) - {OWN_DIRECTORY}


def files_of(name: str, path: Path) -> set[str]:
    """Return the files there of one checkpoint, in either format."""
    return {
        file
        for file in files_in(path)
        if file == name or file.startswith((f"{name}.", f"{name}-0"))
    }


def there(program: Program) -> list[str]:
    """Return which of the program's checkpoints are there, by what makes one exist, in its order."""
    v2 = [f"{name}.index" for name in program.saved]
    found = []
    for name, index in zip(program.saved, v2, strict=True):
        rest = files_of(name, program.path)
        if index in rest or name in rest or any(file.startswith(f"{name}-0") for file in rest):
            found.append(name)
    return found


def listed(tf: Any, program: Program) -> list[str]:
    """Return the names that the state file lists, [] where there is no such file."""
    state = tf.train.get_checkpoint_state(str(program.path), program.latest_filename)
    return [] if state is None else [checkpoint_name(p) for p in state.all_model_checkpoint_paths]


def unsettled(
    tf: Any, program: Program, survivors: Sequence[str], in_state: Sequence[str]
) -> list[str]:
    """Say what is not yet as it should be at rest; [] if nothing is."""
    wrong = []
    if (found := there(program)) != list(survivors):
        wrong.append(f"there are {found}, not {list(survivors)}")
    if (found := listed(tf, program)) != list(in_state):
        wrong.append(f"the state file lists {found}, not {list(in_state)}")
    files = files_in(program.path)
    states = {"checkpoint", program.latest_filename or "checkpoint"}
    theirs = set().union(*(files_of(name, program.path) for name in survivors))
    if left := files - theirs - states:
        wrong.append(f"there are files of nothing: {sorted(left)}")
    if program.has_graph and not any(file.endswith(".meta") for file in files):
        wrong.append("no meta graph is left")
    stored = program.path / OWN_DIRECTORY / "meta_graphs"
    if program.has_graph and not (stored.is_dir() and os.listdir(stored)):
        wrong.append("ckptd has not seen the meta graph yet")
    return wrong


def check_latest(tf: Any, program: Program, name: str) -> None:
    """Check that the newest is named, there, and what was saved: at any moment, at rest or not."""
    latest = tf.train.latest_checkpoint(str(program.path), program.latest_filename)

    assert latest is not None
    assert checkpoint_name(latest) == name
    check_values(tf, latest, program.saved[name])


def check_reader(tf: Any, program: Program) -> None:
    """Check at rest all that TensorFlow offers to read: listed, there, or by its meta graph."""
    state = tf.train.get_checkpoint_state(str(program.path), program.latest_filename)
    for path in [] if state is None else state.all_model_checkpoint_paths:
        check_values(tf, path, program.saved[checkpoint_name(path)])
    prefixes = {name: prefix_of(program.path, name) for name in there(program)}
    for name, prefix in prefixes.items():
        check_values(tf, prefix, program.saved[name])
    for meta in sorted(program.path.glob("*.meta")):
        for name, prefix in list(prefixes.items())[-1:]:
            assert_same(imported_sum(tf, str(meta), prefix), sum(program.saved[name].values()))
        break


def prefix_of(path: Path, name: str) -> str:
    """Return what TensorFlow restores from: a prefix, or V1's pattern over shards."""
    of = {file[-5:] for file in files_of(name, path) if file.startswith(f"{name}-0")}
    return str(path / name) + "".join(f"-?????-of-{count}" for count in of)


def check_values(tf: Any, path: str, saved: Values) -> None:
    """Check that a checkpoint holds what was saved in it."""
    reader = tf.train.load_checkpoint(path)
    for key, value in saved.items():
        assert_same(reader.get_tensor(key), value)


def imported_sum(tf: Any, meta: str, prefix: str) -> Any:
    """Return `sum` of a graph imported and restored, with no graph built by hand."""
    with tf.Graph().as_default() as graph, two_devices(tf, graph) as session:
        saver = tf.compat.v1.train.import_meta_graph(meta)
        saver.restore(session, prefix)
        return session.run("sum:0")


def assert_same(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(found, expected)
