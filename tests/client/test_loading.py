"""Tensors by name, as TensorFlow's own reader gives them; and what is wrong, said better than it does."""

import gc
import os
import re
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from judge.programs import CheckpointProgram, ManagerProgram, SaverProgram

import ckptd_client
from ckptd.checkpoints.inventory import Format
from ckptd.errors import (
    CkptdError,
    CorruptIndexError,
    CorruptTensorError,
    NoSuchCheckpointError,
    NoSuchTensorError,
    NotFoundError,
    StorageError,
)
from ckptd.formats.dtypes import BY_NAME
from ckptd.formats.tensor_bundle import Bundle
from ckptd.formats.tensors import Extent
from ckptd_client import DType

pytestmark = pytest.mark.tensorflow

V1 = 1
SHARD = ".data-00000-of-00001"


def save_kinds(tf, path: Path) -> str:
    """Save what differs in shape and type by `tf.train.Checkpoint`."""
    kinds = tf.Module()
    for name, value in {
        "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
        "scalar": np.int64(7),
        "none": np.zeros((0, 4), np.float64),
        "flags": np.array([True, False]),
        "text": np.array(["größe", "", "a\0b"], object),
        "word": "x",
    }.items():
        setattr(kinds, name, tf.Variable(value))
    kinds.half = tf.Variable(tf.constant([1.5, -2.0], tf.bfloat16))
    kinds.tree = {"x/y": tf.Variable(1.0), "p.q": [tf.Variable(2.0)]}
    return str(tf.train.Checkpoint(root=kinds).save(str(path / "kinds")))


def save_partitioned(tf, path: Path) -> str:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        v1.get_variable(
            "w",
            initializer=tf.reshape(tf.range(40, dtype=tf.float32), [10, 4]),
            partitioner=v1.fixed_size_partitioner(3),
        )
        v1.get_variable("step", initializer=np.int64(5))
        session.run(v1.global_variables_initializer())
        return str(v1.train.Saver().save(session, str(path / "parts")))


def save_model(tf, path: Path) -> str:
    model = tf.Module()
    model.w = tf.Variable([1.0, 2.0])
    tf.saved_model.save(model, str(path / "model"))
    return str(path / "model" / "variables" / "variables")


def by_program(program, tf, path: Path) -> str:
    with program(tf, path) as saving:
        saving.save(1)
        saving.save(2)
    return str(tf.train.latest_checkpoint(str(path)))


