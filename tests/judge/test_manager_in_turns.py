"""CheckpointManager and ckptd write the state file in turns, and each takes the other's word."""

import random
import time
from functools import partial

import pytest
from judge.keeping import redirected
from judge.programs import ManagerProgram, SaverProgram, checkpoint_name
from judge.reader import check_latest, check_reader, check_values, listed, unsettled

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize("seed", range(3))
def test_both_limits_hold_whoever_starts_again_or_changes_its_mind(tf, kept, seed):
    chance = random.Random(seed)
    theirs, ours = chance.randint(1, 6), chance.randint(1, 6)
    run = kept(max_to_keep=ours)
    program = ManagerProgram(tf, run.path, max_to_keep=theirs)
    left = 0
    for step in range(1, 31):
        if chance.random() < 0.2:
            ours = chance.randint(1, 6)
            run.use(max_to_keep=ours)
            left = min(left, ours)
            survivors = list(program.saved)[-left:] if left else []
            run.settle(partial(unsettled, tf, program, survivors, survivors))
        if chance.random() < 0.3:
            theirs = chance.randint(1, 6)
            program.restart(max_to_keep=theirs)
            known = [checkpoint_name(path) for path in program.manager.checkpoints]
            assert known == listed(tf, program)

        name = program.save(step)

        check_latest(tf, program, name)
        left = min(left + 1, ours, theirs)
        survivors = list(program.saved)[-left:]
        run.settle(partial(unsettled, tf, program, survivors, survivors))
        check_latest(tf, program, name)
        check_reader(tf, program)
    assert redirected(run.path) == []


def test_times_that_the_manager_wrote_are_still_its_own(tf, kept):
    run = kept(max_to_keep=2)
    program = ManagerProgram(tf, run.path, max_to_keep=5)
    times = {}
    for step in range(1, 7):
        before = time.time()
        name = program.save(step)
        after = time.time()
        survivors = list(program.saved)[-2:]
        run.settle(partial(unsettled, tf, program, survivors, survivors))

        state = tf.train.get_checkpoint_state(str(run.path))
        times[name] = state.all_model_checkpoint_timestamps[-1]
        assert before <= times[name] <= after
        assert list(state.all_model_checkpoint_timestamps) == [times[n] for n in survivors]


SECONDS = 1.0


@pytest.mark.parametrize(
    "policy",
    [{"max_to_keep": 2}, {"max_to_keep": 2, "keep_checkpoint_every_n_hours": SECONDS / 3600}],
    ids=["the manager preserves", "both preserve"],
)
@pytest.mark.parametrize("restarts", [False, True], ids=["one manager", "a manager for each save"])
def test_what_the_manager_preserves_stays(tf, kept, policy, restarts):
    run = kept(**policy)
    hours = {"keep_checkpoint_every_n_hours": SECONDS / 3600}
    program = ManagerProgram(tf, run.path, max_to_keep=2, **hours)
    times: dict[str, float] = {}
    preserved: list[str] = []
    since = 0.0
    for step in range(1, 13):
        name = program.save(step)
        state = tf.train.get_checkpoint_state(str(run.path))
        times[name] = state.all_model_checkpoint_timestamps[-1]
        since = since or state.last_preserved_timestamp
        rolling = [other for other in times if other not in preserved]
        for leaving in rolling[:-2]:
            if times[leaving] - SECONDS / 3600 * 3600.0 >= since:
                preserved.append(leaving)
                since = times[leaving]
            else:
                del times[leaving]
        newest = [other for other in times if other not in preserved]
        run.settle(partial(unsettled, tf, program, list(times), newest))
        check_latest(tf, program, name)
        check_reader(tf, program)
        state = tf.train.get_checkpoint_state(str(run.path))
        assert state.last_preserved_timestamp == since
        if restarts:
            program.restart(max_to_keep=2, **hours)
        time.sleep(0.25)

    assert len(preserved) >= 2


def test_a_manager_goes_on_where_a_saver_was(tf, kept):
    run = kept(max_to_keep=3)
    with SaverProgram(tf, run.path, save_relative_paths=True) as program:
        for step in range(1, 6):
            program.save(step)
        survivors = list(program.saved)[-3:]
        run.settle(partial(unsettled, tf, program, survivors, survivors))
        saved = dict(program.saved)
    manager = ManagerProgram(tf, run.path, max_to_keep=3)
    manager.saved = saved
    for step in range(6, 10):
        name = manager.save(step)
        check_latest(tf, manager, name)
        survivors = list(manager.saved)[-3:]
        run.settle(partial(unsettled, tf, manager, survivors, survivors))
        for survivor in survivors:
            check_values(tf, str(run.path / survivor), manager.saved[survivor])
    assert redirected(run.path) == []
