"""npz and safetensors: what goes out comes back, and nothing hostile comes in."""

import io
import json
import os
import struct
import sys
import time
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensor_files import data_file, flip, save_bundle

from ckptd.errors import (
    CkptdError,
    CorruptTensorError,
    FormatError,
    MissingLibraryError,
    NoSuchTensorError,
    StorageError,
)
from ckptd.formats.arrays import numpy_dtype
from ckptd.formats.dtypes import BY_NAME
from ckptd.formats.partitions import Partitioned
from ckptd.formats.tensors import StoredTensor
from ckptd.formats.v1_writer import encode_v1
from ckptd.storage.output import new_output
from ckptd.storage.reading import ReaderDirectory
from ckptd_client.comparing import Change, compare
from ckptd_client.exchange import (
    Selection,
    UnsupportedTensorError,
    lost_of,
    source_of_arrays,
    why_not_checkpoint,
)
from ckptd_client.npz import open_npz, write_npz
from ckptd_client.opening import open_checkpoint
from ckptd_client.safetensors_file import (
    open_safetensors,
    why_not_safetensors,
    write_safetensors,
)

NUMPY = "float16 float32 float64 complex64 complex128 bool int8 int16 int32 int64 uint8 uint16 uint32 uint64"
OTHERS = "bfloat16 float8_e5m2 float8_e4m3fn float8_e4m3fnuz float8_e4m3b11fnuz float8_e5m2fnuz int4 uint4 int2 uint2 float4_e2m1fn"

EVERY = {
    **{name: np.array([[0, 1], [1, 0]], name) for name in NUMPY.split()},
    **{name: np.array([0, 1, 1], getattr(ml_dtypes, name)) for name in OTHERS.split()},
    "scalar": np.array(3.5),
    "empty": np.zeros((0, 4), np.float32),
    "deep": np.arange(64).reshape(1, 2, 1, 2, 2, 2, 2, 2),
    "string": np.array([[b"a", b"", b"\0x"]], object),
    "no strings": np.empty((0, 2), object),
    "a/b:0": np.arange(3.0),
    "größe\n\x1b[2J": np.arange(2),
    "nul\0": np.arange(4),
    "bytes\udcff": np.arange(5),
    "x.npy": np.arange(6),
    "../../etc/passwd": np.arange(7),
}


def as_npz(source) -> bytes:
    stream = io.BytesIO()
    write_npz(stream, source)
    return stream.getvalue()


def same(one, other) -> bool:
    return all(each.change is Change.SAME for each in compare(one, other))


def test_npz_brings_back_every_type_shape_and_name():
    source = source_of_arrays(EVERY)
    back = open_npz(memoryview(as_npz(source)), "x.npz")

    assert {n: (t.data_type, t.shape) for n, t in back.tensors.items()} == {
        n: (t.data_type, t.shape) for n, t in source.tensors.items()
    }
    assert same(source, back)
    assert not lost_of(back)


def test_numpy_reads_it_without_pickle():
    with np.load(io.BytesIO(as_npz(source_of_arrays(EVERY)))) as loaded:
        for name in NUMPY.split():
            assert loaded[name].dtype == name
            assert np.array_equal(loaded[name], EVERY[name])
        assert loaded["bfloat16"].dtype == np.uint16
        assert loaded["string"].tolist() == [[b"a", b"", b"\0x"]]
        assert loaded["nul\\x00"].tolist() == [0, 1, 2, 3]
        assert loaded["../../etc/passwd"].tolist() == list(range(7))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(save):
    arrays = {
        "w": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
        "text": np.array(["a", "größe"]),
        "bytes": np.array([b"xyz"]),
        "none": np.zeros((0, 2)),
    }
    stream = io.BytesIO()
    save(stream, **arrays)
    back = open_npz(memoryview(stream.getvalue()), "x.npz")

    for name in ("w", "big", "none"):
        read = back.read(name, verify=True)
        assert np.array_equal(read, arrays[name])
        assert read.dtype.isnative
    assert back.read("text").tolist() == [b"a", "größe".encode()]
    assert back.read("bytes").tolist() == [b"xyz"]
    assert back.tensors["text"].data_type.name == "string"


