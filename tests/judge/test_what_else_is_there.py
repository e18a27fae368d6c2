"""Names that mislead TensorFlow, and files in a model directory that are nobody's checkpoint."""

import shutil
from functools import partial
from pathlib import Path

import pytest
from judge.programs import ManagerProgram, SaverProgram
from judge.reader import check_reader, check_values, listed, there, unsettled

import ckptd_client

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize("writer", [SaverProgram, ManagerProgram])
def test_a_path_that_is_a_pattern_to_tensorflow_is_kept_right(tf, kept, tmp_path, writer):
    run = kept("a [b] *? +c ü", max_to_keep=3)
    with writer(tf, run.path, max_to_keep=2) as program:
        for step in range(1, 7):
            name = program.save(step)
            assert ckptd_client.latest_checkpoint(run.path) == str(run.path / name)
            run.settle(partial(astray, program, list(program.saved)[-3:]))

            # TensorFlow takes the path for a pattern, which matches nothing.
            assert tf.train.latest_checkpoint(str(run.path)) is None
            assert listed(tf, program)[-1] == name
            assert ckptd_client.latest_checkpoint(run.path) == str(run.path / name)
        without = shutil.ignore_patterns(".ckptd")  # where the daemon may be emptying the trash
        copy = shutil.copytree(run.path, tmp_path / "copy", ignore=without)
        for survivor in there(program):
            check_values(tf, str(copy / survivor), program.saved[survivor])


def astray(program, survivors):
    return there(program) != survivors


@pytest.mark.parametrize("name", ["a+b c", "größe", "-dash"])
def test_other_unusual_names_are_kept_and_read(tf, kept, name):
    run = kept(name, max_to_keep=2)
    with SaverProgram(tf, run.path, name="mödel ckpt") as program:
        for step in (1, 2, 3, 4):
            program.save(step)
            survivors = list(program.saved)[-2:]
            run.settle(partial(unsettled, tf, program, survivors, survivors))
            check_reader(tf, program)


def test_an_exported_model_and_a_frozen_graph_are_not_touched(tf, kept):
    run = kept(max_to_keep=1)
    export, frozen = run.path / "m-1", run.path / "m-1.pb"
    write_exports(tf, export, frozen)
    (run.path / "m-2.npz").write_bytes(b"an array")
    (run.path / "events.out.tfevents.1700000000.host").write_bytes(b"events")
    before = everything(run.path)
    with SaverProgram(tf, run.path) as program:
        for step in range(1, 6):
            program.save(step)
            run.settle(lambda: listed(tf, program) != list(program.saved)[-1:])
            run.settle(lambda: indices(run.path) != [f"m-{len(program.saved)}.index"])

    after = everything(run.path)
    assert {name: after.get(name) for name in before} == before
    assert read_export(tf, export) == read_frozen(tf, frozen) == 5.0


def indices(path):
    return sorted(file.name for file in path.glob("*.index"))


def everything(path: Path) -> dict[str, tuple[object, ...]]:
    """Return each file below a directory, less ckptd's own: bytes, inode, times, mode."""
    found: dict[str, tuple[object, ...]] = {}
    for file in sorted(path.rglob("*")):
        if ".ckptd" in file.parts or not file.is_file():
            continue
        status = file.stat()
        content = (file.read_bytes(), status.st_ino, status.st_mtime_ns, status.st_mode)
        found[str(file.relative_to(path))] = content
    return found


def write_exports(tf, export: Path, frozen: Path) -> None:
    """Write a SavedModel and a frozen graph of a sum, 2 + 3."""
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session() as session:
        one = v1.get_variable("one", initializer=2.0)
        tf.add(one, v1.get_variable("other", initializer=3.0), name="add")
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(export))
        builder.add_meta_graph_and_variables(session, ["cpu_server_1"])
        builder.save()
        constants = v1.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), ["add"]
        )
    frozen.write_bytes(constants.SerializeToString())


def read_export(tf, export: Path) -> float:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.loader.load(session, ["cpu_server_1"], str(export))
        return float(session.run("add:0"))


def read_frozen(tf, frozen: Path) -> float:
    graph_def = tf.compat.v1.GraphDef.FromString(frozen.read_bytes())
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        (add,) = tf.import_graph_def(graph_def, return_elements=["add:0"])
        return float(session.run(add))
