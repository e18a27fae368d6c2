"""Fixtures of the daemon's tests."""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon.harness import Daemon, Manager, OpenDaemon, a_config

from ckptd.config.values import ModelDirs


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory with a path short enough for a socket in it."""
    path = Path(tempfile.mkdtemp(prefix="ckptd-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def start(short_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Start daemons; they are ended after the test, and must have logged no fault."""
    started: list[Daemon] = []

    def start(*entries: ModelDirs, options: dict[str, Any] | None = None, **keys: Any) -> Daemon:
        path = str(short_path / f"{len(started)}.sock")
        daemon = Daemon(a_config(*entries, **keys), path, options=options or {})
        started.append(daemon)
        return daemon.start()

    yield start
    for daemon in started:
        daemon.end()
        assert daemon.events("daemon_fault") == []


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, short_path: Path) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.setblocking(False)
        address = str(short_path / "notify")
        if request.param == "abstract":
            address = f"@ckptd-test-{os.getpid()}-{short_path.name}"
        listening.bind(f"\0{address[1:]}" if address[0] == "@" else address)
        yield Manager(listening, address)


@pytest.fixture
def start_open(short_path: Path) -> Iterator[Callable[..., OpenDaemon]]:
    """Start one daemon into which the test can reach."""
    started: list[OpenDaemon] = []

    def start(*entries: ModelDirs, **options: Any) -> OpenDaemon:
        daemon = OpenDaemon(a_config(*entries), str(short_path / "open"), options=options)
        started.append(daemon)
        daemon.start().ready()
        return daemon

    yield start
    for daemon in started:
        assert daemon.end() == 0
        assert daemon.events("daemon_fault") == []
