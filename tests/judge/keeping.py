"""Two ways to have a model directory kept: by a `Keeper` here, and by the daemon."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol

import yaml

from ckptd.keeper.keeper import Keeper
from ckptd.keeper.plan import DirectoryPlan
from ckptd.retention.policy import UNLIMITED, Policy
from ckptd.storage.disk import open_model_directory

PATIENCE: Final = 30.0
"""Seconds in which the daemon must have acted, on a host that is busy with other things."""


def seen(path: Path) -> DirectoryPlan:
    """Return what ckptd sees in a directory, with no rules."""
    with Keeper(open_model_directory(str(path)), Policy(), time.time) as keeper:
        return keeper.plan()


def redirected(path: Path) -> list[str]:
    """Return what ckptd has made the current checkpoint against the trainer's word."""
    with Keeper(open_model_directory(str(path)), Policy(), time.time) as keeper:
        history = keeper.history()
    paths = [line["name"] for line in history if line["event"] == "state_redirected"]
    return [os.path.basename(path) for path in paths]


class Kept(Protocol):
    """A model directory that somebody keeps."""

    path: Path

    def use(self, **policy: Any) -> None:
        """Keep it by another policy from now on."""

    def settle(self, unsettled: Callable[[], object]) -> None:
        """Let ckptd act until `unsettled` has nothing more to say, or fail with what it says."""


class Swept:
    """Keeps a directory by sweeping it in this process, whenever a test settles."""

    def __init__(self, path: Path, **policy: Any) -> None:
        self.path = path
        self.path.mkdir(parents=True)
        self._policy = policy

    def __enter__(self) -> "Swept":  # noqa: PYI034 (Self is in typing from Python 3.11 on)
        self._keeper = self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._keeper.close()

    def use(self, **policy: Any) -> None:
        self._policy = policy
        self._keeper.close()
        self._keeper = self._open()

    def settle(self, unsettled: Callable[[], object]) -> None:
        result = self._keeper.sweep()
        self._keeper.purge()

        assert result.failed == []
        assert not unsettled()
        assert not self._keeper.sweep().changed, "the second sweep in a row found work"

    def _open(self) -> Keeper:
        policy = dict(self._policy)
        if policy.get("max_to_keep") == "unlimited":
            policy["max_to_keep"] = UNLIMITED
        return Keeper(open_model_directory(str(self.path)), Policy(**policy), time.time)


class Daemon:
    """Keeps a directory by `ckptd run`, told when it is ready as systemd is."""

    def __init__(self, path: Path, **policy: Any) -> None:
        self.path = path
        self.path.mkdir(parents=True)
        self._home = path.parent.parent
        self._config = self._home / "ckptd.yaml"
        self._log = self._home / "ckptd.log"
        self._write(policy)
        self._open = ExitStack()

    def __enter__(self) -> "Daemon":  # noqa: PYI034 (Self is in typing from Python 3.11 on)
        with self._open:
            address = f"@ckptd-{secrets.token_hex(8)}"
            self._told = self._open.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            self._told.bind(f"\0{address[1:]}")
            log = self._open.enter_context(self._log.open("wb"))
            command = [sys.executable, "-m", "ckptd", "run", "--config", str(self._config)]
            self._process = subprocess.Popen(
                [*command, "--socket", str(self._home / "s")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": address},
            )
            self._open.callback(self._end)
            self._wait_for("READY=1")
            self._open = self._open.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._open.close()
        if kind is not None:
            return  # the test has failed already; its log is with its files

        assert self._process.returncode == 0
        log = self._log.read_text(encoding="utf-8")
        assert "Traceback" not in log
        events = [json.loads(line) for line in log.splitlines()]
        assert [event for event in events if event["level"] == "error"] == []

    def use(self, **policy: Any) -> None:
        self._write(policy)
        self._process.send_signal(signal.SIGHUP)
        self._wait_for("RELOADING=1")
        self._wait_for("READY=1")

    def settle(self, unsettled: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while (what := unsettled()) and time.monotonic() < deadline:
            time.sleep(0.005)

        assert not what, self._log.read_text(encoding="utf-8")

    def _write(self, policy: dict[str, Any]) -> None:
        # The directory's own name may be a pattern to YAML's reader: its parent's is not.
        entry = {"path": f"{self.path.parent}/*", **policy}
        config = {"version": 1, "rescan_interval": "1s", "model_dirs": [entry]}
        self._config.write_text(yaml.safe_dump(config), encoding="utf-8")

    def _wait_for(self, word: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            self._told.settimeout(min(left, 0.2))
            try:
                said = self._told.recv(2**16).decode()
            except TimeoutError:
                if self._process.poll() is None:
                    continue
                break
            if word in said.splitlines():
                return
        raise AssertionError(f"the daemon did not say {word}: {self._log.read_text()}")

    def _end(self) -> None:
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
