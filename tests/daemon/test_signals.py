"""A daemon as a process: signals, its exit status, and what a kill leaves."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from daemon.harness import eventually, save, steps

from ckptd.protocol.control import Verb
from ckptd.protocol.conversation import ask

pytestmark = pytest.mark.processes

PROGRAM = """
import sys
from ckptd.config.values import Config, LogSettings, ModelDirs
from ckptd.daemon.service import run_daemon
from ckptd.errors import CkptdError
from ckptd.retention.policy import Policy

def load():
    keep = int(open(sys.argv[2]).read())
    entry = ModelDirs(path=sys.argv[3], policy=Policy(max_to_keep=keep, trash=None))
    return Config(version=1, log=LogSettings(format="json"), model_dirs=(entry,))

try:
    sys.exit(run_daemon(load, sys.argv[1]))
except CkptdError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_status)
"""


@pytest.fixture
def process(short_path, tmp_path):
    started: list[subprocess.Popen[bytes]] = []
    (short_path / "keep").write_text("2")

    def start() -> subprocess.Popen[bytes]:
        with Path(short_path / f"log-{len(started)}").open("wb") as log:
            arguments = [str(short_path / "s"), str(short_path / "keep"), str(tmp_path)]
            environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
            child = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *arguments], stderr=log, env=environ
            )
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()


def log(short_path: Path, number: int = 0) -> str:
    return (short_path / f"log-{number}").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_ends_it_in_order(process, short_path, number):
    child = process()
    eventually(lambda: '"ready"' in log(short_path))
    child.send_signal(number)

    assert child.wait(10) == 0
    assert log(short_path).splitlines()[-1].endswith('"event": "stopped"}')
    assert not (short_path / "s").exists()


def test_a_hangup_has_the_configuration_read_again(process, short_path, tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    child = process()
    eventually(lambda: steps(tmp_path) == [2, 3])
    (short_path / "keep").write_text("1")
    for _ in range(20):
        child.send_signal(signal.SIGHUP)

    eventually(lambda: steps(tmp_path) == [3])
    child.terminate()
    assert child.wait(10) == 0


def test_after_a_kill_the_next_one_takes_its_place(process, short_path):
    first = process()
    eventually(lambda: '"ready"' in log(short_path, 0))
    first.kill()
    first.wait()
    assert (short_path / "s").exists()
    second = process()
    eventually(lambda: '"ready"' in log(short_path, 1))

    assert ask(str(short_path / "s"), Verb.PING)["pid"] == second.pid


def test_a_second_one_exits_with_the_first_ones_pid(process, short_path):
    first = process()
    eventually(lambda: '"ready"' in log(short_path, 0))
    second = process()

    assert second.wait(10) == 11
    assert f"pid {first.pid}" in log(short_path, 1)