@given(
    hnp.arrays(
        hnp.scalar_dtypes().filter(
            lambda d: d.kind in "iufcb" and d.itemsize <= 16 and d.char not in "gG"
        ),
        hnp.array_shapes(min_dims=0, min_side=0, max_side=4),
    )
)
def test_any_array_of_numpy_goes_there_and_back(array):
    native = array.astype(array.dtype.newbyteorder("="))
    back = open_npz(memoryview(as_npz(source_of_arrays({"x": native}))), "x.npz")

    assert back.read("x").tobytes() == native.tobytes()


def test_two_names_that_look_alike_stay_two():
    source = source_of_arrays({"a\0": np.zeros(1), "a\\x00": np.ones(1), "a\\x00~2": np.ones(2)})

    assert same(source, open_npz(memoryview(as_npz(source)), "x.npz"))


def test_equal_tensors_make_equal_files():
    assert as_npz(source_of_arrays(EVERY)) == as_npz(source_of_arrays(EVERY))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([b"a\0"], object), "ends with a NUL"),
        (np.array([b"x" * 2**20, *[b""] * 300], object), "as long as the longest"),
    ],
)
def test_strings_that_numpy_would_spoil_are_refused(array, reason):
    with pytest.raises(UnsupportedTensorError, match=reason):
        as_npz(source_of_arrays({"s": array}))


def test_a_large_partitioned_tensor_is_streamed(tmp_path):
    array = np.zeros((2**14, 2**10), np.float32)  # 64 MiB
    array[-1, -1] = 7
    prefix = save_bundle(tmp_path / "m", {"x": Partitioned(array, (5, 1)), "y": array})
    with (
        open_checkpoint(prefix) as opened,
        new_output(str(tmp_path / "x.npz"), replace=False) as out,
    ):
        tracemalloc.start()
        write_npz(out.stream, opened.source)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert peak < 32 * 2**20
    view = ReaderDirectory(str(tmp_path)).map("x.npz").view
    back = open_npz(view, "x.npz")
    tracemalloc.start()
    assert back.read("y", verify=True)[-1, -1] == 7
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
    assert np.array_equal(back.read("x"), array)


def header(shape: str, descr: str = "'<f4'", extra: str = "") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}{extra}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def zipped(*members: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not a sound zip"),
        (b"PK\x03\x04" + bytes(100), "not a sound zip"),
        (zipped(("a.npy", b"")), "not an array of numpy's"),
        (zipped(("a.npy", header("(2,)"))), "take 8 bytes, it has 0"),
        (zipped(("a.npy", header("(10**18,)"))), "not an array of numpy's"),
        (zipped(("a.npy", header("(1000000000000000000,)"))), "it has 0"),
        (zipped(("a.npy", header("(-1,)") + bytes(4))), "no array has the shape"),
        (zipped(("a.npy", header("(99999999999999999999,)"))), "no array has the shape"),
        (zipped(("a.npy", header("(1,)", "'|O'") + bytes(8))), "pickled"),
        (zipped(("a.npy", header("(1,)", "[('f', '<f4')]") + bytes(4))), "cannot hold dtype"),
        (zipped(("a.npy", header("(1,)", "'<M8[s]'") + bytes(8))), "cannot hold dtype"),
        (zipped(("a.npy", b"\x93NUMPY\x09\x00")), "not an array of numpy's"),
        (zipped(("a.npy", header("(", "(" * 5000))), "not an array of numpy's"),
        (zipped(("a.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff")), "not an array of numpy's"),
    ],
)
def test_what_is_no_npz_is_refused(data, problem):
    with pytest.raises(FormatError, match=problem) as caught:
        open_npz(memoryview(data), "evil\n.npz")

    assert str(caught.value).startswith("evil\\n.npz: ")


def test_a_member_that_declares_more_than_the_file_holds_allocates_nothing():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header("(268435456,)"))
    data = bytearray(stream.getvalue())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 2**30 + len(header("(268435456,)")))

    with pytest.raises(FormatError, match="more bytes than the file can hold"):
        open_npz(memoryview(bytes(data)), "x.npz")


