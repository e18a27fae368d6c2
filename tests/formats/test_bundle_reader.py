"""A bundle is read when asked, and only what is asked; each damage is named and does no more harm."""

import mmap
import re
import sys
import time

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptd.errors import CorruptIndexError, CorruptTensorError, FormatError, NoSuchTensorError
from ckptd.formats.bundle_index import Piece, parse_index, read_pieces, read_promise
from ckptd.formats.checksum import masked_crc32c
from ckptd.formats.dtypes import BY_NAME, FLOAT32, STRING
from ckptd.formats.messages import BundleEntry, BundleHeader, TensorSlice
from ckptd.formats.regions import Extent
from ckptd.formats.slices import slice_key
from ckptd.formats.sorted_table import write_table
from ckptd.formats.string_tensor import encode_strings, encode_variants
from ckptd.formats.tensor_bundle import Bundle

BIG = {"num_shards": 1, "endianness": BundleHeader.BIG}


def index_of(entries, header=None, **sizes):
    """The index of these entries, by key; an entry is a dict of fields, or the bytes of its row."""
    rows = {b"": BundleHeader(**(header or {"num_shards": 1})).SerializeToString()}
    for key, entry in entries.items():
        rows[key] = entry if isinstance(entry, bytes) else BundleEntry(**entry).SerializeToString()
    return write_table(sorted(rows.items()), **sizes)


def entry_of(data, dtype, *shape, offset=0, shard=0):
    """The entry of a tensor stored as `data` at `offset`."""
    return {
        "dtype": BY_NAME[dtype].number,
        "shape": {"dim": [{"size": size} for size in shape]},
        "shard_id": shard,
        "offset": offset,
        "size": len(data),
        "crc32c": masked_crc32c(data),
    }


def region(*extents):
    return tuple(Extent(start, length) for start, length in extents)


class Shards:
    """Data files in memory, that remember who asked."""

    def __init__(self, *files):
        self.files = files
        self.asked = []

    def __call__(self, number):
        self.asked.append(number)
        return memoryview(self.files[number])


FLOATS = np.arange(6, dtype="f4").tobytes()
SIX = entry_of(FLOATS, "float32", 2, 3, offset=1)


def test_nothing_is_copied_or_touched_before_it_is_asked_for():
    data = bytearray(b"\xff" + FLOATS)
    shards = Shards(data)
    bundle = Bundle(index_of({b"a": SIX, b"e": entry_of(b"", "float32", 0, 4)}), shards)

    assert bundle.tensors["a"].shape == (2, 3)
    assert bundle.read("e", verify=True).shape == (0, 4)
    assert shards.asked == []

    array = bundle.read("a")
    data[1:5] = np.float32(9).tobytes()
    assert array[0, 0] == 9
    assert not array.flags.writeable
    assert bundle.read("a")[1, 2] == 5
    assert shards.asked == [0]


def test_numbers_may_lie_anywhere():
    array = Bundle(index_of({b"a": SIX}), Shards(b"\xff" + FLOATS)).read("a")

    assert not array.flags.aligned
    np.testing.assert_array_equal(array * 2 + array.sum(), np.arange(6).reshape(2, 3) * 2 + 15)
    np.testing.assert_array_equal(array @ array.T, [[5, 14], [14, 50]])


def test_a_part_is_a_view():
    data = bytearray(b"\xff" + FLOATS)
    array = Bundle(index_of({b"a": SIX}), Shards(data)).read("a", region=region((1, 1), (0, 2)))

    data[13:17] = np.float32(9).tobytes()
    assert array.tolist() == [[9, 4]]


@pytest.mark.parametrize("wrong", [(), region((0, 1)), region((0, 3), (0, 3)), region((-1, 1)) * 2])
def test_a_part_that_is_not_there_is_a_mistake(wrong):
    with pytest.raises(ValueError, match=r"tensor 'a' has no .*: shape \[2, 3\]"):
        Bundle(index_of({b"a": SIX}), Shards(b"")).read("a", region=wrong)


def test_checksums_are_checked_when_asked():
    broken = Bundle(index_of({b"a": SIX}), Shards(b"\xff" + FLOATS[:-1] + b"\1"))

    assert broken.read("a")[0].tolist() == [0, 1, 2]
    with pytest.raises(
        CorruptTensorError,
        match=r"^shard 0 of 1: tensor 'a' at byte 1: checksum of its data does not match: "
        r"stored 0x[0-9a-f]{8}, calculated 0x[0-9a-f]{8}$",
    ) as caught:
        broken.read("a", region=region((0, 1), (0, 1)), verify=True)
    assert (caught.value.tensor, caught.value.file, caught.value.offset) == ("a", "shard 0 of 1", 1)


