"""TensorFlow saves as fast as it can, ckptd sweeps as fast as it can, and a reader reads meanwhile."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from judge.keeping import Daemon, redirected
from judge.programs import ManagerProgram, SaverProgram, checkpoint_name, values_at
from judge.reader import check_latest, check_reader, unsettled

pytestmark = [pytest.mark.tensorflow, pytest.mark.processes]

SAVES = 200
"""At least; on a busy host as many more as it takes until everybody has had a turn."""
MOST_SAVES = 2000
READS = 20
SWEEPS = 3
LEFT = 3

SWEEPER = """
import sys, threading, time
from ckptd.keeper.keeper import Keeper
from ckptd.retention.policy import Policy
from ckptd.storage.disk import open_model_directory
with Keeper(open_model_directory(sys.argv[1]), Policy(max_to_keep=3, max_removals_per_sweep=1000), time.time) as keeper:
    print("begun", flush=True)
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set())).start()
    while not stop.is_set():
        result = keeper.sweep()
        keeper.purge()
        assert not result.failed, result.failed
        if result.changed and not result.busy:
            print("acted", flush=True)
    keeper.sweep()
"""

WRITERS = {
    "Saver": partial(SaverProgram),
    "Saver, V1": partial(SaverProgram, write_version=1),
    "Saver, sharded": partial(SaverProgram, sharded=True),
    "Saver, all": partial(SaverProgram, max_to_keep=None),
    "CheckpointManager": partial(ManagerProgram, max_to_keep=5),
}


class Observer(threading.Thread):
    """Reads what the state file names, again and again, as an evaluation beside the training does."""

    def __init__(self, tf: Any, path: Path, key: str) -> None:
        super().__init__(name="observer")
        self._tf = tf
        self._state = type(tf.train.get_checkpoint_state(str(path)))
        self._path = path
        self._key = key
        self._done = threading.Event()
        self.read = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        while not self._done.is_set() and not self.wrong:
            self._look()

    def stop(self) -> None:
        self._done.set()
        self.join()

    def _look(self) -> None:
        try:
            named = self._named()
        except (OSError, text_format.ParseError) as error:
            self.wrong.append(f"the state file does not parse: {error}")
            return
        try:
            found = self._tf.train.load_checkpoint(named).get_tensor(self._key)
        except Exception as error:
            # Two saves later it may be gone; but as long as it is named, it is there.
            if self._named() == named:
                self.wrong.append(f"{named} is named, and does not load: {error!r}")
            return
        step = int(checkpoint_name(named).rsplit("-", 1)[1])
        if found.tolist() != values_at(step)["w"].tolist():
            self.wrong.append(f"{named} holds {found}")
        self.read += 1

    def _named(self) -> str:
        # tf.train.get_checkpoint_state opens one file and asks for the size of another, if a save
        # comes between, also where ckptd is not: this reads the one that it has opened.
        text = (self._path / "checkpoint").read_text(encoding="utf-8")
        state = text_format.Parse(text, self._state())
        return str(self._path / state.model_checkpoint_path)


def collect(lines: Iterable[str], into: list[str]) -> None:
    for line in lines:
        into.append(line)  # noqa: PERF402 - one by one, for who looks meanwhile


@contextlib.contextmanager
def sweeping(path: Path) -> Iterator[list[str]]:
    """Sweep a directory in a loop, in another process; give a line for each sweep that found work."""
    acted: list[str] = []
    process = subprocess.Popen(
        [sys.executable, "-c", SWEEPER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        counter = threading.Thread(target=collect, args=(process.stdout, acted), name="counter")
        counter.start()
        try:
            yield acted
        finally:
            assert process.stdin is not None
            process.stdin.close()
            counter.join(timeout=60)
        assert process.stderr is not None
        err = process.stderr.read()
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_a_reader_is_never_led_astray_while_all_hurry(tf, tmp_path, writer):
    path = tmp_path / "run"
    path.mkdir()
    with sweeping(path) as acted:
        last = race(tf, writer, path, lambda: len(acted) >= SWEEPS)

    with writer(tf, path) as program:
        program.saved = {f"m-{step}": values_of(program, step) for step in range(1, last + 1)}
        survivors = list(program.saved)[-LEFT:]
        assert unsettled(tf, program, survivors, survivors) == []
        check_latest(tf, program, f"m-{last}")
        check_reader(tf, program)
    assert redirected(path) == []


def test_a_reader_is_never_led_astray_beside_the_daemon(tf, tmp_path):
    with Daemon(tmp_path / "runs" / "run", max_to_keep=LEFT, max_removals_per_sweep=1000) as run:
        last = race(tf, WRITERS["Saver"], run.path)

        with SaverProgram(tf, run.path) as program:
            program.saved = {f"m-{step}": values_at(step) for step in range(1, last + 1)}
            survivors = list(program.saved)[-LEFT:]
            run.settle(partial(unsettled, tf, program, survivors, survivors))
            check_latest(tf, program, f"m-{last}")
            check_reader(tf, program)
    assert redirected(run.path) == []


def race(tf: Any, writer: Any, path: Path, swept: Callable[[], bool] = lambda: True) -> int:
    """Save as fast as can be beside an observer until all had their turns; return the last step."""
    with writer(tf, path) as program:
        program.save(1)
        key = next(key for key in next(iter(program.saved.values())) if key.startswith("w"))
        observer = Observer(tf, path, key)
        observer.start()
        step = 1
        try:
            while step < SAVES or not ((swept() and observer.read >= READS) or observer.wrong):
                assert step < MOST_SAVES, f"{observer.read} reads, {swept()}"
                step += 1
                program.save(step)
        finally:
            observer.stop()
    assert observer.wrong == []
    return step


def values_of(program: Any, step: int) -> dict[str, Any]:
    """Return what a checkpoint of `program` holds, under its keys."""
    suffix = "" if isinstance(program, SaverProgram) else "/.ATTRIBUTES/VARIABLE_VALUE"
    return {f"{key}{suffix}": value for key, value in values_at(step).items()}
