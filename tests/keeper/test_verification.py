"""Every checksum is worked out: each damage has its own words, and none hides another."""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storage.memory_directory import MemoryDirectory

from ckptd.checkpoints.inventory import Checkpoint, Format, take_inventory
from ckptd.checkpoints.layouts.tensorflow import shard_name
from ckptd.errors import StorageError
from ckptd.formats import regions
from ckptd.formats.checksum import masked_crc32c
from ckptd.formats.messages import BundleEntry, BundleHeader, SavedTensorSlices, TensorSlice
from ckptd.formats.slices import slice_key
from ckptd.formats.sorted_table import write_table
from ckptd.formats.string_tensor import encode_strings, encode_variants
from ckptd.keeper.inspector import DirectoryInspector
from ckptd.keeper.verification import Damage, Verification, verify_checkpoint

FLOAT, STRING, VARIANT = 1, 7, 21


class Bundle:
    """A bundle put together row by row, so that any part of it can be wrong."""

    def __init__(self, *, shards: int = 1) -> None:
        self.rows: dict[bytes, Any] = {}
        self.data = [bytearray() for _ in range(shards)]

    def add(
        self,
        name: str | bytes,
        stored: bytes,
        *,
        dtype: int = FLOAT,
        shape: Iterable[int] | None = None,
        crc32c: int | None = None,
        shard: int = 0,
        offset: int | None = None,
    ) -> "Bundle":
        key = name.encode() if isinstance(name, str) else name
        at = len(self.data[shard]) if offset is None else offset
        if offset is None:
            self.data[shard] += stored
        sizes = [len(stored) // 4] if shape is None else list(shape)
        self.rows[key] = BundleEntry(
            dtype=dtype,
            shape={"dim": [{"size": size} for size in sizes]},
            shard_id=shard,
            offset=at,
            size=len(stored),
            crc32c=masked_crc32c(stored) if crc32c is None else crc32c,
        )
        return self

    def partition(self, name: str, shape: list[int], *parts: tuple[int, int]) -> "Bundle":
        """Store a tensor of floats in these parts (start and length in the first dimension)."""
        slices = [
            TensorSlice(extent=[{"start": start, "length": length}, *({} for _ in shape[1:])])
            for start, length in parts
        ]
        whole = BundleEntry(dtype=FLOAT, shape={"dim": [{"size": size} for size in shape]})
        whole.slices.extend(slices)
        for (start, length), each in zip(parts, slices, strict=True):
            part = np.full([length, *shape[1:]], start, np.float32)
            self.add(slice_key(name.encode(), each), part.tobytes(), shape=part.shape)
        self.rows[name.encode()] = whole
        return self

    @property
    def index(self) -> bytes:
        header = BundleHeader(num_shards=len(self.data), version={"producer": 1})
        rows = {b"": header, **self.rows}
        return write_table((key, rows[key].SerializeToString()) for key in sorted(rows))

    def save(self, directory: MemoryDirectory, name: str = "m-1") -> None:
        for shard, data in enumerate(self.data):
            directory.create(shard_name(name, shard, len(self.data)), bytes(data))
        directory.create(f"{name}.index", self.index)


def floats(count: int, value: float = 1.0) -> bytes:
    return np.full(count, value, np.float32).tobytes()


def strings(*values: bytes) -> tuple[bytes, int]:
    return encode_strings(values)


def the_checkpoint(directory: MemoryDirectory, name: str = "m-1") -> Checkpoint:
    inspector = DirectoryInspector(directory)
    return take_inventory(directory.list(), inspector).by_name()[name]


def verified(directory: MemoryDirectory, name: str = "m-1") -> Verification:
    return verify_checkpoint(the_checkpoint(directory, name), directory.read_through)


def rewritten(directory: MemoryDirectory, name: str, data: bytes) -> None:
    directory.unlink(name)
    directory.create(name, data)


def flipped(directory: MemoryDirectory, name: str, at: int, bit: int = 0) -> None:
    data = bytearray(directory.read(name, limit=2**24))
    data[at] ^= 1 << bit
    rewritten(directory, name, bytes(data))


DATA = "m-1.data-00000-of-00001"


@pytest.fixture
def directory() -> MemoryDirectory:
    return MemoryDirectory()


def everything() -> Bundle:
    """A bundle with each kind of tensor: numbers, empty ones, strings, variants, slices."""
    bundle = Bundle(shards=2)
    bundle.add("a", floats(4)).add("empty", b"", shape=[0, 4])
    text, crc = strings(b"hello", b"", b"x" * 300)
    bundle.add("s", text, dtype=STRING, shape=[3], crc32c=crc)
    stored, crc = encode_variants([b"one", b"", b"y" * 200])
    bundle.add("v", stored, dtype=VARIANT, shape=[3], crc32c=crc, shard=1)
    return bundle.partition("w", [4, 3], (0, 1), (1, 3)).add("z", floats(1), shape=[], shard=1)


def test_what_is_whole_has_no_damage(directory):
    bundle = everything()
    bundle.save(directory)

    found = verified(directory)

    sizes = [len(bundle.index), *map(len, bundle.data)]
    assert found == Verification("m-1", (), tensors=6, bytes=sum(sizes))
    assert found.tensor_damage == ""


def test_progress_is_told_of_every_byte(directory):
    everything().save(directory)
    told: list[int] = []

    found = verify_checkpoint(
        the_checkpoint(directory), directory.read_through, progress=told.append
    )

    assert sum(told) == found.bytes


def test_every_bit_of_the_data_counts(directory):
    bundle = everything()
    bundle.save(directory)
    for shard, data in enumerate(map(bytes, bundle.data)):
        name = shard_name("m-1", shard, 2)
        for at in range(len(data)):
            flipped(directory, name, at, at % 8)
            (damage,) = verified(directory).damages
            assert damage.file == name
            assert damage.offset is not None
            assert damage.offset <= at
            assert not damage.in_doubt
            rewritten(directory, name, data)


def test_every_bit_of_the_index_counts_but_for_the_zeros_of_its_footer(directory):
    bundle = everything()
    bundle.save(directory)
    checkpoint = the_checkpoint(directory)  # as it was listed before the damage
    index = bundle.index
    for at in range(len(index)):
        flipped(directory, "m-1.index", at, at % 8)
        found = verify_checkpoint(checkpoint, directory.read_through)
        padding = index[at] == 0 and len(index) - 48 <= at < len(index) - 8
        assert padding or {damage.file for damage in found.damages} == {"m-1.index"}, at
        rewritten(directory, "m-1.index", index)


def mended(bundle: Bundle, name: bytes, **fields: Any) -> None:
    for field, value in fields.items():
        setattr(bundle.rows[name], field, value)


def bad_lengths() -> tuple[bytes, int]:
    stored, crc = strings(b"ab", b"c")
    return b"\2\2" + stored[2:], crc


DAMAGES: list[tuple[str, Callable[[], Bundle], list[str]]] = [
    (
        "a number's bytes",
        lambda: Bundle().add("a", floats(2)).add("w", floats(2), crc32c=7),
        [
            (
                f"{DATA}: tensor 'w' at byte 8: checksum does not match: expected 0x00000007, "
                f"found {masked_crc32c(floats(2)):#010x}"
            )
        ],
    ),
    (
        "an empty tensor's checksum",
        lambda: Bundle().add("w", b"", shape=[0], crc32c=7),
        [
            (
                f"{DATA}: tensor 'w' at byte 0: checksum does not match: expected 0x00000007, "
                "found 0xa282ead8"
            )
        ],
    ),
    (
        "the lengths of strings say too much",
        lambda: Bundle().add("s", bad_lengths()[0], dtype=STRING, shape=[2], crc32c=1),
        [
            (
                f"{DATA}: tensor 's' at byte 0: the lengths of its strings add up to 1 bytes more "
                "than are stored"
            )
        ],
    ),
    (
        "the lengths of strings say too little",
        lambda: Bundle().add(
            "s", strings(b"ab", b"c")[0] + b"!", dtype=STRING, shape=[2], crc32c=1
        ),
        [
            (
                f"{DATA}: tensor 's' at byte 0: the lengths of its strings add up to 1 bytes less "
                "than are stored"
            )
        ],
    ),
    (
        "more strings than bytes",
        lambda: Bundle().add("s", strings(b"a")[0], dtype=STRING, shape=[2**40], crc32c=1),
        [
            (
                f"{DATA}: tensor 's' at byte 0: 1,099,511,627,776 strings take 1,099,511,627,780 bytes "
                "at least, 6 are stored"
            )
        ],
    ),
    (
        "a length that is no number",
        lambda: Bundle().add("s", b"\xff" * 30, dtype=STRING, shape=[1], crc32c=1),
        [f"{DATA}: tensor 's' at byte 0: the length of a string does not parse"],
    ),
    (
        "a variant that is longer than its bytes",
        lambda: Bundle().add(
            "v", b"\x7f" + encode_variants([b"one"])[0][1:], dtype=VARIANT, shape=[1], crc32c=1
        ),
        [
            f"{DATA}: tensor 'v' at byte 0: variant 0 of 1 takes 127 bytes, 3 are left",
        ],
    ),
    (
        "bytes behind the last variant",
        lambda: Bundle().add(
            "v", encode_variants([b"one"])[0] + b"!!", dtype=VARIANT, shape=[1], crc32c=1
        ),
        [f"{DATA}: tensor 'v' at byte 0: 2 bytes more than its variants take are stored"],
    ),
    (
        "a part of another tensor's bytes",
        lambda: Bundle().add("a", floats(4)).add("b", floats(2), offset=8),
        [f"{DATA}: tensor 'b' at byte 8: it overlaps tensor 'a', which has bytes 0 to 16"],
    ),
    (
        "slices that hold something twice",
        lambda: Bundle().partition("w", [4, 2], (0, 3), (2, 2)),
        ["m-1.index: tensor 'w': its slices 0,3:- and 2,2:- overlap"],
    ),
]


@pytest.mark.parametrize(("bundle", "said"), [pytest.param(b, s, id=i) for i, b, s in DAMAGES])
def test_each_damage_has_its_own_words(directory, bundle, said):
    bundle().save(directory)

    assert [str(damage) for damage in verified(directory).damages] == said


def test_damage_of_one_tensor_hides_no_other(directory):
    bundle = Bundle()
    for number in range(50):
        bundle.add(f"t{number:02d}", floats(3, number))
    bundle.save(directory)
    for number in (3, 17, 49):
        flipped(directory, DATA, number * 12 + 5)

    found = verified(directory)

    assert [damage.tensor for damage in found.damages] == ["t03", "t17", "t49"]
    assert found.tensor_damage.startswith(f"{DATA}: tensor 't03' at byte 36: checksum")
    assert found.tensor_damage.endswith("; and 2 more")


def test_tensors_that_share_their_bytes_are_whole(directory):
    """Who stores equal tensors once has something that TensorFlow restores."""
    Bundle().add("a", floats(4)).add("b", floats(4), offset=0).save(directory)

    found = verified(directory)

    assert found.damages == ()
    assert found.tensors == 2


def test_a_slice_alone_is_whole(directory):
    """Who saves one slice of a partitioned variable restores that one; nothing is lost."""
    Bundle().partition("w", [4, 2], (0, 1), (2, 2)).save(directory)

    assert verified(directory).damages == ()


def test_slices_too_irregular_to_be_judged_are_not_condemned(directory, monkeypatch):
    monkeypatch.setattr(regions, "_WORK_LIMIT", 0)
    Bundle().partition("w", [4, 2], (0, 1), (1, 1), (2, 2)).save(directory)

    assert verified(directory).damages == ()


def test_padding_between_tensors_is_nobody_s(directory):
    bundle = Bundle().add("a", floats(2))
    bundle.data[0] += b"?" * 100
    bundle.add("b", floats(2))
    bundle.data[0] += b"trailing"
    bundle.save(directory)

    assert verified(directory).damages == ()


def test_a_missing_shard_is_told_once(directory):
    everything().save(directory)
    checkpoint = the_checkpoint(directory)
    directory.unlink(shard_name("m-1", 1, 2))

    found = verify_checkpoint(checkpoint, directory.read_through)

    assert found.damages == (Damage(shard_name("m-1", 1, 2), "the file is missing"),)


@pytest.mark.parametrize("change", ["saved again", "gone", "written to"])
def test_files_that_are_not_those_that_were_listed_are_told(directory, change):
    Bundle().add("a", floats(4)).save(directory)
    checkpoint = the_checkpoint(directory)
    assert not verify_checkpoint(checkpoint, directory.read_through).changed

    def meddle(_: int) -> None:
        if change == "written to":
            directory.set_mtime(DATA, 12.5)

    if change == "saved again":
        rewritten(directory, DATA, floats(4, 2.0))
    elif change == "gone":
        directory.unlink(DATA)

    assert verify_checkpoint(checkpoint, directory.read_through, progress=meddle).changed


def test_data_files_of_a_save_in_other_shards_are_no_tensor_s(directory):
    Bundle().add("a", floats(4)).save(directory)
    before = the_checkpoint(directory).tensor_files
    directory.create("m-1.data-00001-of-00002", b"of the save before")

    assert the_checkpoint(directory).tensor_files == before


def test_a_missing_index_leaves_nothing_to_say(directory):
    everything().save(directory)
    checkpoint = the_checkpoint(directory)
    directory.unlink("m-1.index")

    found = verify_checkpoint(checkpoint, directory.read_through)

    assert found.damages == (Damage("m-1.index", "the file is missing"),)


def test_a_shard_that_ends_early_costs_the_tensors_behind_its_end(directory):
    Bundle().add("a", floats(2)).add("b", floats(2)).add("c", floats(2)).save(directory)
    checkpoint = the_checkpoint(directory)
    rewritten(directory, DATA, floats(3))

    found = verify_checkpoint(checkpoint, directory.read_through)

    assert [str(damage) for damage in found.damages] == [
        f"{DATA}: tensor 'b' at byte 8: the file ends before it does: expected 16 bytes, found 12",
        f"{DATA}: tensor 'c' at byte 16: the file ends before it does: expected 24 bytes, found 12",
    ]


def test_shards_in_each_other_s_place_are_found(directory):
    bundle = Bundle(shards=2).add("a", floats(4, 1.0)).add("b", floats(4, 2.0), shard=1)
    bundle.data.reverse()
    bundle.save(directory)

    assert [damage.tensor for damage in verified(directory).damages] == ["a", "b"]


def test_what_the_disk_refuses_is_in_doubt_and_the_rest_is_looked_at(directory):
    bundle = Bundle(shards=2).add("a", floats(4)).add("b", floats(4), shard=1, crc32c=7)
    bundle.save(directory)

    @contextmanager
    def refusing(name):
        if name == shard_name("m-1", 0, 2):
            raise StorageError("read", name, "Input/output error")
        with directory.read_through(name) as file:
            yield file

    found = verify_checkpoint(the_checkpoint(directory), refusing)

    assert [(damage.file[-14:-9], damage.in_doubt) for damage in found.damages] == [
        ("00000", True),
        ("00001", False),
    ]
    assert found.in_doubt


def test_a_block_of_the_index_that_is_lost_takes_only_its_own_tensors(directory):
    bundle = Bundle()
    for number in range(4):
        bundle.add(f"t{number}" + "x" * 300_000, floats(2, number))
    bundle.add("z", floats(2), crc32c=7).save(directory)
    checkpoint = the_checkpoint(directory)
    flipped(directory, "m-1.index", 700_000)

    found = verify_checkpoint(checkpoint, directory.read_through)

    assert "checksum does not match" in found.damages[0].problem
    assert "lost with it: every name" in found.damages[0].problem
    assert found.damages[-1].tensor == "z"


def test_a_hundred_thousand_tensors_in_the_same_bytes_are_read_once(directory):
    bundle = Bundle().add("t", floats(100_000))
    for number in range(3_000):
        bundle.add(f"same{number}", floats(100_000), crc32c=0, offset=0)
        bundle.add(f"part{number}", floats(90_000), crc32c=0, offset=4 * number + 4)
    bundle.save(directory)

    found = verified(directory)

    assert found.bytes == len(bundle.index) + 400_000
    assert len(found.damages) == 6_000


@given(st.data())
@settings(max_examples=50)
def test_any_bundle_is_whole_until_a_bit_of_it_flips(data):
    directory = MemoryDirectory()
    bundle = Bundle(shards=2)
    owners: list[tuple[int, int, int, str]] = []
    for number in range(data.draw(st.integers(1, 6))):
        shard = data.draw(st.integers(0, 1))
        kind = data.draw(st.sampled_from([FLOAT, STRING, VARIANT]))
        at, name = len(bundle.data[shard]), f"t{number}"
        if kind == FLOAT:
            bundle.add(name, floats(data.draw(st.integers(0, 9)), number), shard=shard)
        else:
            values = data.draw(st.lists(st.binary(max_size=200), max_size=5))
            encode = encode_strings if kind == STRING else encode_variants
            stored, crc = encode(values)
            shape = [len(values)]
            bundle.add(name, stored, dtype=kind, shape=shape, crc32c=crc, shard=shard)
        bundle.data[shard] += b"\0" * data.draw(st.integers(0, 3))
        owners.append((shard, at, bundle.rows[name.encode()].size, name))
    bundle.save(directory)
    assert verified(directory).damages == ()

    stored_ones = [owner for owner in owners if owner[2]]
    if stored_ones:
        shard, at, size, name = data.draw(st.sampled_from(stored_ones))
        flipped(directory, shard_name("m-1", shard, 2), at + data.draw(st.integers(0, size - 1)))
        assert [damage.tensor for damage in verified(directory).damages] == [name]


# V1.


def v1_shard(tensors: Mapping[str, tuple[list[int], list[float]]], **more: Any) -> bytes:
    """Return a shard of floats: shape and values by name."""
    whole = {name: TensorSlice(extent=[{} for _ in shape]) for name, (shape, _) in tensors.items()}
    meta = [
        {
            "name": name,
            "shape": {"dim": [{"size": size} for size in shape]},
            "type": FLOAT,
            "slice": [whole[name]],
        }
        for name, (shape, _) in tensors.items()
    ]
    rows = {
        slice_key(name.encode(), whole[name]): SavedTensorSlices(
            data={"name": name, "slice": whole[name], "data": {"float_val": values}}
        )
        for name, (_, values) in tensors.items()
        if name not in more.get("without", ())
    }
    rows[b""] = SavedTensorSlices(meta={"tensor": meta, "versions": {"producer": 1}})
    return write_table((key, rows[key].SerializeToString()) for key in sorted(rows))


def save_v1(directory: MemoryDirectory, *shards: bytes) -> None:
    for shard, data in enumerate(shards):
        of = f"-{shard:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        directory.create(f"m-1{of}", data)
    directory.create("m-1.meta", b"")


def test_a_v1_checkpoint_that_is_whole(directory):
    save_v1(directory, v1_shard({"a": ([2], [1.0, 2.0])}), v1_shard({"b": ([], [3.0])}))

    found = verified(directory)

    assert (found.damages, found.tensors) == ((), 2)


def test_a_v1_header_with_countless_dimensions_takes_no_time(directory):
    whole = TensorSlice(extent=[{} for _ in range(50_000)])
    meta = {"name": "a", "type": FLOAT, "slice": [whole]}
    meta["shape"] = {"dim": [{"size": 2**62}] * 50_000}
    row = SavedTensorSlices(meta={"tensor": [meta], "versions": {"producer": 1}})
    shard = write_table([(b"", row.SerializeToString())])
    directory.create("m-1", shard)
    entry = directory.entry("m-1")
    assert entry is not None
    checkpoint = Checkpoint("m-1", "m", 1, Format.V1, 1, (entry,), None)

    start = time.process_time()
    (damage,) = verify_checkpoint(checkpoint, directory.read_through).damages

    assert str(damage) == "m-1: tensor 'a': its shape is not one that a tensor can have"
    assert time.process_time() - start < 2.0


V1_DAMAGES = [
    pytest.param(
        v1_shard({"a": ([2], [1.0])}),
        "m-1: tensor 'a' at byte 0: its values are not as many as its shape asks for: "
        "expected 2, found 1",
        id="too few values",
    ),
    pytest.param(
        v1_shard({"a": ([2], [1.0, 2.0]), "b": ([1], [1.0])}, without="b"),
        "m-1: tensor 'b': a slice of it that the header lists has no row",
        id="a row is missing",
    ),
]


@pytest.mark.parametrize(("shard", "said"), V1_DAMAGES)
def test_each_damage_of_v1_has_its_own_words(directory, shard, said):
    save_v1(directory, shard)

    assert [str(damage) for damage in verified(directory).damages] == [said]


def test_every_bit_of_a_v1_shard_counts_but_for_the_zeros_of_its_footer(directory):
    shard = v1_shard({"a": ([2], [1.0, 2.0]), "b": ([], [3.0])})
    save_v1(directory, shard)
    checkpoint = the_checkpoint(directory)
    for at in range(len(shard)):
        flipped(directory, "m-1", at, at % 8)
        found = verify_checkpoint(checkpoint, directory.read_through)
        padding = shard[at] == 0 and len(shard) - 48 <= at < len(shard) - 8
        assert padding or found.damages, at
        rewritten(directory, "m-1", shard)


def test_a_damaged_block_of_v1_costs_its_own_tensors(directory):
    many = {f"t{number}": ([70_000], [float(number)] * 70_000) for number in range(4)}
    shard = v1_shard(many)
    save_v1(directory, shard)
    flipped(directory, "m-1", 300_000)

    (damage,) = verified(directory).damages

    assert "checksum does not match: expected 0x" in damage.problem
    assert damage.problem.endswith("; lost with it: 't1'")


# The meta graph.


def test_a_meta_graph_that_does_not_parse_is_no_damage_of_the_tensors(directory):
    Bundle().add("a", floats(2)).save(directory)
    directory.create("m-1.meta", b"\xff" * 9)
    checkpoint = the_checkpoint(directory)

    found = verify_checkpoint(checkpoint, directory.read_through, meta_graph=True)

    assert found.damages == ()
    assert str(found.graph_damage).startswith("m-1.meta: not a meta graph: as binary: ")
    assert verify_checkpoint(checkpoint, directory.read_through).graph_damage is None


def test_a_meta_graph_in_text_form_is_one(directory):
    Bundle().add("a", floats(2)).save(directory)
    directory.create("m-1.meta", b'graph_def { node { name: "a" op: "NoOp" } }\n')

    found = verify_checkpoint(the_checkpoint(directory), directory.read_through, meta_graph=True)

    assert found.graph_damage is None