def test_a_scalar_and_its_part_are_arrays():
    data = np.float64(3.5).tobytes()
    bundle = Bundle(index_of({b"a": entry_of(data, "float64")}), Shards(data))

    for array in (bundle.read("a"), bundle.read("a", region=())):
        assert (array.shape, array.dtype, array.item()) == ((), np.dtype("f8"), 3.5)


def test_names_that_come_near_are_named():
    bundle = Bundle(index_of({b"layer/kernel": SIX}), Shards(b""))

    with pytest.raises(
        NoSuchTensorError,
        match="no tensor 'layer/kernell' in the checkpoint; did you mean 'layer/kernel'",
    ):
        bundle.read("layer/kernell")
    for name in ("", "\ud800", "\udcff"):
        with pytest.raises(NoSuchTensorError):
            bundle.read(name)


@pytest.mark.parametrize("key", ["größe".encode(), b"a\0b", b"\0", b"\xff\xfe", b"\xed\xa0\x80"])
def test_names_of_any_bytes_are_read(key):
    bundle = Bundle(index_of({key: SIX}), Shards(b"\0" + FLOATS))

    (name,) = bundle.tensors
    assert name.encode("utf-8", "surrogateescape") == key
    assert bundle.read(name).shape == (2, 3)
    assert [piece.name for piece in read_pieces(index_of({key: SIX}))] == [name]


# Partitioned tensors.


def sliced(array, dtype, cuts, shards=None):
    """The entries of `w`, cut into the given extents, and its data files, a slice in each."""
    parts = [
        TensorSlice(extent=[{"start": s, "length": n} if n >= 0 else {} for s, n in cut])
        for cut in cuts
    ]
    shape = {"dim": [{"size": size} for size in array.shape]}
    entries = {b"w": {"dtype": BY_NAME[dtype].number, "shape": shape, "slices": parts}}
    files = []
    for number, (part, cut) in enumerate(zip(parts, cuts, strict=True)):
        piece = array[tuple(slice(s, s + n if n >= 0 else None) for s, n in cut)]
        if dtype == "string":
            data, crc = encode_strings(piece.ravel().tolist())
            entry = entry_of(data, dtype, *piece.shape, shard=number) | {"crc32c": crc}
        else:
            data = piece.tobytes()
            entry = entry_of(data, dtype, *piece.shape, shard=number)
        entries[slice_key(b"w", part)] = entry
        files.append(data)
    return entries, files


ALL = (0, -1)
CUTS = [[(0, 2), ALL], [(2, 2), (0, 1)], [(2, 2), (1, 2)]]
W = np.arange(12).reshape(4, 3)


@pytest.mark.parametrize(
    "dtype", ["float16", "uint16", "uint32", "uint64", "bfloat16", "bool", "string"]
)
def test_slices_are_put_together_for_every_type(dtype):
    if dtype == "string":
        array = np.array([b"%d" % n for n in range(12)], object).reshape(4, 3)
    elif dtype == "bfloat16":
        array = W.astype(ml_dtypes.bfloat16)
    else:
        array = W.astype(dtype)
    entries, files = sliced(array, dtype, CUTS)
    bundle = Bundle(index_of(entries, {"num_shards": 3}), Shards(*files))

    assert list(bundle.tensors) == ["w"]
    assert bundle.damaged == {}
    stored = bundle.tensors["w"]
    assert stored.slices == (
        region((0, 2), (0, 3)),
        region((2, 2), (0, 1)),
        region((2, 2), (1, 2)),
    )
    assert (stored.nbytes, stored.shards) == (sum(map(len, files)), (0, 1, 2))
    whole = bundle.read("w", verify=True)
    assert whole.dtype == array.dtype
    assert whole.tolist() == array.tolist()
    assert bundle.read("w", region=region((1, 2), (1, 2))).tolist() == array[1:3, 1:].tolist()


def test_only_the_slices_that_are_needed_are_read():
    entries, files = sliced(W.astype("f4"), "float32", CUTS)
    files = [bytearray(data) for data in files]
    shards = Shards(*files)
    bundle = Bundle(index_of(entries, {"num_shards": 3}), shards)

    array = bundle.read("w", region=region((3, 1), (1, 2)))
    assert shards.asked == [2]
    files[2][8:12] = np.float32(99).tobytes()
    assert array.tolist() == [[99, 11]]  # a view: it lies in one slice
    assert bundle.read("w", region=region((1, 0), (0, 3))).shape == (0, 3)


