"""The programs of tutorials and scripts, in directories that ckptd keeps, each with what it promises."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from judge.keeping import redirected, seen
from judge.loading import QUIET
from judge.programs import SaverProgram, values_at
from judge.reader import (
    assert_same,
    check_latest,
    check_reader,
    check_values,
    files_in,
    files_of,
    imported_sum,
    listed,
    there,
    unsettled,
)

import ckptd_client
from ckptd.checkpoints.inventory import Format

pytestmark = pytest.mark.tensorflow

V1 = 1
V2_FILES = {".data-00000-of-00001", ".index", ".meta"}


def files(name: str) -> set[str]:
    return {name + suffix for suffix in V2_FILES}


@pytest.mark.parametrize(
    ("options", "format_", "expected"),
    [
        ({"write_version": V1}, Format.V1, {"model.ckpt", "model.ckpt.meta"}),
        ({}, Format.V2, files("model.ckpt")),
    ],
    ids=["V1", "V2"],
)
def test_a_save_without_global_step_is_one_complete_checkpoint(
    tf, kept, options, format_, expected
):
    run = kept(max_to_keep=1)
    with SaverProgram(tf, run.path, name="model.ckpt", with_step=False, **options) as program:
        for step in (1, 2, 3):
            program.save(step)
            run.settle(partial(unsettled, tf, program, ["model.ckpt"], ["model.ckpt"]))

            check_reader(tf, program)
            assert files_in(run.path) == {*expected, "checkpoint"}
    (checkpoint,) = seen(run.path).survey.inventory.checkpoints
    assert (checkpoint.format, checkpoint.global_step) == (format_, None)


@pytest.mark.parametrize("max_to_keep", [4, None], ids=["both rotate", "ckptd rotates"])
def test_every_tenth_of_300_epochs_leaves_the_last_four(tf, kept, max_to_keep):
    run = kept(max_to_keep=4)
    with SaverProgram(tf, run.path, name="my-model", max_to_keep=max_to_keep) as program:
        for epoch in range(0, 300, 10):
            name = program.save(epoch)
            check_latest(tf, program, name)
            survivors = list(program.saved)[-4:]
            run.settle(partial(unsettled, tf, program, survivors, survivors))
        check_reader(tf, program)

    last = [f"my-model-{epoch}" for epoch in (260, 270, 280, 290)]
    assert files_in(run.path) == {"checkpoint"}.union(*map(files, last))
    state = tf.train.get_checkpoint_state(str(run.path))
    assert list(state.all_model_checkpoint_paths) == [str(run.path / name) for name in last]
    assert state.model_checkpoint_path == str(run.path / last[-1])
    assert redirected(run.path) == []


def test_the_step_ends_the_name(tf, kept):
    run = kept(max_to_keep=1)
    with SaverProgram(tf, run.path, name="my-model") as program:
        for step in (999, 1000):
            program.save(step)
            name = f"my-model-{step}"
            run.settle(partial(unsettled, tf, program, [name], [name]))

    assert files_in(run.path) == {*files("my-model-1000"), "checkpoint"}
    (checkpoint,) = seen(run.path).survey.inventory.checkpoints
    assert checkpoint.global_step == 1000


@pytest.mark.parametrize(
    ("trainer", "policy"), [(2, 3), (5, 2), (None, 2)], ids=["trainer", "ckptd", "ckptd alone"]
)
def test_a_graph_written_once_imports_at_any_later_time(tf, kept, trainer, policy):
    run = kept(max_to_keep=policy)
    left = min(trainer or policy, policy)
    with SaverProgram(tf, run.path, graph_until=1, max_to_keep=trainer) as program:
        for step in range(1, 9):
            name = program.save(step)
            survivors = list(program.saved)[-left:]
            run.settle(partial(unsettled, tf, program, survivors, survivors))

            (meta,) = run.path.glob("*.meta")
            assert meta.name.removesuffix(".meta") in survivors
            total = imported_sum(tf, str(meta), str(run.path / name))
            assert_same(total, sum(program.saved[name].values()))


def test_a_graph_that_was_rotated_away_between_two_looks_comes_back(tf, kept):
    run = kept(max_to_keep=3)
    with SaverProgram(tf, run.path, graph_until=1, max_to_keep=2) as program:
        program.save(1)
        run.settle(partial(unsettled, tf, program, ["m-1"], ["m-1"]))
        for step in range(2, 8):
            program.save(step)
        run.settle(partial(unsettled, tf, program, ["m-6", "m-7"], ["m-6", "m-7"]))

        check_reader(tf, program)
        assert len(list(run.path.glob("*.meta"))) == 1


SECONDS = 1.0
EVERY = 0.2


def test_the_four_newest_stay_and_one_for_each_span_for_good(tf, kept):
    run = kept(max_to_keep=4, keep_checkpoint_every_n_hours=SECONDS / 3600)
    times: dict[str, float] = {}
    preserved: list[str] = []
    with SaverProgram(tf, run.path, max_to_keep=None) as program:
        for step in range(1, 22):
            name = program.save(step)
            times[name] = (run.path / f"{name}.index").stat().st_mtime
            rolling = [other for other in times if other not in preserved]
            for leaving in rolling[: max(len(rolling) - 4, 0)]:
                # As a CheckpointManager that was made a second before the first save.
                since = times[preserved[-1]] if preserved else times["m-1"] - 1.0
                if times[leaving] - SECONDS / 3600 * 3600.0 >= since:
                    preserved.append(leaving)
                else:
                    del times[leaving]
            newest = [other for other in times if other not in preserved]
            run.settle(partial(unsettled, tf, program, list(times), newest))
            check_reader(tf, program)
            time.sleep(EVERY)

    assert len(newest) == 4
    assert len(preserved) >= 3


@pytest.mark.parametrize("max_to_keep", [None, 0])
def test_a_saver_that_keeps_all_keeps_all(tf, kept, max_to_keep):
    run = kept(max_to_keep="unlimited")
    with SaverProgram(tf, run.path, max_to_keep=max_to_keep) as program:
        for step in range(1, 11):
            name = program.save(step)
            run.settle(partial(unsettled, tf, program, list(program.saved), [name]))
        check_reader(tf, program)

    assert len(there(program)) == 10


def test_the_newest_is_restored(tf, kept):
    run = kept(max_to_keep=2)
    with SaverProgram(tf, run.path) as program:
        for step in (1, 2, 3):
            program.save(step)
        survivors = ["m-2", "m-3"]
        run.settle(partial(unsettled, tf, program, survivors, survivors))
    with SaverProgram(tf, run.path) as restarted:
        found = restarted.restore(tf.train.latest_checkpoint(str(run.path)))

    for key, value in values_at(3).items():
        assert_same(found[key], value)


def test_where_there_is_nothing_to_restore_there_is_a_word_why(tf, kept):
    run = kept(max_to_keep=2)
    with SaverProgram(tf, run.path) as program:
        assert ckptd_client.latest_checkpoint(run.path) is None
        with pytest.raises(ValueError, match="Can't load save_path when it is None"):
            program.restore(tf.train.latest_checkpoint(str(run.path)))
        program.save(1)
    lose_data(run.path, "m-1")

    assert tf.train.latest_checkpoint(str(run.path)) == str(run.path / "m-1")  # it trusts the index
    assert ckptd_client.latest_checkpoint(run.path) is None
    plan = seen(run.path)
    (partial_,) = plan.survey.inventory.partials
    assert (partial_.name, partial_.reason) == ("m-1", "shard 0 of 1 is missing")
    assert "m-1, which cannot be restored: shard 0 of 1 is missing" in plan.problems[0].text


def test_a_newest_that_lost_its_data_gives_way_to_one_that_restores(tf, kept):
    run = kept(max_to_keep=2)
    with SaverProgram(tf, run.path) as program:
        for step in (1, 2, 3):
            program.save(step)
        run.settle(partial(unsettled, tf, program, ["m-2", "m-3"], ["m-2", "m-3"]))
        lose_data(run.path, "m-3")
        # The history is the last thing that a sweep writes.
        run.settle(lambda: redirected(run.path) != ["m-2"])

        assert listed(tf, program) == ["m-2"]
        assert there(program) == ["m-2", "m-3"]  # what is damaged is not ckptd's to remove
        latest = tf.train.latest_checkpoint(str(run.path))
        assert latest == str(run.path / "m-2")
        check_values(tf, latest, program.saved["m-2"])


def lose_data(path: Path, name: str) -> None:
    """Remove a checkpoint's data file, and let it be a while since it was written."""
    (path / f"{name}.data-00000-of-00001").unlink()
    ago = time.time() - 60.0
    for file in files_of(name, path):
        os.utime(path / file, (ago, ago))


