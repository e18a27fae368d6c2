"""A real process, killed with SIGKILL at every system call by which a sweep changes the disk.

strace's fault injection does the killing, so that nothing in ckptd knows of it.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from keeper.promises import check_reader, check_restart
from keeper.trainer import Clock, Trainer

from ckptd.storage.disk import open_model_directory

CHANGES = ["renameat2", "rename", "renameat", "unlink", "unlinkat", "link", "linkat"]
CHANGES += ["mkdir", "mkdirat", "fsync", "fdatasync", "write", "pwrite64", "ftruncate"]

SWEEP = """
import sys, time
from ckptd.keeper.keeper import Keeper
from ckptd.retention.policy import Policy
from ckptd.storage.disk import open_model_directory
keeper = Keeper(open_model_directory(sys.argv[1]), Policy(max_to_keep=2), time.time)
keeper.sweep()
keeper.purge()
"""

KILLED = -9


def strace(*options: str) -> list[str]:
    return ["strace", "-f", "-qq", "-o", "/dev/null", *options]


@pytest.fixture(scope="module", autouse=True)
def can_trace():
    try:
        subprocess.run(strace("-e", "trace=none", "true"), check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("strace is not here, or may not trace")


@pytest.fixture
def master(tmp_path):
    path = tmp_path / "master"
    path.mkdir()
    directory = open_model_directory(str(path))
    run = Trainer(directory, Clock(time.time() - 1000))
    for step in (1, 2, 3, 4):
        run.save(step)
    directory.close()
    return path


@pytest.mark.processes
@pytest.mark.timeout(600)
@pytest.mark.parametrize("call", CHANGES)
def test_a_kill_at_any_system_call_that_changes_the_disk(call, master, tmp_path):
    for when in range(1, 200):
        path = tmp_path / f"{call}-{when}"
        # Hard links and times as they are: a copy must not look like another save.
        subprocess.run(["cp", "-a", str(master), str(path)], check=True)
        inject = f"inject={call}:signal=KILL:when={when}"
        done = subprocess.run(
            [*strace("-e", f"trace={call}", "-e", inject), sys.executable, "-c", SWEEP, str(path)],
            capture_output=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
        )

        directory = open_model_directory(str(path))
        assert check_reader(directory, {"m-3", "m-4"}) == [], f"killed at {call} {when}"
        wrong = check_restart(directory, time.time, {"m-3", "m-4"}, {"max_to_keep": 2})
        directory.close()
        assert wrong == [], f"killed at {call} {when}"
        shutil.rmtree(path)
        if done.returncode not in {KILLED, 128 + 9}:
            assert done.returncode == 0, done.stderr.decode()
            return
    pytest.fail(f"the sweep never got past {call}")


def test_the_sweep_changes_the_disk_by_calls_that_are_killed_here(master, tmp_path):
    log = tmp_path / "log"
    subprocess.run(
        [
            *("strace", "-f", "-qq", "-o", str(log), "-e", "trace=%file,%desc"),
            *(sys.executable, "-c", SWEEP, str(master)),
        ],
        check=True,
    )

    calls = [line.split("(")[0].split()[-1] for line in Path(log).read_text().splitlines()]
    unseen = {"symlink", "symlinkat", "truncate", "fallocate", "copy_file_range", "creat"}
    assert not unseen & set(calls)
    assert {"renameat2", "fsync"} <= set(calls)
