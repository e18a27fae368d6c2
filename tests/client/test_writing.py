"""A checkpoint is saved as TensorFlow restores it, in bounded memory, whole or not at all."""

import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from ckptd.errors import NoSpaceError, NoSuchDirectoryError, StorageError
from ckptd.formats.partitions import Partitioned
from ckptd.storage.disk import DiskDirectory
from ckptd_client.writing import save_checkpoint

W = np.arange(15, dtype="f4").reshape(5, 3)
TENSORS = {"w": W, "b": np.int64(7), "layer/größe": np.array([1, 2], "f4")}


def names(path):
    return sorted(file.name for file in path.iterdir())


def restored(tf, prefix, tensors):
    reader = tf.compat.v1.train.NewCheckpointReader(prefix)
    found = {name: reader.get_tensor(name) for name in tensors}
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    return reader.get_variable_to_shape_map().keys() == tensors.keys()


@pytest.mark.parametrize(
    ("options", "returned", "files"),
    [
        ({}, "m", ["m.data-00000-of-00001", "m.index"]),
        ({"global_step": 7}, "m-7", ["m-7.data-00000-of-00001", "m-7.index"]),
        ({"global_step": np.int64(-3)}, "m--3", ["m--3.data-00000-of-00001", "m--3.index"]),
        (
            {"num_shards": 2, "meta_graph": b"graph"},
            "m",
            ["m.data-00000-of-00002", "m.data-00001-of-00002", "m.index", "m.meta"],
        ),
        ({"version": "v1"}, "m", ["m"]),
        (
            {"version": "v1", "global_step": 7, "num_shards": 2, "meta_graph": b"graph"},
            "m-7-?????-of-00002",
            ["m-7-00000-of-00002", "m-7-00001-of-00002", "m-7.meta"],
        ),
    ],
)
def test_files_are_named_as_tensorflow_names_them(tmp_path, options, returned, files):
    assert save_checkpoint(tmp_path / "m", TENSORS, **options) == str(tmp_path / returned)
    assert names(tmp_path) == files
    if "meta_graph" in options:
        meta = next(tmp_path.glob("*.meta"))
        assert meta.read_bytes() == b"graph"