def without(entries, *keys):
    return {key: entry for key, entry in entries.items() if key not in keys}


SLICED, SLICED_FILES = sliced(W.astype("f4"), "float32", CUTS)
KEYS = [slice_key(b"w", part) for part in SLICED[b"w"]["slices"]]
OVERLAPPING, _ = sliced(W.astype("f4"), "float32", [[(0, 3), ALL], [(2, 2), ALL]])


def listing(*, dropped=None, shape=(4, 3)):
    parts = [part for n, part in enumerate(SLICED[b"w"]["slices"]) if n != dropped]
    dims = {"dim": [{"size": size} for size in shape]}
    return SLICED | {b"w": {"dtype": 1, "shape": dims, "slices": parts}}


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        (OVERLAPPING, "its slices 0,3:- and 2,2:- overlap"),
        (listing(dropped=2), "no slice of it holds 2,2:1,2"),
        (without(SLICED, KEYS[0]), "slice 0,2:-: it has no row"),
        (SLICED | {KEYS[0]: b"\xff"}, "slice 0,2:-: entry does not parse"),
        (
            SLICED | {KEYS[0]: SLICED[KEYS[0]] | {"shard_id": 9}},
            "slice 0,2:-: lies in shard 9 of 3",
        ),
        (
            SLICED | {KEYS[0]: entry_of(bytes(24), "int32", 2, 3)},
            "slice 0,2:-: its row says int32 [2, 3], not float32 [2, 3]",
        ),
        (
            SLICED | {KEYS[0]: entry_of(bytes(24), "float32", 3, 2)},
            "slice 0,2:-: its row says float32 [3, 2], not float32 [2, 3]",
        ),
        (SLICED | {KEYS[0]: SLICED[b"w"]}, "slice 0,2:-: its row lists slices itself"),
    ],
)
def test_slices_that_do_not_fit_are_named_and_the_rest_is_read(entries, problem):
    bundle = Bundle(index_of(entries, {"num_shards": 3}), Shards(*SLICED_FILES))

    assert {name: error.problem for name, error in bundle.damaged.items()} == {"w": problem}
    with pytest.raises(CorruptTensorError, match=re.escape(f"tensor 'w': {problem}")):
        bundle.read("w")
    if entries is not OVERLAPPING:
        assert bundle.read("w", region=region((2, 2), (0, 1))).tolist() == [[6], [9]]


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ((3, 3), "slice 2,2:0,1 is not inside its shape [3, 3]"),
        ((4, 3, 1), "a slice has 2 dimensions, the tensor has 3"),
    ],
)
def test_slices_that_are_none_of_the_tensors(shape, problem):
    index = index_of(listing(shape=shape), {"num_shards": 3})
    bundle = Bundle(index, Shards(*SLICED_FILES))

    with pytest.raises(CorruptTensorError, match=re.escape(problem)):
        bundle.read("w")
    with pytest.raises(CorruptIndexError, match=re.escape(problem)):
        read_promise(index)
    # Nobody lists the slices now: they are tensors by the names of their keys.
    assert sorted(KEYS) == [name.encode("utf-8", "surrogateescape") for name in bundle.tensors]


def test_slices_that_share_bytes_cannot_fill_memory():
    entries, files = sliced(
        np.zeros((1000, 1000), "u1"), "uint8", [[(n, 1), ALL] for n in range(1000)]
    )
    for key in entries.keys() - {b"w"}:
        entries[key] |= {"shard_id": 0}
    bundle = Bundle(index_of(entries), Shards(files[0]))

    with pytest.raises(
        CorruptTensorError,
        match=r"^shard 0 of 1: tensor 'w': its slices take 1000000 bytes, the file has",
    ):
        bundle.read("w")


