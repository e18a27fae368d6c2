"""Checkpoints as they come: none is missed that was asked for, and none is waited for by the clock."""

import itertools
import logging
import os
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from judge.programs import CheckpointProgram, SaverProgram

import ckptd_client
from ckptd_client import checkpoints_iterator, following, wait_for_new_checkpoint
from ckptd_client.hints import Hints

pytestmark = pytest.mark.tensorflow

LONG = 20.0
V1 = 1


@pytest.fixture(scope="module")
def made(tf, tmp_path_factory):
    path = tmp_path_factory.mktemp("made")
    with SaverProgram(tf, path, max_to_keep=None) as program:
        for step in range(1, 7):
            program.save(step)
    (path / "checkpoint").unlink()
    return path


class Trainer:
    """Saves as TensorFlow does: data, index, state file, each renamed into place."""

    def __init__(self, path: Path, made: Path) -> None:
        self.path = path
        self._made = made

    def save(self, step: int, *, state: bool = True, name: str | None = None) -> str:
        prefix = name or f"m-{step}"
        self.path.mkdir(parents=True, exist_ok=True)
        for suffix in (".data-00000-of-00001", ".index"):
            temporary = self.path / f"{prefix}{suffix}.tempstate123"
            shutil.copyfile(self._made / f"m-{step}{suffix}", temporary)
            temporary.rename(self.path / f"{prefix}{suffix}")
        if state:
            temporary = self.path / ("checkpoint.tmp" + 32 * "0")
            temporary.write_text(f'model_checkpoint_path: "{prefix}"\n')
            temporary.rename(self.path / "checkpoint")
        return str(self.path / prefix)

    def remove(self, step: int) -> None:
        for file in self.path.glob(f"m-{step}.*"):
            file.unlink()

    @contextmanager
    def later(self, seconds: float, work):
        """Do `work` in another thread after a while."""
        thread = threading.Timer(seconds, work)
        thread.start()
        try:
            yield
        finally:
            thread.join()


@pytest.fixture
def trainer(tmp_path, made, monkeypatch):
    monkeypatch.setattr(following, "LOOK_AGAIN", LONG)  # what is found, is found by a hint
    return Trainer(tmp_path / "run", made)


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("there", ["nothing", "the parent", "the directory", "a checkpoint"])
def test_a_checkpoint_comes_when_it_is_complete_and_not_by_the_clock(
    trainer, tmp_path, monkeypatch, every, there
):
    if there == "nothing":
        trainer.path = tmp_path / "runs" / "a" / "run"
    elif there != "the parent":
        trainer.path.mkdir()
    iterator = checkpoints_iterator(trainer.path, timeout=LONG, every=every)
    if there == "a checkpoint":
        first = trainer.save(1)
        assert next(iterator) == first
    start = time.monotonic()
    with trainer.later(0.3, lambda: trainer.save(2)):
        assert next(iterator) == str(trainer.path / "m-2")

    assert time.monotonic() - start < 5.0
    iterator.close()


def test_by_default_only_the_latest_comes_as_tensorflow_has_it(tf, trainer):
    trainer.save(1)
    trainer.save(2)
    ours = checkpoints_iterator(str(trainer.path), timeout=0.1)
    theirs = tf.train.checkpoints_iterator(str(trainer.path), timeout=0)
    assert next(ours) == next(theirs) == str(trainer.path / "m-2")
    for step in (3, 4, 5):
        trainer.save(step)
    assert next(ours) == next(theirs) == str(trainer.path / "m-5")
    trainer.save(5)
    assert list(ours) == list(theirs) == []


def test_every_one_comes_once_in_the_order_of_saving(trainer):
    trainer.save(2)
    trainer.save(1)
    iterator = checkpoints_iterator(trainer.path, timeout=0, every=True)
    names = [os.path.basename(next(iterator)) for _ in range(2)]
    for step in (6, 3, 5):  # while the caller is busy
        trainer.save(step)
    trainer.save(4, state=False)

    names += [os.path.basename(path) for path in iterator]
    assert names == ["m-2", "m-1", "m-6", "m-3", "m-5", "m-4"]


def test_one_that_is_saved_again_is_a_new_one(trainer):
    first = trainer.save(1)
    trainer.save(2)
    iterator = checkpoints_iterator(trainer.path, timeout=0.5, every=True)
    assert [next(iterator), next(iterator)] == [first, str(trainer.path / "m-2")]
    trainer.save(1)
    assert next(iterator) == first
    trainer.save(2, name="m-1")  # other content

    assert list(iterator) == [first]


def test_one_that_is_gone_before_its_turn_is_left_out(trainer):
    for step in (1, 2, 3):
        trainer.save(step)
    iterator = checkpoints_iterator(trainer.path, timeout=0, every=True)
    assert next(iterator) == str(trainer.path / "m-1")
    trainer.remove(2)

    assert list(iterator) == [str(trainer.path / "m-3")]


@pytest.mark.parametrize("every", [False, True])
def test_a_partial_one_is_waited_for(trainer, every):
    trainer.save(1)
    data = trainer.path / "m-1.data-00000-of-00001"
    data.rename(trainer.path / "away")
    iterator = checkpoints_iterator(trainer.path, timeout=LONG, every=every)
    with trainer.later(0.3, lambda: (trainer.path / "away").rename(data)):
        assert next(iterator) == str(trainer.path / "m-1")
    iterator.close()