def test_a_prefix_may_be_relative_and_its_directory_new(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert save_checkpoint("m", TENSORS) == "m"
    assert save_checkpoint("run/m", TENSORS, global_step=1) == "run/m-1"
    assert names(tmp_path / "run") == ["m-1.data-00000-of-00001", "m-1.index"]
    with pytest.raises(NoSuchDirectoryError, match="cannot open no: No such"):
        save_checkpoint("no/such/m", TENSORS)
    assert names(tmp_path) == ["m.data-00000-of-00001", "m.index", "run"]


def test_saving_again_replaces_all_of_it(tmp_path):
    for options in ({"num_shards": 3}, {"version": "v1"}, {"version": "v1", "num_shards": 2}, {}):
        save_checkpoint(tmp_path / "m", TENSORS, **options)

    assert names(tmp_path) == ["m.data-00000-of-00001", "m.index"]


def test_progress_is_told_up_to_the_end(tmp_path):
    tensors = {"a": np.zeros(5 << 20, "f8"), "b": np.float64(1)}
    told = []

    save_checkpoint(tmp_path / "m", tensors, progress=lambda *seen: told.append(seen))

    done = [done for done, _ in told]
    assert done == sorted(done)
    assert {total for _, total in told} == {(40 << 20) + 8}
    assert done[-1] == (40 << 20) + 8
    assert len(told) > 5

    told.clear()
    save_checkpoint(
        tmp_path / "v1", TENSORS, version="v1", progress=lambda *seen: told.append(seen)
    )
    assert told == [(76, 76)]


def test_an_exception_in_the_progress_ends_the_save_and_leaves_nothing(tmp_path):
    def stop(_done, _total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "m", TENSORS, progress=stop)

    assert names(tmp_path) == []


def test_a_disk_that_is_full_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(DiskDirectory, "free_bytes", lambda _: 75)

    with pytest.raises(NoSpaceError, match=r"cannot save .*/m: it takes 76 bytes, 75 are free"):
        save_checkpoint(tmp_path / "m", TENSORS)

    assert names(tmp_path) == []


def test_a_write_that_fails_leaves_the_checkpoint_that_was_there(tmp_path):
    save_checkpoint(tmp_path / "m", TENSORS)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    code = f"""
        import resource, signal
        import numpy as np
        from ckptd.errors import StorageError
        from ckptd_client.writing import save_checkpoint

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            save_checkpoint({str(tmp_path / "m")!r}, {{"w": np.zeros(1 << 20)}})
        except StorageError as error:
            print(error)
    """

    told = subprocess.check_output([sys.executable, "-c", textwrap.dedent(code)], text=True)

    assert "File too large" in told
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("prefix", "tensors", "options", "kind", "reason"),
    [
        ("m", {}, {}, ValueError, "at least one tensor"),
        ("m", {"a": {1, 2}}, {}, TypeError, "tensor 'a': .* with a set in it"),
        ("m", TENSORS, {"version": "V2"}, ValueError, "version is 'v2' or 'v1', not 'V2'"),
        ("m", TENSORS, {"global_step": 5.0}, TypeError, "float"),
        ("m", TENSORS, {"num_shards": 0}, ValueError, "1 to 99,999 shards"),
        ("", TENSORS, {}, ValueError, "does not end in the name of a checkpoint"),
        ("", TENSORS, {"global_step": 5}, ValueError, "does not end in the name of a checkpoint"),
        ("..", TENSORS, {}, ValueError, "does not end in the name of a checkpoint"),
        ("m\0", TENSORS, {}, ValueError, r"m\\\\x00' does not end in the name of a checkpoint"),
        ("m\udcff", TENSORS, {}, ValueError, "its name is not UTF-8"),
        ("m.part-00000-of-00001", TENSORS, {}, ValueError, "would be taken for temporary ones"),
        ("checkpoint", TENSORS, {"version": "v1"}, ValueError, "the place of the state file"),
        ("m", {"a": np.zeros(1, "u8"), "b": W}, {"version": "v1"}, TypeError, "V1 .* no uint64"),
        ("m", {"a\udcff": W}, {"version": "v1"}, ValueError, "V1 has no names that are not UTF-8"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_anything_is_written(
    tmp_path, prefix, tensors, options, kind, reason
):
    with pytest.raises(kind, match=reason):
        save_checkpoint(f"{tmp_path}/{prefix}", tensors, **options)

    assert names(tmp_path) == []
    assert names(tmp_path.parent).count(tmp_path.name) == 1


def test_a_directory_in_the_way_is_not_replaced(tmp_path):
    (tmp_path / "m.index").mkdir()

    with pytest.raises(StorageError, match="is a directory"):
        save_checkpoint(tmp_path / "m", TENSORS)

    assert "m.index" in names(tmp_path)
    assert not [name for name in names(tmp_path) if "tempstate" in name]


@pytest.mark.parametrize("layout", ["as in the file", "converted", "in slices"])
def test_memory_beyond_the_arrays_is_bounded(tmp_path, layout):
    code = f"""
        import resource
        import numpy as np
        from ckptd.formats.partitions import Partitioned
        from ckptd_client.writing import save_checkpoint

        arrays = {{f"w{{n}}": np.ones((2048, 4096), "f4") for n in range(2)}}
        if {layout!r} == "converted":
            arrays = {{name: array.T for name, array in arrays.items()}}
        if {layout!r} == "in slices":
            arrays = {{name: Partitioned(array, (2, 3)) for name, array in arrays.items()}}
        save_checkpoint({str(tmp_path / "warm")!r}, {{"w": np.ones(4)}})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        save_checkpoint({str(tmp_path / "m")!r}, arrays)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """

    grown = subprocess.check_output([sys.executable, "-c", textwrap.dedent(code)], text=True)

    assert (tmp_path / "m.data-00000-of-00001").stat().st_size == 64 << 20
    assert int(grown) < 24 << 10  # kilobytes; a copy of one array would be 32 MiB


def test_a_save_opens_nothing_that_it_does_not_close(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 8, hard))
    try:
        save_checkpoint(tmp_path / "m", {f"{n}": np.float32(n) for n in range(99)}, num_shards=99)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert len(names(tmp_path)) == 100


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("version", ["v2", "v1"])
@pytest.mark.parametrize("num_shards", [1, 2, 5])
def test_tensorflow_reads_what_is_saved(tf, tmp_path, version, num_shards):
    prefix = save_checkpoint(
        tmp_path / "m", TENSORS, global_step=3, version=version, num_shards=num_shards
    )

    assert restored(tf, prefix, TENSORS)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("version", ["v2", "v1"])
@pytest.mark.parametrize("num_shards", [1, 3])
def test_a_saver_restores_what_is_saved_in_slices(tf, tmp_path, version, num_shards):
    tensors = {"w": Partitioned(W, (2, 1)), "whole": W, "b": np.int64(7)}
    prefix = save_checkpoint(tmp_path / "m", tensors, version=version, num_shards=num_shards)

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        whole = v1.get_variable("whole", (5, 3))
        parted = v1.get_variable("w", (5, 3), partitioner=v1.fixed_size_partitioner(2))
        scalar = v1.get_variable("b", (), dtype=tf.int64)
        v1.train.Saver().restore(session, prefix)
        found = session.run([whole, parted.as_tensor(), scalar])

    np.testing.assert_array_equal(found[0], W)
    np.testing.assert_array_equal(found[1], W)
    assert found[2] == 7


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("version", [2, 1])
def test_the_files_are_byte_for_byte_the_savers(tf, tmp_path, version):
    tensors = {"w": W, "b": np.int64(7), "a/b": np.arange(300, dtype="i4")}
    theirs = tmp_path / "theirs"
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        for name, value in tensors.items():
            v1.get_variable(name, initializer=value)
        session.run(v1.global_variables_initializer())
        v1.train.Saver(write_version=version).save(session, str(theirs), write_meta_graph=False)

    save_checkpoint(tmp_path / "ours", tensors, version="v2" if version == 2 else "v1")

    suffixes = [".index", ".data-00000-of-00001"] if version == 2 else [""]
    for suffix in suffixes:
        ours = tmp_path / f"ours{suffix}"
        assert ours.read_bytes() == theirs.with_name(f"theirs{suffix}").read_bytes()


def test_a_new_directory_is_open_to_whom_the_umask_lets_in(tmp_path):
    tmp_path.chmod(0o1777)
    before = os.umask(0o027)
    try:
        save_checkpoint(tmp_path / "run" / "m", TENSORS)
    finally:
        os.umask(before)

    assert (tmp_path / "run").stat().st_mode & 0o7777 == 0o750


@pytest.mark.parametrize(
    "name",
    [
        "m.index",
        "m.data-00000-of-00001",
        "m.tempstate5",
        f"m.tmp{'0' * 32}",
        "m-00000-of-00001",
        ".ckptd",
    ],
)
def test_a_v1_checkpoint_has_no_name_of_another_file(tmp_path, name):
    with pytest.raises(ValueError, match="a file of another kind"):
        save_checkpoint(tmp_path / name, TENSORS, version="v1")

    assert not names(tmp_path)


def test_a_directory_under_the_name_of_a_file_stays_where_it_is(tmp_path):
    save_checkpoint(tmp_path / "m", TENSORS)
    (tmp_path / "m.index").unlink()
    (tmp_path / "m.index").mkdir()
    (tmp_path / "m.index" / "precious").touch()

    with pytest.raises(StorageError, match="it is a directory"):
        save_checkpoint(tmp_path / "m", TENSORS)

    assert names(tmp_path) == ["m.data-00000-of-00001", "m.index"]
    assert names(tmp_path / "m.index") == ["precious"]
