"""100 directories under one glob, created, filled, moved and deleted for two minutes: nothing grows."""

import random
import shutil
import time

import pytest
from bench.conftest import write_run

CONFIG = """
version: 1
rescan_interval: 2s
model_dirs:
  - path: {root}/*
    max_to_keep: 2
    trash: off
"""
SECONDS = 120
RUNS = 100


def churn(root, seconds, seed):
    """Create, fill, move and delete runs for so long; return how often something was done."""
    dice = random.Random(seed)
    names = [root / f"run-{n:03d}" for n in range(RUNS)]
    done, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        path = dice.choice(names)
        act = dice.random()
        if not path.exists():
            write_run(path, range(dice.randint(0, 4)), state=False)
        elif act < 0.6:
            step = int(time.monotonic() * 1000)
            write_run(path, range(step, step + 1))
        elif act < 0.8:
            other = dice.choice(names)
            if not other.exists():
                path.rename(other)
        else:
            shutil.rmtree(path, ignore_errors=True)
        done += 1
        time.sleep(0.005)
    return done


def measure(daemon):
    return {
        "descriptors": daemon.stat.num_fds(),
        "threads": daemon.stat.num_threads(),
        "watches": daemon.watches(),
    }


@pytest.mark.timeout(600)
def test_nothing_grows(tmp_path, start_daemon, figures):
    root = tmp_path / "runs"
    root.mkdir()
    daemon = start_daemon(CONFIG.format(root=root))
    daemon.wait_until_ready()

    churn(root, 75, seed=1)  # warm: pools and caches are full, each calendar job has run once
    empty(root)
    before, memory_before = measure(daemon), daemon.memory()
    acts = churn(root, SECONDS, seed=2)
    empty(root)
    after, memory_after = measure(daemon), daemon.memory()

    figures.note(
        "run",
        f"{acts} changes in {SECONDS} s: before {before}, after {after}; "
        f"{memory_before:.1f} MiB, then {memory_after:.1f} MiB",
    )
    assert "Traceback" not in daemon.log.read_text()
    assert after == before
    assert memory_after <= 1.1 * memory_before + 4


def empty(root):
    """Delete every run, and let the daemon notice."""
    for path in root.iterdir():
        shutil.rmtree(path, ignore_errors=True)
    time.sleep(8)
