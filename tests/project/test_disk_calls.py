"""Only `ckptd.storage` touches a disk: everything else asks a `Directory`.

A path handed to the kernel can lead elsewhere by the time it is used. So no other module calls what
opens, makes, renames or removes by path, nor imports what does so for it; the few exceptions are
in a table, each with its reason.
"""

import ast
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

OS_CALLS = frozenset(
    """
    access chflags chmod chown chroot copy_file_range fchdir chdir fsync fdatasync ftruncate fwalk
    lchmod lchown lchflags link listdir listxattr lstat makedirs mkdir mkfifo mknod open pwrite
    pwritev readlink remove removedirs removexattr rename renames replace rmdir scandir sendfile
    setxattr stat statvfs symlink truncate unlink utime walk
    """.split()  # noqa: SIM905 - forty lines of one word each say no more
)
PATH_CALLS = frozenset(
    """
    exists lexists isfile isdir islink ismount getsize getmtime realpath samefile
    """.split()  # noqa: SIM905
)
MODULES = frozenset({"pathlib", "shutil", "tempfile", "glob", "fileinput", "dbm", "shelve"})
BUILTINS = frozenset({"open"})
HARMLESS = frozenset({"pathlib.PurePath", "pathlib.PurePosixPath"})


class Allowed(NamedTuple):
    """`what` may be used by the modules that match `where`, for this `reason`."""

    where: str
    what: str
    reason: str


ALLOWED = [
    Allowed("ckptd/storage/*", "*", "the room whose work this is"),
    Allowed(
        "ckptd/cli/*", "open", "reads the configuration file, and the files named as arguments"
    ),
    Allowed("ckptd/cli/*", "pathlib*", "holds those paths"),
    Allowed("ckptd/cli/*", "os.path.realpath", "shows a model directory as the daemon knows it"),
    Allowed("ckptd/cli/screen.py", "shutil.get_terminal_size", "asks the terminal, not a disk"),
    Allowed("ckptd/cli/streams.py", "os.open", "opens /dev/null for a stream that was closed"),
    Allowed("ckptd/cli/demo*", "tempfile*", "makes the demonstration's own scratch directory"),
    Allowed("ckptd/daemon/*", "os.open", "opens its own lock file, and directories to watch"),
    Allowed("ckptd/daemon/*", "os.unlink", "removes its own socket"),
    Allowed("ckptd/daemon/*", "os.chmod", "gives its own socket its mode"),
    Allowed("ckptd/daemon/*", "os.mkdir", "makes the directory of its own socket"),
    Allowed("ckptd/daemon/*", "os.stat", "asks whose socket is in the way"),
]


def calls(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of whatever in `source` reaches the disk by itself."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                names[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                if reaches_disk(f"{node.module}.{alias.name}"):
                    yield node.lineno, f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = dotted(node, names)
            if name and reaches_disk(name):
                yield node.lineno, name
        elif isinstance(node, ast.Name) and node.id in BUILTINS and node.id not in names:
            yield node.lineno, node.id


def dotted(node: ast.expr, names: dict[str, str]) -> str | None:
    """Return the full name of an attribute of an imported module, aliases undone."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value, names)
        return f"{inner}.{node.attr}" if inner else None
    return None


def reaches_disk(name: str) -> bool:
    """Say whether the dotted `name` is on the lists above."""
    module, _, attribute = name.rpartition(".")
    return (
        (module in {"os", "posix"} and attribute in OS_CALLS)
        or (module in {"os.path", "posixpath", "genericpath"} and attribute in PATH_CALLS)
        or (name.partition(".")[0] in MODULES and name not in HARMLESS and bool(module))
        or name in {"io.open", "io.FileIO", "io.open_code", "builtins.open", "codecs.open"}
        or name in {"numpy.fromfile", "numpy.memmap", "numpy.load", "numpy.save"}
    )


def is_allowed(path: str, name: str) -> bool:
    return any(fnmatchcase(path, row.where) and fnmatchcase(name, row.what) for row in ALLOWED)


def modules() -> list[str]:
    found = [*(ROOT / "ckptd").rglob("*.py"), *(ROOT / "client").rglob("*.py")]
    return sorted(str(path.relative_to(ROOT)) for path in found)


@pytest.mark.parametrize("path", modules())
def test_only_storage_touches_a_disk(path):
    source = (ROOT / path).read_text(encoding="utf-8")

    refused = [
        f"{path}:{line}: {name}" for line, name in calls(source) if not is_allowed(path, name)
    ]
    assert not refused, "ask a Directory of ckptd.storage instead:\n" + "\n".join(refused)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os\nos.unlink(x)", ["os.unlink"]),
        ("import os as o\no.rename(a, b)", ["os.rename"]),
        ("from os import replace", ["os.replace"]),
        ("from os import open as o", ["os.open"]),
        ("import os.path\nos.path.exists(x)", ["os.path.exists"]),
        ("from os.path import exists", ["os.path.exists"]),
        ("from os import path\npath.exists(x)", ["os.path.exists"]),
        ("f = open(x)", ["open"]),
        ("list(map(open, names))", ["open"]),
        ("import io\nio.open(x)", ["io.open"]),
        ("from pathlib import Path", ["pathlib.Path"]),
        ("import pathlib\npathlib.Path(x).unlink()", ["pathlib.Path"]),
        ("import shutil\nshutil.rmtree(x)", ["shutil.rmtree"]),
        ("def f():\n    import shutil as s\n    s.move(a, b)", ["shutil.move"]),
        ("import numpy as np\nnp.memmap(x)", ["numpy.memmap"]),
    ],
)
def test_what_reaches_the_disk_is_found(source, expected):
    assert [name for _, name in calls(source)] == expected


@pytest.mark.parametrize(
    "source",
    [
        "directory.unlink(name)",
        "directory.rename(a, b)",
        "text.replace(a, b)",
        "import os\nos.getpid()",
        "import os\nos.close(descriptor)",
        "import os\nos.memfd_create(name)",
        "import os\nos.path.basename(x)",
        "from pathlib import PurePath",
        "import pathlib\npathlib.PurePosixPath(x)",
        "from importlib import resources\nresources.files(x).joinpath(y).read_bytes()",
        "from ckptd.storage.disk import open_model_directory",
    ],
)
def test_what_stays_off_the_disk_is_left_alone(source):
    assert not list(calls(source))


@pytest.mark.parametrize("row", ALLOWED, ids=lambda row: f"{row.where} {row.what}")
def test_every_exception_has_a_reason_and_a_place(row):
    assert row.reason
    assert (ROOT / row.where).parent.is_dir()


def test_every_exception_is_used():
    used = {
        row
        for path in modules()
        for _, name in calls((ROOT / path).read_text(encoding="utf-8"))
        for row in ALLOWED
        if fnmatchcase(path, row.where) and fnmatchcase(name, row.what)
    }

    assert [row for row in ALLOWED if row not in used] == []