WRITERS: dict[str, Callable[[Any, Path], str]] = {
    "Saver": partial(by_program, SaverProgram),
    "Saver, sharded": partial(by_program, partial(SaverProgram, sharded=True)),
    "Saver, V1": partial(by_program, partial(SaverProgram, write_version=V1)),
    "Saver, V1, sharded": partial(
        by_program, partial(SaverProgram, write_version=V1, sharded=True)
    ),
    "Saver, partitioned": save_partitioned,
    "Checkpoint": partial(by_program, CheckpointProgram),
    "CheckpointManager": partial(by_program, partial(ManagerProgram, max_to_keep=2)),
    "all kinds": save_kinds,
    "SavedModel": save_model,
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_everything_that_tensorflow_reads_is_read_alike(tf, tmp_path, write):
    prefix = write(tf, tmp_path)
    theirs = tf.train.load_checkpoint(prefix)

    assert ckptd_client.list_variables(prefix) == tf.train.list_variables(prefix)
    with ckptd_client.load_checkpoint(prefix, verify=True) as ours:
        shapes = theirs.get_variable_to_shape_map()
        assert ours.get_variable_to_shape_map() == shapes
        assert list(ours) == sorted(shapes)
        dtypes = theirs.get_variable_to_dtype_map()
        for name, kind in ours.get_variable_to_dtype_map().items():
            assert kind == dtypes[name]
            assert str(kind) == str(dtypes[name])
            assert kind.as_numpy_dtype == dtypes[name].as_numpy_dtype
        if write is not save_partitioned:  # where it lists slices under their encoded keys
            lines = sorted(theirs.debug_string().splitlines())
            assert sorted(ours.debug_string().splitlines()) == lines
        for name in shapes:
            assert ours.has_tensor(name)
            assert name in ours
            same(ours.get_tensor(name), theirs.get_tensor(name))
            same(ours[name], ckptd_client.load_variable(prefix, f"{name}:0"))
        assert len(ours) == len(shapes)
        assert not ours.has_tensor("zz")
        assert "zz" not in ours


def same(ours: Any, theirs: Any) -> None:
    """Check that a value is the same, of the same type: an array, a numpy scalar, or bytes."""
    assert type(ours) is type(theirs)
    if isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


WAYS = {
    "Saver": "{path}",
    "CheckpointManager": "{path}",
    "SavedModel": "{path}/model",
    "Saver, V1, sharded": "{prefix}",
}


@pytest.mark.parametrize(("writer", "way"), WAYS.items(), ids=WAYS)
def test_whatever_names_the_checkpoint_opens_it(tf, tmp_path, writer, way):
    prefix = WRITERS[writer](tf, tmp_path)

    path = way.format(path=tmp_path, prefix=prefix)
    assert ckptd_client.list_variables(path) == tf.train.list_variables(prefix)
    assert ckptd_client.list_variables(Path(path)) == tf.train.list_variables(prefix)
    reader = ckptd_client.NewCheckpointReader(path)
    assert reader.prefix == prefix
    assert reader.format is (Format.V1 if "V1" in writer else Format.V2)
    assert repr(reader) == f"<CheckpointReader of {prefix!r}>"


@pytest.fixture(scope="module")
def made(tf, tmp_path_factory):
    path = tmp_path_factory.mktemp("made")
    for write in (save_kinds, save_partitioned, WRITERS["Saver"], WRITERS["Saver, V1, sharded"]):
        directory = path / str(len(os.listdir(path)))
        directory.mkdir()
        write(tf, directory)
    return path


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    """Return a directory with `kinds-1`, `parts`, `m-1` and `m-2`; it is the working directory's `run`."""
    for number in "012":
        shutil.copytree(made / number, tmp_path / "run", dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def test_nothing_is_copied_and_nothing_can_be_written(run, made):
    array = ckptd_client.load_variable("run/m-2", "w")

    assert not array.flags.owndata
    assert not array.flags.writeable
    assert str(run / "m-2") in Path("/proc/self/maps").read_text()
    del array
    gc.collect()
    assert str(run) not in Path("/proc/self/maps").read_text()


def test_a_reader_is_a_mapping(run):
    with ckptd_client.load_checkpoint("run/m-2") as reader:
        tensors = dict(reader)
        assert reader.get("w") is not None
        assert reader.get("zz", "none") == "none"
        assert {reader: 1}[reader] == 1
        assert reader == reader  # noqa: PLR0124
        assert reader != tensors
        with pytest.raises(KeyError):
            reader["zz"]
    np.testing.assert_array_equal(tensors["w"], np.full(4, 2.0, np.float32))


def test_variables_are_found_by_their_readable_path(run):
    with ckptd_client.load_checkpoint("run/kinds-1") as reader:
        assert reader.object_graph is not None
        for path, expected in {
            "tree/x/y": 1.0,
            "tree/p.q/0": 2.0,
            "scalar": 7,
            "word": b"x",
            "save_counter": 1,
        }.items():
            assert path in reader.variables
            assert reader.has_tensor(path)
            assert reader.get_tensor(path) == expected == reader[reader.variables[path]]
        assert "tree/x/y" not in set(reader)  # it iterates over keys
    with ckptd_client.load_checkpoint("run/m-2") as reader:
        assert reader.object_graph is None
        assert reader.variables == {"w": "w", "b": "b"}


MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)
PARTS = np.arange(40, dtype=np.float32).reshape(10, 4)
SLICES = {
    "all": np.s_[:],
    "rows": np.s_[0:1],
    "a row": np.s_[1],
    "the last row": np.s_[-1],
    "columns": np.s_[:, 1:3],
    "an element": np.s_[1, 2],
    "nothing": np.s_[1:1],
    "beyond the end": np.s_[1:100, -2:],
    "an ellipsis": np.s_[..., 1],
    "only an ellipsis": np.s_[...],
    "an ellipsis for nothing": np.s_[0, ..., 1],
    "numpy integers": np.s_[np.int32(0), : np.int64(2)],
}


@pytest.mark.parametrize("part", SLICES.values(), ids=SLICES)
def test_a_part_is_what_indexing_the_whole_gives(run, part):
    for prefix, name, whole in (("kinds-1", "matrix", MATRIX), ("parts", "w", PARTS)):
        with ckptd_client.load_checkpoint(f"run/{prefix}", verify=True) as reader:
            found = reader.get_slice(name, part)
        np.testing.assert_array_equal(found, whole[part])


def test_a_part_may_be_a_region(run):
    with ckptd_client.load_checkpoint("run/parts") as reader:
        part = reader.get_slice("w", (Extent(2, 5), Extent(0, 1)))
        np.testing.assert_array_equal(part, PARTS[2:7, :1])
        scalar = reader.get_slice("step", ())
        assert scalar.shape == ()
        assert scalar == 5


W_IN = "tensor 'matrix/.ATTRIBUTES/VARIABLE_VALUE' of shape [2, 3]: "


@pytest.mark.parametrize(
    ("part", "error", "text"),
    [
        (np.s_[::2], ValueError, W_IN + "a step of 2, but only runs of elements can be read"),
        (np.s_[2], IndexError, W_IN + "index 2 is not inside a dimension of 2"),
        (np.s_[-3], IndexError, W_IN + "index -3 is not inside a dimension of 2"),
        (np.s_[0, 0, 0], IndexError, W_IN + "a part of it in 3 dimensions was asked for"),
        (
            (Extent(0, 2), Extent(1, 3)),
            IndexError,
            W_IN + "Extent(start=1, length=3) is not inside a dimension of 3",
        ),
        ("w", TypeError, "'str' object cannot be interpreted as an integer"),
    ],
)
def test_what_is_no_part_is_refused(run, part, error, text):
    with (
        ckptd_client.load_checkpoint("run/kinds-1") as reader,
        pytest.raises(error, match=re.escape(text)),
    ):
        reader.get_slice("matrix", part)


def test_only_the_part_is_read(run):
    size = (run / "parts.data-00000-of-00001").stat().st_size
    with (run / "parts.data-00000-of-00001").open("r+b") as file:
        file.seek(size - 8 - 16)  # in the last slice of w; the step is behind it
        file.write(b"\xff" * 4)
    with ckptd_client.load_checkpoint("run/parts", verify=True) as reader:
        np.testing.assert_array_equal(reader.get_slice("w", np.s_[:7]), PARTS[:7])
        with pytest.raises(CorruptTensorError):
            reader.get_slice("w", np.s_[7:])


def test_what_was_removed_or_saved_again_stays_as_it_was_opened(run):
    reader = ckptd_client.load_checkpoint("run/m-2")
    first = ckptd_client.load_variable("run/m-1", "w")
    for file in run.glob("m-1.*"):  # the same name, saved again
        shutil.copy(file, run / "new")
        (run / "new").rename(run / file.name.replace("m-1", "m-2"))
    np.testing.assert_array_equal(reader.get_tensor("w"), np.full(4, 2.0, np.float32))
    shutil.rmtree(run)
    np.testing.assert_array_equal(reader.get_tensor("w"), np.full(4, 2.0, np.float32))
    np.testing.assert_array_equal(first, np.full(4, 1.0, np.float32))


def test_a_reader_holds_no_descriptor_and_arrays_outlive_it(run):
    before = len(os.listdir("/proc/self/fd"))
    reader = ckptd_client.load_checkpoint("run/m-2")
    array = reader.get_tensor("w")
    assert len(os.listdir("/proc/self/fd")) == before

    reader.close()
    reader.close()
    np.testing.assert_array_equal(array, np.full(4, 2.0, np.float32))
    with pytest.raises(ValueError, match="<V2 checkpoint 'run/m-2'> is closed"):
        reader.get_tensor("w")


def test_the_working_directory_may_change(run, monkeypatch):
    reader = ckptd_client.load_checkpoint("run/m-2")
    monkeypatch.chdir("/")

    np.testing.assert_array_equal(reader.get_tensor("w"), np.full(4, 2.0, np.float32))


# What is opened.


def test_an_open_checkpoint_knows_its_files(run):
    with ckptd_client.open_checkpoint("run/m-2.index") as opened:
        sizes = {name: (run / name).stat().st_size for name in ("m-2.index", f"m-2{SHARD}")}
        assert dict(opened.files) == sizes
        assert (opened.prefix, opened.num_shards, opened.missing) == ("run/m-2", 1, ())
        assert repr(opened) == "<V2 checkpoint 'run/m-2'>"
        assert set(opened.tensors) == {"w", "b"}
    assert dict(opened.files) == sizes
    with pytest.raises(ValueError, match="closed"):
        opened.source  # noqa: B018


def test_missing_data_files_are_told_and_the_rest_is_read(tf, tmp_path):
    with SaverProgram(tf, tmp_path, sharded=True) as program:
        program.save(1)
    (tmp_path / "m-1.data-00001-of-00002").unlink()

    with ckptd_client.open_checkpoint(tmp_path / "m-1") as opened:
        assert opened.missing == ("m-1.data-00001-of-00002",)
        assert [file.name for file in opened.files] == ["m-1.index", "m-1.data-00000-of-00002"]
        assert opened.num_shards == 2
        (there,) = (n for n, stored in opened.tensors.items() if stored.shards == (0,))
        (gone,) = (n for n, stored in opened.tensors.items() if stored.shards == (1,))
        assert opened.read(there).shape == (4,)
        for _ in range(2):
            with pytest.raises(NotFoundError) as caught:
                opened.read(gone)
        assert str(caught.value) == (
            f"cannot read {tmp_path}/m-1.data-00001-of-00002: "
            "it is not there, and the index says that tensors lie in it"
        )


def test_a_v1_checkpoint_that_lacks_a_shard_is_salvaged_and_says_so(made, tmp_path):
    shutil.copytree(made / "3", tmp_path / "run")
    (tmp_path / "run" / "m-2-00000-of-00002").unlink()

    with pytest.raises(NoSuchCheckpointError, match="V1 shard 0 of 2 is missing"):
        ckptd_client.open_checkpoint(tmp_path / "run" / "m-2")
    with ckptd_client.open_checkpoint(tmp_path / "run" / "m-2", salvage=True) as opened:
        assert opened.missing == ("m-2-00000-of-00002",)
        assert opened.num_shards == 2
        (name,) = opened.tensors
        assert opened.read(name).shape == (4,)


def test_what_is_missing_is_known_after_closing_too(run):
    (run / f"m-2{SHARD}").unlink()
    opened = ckptd_client.open_checkpoint("run/m-2")
    opened.close()

    assert opened.missing == (f"m-2{SHARD}",)


def test_an_index_damaged_in_part_is_opened_for_salvage_and_says_what_it_has_lost(run):
    values = {f"{number:04d}{'x' * 150}": np.int32(number) for number in range(3000)}
    ckptd_client.save_checkpoint("run/many", values)
    flip(run / "many.index", 5)  # the first of two blocks, with the header

    with pytest.raises(CorruptIndexError, match="checksum does not match"):
        ckptd_client.open_checkpoint("run/many")
    with ckptd_client.open_checkpoint("run/many", salvage=True) as opened:
        assert isinstance(opened.source, Bundle)
        assert len(opened.source.lost) == 2
        assert opened.num_shards == 1  # as the names of the data files say
        assert 0 < len(opened.tensors) < 3000
        assert all(opened.read(name, verify=True) == values[name] for name in opened.tensors)


# What is wrong.


def test_a_missing_name_tells_what_comes_near(run):
    with ckptd_client.load_checkpoint("run/kinds-1") as reader:
        for name, text in {
            "matrx": "no tensor 'matrx' among 11; did you mean 'matrix'?",
            "x/y": "no tensor 'x/y' among 11; did you mean 'tree/x/y'?",
            "scaler": "no tensor 'scaler' among 11; did you mean 'scalar'?",
            "half:0": "no tensor 'half:0' among 11; did you mean 'half'?",
            "zzzzzzzz": "no tensor 'zzzzzzzz' among 11",
        }.items():
            with pytest.raises(NoSuchTensorError) as caught:
                reader.get_tensor(name)
            assert str(caught.value) == f"run/kinds-1: {text}"


class Damage(NamedTuple):
    """How a checkpoint is damaged, TensorFlow's word for it, and the whole of ours."""

    damage: Any
    theirs: str
    ours: str


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink()


DATA, INDEX = f"run/m-2{SHARD}", "run/m-2.index"
AT = "cannot open a checkpoint at "
DAMAGES = {
    "an empty index": Damage(
        lambda: os.truncate(INDEX, 0),
        "file is too short to be an sstable",
        f"{INDEX}: too short to be a table: 0 bytes, a footer alone takes 48",
    ),
    "a short index": Damage(
        lambda: os.truncate(INDEX, 47),
        "file is too short to be an sstable",
        f"{INDEX}: too short to be a table: 47 bytes, a footer alone takes 48",
    ),
    "a truncated index": Damage(
        lambda: os.truncate(INDEX, 100),
        "not an sstable",
        f"{INDEX}: bad magic number: not a table, or truncated",
    ),
    "a flipped byte in the index": Damage(
        lambda: flip(Path(INDEX), 5),
        "block checksum mismatch",
        f"{INDEX}: data block at 0: checksum does not match: expected 0xa4099a66, found 0x9d89d10b",
    ),
    "no data": Damage(
        lambda: shutil.move(DATA, "away"),
        "No such file or directory",
        f"cannot read {{cwd}}/{DATA}: it is not there, and the index says that tensors lie in it",
    ),
    "short data": Damage(
        lambda: os.truncate(DATA, 20),
        "Read less bytes than requested",
        f"{DATA}: tensor 'w' at byte 16: ends at byte 32 of the file, which has 20",
    ),
    "flipped data": Damage(
        lambda: flip(Path(DATA), 16),
        "Checksum does not match",
        f"{DATA}: tensor 'w' at byte 16: checksum of its data does not match: "
        "stored 0xe576be61, calculated 0x5b89b715",
    ),
    "a missing prefix": Damage(
        lambda: remove(Path("run").glob("m-2*")),
        "Failed to find any matching files for",
        f"{AT}run/m-2: there is no m-2.index, and no V1 file m-2, in run; "
        "complete are kinds-1, parts and m-1; did you mean 'm-1'?",
    ),
    "junk": Damage(
        lambda: Path(shutil.move(INDEX, "run/m-2")).write_bytes(bytes(100)),
        "Unable to open table file",
        "run/m-2: neither an index nor a V1 checkpoint: "
        "bad magic number: not a table, or truncated; "
        "name a checkpoint's prefix, its directory, or one of its files",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_every_damage_has_its_own_words(tf, run, damage):
    for order, name in enumerate(("kinds-1", "parts", "m-1")):
        os.utime(run / f"{name}.index", (order, order))
    damage.damage()

    with pytest.raises(Exception, match=re.escape(damage.theirs)):
        tf.train.load_checkpoint("run/m-2").get_tensor("w")
    with pytest.raises(CkptdError) as caught:
        ckptd_client.load_checkpoint("run/m-2", verify=True).get_tensor("w")
    assert str(caught.value) == damage.ours.format(cwd=Path.cwd())


def test_a_directory_without_a_state_file_says_what_it_holds(tf, run):
    (run / "checkpoint").unlink()
    with pytest.raises(ValueError, match="Couldn't find 'checkpoint' file or checkpoints"):
        tf.train.load_checkpoint("run")

    with pytest.raises(NoSuchCheckpointError, match=r"it has no state file .* complete are "):
        ckptd_client.load_checkpoint("run")


def test_damage_is_found_where_it_is_asked_for(run):
    flip(run / f"m-2{SHARD}", 16)

    with ckptd_client.load_checkpoint("run/m-2") as reader:
        assert reader.get_tensor("w").shape == (4,)
    with ckptd_client.load_checkpoint("run/m-2", verify=True) as reader:
        assert reader.get_tensor("b").shape == (4,)
        with pytest.raises(CorruptTensorError) as caught:
            reader.get_tensor("w")
    assert (caught.value.tensor, caught.value.file, caught.value.offset) == ("w", DATA, 16)


def test_data_that_is_cut_short_after_the_opening_is_an_error(run):
    with ckptd_client.load_checkpoint("run/m-2") as reader:
        os.truncate(run / f"m-2{SHARD}", 0)
        with pytest.raises(StorageError, match="it has been cut short since it was opened"):
            reader.get_tensor("w")
        with pytest.raises(StorageError, match="it has been cut short since it was opened"):
            reader.get_slice("w", np.s_[0])


# Types.


def test_a_type_is_what_tensorflow_and_numpy_call_it(tf):
    for name, kind in BY_NAME.items():
        theirs = tf.dtypes.DType(kind.number)
        ours = DType(kind)
        assert ours == theirs
        assert ours.name == theirs.name == name
        assert str(ours) == str(theirs)
        assert ours.as_datatype_enum == theirs.as_datatype_enum
        if kind.itemsize is not None and name not in {"int2", "uint2", "float4_e2m1fn"}:
            assert ours.size == theirs.size
        assert [other for other in BY_NAME if ours == other] == [name]
        assert [other for other in BY_NAME.values() if ours == DType(other)] == [kind]


def test_a_type_compares_with_numpys(tf):
    float32, string, qint8 = (DType(BY_NAME[name]) for name in ("float32", "string", "qint8"))

    assert float32 == np.float32 == np.dtype("f4") == float32.dtype
    assert float32 == np.dtype("f4")
    assert float32 == "float32"
    assert float32 != np.float64
    assert float32 != "no such type"
    assert float32 != 1
    assert string == object  # noqa: E721
    assert qint8 != np.int8
    assert np.zeros(2, float32.as_numpy_dtype).dtype == np.float32
    assert np.dtype(float32) == np.float32
    assert len({float32, DType(BY_NAME["float32"]), string}) == 2
    assert repr(float32) == "ckptd_client.float32"
