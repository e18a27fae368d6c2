"""Whatever of a checkpoint a person names is found; and what is none of it, is said in full."""

import os
import shutil
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from judge.programs import SaverProgram

from ckptd.checkpoints.inventory import Format
from ckptd.errors import CkptdError, NoSuchCheckpointError
from ckptd.keeper.keeper import Keeper
from ckptd.keeper.verification import Damage, Verification
from ckptd.retention.policy import Policy
from ckptd.storage.disk import open_model_directory
from ckptd_client.locating import Located, locate

pytestmark = pytest.mark.tensorflow

V1 = 1
SHARD = ".data-00000-of-00001"


@pytest.fixture(scope="module")
def made(tf, tmp_path_factory):
    """Checkpoints to copy from: m-1 to m-3 in V2, v1-1 in V1, s-1 in two V1 shards, a SavedModel."""
    path = tmp_path_factory.mktemp("made")
    for name, steps, program in (
        ("m", 3, SaverProgram),
        ("v1", 1, partial(SaverProgram, write_version=V1)),
        ("s", 1, partial(SaverProgram, write_version=V1, sharded=True)),
    ):
        with program(tf, path, name=name) as saving:
            for step in range(1, steps + 1):
                saving.save(step)
    (path / "checkpoint").unlink()
    module = tf.Module()
    module.w = tf.Variable([1.0, 2.0])
    tf.saved_model.save(module, str(path / "saved"))
    return path


class Run:
    """A directory in the making."""

    def __init__(self, path: Path, made: Path) -> None:
        self.path = path
        self._made = made

    def take(self, *names: str) -> "Run":
        """Copy all files of these checkpoints."""
        for name in names:
            for file in self._made.glob(f"{name}*"):
                copy = shutil.copytree if file.is_dir() else shutil.copy
                copy(file, self.path / file.name)
        return self

    def lose(self, *names: str) -> "Run":
        for name in names:
            (self.path / name).unlink()
        return self

    def cut(self, name: str, size: int) -> "Run":
        os.truncate(self.path / name, size)
        return self

    def write(self, name: str, text: str = "some text that is no checkpoint, long enough") -> "Run":
        (self.path / name).write_text(text)
        return self

    def state(self, path: str, file: str = "checkpoint") -> "Run":
        return self.write(file, f'model_checkpoint_path: "{path}"\n')