@given(st.data())
def test_a_mutated_npz_is_read_or_refused(data):
    good = as_npz(source_of_arrays({"w": np.arange(9.0), "s": np.array([b"x"], object)}))
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    try:
        source = open_npz(memoryview(bytes(bad[: data.draw(st.integers(0, len(bad)))])), "x")
        for name in source.tensors:
            source.read(name, verify=True)
    except CkptdError:
        pass


def test_a_flipped_byte_is_found_when_it_is_asked_for():
    data = bytearray(as_npz(source_of_arrays({"w": np.arange(9.0)})))
    data[data.index(np.arange(9.0).tobytes())] ^= 1
    source = open_npz(memoryview(bytes(data)), "x.npz")

    assert source.read("w")[1] == 1
    with pytest.raises(CorruptTensorError, match="checksum"):
        source.read("w", verify=True)
    assert list(lost_of(source)) == ["w"]


SAFE = {
    n: a for n, a in EVERY.items() if not why_not_safetensors(source_of_arrays({n: a}).tensors[n])
}


def written_safely(tmp_path, arrays):
    path = tmp_path / "x.safetensors"
    with new_output(str(path), replace=True) as out:
        write_safetensors(out.path, source_of_arrays(arrays))
    return path


def opened_safely(path):
    return open_safetensors(str(path), ReaderDirectory(str(path.parent)).map(path.name).view)


def test_safetensors_brings_back_what_the_format_has(tmp_path):
    path = written_safely(tmp_path, SAFE)
    back = opened_safely(path)

    assert {"bfloat16", "float8_e4m3fn", "float8_e5m2", "scalar", "empty", "nul\0"} <= set(SAFE)
    assert not {"string", "complex128", "int4", "bytes\udcff"} & set(SAFE)
    assert same(source_of_arrays(SAFE), back)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def test_the_library_reads_it(tmp_path):
    from safetensors.numpy import load_file

    plain = {name: SAFE[name] for name in ("float32", "int64", "bool", "bfloat16", "empty")}
    loaded = load_file(written_safely(tmp_path, plain))

    assert all(np.array_equal(loaded[name], plain[name]) for name in plain)


def test_what_safetensors_lacks_is_refused_before_anything_is_written(tmp_path):
    for name in ("string", "complex128", "bytes\udcff"):
        with pytest.raises(UnsupportedTensorError, match="safetensors"):
            written_safely(tmp_path, {"a": np.zeros(1), name: EVERY[name]})

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"12345678",
        struct.pack("<Q", 2**60),
        struct.pack("<Q", 2) + b"{}xxx",
        struct.pack("<Q", 60)
        + b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}      '
        + bytes(4),
    ],
)
def test_what_is_no_safetensors_is_refused(tmp_path, data):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)

    with pytest.raises(FormatError, match="not a sound safetensors file"):
        opened_safely(path)


def test_a_type_that_tensorflow_lacks_is_refused(tmp_path):
    said = json.dumps({"a": {"dtype": "F8_E8M0", "shape": [1], "data_offsets": [0, 1]}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(said)) + said + b"\0")

    with pytest.raises(FormatError, match="TensorFlow has nothing for F8_E8M0"):
        opened_safely(path)


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)

    with pytest.raises(MissingLibraryError, match=r"ckptd\[safetensors\]"):
        opened_safely_of_nothing(tmp_path)


def opened_safely_of_nothing(tmp_path):
    return open_safetensors(str(tmp_path / "x"), memoryview(b""))


def test_safetensors_of_a_mapped_checkpoint_is_not_copied(tmp_path):
    array = np.zeros(2**23, np.float32)
    prefix = save_bundle(tmp_path / "m", {"x": array})
    del array
    path = tmp_path / "x.safetensors"
    with open_checkpoint(prefix) as opened, new_output(str(path), replace=False) as out:
        tracemalloc.start()
        write_safetensors(out.path, opened.source)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert peak < 2**20
    assert opened_safely(path).read("x").shape == (2**23,)