def test_every_stored_run_of_bytes_is_listed():
    data, crc = encode_strings([b"a", b"bc"])
    text = entry_of(data, "string", 2, offset=7) | {"crc32c": crc}
    index = index_of(SLICED | {b"s": text}, {"num_shards": 3})

    assert read_pieces(index) == [
        Piece("s", None, STRING, 2, 0, 7, len(data), crc),
        *(
            Piece("w", part, FLOAT32, len(file) // 4, n, 0, len(file), masked_crc32c(file))
            for n, (part, file) in enumerate(
                zip(Bundle(index, Shards()).tensors["w"].slices, SLICED_FILES, strict=True)
            )
        ),
    ]
    with pytest.raises(CorruptIndexError, match="slice 0,2:-: it has no row"):
        read_pieces(index_of(without(SLICED, KEYS[0]), {"num_shards": 3}))


def test_a_long_name_with_many_slices_takes_linear_time():
    name = b"n" * 100_000
    parts = [TensorSlice(extent=[{"start": n, "length": 1}]) for n in range(5000)]
    entries = {name: {"dtype": 4, "shape": {"dim": [{"size": 5000}]}, "slices": parts}}
    entries |= {slice_key(name, part): entry_of(b"\0", "uint8", 1) for part in parts[:20]}

    bundle = Bundle(index_of(entries), Shards(bytes(1)))

    with pytest.raises(CorruptTensorError, match="slice 20,1: it has no row"):
        bundle.read(name.decode())


# Strings and variants.


def test_strings_and_variants_are_arrays_of_bytes():
    text, text_crc = encode_strings([b"hello", b"", b"wor\0ld", b"\xff"])
    boxes, boxes_crc = encode_variants([b"one", b""])
    entries = {
        b"s": entry_of(text, "string", 2, 2) | {"crc32c": text_crc},
        b"v": entry_of(boxes, "variant", 2, offset=len(text)) | {"crc32c": boxes_crc},
        b"none": entry_of(encode_strings([])[0], "string", 0, 3)
        | {"crc32c": encode_strings([])[1]},
    }
    entries[b"none"] |= {"offset": len(text + boxes)}
    bundle = Bundle(index_of(entries), Shards(text + boxes + encode_strings([])[0]))

    assert bundle.read("s").tolist() == [[b"hello", b""], [b"wor\0ld", b"\xff"]]
    assert bundle.read("s", region=region((1, 1), (0, 1))).tolist() == [[b"wor\0ld"]]
    assert bundle.read("v").tolist() == [b"one", b""]
    assert bundle.read("none").shape == (0, 3)
    assert bundle.read("s").dtype == np.dtype(object)


@given(st.lists(st.binary(max_size=300), max_size=6), st.data())
def test_a_flipped_bit_in_strings_is_always_noticed(values, data):
    stored, crc = encode_strings(values)
    position = data.draw(st.integers(0, len(stored) - 1))
    broken = bytearray(stored)
    broken[position] ^= 1 << data.draw(st.integers(0, 7))
    entry = entry_of(stored, "string", len(values)) | {"crc32c": crc}

    assert Bundle(index_of({b"s": entry}), Shards(stored)).read("s").tolist() == values
    with pytest.raises(CorruptTensorError, match=r"^shard 0 of 1: tensor 's' at byte 0: "):
        Bundle(index_of({b"s": entry}), Shards(broken)).read("s")


# Big-endian bundles.


@pytest.mark.parametrize("dtype", ["float32", "int16", "complex64", "uint64", "bool", "int8"])
def test_numbers_of_a_big_endian_bundle(dtype):
    array = np.arange(4).astype(dtype)
    data = array.astype(array.dtype.newbyteorder(">")).tobytes()
    bundle = Bundle(index_of({b"a": entry_of(data, dtype, 4)}, BIG), Shards(data))

    found = bundle.read("a", verify=True)
    assert bundle.big_endian
    np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(found + found, array + array)
    assert np.shares_memory(found, np.frombuffer(data, "u1"))


def test_bfloat16_of_a_big_endian_bundle():
    data = b"\x3f\x80\xc0\x00"
    bundle = Bundle(index_of({b"a": entry_of(data, "bfloat16", 2)}, BIG), Shards(data))

    assert bundle.read("a").dtype == ml_dtypes.bfloat16
    assert bundle.read("a").tolist() == [1, -2]


def test_strings_of_a_big_endian_bundle():
    lengths = b"\0\0\0\5\0\0\0\1"
    checksum = masked_crc32c(lengths).to_bytes(4, "big")
    data = b"\5\1" + checksum + b"hellox"
    entry = entry_of(data, "string", 2) | {"crc32c": masked_crc32c(lengths, checksum, b"hellox")}

    assert Bundle(index_of({b"s": entry}, BIG), Shards(data)).read("s").tolist() == [b"hello", b"x"]
    with pytest.raises(CorruptTensorError, match="checksum"):
        Bundle(index_of({b"s": entry}), Shards(data)).read("s")


def test_variants_of_a_big_endian_bundle_are_refused():
    data, crc = encode_variants([b"one"])
    entry = entry_of(data, "variant", 1) | {"crc32c": crc}

    with pytest.raises(CorruptTensorError, match="variants of a big-endian bundle cannot be read"):
        Bundle(index_of({b"v": entry}, BIG), Shards(data)).read("v")


# Damage.


DATA = b"\xff" + FLOATS
RANK_65 = {"dim": [{"size": 1}] * 65}
TENSOR_DAMAGE = [
    (b"\xff", "entry does not parse"),
    (SIX | {"shard_id": 1}, "lies in shard 1 of 1"),
    (SIX | {"offset": -1}, "negative offset or size: -1, 24"),
    (SIX | {"size": 23}, "stored in 23 bytes, 6 elements of float32 take 24"),
    (SIX | {"shape": {"dim": [{"size": 2**62}] * 4}}, "stored in 24 bytes, .* elements of float32"),
    (SIX | {"shape": {"unknown_rank": True}}, "its shape is not known"),
    (SIX | {"shape": {"dim": [{"size": -6}]}}, r"its shape has a negative dimension: \[-6\]"),
]
READING_DAMAGE = [
    (SIX | {"offset": 2}, "at byte 2: ends at byte 26 of the file, which has 25"),
    (SIX | {"offset": 2**62}, "ends at byte 4611686018427387928 of the file, which has 25"),
    (SIX | {"dtype": 99}, "data type 99: tensors of this type are not stored in checkpoints"),
    (SIX | {"dtype": 0}, "data type 0: tensors of this type are not stored in checkpoints"),
    (SIX | {"dtype": 20}, "resource: tensors of this type are not stored in checkpoints"),
    (entry_of(DATA[:4], "float32") | {"shape": RANK_65}, "numpy cannot hold its shape: maximum"),
    (
        entry_of(b"", "float32", 0, 2**62, 2**62),
        "numpy cannot hold its shape: array is too big",
    ),
    (SIX | {"dtype": 7, "shape": {"dim": [{"size": 2**62}]}}, "strings and the checksum of their"),
    (SIX | {"dtype": 21, "shape": {"dim": [{"size": 2**62}]}}, "variants take at least"),
    (SIX | {"crc32c": 1}, "checksum of its data does not match: stored 0x00000001, calculated"),
]


@pytest.mark.parametrize(("entry", "problem"), TENSOR_DAMAGE)
def test_an_entry_that_is_wrong_is_named_and_the_others_are_read(entry, problem):
    index = index_of({b"bad": entry, b"good": SIX})
    bundle = Bundle(index, Shards(DATA))

    assert list(bundle.tensors) == ["good"]
    assert list(bundle.damaged) == ["bad"]
    assert bundle.read("good", verify=True).shape == (2, 3)
    with pytest.raises(CorruptTensorError, match=f"^tensor 'bad': {problem}"):
        bundle.read("bad")
    for strict in (read_promise, read_pieces):
        with pytest.raises(CorruptIndexError, match=f"^tensor 'bad': {problem}"):
            strict(index)


@pytest.mark.parametrize(("entry", "problem"), READING_DAMAGE)
def test_data_that_cannot_be_read_is_named_and_the_others_are_read(entry, problem):
    bundle = Bundle(index_of({b"bad": entry, b"good": SIX}), Shards(DATA))

    assert list(bundle.tensors) == ["bad", "good"]
    assert bundle.read("good", verify=True).shape == (2, 3)
    with pytest.raises(CorruptTensorError, match=problem):
        bundle.read("bad", verify=True)


def test_a_type_of_the_future_is_complete_as_far_as_anyone_can_tell():
    assert read_promise(index_of({b"a": SIX | {"dtype": 99}})).shard_sizes == {0: 25}


def test_a_type_or_shape_that_is_said_again_later_counts():
    row = BundleEntry(**SIX).SerializeToString() + BundleEntry(dtype=3).SerializeToString()

    assert Bundle(index_of({b"a": row}), Shards(DATA)).tensors["a"].data_type.name == "int32"


MANY = {b"%03d" % n: SIX for n in range(100)}


def broken_index(position, header=None):
    index = bytearray(index_of(MANY, header, block_size=400))
    index[position] ^= 1
    return bytes(index)


def test_the_intact_blocks_of_a_damaged_index_are_read():
    index = broken_index(1000)

    with pytest.raises(CorruptIndexError, match=r"data block at \d+: checksum does not match"):
        Bundle(index, Shards(DATA))
    bundle = Bundle(index, Shards(DATA), salvage=True)

    assert 80 < len(bundle.tensors) < 100
    gone = sorted(name.decode() for name in MANY if name.decode() not in bundle.tensors)
    (sentence,) = bundle.lost
    above, last = re.findall(r"above '(\d+)'", sentence)
    assert above < gone[0]
    assert gone[-1] <= last
    assert sentence.startswith("data block at ")
    assert bundle.read("000", verify=True).shape == (2, 3)
    with pytest.raises(CorruptIndexError):
        read_promise(index)


def test_an_index_without_its_header_is_read_as_little_endian():
    lost = Bundle(broken_index(1, {"num_shards": 4}), Shards(DATA), salvage=True)
    told = Bundle(broken_index(1, {"num_shards": 4}), Shards(DATA), salvage=True, num_shards=4)

    assert (lost.num_shards, told.num_shards) == (1, 4)
    assert lost.tensors == told.tensors
    assert lost.lost[0].startswith("data block at 0: checksum does not match: expected 0x7e66c571")
    assert "; lost with it: every name not above '015'" in lost.lost[0]
    assert told.lost[1] == "the header is lost: taken for little-endian, in 4 shards"
    assert told.read("099").shape == (2, 3)


@pytest.mark.parametrize("data", [b"", bytes(100), index_of(MANY)[:-1]])
def test_an_index_of_which_nothing_is_left_is_corrupt(data):
    with pytest.raises(CorruptIndexError):
        Bundle(data, Shards(DATA), salvage=True)


def test_an_index_whose_only_block_is_damaged_is_corrupt():
    index = bytearray(index_of({b"a": SIX}))
    index[1] ^= 1

    with pytest.raises(CorruptIndexError, match="data block at 0: checksum does not match"):
        Bundle(bytes(index), Shards(DATA), salvage=True)


def test_a_compressed_index_that_cannot_be_judged_is_in_doubt_not_a_crash(monkeypatch):
    monkeypatch.setitem(sys.modules, "cramjam", None)
    block = b"\x08" + bytes([7 << 2]) + b"\0\0\0\0\1\0\0\0"  # no rows, as one literal of snappy's
    stored = block + b"\1" + masked_crc32c(block, b"\1").to_bytes(4, "little")
    handle = bytes([0, len(block)])
    index = stored + (handle * 2).ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")

    with pytest.raises(
        FormatError, match=r"the index cannot be judged: .*pip install 'ckptd\[snappy\]'"
    ):
        read_promise(index)


def test_more_elements_than_32_bits_count_are_read_in_parts(tmp_path):
    rows = 2**16 + 1
    path = tmp_path / "data"
    with path.open("wb") as file:
        file.truncate(rows * 2**15)
        file.seek((rows - 1) * 2**15 + 7)
        file.write(b"\x05")
    entry = {"dtype": 6, "shape": {"dim": [{"size": rows}, {"size": 2**15}]}, "size": rows * 2**15}

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        array = Bundle(index_of({b"a": entry}), lambda _: memoryview(mapped)).read("a")
        part = Bundle(index_of({b"a": entry}), lambda _: memoryview(mapped)).read(
            "a", region=region((rows - 1, 1), (6, 2))
        )
        assert array.size > 2**31
        assert (array[-1, 7], part.tolist()) == (5, [[0, 5]])
        assert path.stat().st_blocks * 512 < 2**20  # nothing was written
        del array, part


def test_the_index_says_which_rows_are_wrong():
    index = parse_index(index_of({b"a": b"\xff", b"b": SIX}))

    assert dict(index.wrong) == {b"a": "entry does not parse"}
    assert list(index.entries) == [b"b"]


def test_countless_dimensions_take_no_time():
    """To multiply them would take minutes for each megabyte."""
    entry = BundleEntry(dtype=1, shape={"dim": [{"size": 2**62}] * 100_000})
    header = BundleHeader(num_shards=1, version={"producer": 1})
    rows = [(b"", header), (b"w", entry)]
    index = write_table((key, row.SerializeToString()) for key, row in rows)

    start = time.process_time()
    problem = parse_index(index).wrong[b"w"]

    assert problem == "its shape has 100,000 dimensions, at most 254 can be"
    assert time.process_time() - start < 2.0
