"""Whatever of TensorFlow writes, TensorFlow reads what ckptd leaves, after every save."""

from functools import partial

import pytest
from judge.keeping import redirected
from judge.programs import CheckpointProgram, ManagerProgram, SaverProgram
from judge.reader import check_latest, check_reader, files_in, unsettled

pytestmark = pytest.mark.tensorflow

V1 = 1
POLICY = 3
SAVES = 7

# Who writes, and how many the writer keeps by itself.
WRITERS = {
    "Saver": (partial(SaverProgram), 5),
    "Saver, V1": (partial(SaverProgram, write_version=V1), 5),
    "Saver, sharded": (partial(SaverProgram, sharded=True), 5),
    "Saver, V1, sharded": (partial(SaverProgram, write_version=V1, sharded=True), 5),
    "Saver, no meta graphs": (partial(SaverProgram, graph_until=0), 5),
    "Saver, one meta graph": (partial(SaverProgram, graph_until=1), 5),
    "Saver, one meta graph, rotated by itself": (
        partial(SaverProgram, graph_until=1, max_to_keep=2),
        2,
    ),
    "Saver, V1, sharded, one meta graph": (
        partial(SaverProgram, write_version=V1, sharded=True, graph_until=1),
        5,
    ),
    "Saver, relative paths": (partial(SaverProgram, save_relative_paths=True), 5),
    "Saver, relative paths, V1, sharded": (
        partial(SaverProgram, save_relative_paths=True, write_version=V1, sharded=True),
        5,
    ),
    "Saver, padded steps": (partial(SaverProgram, pad_step_number=True), 5),
    "Saver, another state file": (partial(SaverProgram, latest_filename="other"), 5),
    "Saver, max_to_keep None": (partial(SaverProgram, max_to_keep=None), None),
    "Saver, max_to_keep 0": (partial(SaverProgram, max_to_keep=0), None),
    "Saver, max_to_keep 2": (partial(SaverProgram, max_to_keep=2), 2),
    "Saver, debug info": (partial(SaverProgram, save_debug_info=True), 5),
    "Saver, name with a dash and dots": (partial(SaverProgram, name="my-model.ckpt"), 5),
    "Checkpoint.save": (partial(CheckpointProgram), None),
    "CheckpointManager, 2": (partial(ManagerProgram, max_to_keep=2), 2),
    "CheckpointManager, 5": (partial(ManagerProgram, max_to_keep=5), 5),
    "CheckpointManager, None": (partial(ManagerProgram, max_to_keep=None), None),
}


@pytest.mark.parametrize(("writer", "limit"), WRITERS.values(), ids=WRITERS)
def test_all_that_is_left_restores_after_every_save(tf, kept, writer, limit):
    run = kept(max_to_keep=POLICY)
    left = min(POLICY, limit or POLICY)
    with writer(tf, run.path) as program:
        for step in range(1, SAVES + 1):
            name = program.save(step)
            check_latest(tf, program, name)
            survivors = list(program.saved)[-left:]
            run.settle(partial(unsettled, tf, program, survivors, survivors))

            check_latest(tf, program, name)
            check_reader(tf, program)
    assert redirected(run.path) == []


def test_what_is_written_without_a_state_file_is_kept_without_one(tf, kept):
    run = kept(max_to_keep=POLICY)
    program = CheckpointProgram(tf, run.path, write=True)
    for step in range(1, SAVES + 1):
        program.save(step)
        run.settle(partial(unsettled, tf, program, list(program.saved)[-POLICY:], []))

        check_reader(tf, program)
        assert tf.train.latest_checkpoint(str(run.path)) is None
    assert "checkpoint" not in files_in(run.path)