def test_a_selection_has_new_names_and_nothing_else(tmp_path):
    source = source_of_arrays({"a": np.zeros(1), "b": np.ones(2), "c": np.ones(3)})
    selection = Selection(source, {"z": "a", "b": "b"})

    assert [(n, t.name) for n, t in selection.tensors.items()] == [("b", "b"), ("z", "z")]
    assert selection.read("z").tolist() == [0]
    assert list(selection.without(["b"]).tensors) == ["z"]
    with pytest.raises(NoSuchTensorError):
        selection.read("a")


def test_what_is_lost_is_told_and_the_rest_is_not(tmp_path):
    tensors = {name: np.full(4, n) for n, name in enumerate("abc")}
    prefix = save_bundle(tmp_path / "m", tensors)
    flip(data_file(prefix), 33)

    with open_checkpoint(prefix) as opened:
        lost = lost_of(opened.source)

    assert list(lost) == ["b"]
    assert "checksum" in lost["b"]


@pytest.mark.parametrize("name", ["\0" * 20_000, "\udcff" * 12_000, "é" * 32_800, "a" * 65_530])
def test_a_name_that_no_zip_holds_is_told(name):
    source = source_of_arrays({name: np.zeros(1)})

    with pytest.raises(UnsupportedTensorError, match="too long for a zip"):
        as_npz(source)


@pytest.mark.parametrize("name", ["\0" * 9_000, "\udcff" * 9_000, "é" * 32_700, "a" * 65_520])
def test_a_long_name_comes_back(name):
    source = source_of_arrays({name: np.zeros(1)})

    assert same(source, open_npz(memoryview(as_npz(source)), "x.npz"))


def test_two_members_of_one_tensor_are_refused():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("a.npy", "b.npy"):
            info = zipfile.ZipInfo(name)
            info.comment = json.dumps({"name": "same"}).encode()
            data = io.BytesIO()
            np.save(data, np.zeros(1))
            archive.writestr(info, data.getvalue())

    with pytest.raises(FormatError, match="a tensor of the same name"):
        open_npz(memoryview(stream.getvalue()), "x.npz")


@pytest.mark.parametrize("shape", ["(True,)", f"({'1, ' * 65})", f"({2**62}, 0)", "(1, -1)"])
def test_a_shape_that_numpy_has_not_is_refused(shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        start = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little")
        archive.writestr("a.npy", start + header + (b"" if ", 0)" in shape else bytes(4)))

    with pytest.raises(FormatError, match="no array has the shape"):
        open_npz(memoryview(stream.getvalue()), "x.npz")


def test_a_selection_of_many_tensors_takes_no_quadratic_time():
    source = source_of_arrays({f"tensor/{n}": np.zeros(1) for n in range(20_000)})

    before = time.process_time()
    Selection(source, {name: name for name in source.tensors})

    assert time.process_time() - before < 2  # a second for each thousand, before


def test_a_scalar_read_by_its_region_is_an_array():
    source = source_of_arrays({"x": np.array(b"text", object)})

    assert source.read("x", region=()).shape == ()


def test_an_error_of_safetensors_speaks_of_the_file_that_was_asked_for(tmp_path):
    source = source_of_arrays({"x": np.zeros(1)})

    with pytest.raises(StorageError, match=r"cannot write a\.safetensors"):
        write_safetensors(str(tmp_path / "no" / "temporary"), source, called="a.safetensors")


@pytest.mark.parametrize("kind", BY_NAME.values(), ids=lambda kind: kind.name)
def test_what_v1_is_said_to_hold_is_what_it_can_be_written(kind):
    tensor = StoredTensor("x", kind, (), 1, (0,))
    array = np.array(b"text", object) if kind.name == "string" else None
    if array is None and kind.itemsize is not None:
        array = np.zeros((), numpy_dtype(kind))

    written = True
    try:
        encode_v1({"x": array}, data_types={"x": kind})
    except TypeError:
        written = False

    assert written == (why_not_checkpoint(tensor, "v1") == "")
