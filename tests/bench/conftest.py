"""What the benchmarks share: a line for each figure, and directories full of checkpoints."""

import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from ckptd.formats.bundle_writer import encode_bundle
from ckptd.formats.state_file import StateFile, format_state_file

INDEX, DATA = encode_bundle({"w": np.arange(64.0)})


class Figures:
    """Prints one line for each figure: ours, what it is measured against, and the ratio."""

    def __init__(self, print_line: Callable[[str], None]) -> None:
        self._print = print_line

    def __call__(self, target: str, text: str, ours: float, against: str, other: float) -> float:
        ratio = ours / other if other else float("inf")
        self._print(
            f"{target:<4} {text:<46} {ours:9.4f} s   {against} {other:.4f} s   x {ratio:.2f}"
        )
        return ratio

    def note(self, target: str, text: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self._print(f"{target:<4} {text}   (peak memory of this process so far: {peak:.0f} MiB)")


@pytest.fixture
def figures(capsys: pytest.CaptureFixture[str]) -> Figures:
    def print_line(line: str) -> None:
        with capsys.disabled():
            print("\n" + line, end="", flush=True)

    return Figures(print_line)


def write_run(path: Path, steps: range, *, state: bool = True) -> None:
    """Write complete checkpoints, as fast as files can be made."""
    path.mkdir(parents=True, exist_ok=True)
    for step in steps:
        (path / f"m-{step}.data-00000-of-00001").write_bytes(DATA)
        (path / f"m-{step}.index").write_bytes(INDEX)
        (path / f"m-{step}.meta").write_bytes(b"graph")
    if state:
        write_state(path, [f"m-{step}" for step in steps])


def write_state(path: Path, names: list[str]) -> None:
    """Replace the state file as a trainer does."""
    state = StateFile(model_checkpoint_path=names[-1], all_model_checkpoint_paths=tuple(names))
    temporary = path / f"checkpoint.tmp{os.urandom(16).hex()}"
    temporary.write_bytes(format_state_file(state))
    temporary.replace(path / "checkpoint")


@pytest.fixture(scope="session")
def thousand_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with 1,000 model directories of 20 checkpoints each."""
    root = tmp_path_factory.mktemp("runs")
    for number in range(1000):
        write_run(root / f"run-{number:04d}", range(20))
    return root


class DaemonProcess:
    """A daemon as its users start it."""

    def __init__(self, home: Path, config: str) -> None:
        import subprocess
        import sys
        import tempfile

        self._short = tempfile.TemporaryDirectory(prefix="ckptd-")
        self.socket = f"{self._short.name}/s"
        (home / "ckptd.yaml").write_text(config)
        self._log = (home / "log").open("w")
        self.log = home / "log"
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ckptd", "run"),
                *("--config", str(home / "ckptd.yaml"), "--socket", self.socket),
            ],
            stderr=self._log,
        )
        self.stat = psutil.Process(self._process.pid)

    def wait_until_ready(self) -> float:
        """Return the seconds from the start until every directory has been swept once."""
        while time.monotonic() - self.started < 120:
            if '"event": "ready"' in self.log.read_text():
                return time.monotonic() - self.started
            assert self._process.poll() is None, self.log.read_text()[-2000:]
            time.sleep(0.01)
        raise AssertionError("the daemon never became ready")

    def cpu(self) -> float:
        """Return the seconds of processor time used so far."""
        times = self.stat.cpu_times()
        return float(times.user + times.system)

    def memory(self) -> float:
        """Return the resident memory in MiB."""
        return float(self.stat.memory_info().rss) / 2**20

    def watches(self) -> int:
        """Return the number of inotify watches."""
        folder = Path(f"/proc/{self.stat.pid}/fdinfo")
        return sum(
            line.startswith("inotify")
            for file in folder.iterdir()
            for line in file.read_text().splitlines()
        )

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.wait(30) == 0, self.log.read_text()[-2000:]
        self._log.close()
        self._short.cleanup()


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[Callable[[str], DaemonProcess]]:
    started: list[DaemonProcess] = []

    def start(config: str) -> DaemonProcess:
        started.append(DaemonProcess(tmp_path, config))
        return started[-1]

    yield start
    for daemon in started:
        daemon.stop()
