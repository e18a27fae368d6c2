"""`ckptd run`, and the commands that talk to it: real processes, a real socket."""

import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

pytestmark = pytest.mark.processes


@contextmanager
def running(environment, config, socket):
    """A daemon, ready to answer."""
    daemon = subprocess.Popen(
        [sys.executable, "-m", "ckptd", "run", "--config", config, "--socket", socket],
        env=environment,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 30
        while not socket.exists() and daemon.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        yield daemon
    finally:
        daemon.send_signal(signal.SIGTERM)
        _, log = daemon.communicate(timeout=60)
        assert daemon.returncode == 0, log.decode()


def until(condition):
    """Wait for what the daemon does by itself."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_commands_and_the_daemon_work_together(
    ckptd, environment, model_directory, tmp_path, valid
):
    run = model_directory(100, 200, 300)
    config = tmp_path / "ckptd.yaml"
    config.write_text(
        f"version: 1\nmodel_dirs:\n"
        f"  - {{path: {run}, max_to_keep: 1}}\n"
        f"  - {{path: {tmp_path}/later, max_to_keep: 1}}\n"
    )
    socket = tmp_path / "socket"

    with running(environment, config, socket):
        until(lambda: run.checkpoints() == {"m-300"})
        # What a status shows is as it was after the last sweep, which may not have ended yet.
        until(lambda: "ok, 1 checkpoint, " in ckptd("status", "--socket", socket).out)
        status = ckptd("status", "--socket", socket, "--json").document
        people = ckptd("status", "--socket", socket)
        swept = ckptd("sweep", run, "--max-to-keep", 1)
        undone = ckptd("undo", run, "--socket", socket)
        unpinned = ckptd("unpin", run, 200, "--socket", socket)
        until(lambda: run.checkpoints() == {"m-300"})
        second = subprocess.run(
            [sys.executable, "-m", "ckptd", "run", "--config", config, "--socket", socket],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    valid(status)
    assert {entry["path"]: entry["state"] for entry in status["model_dirs"]} == {
        str(run): "ok",
        f"{tmp_path}/later": "gone",
    }
    assert people.status == 0
    assert f"{run}: ok, 1 checkpoint, " in people.out
    assert f"{tmp_path}/later: gone, 1 problem" in people.out
    assert swept.status == 11
    assert (undone.status, undone.err, unpinned.status, unpinned.err) == (0, "", 0, "")
    assert second.returncode == 11
    assert second.stderr.startswith("ckptd: ")
    assert "Traceback" not in second.stderr


def test_a_terminal_gets_the_status_as_a_table(terminal, environment, model_directory, tmp_path):
    run = model_directory(100)
    config = tmp_path / "ckptd.yaml"
    config.write_text(f"version: 1\nmodel_dirs: [{{path: {run}, max_to_keep: 1}}]\n")
    socket = tmp_path / "socket"

    with running(environment, config, socket) as daemon:
        out = terminal("status", "--socket", socket, "--no-color", columns=120).out

    assert f"STATUS  1 model directory, daemon with pid {daemon.pid}" in out
    assert str(run) in out


def test_a_broken_configuration_does_not_start(process, tmp_path):
    config = tmp_path / "ckptd.yaml"
    config.write_text("version: 1\ndefaults: {max_to_keep: 0, nonsense: 1}\n")

    ended = process("run", "--config", config, "--socket", tmp_path / "socket")

    assert ended.status == 4
    assert [line.split(": ")[1] for line in ended.err.splitlines()] == [
        "defaults.max_to_keep",
        "defaults.nonsense",
    ]