def test_an_index_that_is_written_in_place_is_waited_for(trainer):
    trainer.save(1)
    index = trainer.path / "m-1.index"
    content = index.read_bytes()
    os.truncate(index, 60)
    iterator = checkpoints_iterator(trainer.path, timeout=LONG, every=True)
    with trainer.later(0.3, lambda: index.write_bytes(content)):
        assert next(iterator) == str(trainer.path / "m-1")
    iterator.close()


@pytest.mark.parametrize("every", [False, True])
def test_without_hints_the_clock_finds_it(trainer, monkeypatch, every):
    import watchdog.observers.inotify_c as inotify

    monkeypatch.setattr(inotify, "inotify_init", lambda: -1)  # as where no instance is left
    monkeypatch.setattr(following, "LOOK_AGAIN", 0.1)
    iterator = checkpoints_iterator(trainer.path, timeout=LONG, every=every)
    with trainer.later(0.2, lambda: trainer.save(1)):
        assert next(iterator) == str(trainer.path / "m-1")
    iterator.close()


def test_a_timeout_ends_it_and_a_function_may_go_on(trainer):
    asked = itertools.count(1)
    assert list(checkpoints_iterator(trainer.path, timeout=0.05)) == []
    assert list(checkpoints_iterator(trainer.path, 0, 0.02, lambda: next(asked) == 3)) == []
    assert next(asked) == 4
    trainer.save(1)
    after_each = checkpoints_iterator(trainer.path, timeout=LONG, timeout_fn=lambda: True)
    assert list(after_each) == [str(trainer.path / "m-1")]


def test_two_checkpoints_are_at_least_so_far_apart(trainer):
    trainer.save(1)
    trainer.save(2)
    start = time.monotonic()
    found = list(checkpoints_iterator(trainer.path, 0.2, timeout=0, every=True))

    assert len(found) == 2
    assert 0.4 <= time.monotonic() - start < 2.0


def test_what_cannot_be_read_is_logged_once_and_waited_out(trainer, caplog):
    trainer.save(1)
    (trainer.path / "checkpoint").write_text("")
    iterator = checkpoints_iterator(trainer.path, timeout=LONG)
    with (
        caplog.at_level(logging.WARNING, "ckptd_client"),
        trainer.later(0.2, lambda: (trainer.path / "notes").write_text("an event")),
        trainer.later(0.4, lambda: trainer.save(2)),
    ):
        assert next(iterator) == str(trainer.path / "m-2")
    iterator.close()

    assert caplog.messages == [
        (
            f"waiting for a checkpoint: {trainer.path}/checkpoint: names no checkpoint: "
            "model_checkpoint_path is missing or empty"
        )
    ]


def test_waiting_for_another_one(tf, trainer):
    first = trainer.save(1)
    assert wait_for_new_checkpoint(trainer.path, timeout=0) == first
    assert wait_for_new_checkpoint(trainer.path, first, seconds_to_sleep=0.1, timeout=0.1) is None
    with trainer.later(0.2, lambda: trainer.save(2)):
        found = wait_for_new_checkpoint(trainer.path, first, seconds_to_sleep=LONG, timeout=LONG)
    assert found == str(trainer.path / "m-2")


@pytest.mark.parametrize(
    "program",
    [
        SaverProgram,
        lambda tf, path: SaverProgram(tf, path, sharded=True),
        lambda tf, path: SaverProgram(tf, path, write_version=V1),
        lambda tf, path: SaverProgram(tf, path, write_version=V1, sharded=True),
        CheckpointProgram,
    ],
    ids=["Saver", "sharded", "V1", "V1, sharded", "Checkpoint"],
)
def test_what_tensorflow_saves_comes_under_the_names_that_it_restores(tf, trainer, program):
    path = trainer.path
    path.mkdir()
    iterator = checkpoints_iterator(path, timeout=0, every=True)
    with program(tf, path) as saving:
        for step in (1, 2):
            saving.save(step)
            if step == 2:
                latest = tf.train.latest_checkpoint(str(path))
        found = list(iterator)

    assert len(found) == 2
    assert found[-1] == latest
    assert ckptd_client.list_variables(found[0]) == ckptd_client.list_variables(latest)


def test_an_iterator_has_one_descriptor_no_thread_and_lets_go(trainer):
    trainer.save(1)
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    iterator = checkpoints_iterator(trainer.path)
    next(iterator)
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == (
        before[0] + 1,
        before[1],
    )
    iterator.close()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_what_happened_before_the_watching_began_is_not_waited_for(tmp_path):
    with Hints(str(tmp_path / "run")) as hints:
        start = time.monotonic()
        hints.wait(LONG)  # the parent has only now begun to be watched: look again
        (tmp_path / "run").mkdir()
        hints.wait(LONG)
        hints.wait(LONG)  # and so has the directory
        assert time.monotonic() - start < 5.0


def test_hints_follow_the_directory_wherever_its_name_leads(tmp_path):
    run = tmp_path / "a" / "run"
    with Hints(str(run)) as hints:
        for make in (run.parent.mkdir, run.mkdir, (run / "m-1").touch):
            while True:  # what is left of the step before
                start = time.monotonic()
                hints.wait(0.2)
                if time.monotonic() - start > 0.19:
                    break
            make()
            start = time.monotonic()
            hints.wait(LONG)
            assert time.monotonic() - start < 5.0
        run.rename(tmp_path / "b")
        run.mkdir()
        hints.wait(LONG)
        (run / "m-2").touch()
        hints.wait(LONG)
    hints.close()
