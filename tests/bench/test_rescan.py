"""T11 and T13: 1,000 model directories of 20 unchanged checkpoints each."""

import os
import time

import pytest

from ckptd.keeper.keeper import Keeper
from ckptd.retention.policy import Policy
from ckptd.storage.disk import open_model_directory

CONFIG = """
version: 1
model_dirs:
  - path: {root}/*
    max_to_keep: 20
"""


def bare(root):
    """The least that a rescan can do: list every directory and lstat every name."""
    for run in os.scandir(root):
        with os.scandir(run.path) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)


@pytest.mark.timeout(600)
def test_t11_a_full_rescan(thousand_runs, figures):
    paths = sorted(str(path) for path in thousand_runs.iterdir())
    keepers = [Keeper(open_model_directory(p), Policy(max_to_keep=20), time.time) for p in paths]
    for keeper in keepers:
        keeper.sweep()
        keeper.sweep()
    assert all(keeper.is_settled() for keeper in keepers)

    ours, raw = [], []
    for _ in range(5):
        start = time.process_time()
        assert all(keeper.is_settled() for keeper in keepers)
        ours.append(time.process_time() - start)
        start = time.process_time()
        bare(thousand_runs)
        raw.append(time.process_time() - start)
    for keeper in keepers:
        keeper.close()

    ours.sort()
    raw.sort()
    figures("T11", "full rescan of 1,000 directories, CPU", ours[2], "scandir and lstat", raw[2])
    figures.note("T11", "target: at most 1 s of CPU")
    assert ours[2] <= 1.0


@pytest.mark.timeout(600)
def test_t11_idle_and_t13_ready(thousand_runs, start_daemon, figures):
    # The keepers of the test before have settled these directories: this is a restart.
    first = start_daemon(CONFIG.format(root=thousand_runs))
    ready = first.wait_until_ready()
    start = time.perf_counter()
    bare(thousand_runs)
    raw = time.perf_counter() - start
    figures("T13", "start to ready, 1,000 directories", ready, "scandir and lstat", raw)
    figures.note("T13", "target: at most 3 s")

    time.sleep(10)  # what the start has left to do
    before, began = first.cpu(), time.monotonic()
    time.sleep(120)
    share = (first.cpu() - before) / (time.monotonic() - began)
    memory = first.memory()
    figures.note(
        "T11",
        f"idle daemon: {share:.3%} of a core over 2 min, {memory:.0f} MiB; "
        "targets: at most 0.2 % and 80 MiB",
    )
    assert share <= 0.002
    assert memory <= 80
    assert ready <= 3.0