@pytest.fixture
def run(tmp_path, made, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    return Run(tmp_path / "run", made)


V2 = Format.V2
S_1 = ("s-1-00000-of-00002", "s-1-00001-of-00002")

FOUND = {
    "a prefix": ("run/m-1", Located("run/m-1", V2)),
    "a state file's directory": ("run", Located("run/m-2", V2)),
    "with a slash": ("run/", Located("run/m-2", V2)),
    "a state file": ("run/checkpoint", Located("run/m-2", V2)),
    "another state file": ("run/other", Located("run/m-3", V2)),
    "an index": ("run/m-1.index", Located("run/m-1", V2)),
    "a data file": (f"run/m-1{SHARD}", Located("run/m-1", V2)),
    "a meta graph": ("run/m-1.meta", Located("run/m-1", V2)),
    "a V1 file": ("run/v1-1", Located("run/v1-1", Format.V1, ("v1-1",))),
    "a V1 meta graph": ("run/v1-1.meta", Located("run/v1-1", Format.V1, ("v1-1",))),
    "a V1 prefix": ("run/s-1", Located("run/s-1", Format.V1, S_1)),
    "a V1 pattern": (
        "run/s-1-?????-of-00002",
        Located("run/s-1-?????-of-00002", Format.V1, S_1),
    ),
    "a V1 shard": ("run/s-1-00001-of-00002", Located("run/s-1", Format.V1, S_1)),
    "a SavedModel": ("run/saved", Located("run/saved/variables/variables", V2)),
    "a SavedModel's file": (
        "run/saved/saved_model.pb",
        Located("run/saved/variables/variables", V2),
    ),
    "a link to a directory": ("link", Located("link/m-2", V2)),
    "an odd name": ("run/größe [*] ?", Located("run/größe [*] ?", V2)),
    "a pattern of V2 only matches itself": ("run/m-?", None),
    "no file of it": ("run/m", None),
}


@pytest.mark.parametrize(("path", "expected"), FOUND.values(), ids=FOUND)
@pytest.mark.parametrize("kind", [str, Path])
def test_what_is_named_is_found(run, tmp_path, path, expected, kind):
    run.take("m", "v1", "s-1", "saved").state("m-2").state("m-3", "other")
    shutil.copy(run.path / "m-1.index", run.path / "größe [*] ?.index")
    (tmp_path / "link").symlink_to("run")
    if expected is None:
        with pytest.raises(NoSuchCheckpointError):
            locate(kind(path))
        return

    found = locate(kind(path))
    assert found == expected._replace(prefix=found.prefix)
    assert os.path.normpath(found.prefix) == expected.prefix


@pytest.mark.parametrize("path", [".", "checkpoint", "m-1", "m-1.index", "", "s-1", "v1-1"])
def test_in_the_working_directory(run, monkeypatch, path):
    run.take("m-1", "s-1", "v1").state("m-1")
    monkeypatch.chdir(run.path)
    if not path:
        with pytest.raises(NoSuchCheckpointError, match="the path is empty"):
            locate(path)
        return

    assert os.path.normpath(locate(path).prefix) in {"m-1", path}


def test_a_directory_may_have_a_checkpoints_name(run):
    run.take("m-1")
    (run.path / "m-1").mkdir()

    assert locate("run/m-1") == Located("run/m-1", V2)


def test_linked_files_are_a_checkpoint(run, made):
    for file in made.glob("m-1*"):
        (run.path / file.name.replace("m-1", "m-9")).symlink_to(file)
    run.state("m-9")

    assert locate("run") == Located("run/m-9", V2)


def test_a_state_file_may_lead_elsewhere(run, tmp_path, made):
    shutil.copytree(made, tmp_path / "other")
    run.state("../other/m-2")
    assert locate("run") == Located("run/../other/m-2", V2)

    run.state(str(tmp_path / "other" / "m-3"))
    assert locate("run") == Located(str(tmp_path / "other" / "m-3"), V2)


def test_shards_of_a_v1_checkpoint_may_be_missing_for_salvage(run):
    run.take("s-1").lose("s-1-00000-of-00002")

    expected = Located("run/s-1", Format.V1, S_1[1:], S_1[:1])
    assert locate("run/s-1", salvage=True) == expected
    assert locate("run/s-1-00001-of-00002", salvage=True) == expected
    with pytest.raises(NoSuchCheckpointError):
        locate("run/s-1")


class Wrong(NamedTuple):
    """What is made in a directory `run`, what is asked for, and the whole of what is said."""

    path: str | None
    make: object
    text: str


AT = "cannot open a checkpoint at "
NAME_ONE = "name a checkpoint's prefix, its directory, or one of its files"
WRONG = {
    "no directory": Wrong("runs/m-1", None, AT + "runs/m-1: there is no directory runs"),
    "an empty directory": Wrong(
        "run", None, AT + "run: it has no state file ('checkpoint'); it is empty"
    ),
    "nothing in an empty directory": Wrong(
        "run/m-1",
        None,
        AT + "run/m-1: there is no m-1.index, and no V1 file m-1, in run; that directory is empty",
    ),
    "no state file, complete ones": Wrong(
        "run",
        lambda run: run.take("m"),
        AT + "run: it has no state file ('checkpoint'); complete are m-1, m-2 and m-3; "
        "open one of them by its prefix",
    ),
    "no state file, none complete": Wrong(
        "run",
        lambda run: run.take("m-1", "m-2").lose("m-1.index").cut(f"m-2{SHARD}", 31),
        AT + "run: it has no state file ('checkpoint'); nothing in it is complete: "
        "m-1: it has no index; m-2: shard 0 of 1 is short: 31 of 32 bytes",
    ),
    "files of others": Wrong(
        "run",
        lambda run: run.write("notes.txt").write("graph.pbtxt"),
        AT + "run: it has no state file ('checkpoint'); "
        "it holds no checkpoint, only graph.pbtxt and notes.txt",
    ),
    "many files of others": Wrong(
        "run",
        lambda run: [run.write(f"{n}.txt") for n in range(9)],
        AT + "run: it has no state file ('checkpoint'); "
        "it holds no checkpoint, only 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 4 more",
    ),
    "what a save left": Wrong(
        "run",
        lambda run: (run.path / "m-1_temp").mkdir(),
        AT + "run: it has no state file ('checkpoint'); "
        "it holds what saves that did not finish left behind: m-1_temp",
    ),
    "the state file names a partial one": Wrong(
        "run",
        lambda run: run.take("m").lose(f"m-3{SHARD}").state("m-3"),
        AT + "run: its state file names m-3, but it is not complete: shard 0 of 1 is missing; "
        "complete are m-1 and m-2. "
        "Open one by its prefix, or let `ckptd sweep` mend the state file",
    ),
    "the only one is partial": Wrong(
        "run",
        lambda run: run.take("m-1").lose(f"m-1{SHARD}").state("m-1"),
        AT + "run: its state file names m-1, but it is not complete: shard 0 of 1 is missing; "
        "nothing in it is complete: m-1: shard 0 of 1 is missing",
    ),
    "the state file names what is gone": Wrong(
        "run",
        lambda run: run.take("m-1").state("m-7"),
        AT + "run: its state file names m-7, but it is not there; complete is m-1. "
        "Open one by its prefix, or let `ckptd sweep` mend the state file",
    ),
    "moved": Wrong(
        "run",
        lambda run: run.take("m-1").state("/srv/old/m-1"),
        AT + "run: its state file names /srv/old/m-1, but it is not there; complete is m-1. "
        "The directory seems to have been moved: open the checkpoint by its prefix",
    ),
    "no state file that parses": Wrong(
        "run",
        lambda run: run.take("m-1").write("checkpoint", ""),
        "run/checkpoint: names no checkpoint: model_checkpoint_path is missing or empty; complete is m-1",
    ),
    "a name that comes near": Wrong(
        "run/model-300",
        lambda run: [shutil.move(f, f"run/model-200{f.suffix}") for f in _files(run.take("m-1"))],
        AT + "run/model-300: there is no model-300.index, and no V1 file model-300, in run; "
        "complete is model-200",
    ),
    "a name that comes near, among many": Wrong(
        "run/m_2",
        lambda run: [
            shutil.copy(file, f"run/other{file.suffix}")
            for file in _files(run.take("m"))
            if file.name.startswith("m-1.")
        ],
        AT + "run/m_2: there is no m_2.index, and no V1 file m_2, in run; "
        "complete are m-1, m-2, m-3 and other; did you mean 'm-2'?",
    ),
    "data without an index": Wrong(
        "run/m-1",
        lambda run: run.take("m-1").lose("m-1.index", "m-1.meta"),
        AT + f"run/m-1: it has no index: of its files only m-1{SHARD} is there. "
        "The index, m-1.index, says which tensors lie where",
    ),
    "the data file itself": Wrong(
        f"run/m-1{SHARD}",
        lambda run: run.take("m-1").lose("m-1.index", "m-1.meta"),
        AT + f"run/m-1: it has no index: of its files only m-1{SHARD} is there. "
        "The index, m-1.index, says which tensors lie where",
    ),
    "a meta graph alone": Wrong(
        "run/m-1.meta",
        lambda run: run.take("m-1").lose("m-1.index", f"m-1{SHARD}"),
        AT + "run/m-1: only its meta graph is there: of its files only m-1.meta is there. "
        "The index, m-1.index, says which tensors lie where",
    ),
    "a V1 shard is missing": Wrong(
        "run/s-1",
        lambda run: run.take("s-1").lose("s-1-00000-of-00002"),
        AT + "run/s-1: it is not complete: V1 shard 0 of 2 is missing",
    ),
    "some text": Wrong(
        "run/notes.txt",
        lambda run: run.write("notes.txt"),
        "run/notes.txt: neither an index nor a V1 checkpoint: "
        f"too short to be a table: 44 bytes, a footer alone takes 48; {NAME_ONE}",
    ),
    "a V1 file cut short": Wrong(
        "run/v1-1",
        lambda run: run.take("v1").cut("v1-1", 100),
        "run/v1-1: neither an index nor a V1 checkpoint: "
        f"bad magic number: not a table, or truncated; {NAME_ONE}",
    ),
    "a link to nothing": Wrong(
        "run/m-1",
        lambda run: (run.path / "m-1.index").symlink_to("../blobs/0af3"),
        AT + "run/m-1.index: it is a symbolic link that leads nowhere",
    ),
    "a pipe": Wrong(
        "run/m-1.index",
        lambda run: os.mkfifo(run.path / "m-1.index"),
        "cannot open run/m-1.index: it is a special file, not a regular file",
    ),
    "a SavedModel without variables": Wrong(
        "run/saved",
        lambda run: shutil.rmtree(run.take("saved").path / "saved" / "variables"),
        AT + "run/saved: a SavedModel without variables: it has no variables/variables.index",
    ),
    "what latest_checkpoint returns of nothing": Wrong(
        None,
        None,
        AT + "None: latest_checkpoint has found nothing; "
        "give the directory in its place to be told why",
    ),
    "a name that speaks to a terminal": Wrong(
        "run/m\x1b[2J",
        None,
        AT + "run/m\\x1b[2J: there is no m\\x1b[2J.index, and no V1 file m\\x1b[2J, in run; "
        "that directory is empty",
    ),
}


def _files(run: Run) -> list[Path]:
    return sorted(run.path.iterdir())


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_in_full(run, wrong):
    if wrong.make is not None:
        wrong.make(run)

    with pytest.raises(CkptdError) as caught:
        locate(wrong.path)
    assert str(caught.value) == wrong.text


def test_what_a_verification_has_found_damaged_is_not_proposed(run):
    run.take("m")
    names = [f"m-2{SHARD}", "m-2.index"]
    for path in _files(run):
        os.utime(path, (10**9, 10**9))
    with Keeper(open_model_directory(str(run.path)), Policy(), time.time) as keeper:
        (checkpoint,) = [v.checkpoint for v in keeper.plan().verdicts if v.checkpoint.name == "m-2"]
        damage = Verification("m-2", (Damage(names[0], "bad"),), 1, 1)
        assert keeper.record_verified([(checkpoint, damage)])

    with pytest.raises(NoSuchCheckpointError, match="complete are m-1 and m-3; open"):
        locate("run")
    assert locate("run/m-2") == Located("run/m-2", V2)  # what is asked for is opened

    (run.path / ".ckptd" / "ledger.json").write_text("{")
    with pytest.raises(NoSuchCheckpointError, match="complete are m-1, m-2 and m-3; open"):
        locate("run")


def test_a_slash_behind_a_prefix_makes_no_difference(run):
    run.take("m-2")

    assert locate("run/m-2/") == Located("run/m-2", V2)


def test_a_file_of_a_checkpoint_that_is_not_there_is_called_by_its_name(run):
    run.take("m-2").lose("m-2.meta")

    with pytest.raises(NoSuchCheckpointError) as caught:
        locate("run/m-2.meta")
    assert str(caught.value) == (
        "cannot open a checkpoint at run/m-2.meta: there is no m-2.meta in run; complete is m-2"
    )
