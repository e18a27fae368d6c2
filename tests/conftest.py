"""Fixtures of every room: golden files, and what no test may leave behind."""

import gc
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import settings

# A busy host is no failure, and a failure does not depend on what an earlier run has found.
settings.register_profile("ckptd", deadline=None, database=None, print_blob=True)
settings.load_profile("ckptd")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the golden files anew; the diff is reviewed as code",
    )


@pytest.fixture
def check_golden(request: pytest.FixtureRequest) -> Callable[[str, Any], None]:
    """Compare a value with golden/NAME.json beside the test, or write it there."""
    folder = request.path.parent / "golden"

    def check(name: str, value: Any) -> None:
        path = folder / f"{name}.json"
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        if request.config.getoption("--update-golden"):
            folder.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.read_text(encoding="utf-8") == text

    return check


@pytest.fixture(autouse=True)
def no_leaked_thread() -> Iterator[None]:
    """Fail a test that leaves a thread running, daemon or not."""
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in threading.enumerate() if thread not in before]
    assert not left, f"threads still run after the test: {left}"


@pytest.fixture(autouse=True)
def no_leaked_descriptor() -> Iterator[None]:
    """Fail a test that leaves a file, socket or pipe open."""
    before = open_descriptors()
    yield
    if open_descriptors().items() - before.items():
        gc.collect()  # what only waits for the collector is reported by its ResourceWarning
    left = open_descriptors().items() - before.items()
    assert not left, f"descriptors still open after the test: {sorted(left)}"


@pytest.fixture(autouse=True)
def no_leaked_child() -> Iterator[None]:
    """Fail a test that leaves a child process running, or ended and not waited for."""
    before = children()
    yield
    left = children() - before
    assert not left, f"child processes left after the test: {sorted(map(str, left))}"


def open_descriptors() -> dict[str, str]:
    """Return every open descriptor of this process with what it is open on."""
    folder = Path("/proc/self/fd")
    links = [path for path in map(folder.joinpath, os.listdir(folder)) if path.is_symlink()]
    return {path.name: str(path.readlink()) for path in links}


def children() -> set[psutil.Process]:
    """Return the child processes of this one, ended ones included."""
    try:  # one call, and psutil reads the whole process table
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return set()
    return set(psutil.Process().children())