PROGRAM = """
import sys
from pathlib import Path
from judge.loading import load_tensorflow
from judge.programs import SaverProgram
path, saves = Path(sys.argv[1]), int(sys.argv[2])
tf = load_tensorflow()
with SaverProgram(tf, path, max_to_keep=5) as program:
    latest = tf.train.latest_checkpoint(str(path))
    step = 0 if latest is None else int(program.restore(latest)["w"][0])
    print(step)
    for next_step in range(step + 1, step + 1 + saves):
        program.save(next_step)
"""


@pytest.mark.processes
def test_a_program_that_starts_again_resumes_and_the_earlier_runs_saves_are_rotated(tf, kept):
    run = kept(max_to_keep=5)
    began = []
    with SaverProgram(tf, run.path) as reader:
        for saves in (5, 3):
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, str(run.path), str(saves)],
                check=True,
                capture_output=True,
                text=True,
                env={**os.environ, **QUIET, "PYTHONPATH": str(Path(__file__).parent.parent)},
            )
            began.append(int(done.stdout))
            last = began[-1] + saves
            reader.saved = {f"m-{step}": values_at(step) for step in range(1, last + 1)}
            survivors = list(reader.saved)[-5:]
            run.settle(partial(unsettled, tf, reader, survivors, survivors))
            check_latest(tf, reader, f"m-{last}")
            check_reader(tf, reader)

    assert began == [0, 5]
    assert survivors == ["m-4", "m-5", "m-6", "m-7", "m-8"]
    assert redirected(run.path) == []
