"""The exit statuses: one table."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--help",), 0),
        (("--version",), 0),
        (("plan", "--help"), 0),
        ((), 2),
        (("frobnicate",), 2),
        (("plan",), 2),
        (("sweep",), 2),
        (("list",), 2),
        (("pin", "DIR"), 2),
        (("plan", "DIR", "--nonsense"), 2),
        (("plan", "DIR", "--max-to-keep", "0"), 2),
        (("plan", "DIR", "--max-to-keep", "-1"), 2),
        (("plan", "DIR", "--keep-within", "3"), 2),
        (("plan", "DIR", "--now", "nan"), 2),
        (("plan", "DIR", "--now", "1e99"), 2),
        (("plan", "DIR", "--now", "yesterday"), 2),
        (("completion", "tcsh"), 2),
        (("run",), 2),
        (("plan", "DIR"), 0),
        (("plan", "DIR", "--max-to-keep", "1", "--exit-code"), 5),
        (("plan", "DIR", "MISSING"), 3),
        (("plan", "MISSING"), 13),
        (("plan", "MISSING", "MISSING/too"), 13),
        (("plan", ""), 13),
        (("plan", "DIR/m-100.index"), 13),
        (("list", "MISSING"), 13),
        (("sweep", "MISSING", "--max-to-keep", "1"), 13),
        (("pin", "MISSING", "1"), 13),
        (("pin", "DIR", "1"), 13),
        (("unpin", "DIR", "1"), 13),
        (("undo", "DIR"), 13),
        (("history", "MISSING"), 13),
        (("history", "DIR"), 0),
        (("approve", "DIR"), 13),
        (("status",), 10),
        (("status", "DIR"), 0),
        (("status", "MISSING"), 13),
        (("check-config", "MISSING"), 13),
        (("check-config", "DIR"), 1),
        (("check-config", "DIR/m-100.index"), 4),
        (("run", "--config", "MISSING"), 13),
        (("run", "--config", "DIR/m-100.index"), 4),
        (("plan", "--config", "MISSING"), 13),
        (("plan", "--config", "DIR/m-100.index"), 4),
    ],
)
def test_every_ending_has_its_exit_status(ckptd, model_directory, tmp_path, arguments, status):
    run = model_directory(100, 200)
    places = {"DIR": str(run), "MISSING": str(tmp_path / "missing")}
    given = [
        next((each.replace(k, v, 1) for k, v in places.items() if each.startswith(k)), each)
        for each in arguments
    ]

    ended = ckptd(*given)

    assert ended.status == status
    assert (ended.err == "") == (status in {0, 5})
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    "arguments", [("plan", "a\0b"), ("plan", "x" * 5000), ("plan", "DIR", "--config", "a\0b")]
)
def test_a_path_that_cannot_be_is_refused_in_words(ckptd, model_directory, arguments):
    run = model_directory(100)

    ended = ckptd(*(str(run) if each == "DIR" else each for each in arguments))

    assert ended.status in {1, 13}
    assert ended.err.startswith("ckptd: cannot ")


def test_a_usage_error_names_the_mistake_and_where_to_read_on(ckptd):
    ended = ckptd("plan", "--max-to-keep", "0", "x", "--json")

    assert "must be a whole number of at least 1" in ended.err
    assert "Try `ckptd plan --help`." in ended.err
    assert "Try `ckptd inspect --help`." in ckptd("inspect", "x", "--diff").err
    assert ended.error["exit_status"] == 2
    assert "--config FILE" in ckptd("plan").err


@contextmanager
def as_nobody():
    """Act as a user to whom permissions matter; root is one to whom they do not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("mode", [0o000, 0o555])
def test_what_is_not_permitted_is_12_and_leaves_everything(ckptd, model_directory, mode):
    run = model_directory(100, 200)
    ckptd("sweep", "--help")  # imports what another user may not read
    for parent in (run.path.parent, run.path.parent.parent, run.path.parent.parent.parent):
        parent.chmod(0o755)
    run.path.chmod(mode)
    with as_nobody():
        ended = ckptd("sweep", run, "--max-to-keep", "1", "--json")
    run.path.chmod(0o755)

    assert ended.status == 12
    assert ended.error["type"] == "NotPermittedError"
    assert ended.error["reason"] == "Permission denied"
    assert run.checkpoints() == {"m-100", "m-200"}


def test_an_interrupt_ends_with_130_and_without_a_traceback(environment, tmp_path):
    fifo = tmp_path / "config"
    os.mkfifo(fifo)
    child = subprocess.Popen(
        [sys.executable, "-m", "ckptd", "plan", "--config", fifo],
        env=environment,
        stderr=subprocess.PIPE,
    )
    with fifo.open("wb"):  # opens when the program is there to read
        time.sleep(0.2)
        child.send_signal(signal.SIGINT)
        _, message = child.communicate(timeout=60)

    assert child.returncode == 130
    assert b"Traceback" not in message
