"""Model directories on a real disk, and the program as people start it: in process, in a pipe, on a terminal."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import jsonschema
import numpy as np
import pytest
from builders import HOUR, at
from click.testing import CliRunner

from ckptd.cli import main
from ckptd.formats.bundle_writer import encode_bundle
from ckptd.formats.state_file import StateFile, format_state_file


class ModelDirectory:
    """A model directory of V2 checkpoints, saved every hour, long ago."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = at("2024-01-01 00:00")  # long ago by any clock
        path.mkdir(parents=True)

    def __str__(self) -> str:
        return str(self.path)

    def save(self, *steps: int, prefix: str = "m", floats: int = 100) -> "ModelDirectory":
        """Save a checkpoint for each step, and write the state file after each."""
        for step in steps:
            index, data = encode_bundle({"w": np.full(floats, step, np.float32)})
            self.now += HOUR
            files = {"index": index, "data-00000-of-00001": data, "meta": b"graph" * 50}
            for suffix, content in files.items():
                file = self.path / f"{prefix}-{step}.{suffix}"
                file.write_bytes(content)
                os.utime(file, (self.now, self.now))
            state = StateFile(
                model_checkpoint_path=f"{prefix}-{step}",
                all_model_checkpoint_paths=(f"{prefix}-{step}",),
            )
            (self.path / "checkpoint").write_bytes(format_state_file(state))
        return self

    @property
    def clock(self) -> str:
        """Half an hour after the last save, for `--now`."""
        return str(self.now + HOUR / 2)

    def names(self) -> set[str]:
        """What `ls -A` shows, less ckptd's own."""
        return {name for name in os.listdir(self.path) if name != ".ckptd"}

    def checkpoints(self) -> set[str]:
        """The prefixes that have an index."""
        return {name.removesuffix(".index") for name in self.names() if name.endswith(".index")}

    def fingerprint(self) -> dict[str, tuple[Any, ...]]:
        """Everything that a program could have changed, but times of access to files."""
        seen = {}
        for path in (self.path, *sorted(self.path.rglob("*"))):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            seen[str(path)] = (
                status.st_ino,
                status.st_mode,
                status.st_nlink,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
                content,
            )
        return seen


@pytest.fixture
def model_directory(tmp_path: Path) -> Callable[..., ModelDirectory]:
    """Make a model directory: `model_directory(100, 200)`."""

    def make(*steps: int, name: str = "run") -> ModelDirectory:
        return ModelDirectory(tmp_path / name).save(*steps)

    return make


@dataclass(frozen=True)
class Ended:
    """How the program ended, and what it said."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """The JSON error, the last line of standard error."""
        document = json.loads(self.err.splitlines()[-1])
        validate(document)
        return document["error"]


class Ckptd(Protocol):
    def __call__(self, *arguments: object) -> Ended: ...


@pytest.fixture
def ckptd(tmp_path: Path) -> Ckptd:
    """Run the program in this process, far from any daemon."""

    def run(*arguments: object) -> Ended:
        runner = CliRunner(env={"CKPTD_SOCKET": str(tmp_path / "no-daemon")})
        result = runner.invoke(main, [str(each) for each in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that finds no daemon and no terminal's habits."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    return {
        **kept,
        "CKPTD_SOCKET": str(tmp_path / "no-daemon"),
        "TERM": "xterm",
        "LC_ALL": "C.UTF-8",
    }


@pytest.fixture
def process(environment: dict[str, str]) -> Callable[..., Ended]:
    """Run the program as a process of its own, its output in pipes."""

    def run(*arguments: object, **changes: str) -> Ended:
        done = subprocess.run(
            [sys.executable, "-m", "ckptd", *map(str, arguments)],
            env={**environment, **changes},
            capture_output=True,
            timeout=60,
            check=False,
        )
        out = done.stdout.decode("utf-8", "surrogateescape")
        return Ended(done.returncode, out, done.stderr.decode("utf-8", "surrogateescape"))

    return run


@pytest.fixture
def terminal(environment: dict[str, str]) -> Callable[..., Ended]:
    """Run the program on a terminal of so many columns; `out` is what the terminal gets."""

    def run(*arguments: object, columns: int = 80, **changes: str) -> Ended:
        ours, theirs = pty.openpty()
        try:
            child = subprocess.Popen(
                [sys.executable, "-m", "ckptd", *map(str, arguments)],
                env={**environment, "COLUMNS": str(columns), **changes},
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
            )
        finally:
            os.close(theirs)
        pieces = []
        with suppress(OSError):  # EIO: the other end is closed
            while piece := os.read(ours, 65536):
                pieces.append(piece)
        os.close(ours)
        status = child.wait(timeout=60)
        return Ended(
            status, b"".join(pieces).decode("utf-8", "backslashreplace").replace("\r\n", "\n"), ""
        )

    return run


def validate(document: Any) -> None:
    """Check a document against the shipped schema that it names."""
    name = document["schema"].replace("/", "-") + ".json"
    schema = json.loads((resources.files("ckptd") / "schemas" / name).read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)


@pytest.fixture
def valid() -> Callable[[Any], None]:
    """Check a document against the shipped schema that it names."""
    return validate
