"""The sorted table is TensorFlow's, byte for byte, and each corruption is named."""

import contextlib
import sys

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptd.errors import CorruptIndexError, MissingLibraryError
from ckptd.formats.checksum import masked_crc32c
from ckptd.formats.sorted_table import (
    LongValue,
    LostBlock,
    read_first_block,
    read_table,
    table_pieces,
    write_table,
)

KIB = 1024
ROWS = [(b"", b"header"), (b"kernel/1", b"one"), (b"kernel/12", b"two"), (b"zero", b"")]
MAGIC = bytes.fromhex("57fb808b247547db")

tables = st.dictionaries(st.binary(max_size=40), st.binary(max_size=300), max_size=60).map(
    lambda rows: sorted(rows.items())
)


def varint(value):
    encoded = b""
    while value > 127:
        encoded += bytes([value % 128 + 128])
        value //= 128
    return encoded + bytes([value])


def block(contents, kind=0):
    checked = contents + bytes([kind])
    return checked + masked_crc32c(checked).to_bytes(4, "little")


def row(key, value, *, shared=0):
    return varint(shared) + varint(len(key)) + varint(len(value)) + key + value


def table(*data_blocks, separators=(b"\xff",), kind=0):
    """A table around the given contents of data blocks, with every checksum right."""
    end = (0).to_bytes(4, "little") + (1).to_bytes(4, "little")
    built = b""
    index = b""
    for contents, separator in zip(data_blocks, separators, strict=True):
        index += row(separator, varint(len(built)) + varint(len(contents)))
        built += block(contents, kind)
    handles = varint(len(built)) + varint(8)
    built += block(end)
    handles += varint(len(built)) + varint(len(index) + 8)
    return built + block(index + end) + handles.ljust(40, b"\0") + MAGIC


ONE_RESTART = bytes.fromhex("0000000001000000")


@given(tables)
def test_what_is_written_is_read(rows):
    assert list(read_table(write_table(rows))) == rows


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="no rows"),
        pytest.param([(b"", b"")], id="one empty row"),
        pytest.param([(b"\xff\xff", b"x")], id="a last key without a successor"),
        pytest.param([(b"%06d" % n, bytes(100)) for n in range(9000)], id="several blocks"),
        pytest.param([(b"a", b"1"), (b"b", bytes(600 * KIB)), (b"c", b"3")], id="a large row"),
        pytest.param([(b"k" * 300 + b"%d" % n, bytes(200)) for n in range(9)], id="long keys"),
        pytest.param(
            [(b"x" * 100_000 + b"%02d" % n, b"") for n in range(64)],
            id="keys that unfold to many times the size of the table",
        ),
    ],
)
def test_tables_of_every_size_are_read_back(rows):
    assert list(read_table(write_table(rows))) == rows


@pytest.mark.parametrize(
    ("last", "first", "separator"),
    [
        (b"kernel/1", b"kernel/5", b"kernel/2"),
        (b"kernel/1", b"kernel/2", b"kernel/1"),
        (b"kernel", b"kernel/1", b"kernel"),
        (b"abcd", b"z", b"b"),
    ],
)
def test_blocks_are_separated_by_the_shortest_key_between_them(last, first, separator):
    built = write_table([(last, bytes(256 * KIB)), (first, b"")])

    index_row = varint(0) + varint(len(separator))
    assert index_row in built[256 * KIB :]
    assert built[256 * KIB :].count(separator + varint(0)) == 1


@pytest.mark.parametrize("rows", [[(b"b", b""), (b"a", b"")], [(b"a", b""), (b"a", b"")]])
def test_rows_out_of_order_are_not_written(rows):
    with pytest.raises(ValueError, match="rows out of order"):
        write_table(rows)


@given(tables, st.integers(1, 400), st.integers(1, 20))
def test_blocks_of_any_size_and_restarts_at_any_interval_are_read(rows, block_size, interval):
    built = write_table(rows, block_size=block_size, restart_interval=interval)

    assert list(read_table(built)) == rows
    assert list(read_table(memoryview(built))) == rows


def test_smaller_blocks_and_more_restarts_take_more_room():
    rows = [(b"key/%04d" % n, b"") for n in range(1000)]

    assert len(write_table(rows, block_size=1000)) > len(write_table(rows))
    assert len(write_table(rows, restart_interval=1)) > len(write_table(rows))


@given(tables, st.sampled_from([8, 64, 1024]), st.integers(1, 100))
def test_values_made_in_pieces_give_the_same_table(rows, block_size, piece):
    def in_pieces(value):
        return LongValue(
            len(value), lambda: (value[at : at + piece] for at in range(0, len(value), piece))
        )

    streamed = ((key, in_pieces(value)) for key, value in rows)

    assert b"".join(table_pieces(streamed, block_size=block_size)) == write_table(
        rows, block_size=block_size
    )


@pytest.mark.parametrize("made", [[], [b"x" * 99], [b"x" * 101]])
def test_a_value_of_another_size_than_it_was_said_to_have_is_refused(made):
    rows = [(b"key", LongValue(100, lambda: made))]
    with pytest.raises(ValueError, match=f"said to take 100 bytes took {sum(map(len, made))}"):
        b"".join(table_pieces(rows, block_size=16))


@pytest.mark.parametrize("sizes", [{"block_size": 0}, {"restart_interval": 0}])
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(ValueError, match="below 1"):
        write_table([], **sizes)


def flipped(data, position):
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


WRITTEN = write_table(ROWS)

CORRUPTIONS = [
    (b"", "too short to be a table: 0 bytes, a footer alone takes 48"),
    (WRITTEN[:12], "too short to be a table: 12 bytes"),
    (WRITTEN[:-1], "bad magic number: not a table, or truncated"),
    (bytes(200), "bad magic number"),
    (b"\xff" * 40 + MAGIC, "footer: handles do not parse"),
    (WRITTEN[-48:], r"metaindex block at \d+: truncated: it ends at byte \d+, .* at 0$"),
    (flipped(WRITTEN, 1), "data block at 0: checksum does not match"),
    (flipped(WRITTEN, len(WRITTEN) - 60), r"index block at \d+: checksum does not match"),
    (table(b""), "data block at 0: restart points do not parse"),
    (table(bytes(8)), "data block at 0: restart points do not parse"),
    (table(b"\0\0\0\0\xff\0\0\0"), "data block at 0: restart points do not parse"),
    (table(b"", kind=1), "data block at 0: compressed with snappy: no length"),
    (table(b"\xff" * 9, kind=1), "data block at 0: compressed with snappy: no length"),
    (
        table(varint(2**31) + bytes(100), kind=1),
        "data block at 0: compressed with snappy: 105 bytes cannot unfold to 2147483648",
    ),
    (table(varint(9) + b"\xff", kind=1), "data block at 0: compressed with snappy: corrupt input"),
    (table(varint(0), kind=1), "data block at 0: restart points do not parse"),
    (table(ONE_RESTART, kind=7), "data block at 0: compressed in an unknown way: type 7"),
    (table(b"\0\x09\0a" + ONE_RESTART), "data block at 0: row 0 does not parse"),
    (table(b"\0\0\x7f" + ONE_RESTART), "data block at 0: row 0 does not parse"),
    (table(row(b"a", b"", shared=1) + ONE_RESTART), "data block at 0: row 0 does not parse"),
    (table(b"\xff" * 9 + ONE_RESTART), "data block at 0: row 0 does not parse"),
    (table(row(b"b", b"") + row(b"a", b"") + ONE_RESTART), "row 1: keys out of order"),
    (table(row(b"a", b"") * 2 + ONE_RESTART), "row 1: keys out of order"),
    (
        table(row(b"b", b"") + ONE_RESTART, separators=[b"a"]),
        "data block at 0: keys out of order with the index block",
    ),
    (
        table(
            row(b"a", b"") + ONE_RESTART,
            row(b"b", b"") + ONE_RESTART,
            separators=[b"b", b"c"],
        ),
        "data block at 17: keys out of order with the block before",
    ),
]


@pytest.mark.parametrize(("data", "reason"), CORRUPTIONS)
def test_each_corruption_is_named(data, reason):
    with pytest.raises(CorruptIndexError, match=reason):
        list(read_table(data))


def index_of(*handles):
    contents = b"".join(row(b"%d" % n, handle) for n, handle in enumerate(handles)) + ONE_RESTART
    meta = block(ONE_RESTART)
    footer = varint(0) + varint(8) + varint(len(meta)) + varint(len(contents))
    return meta + block(contents) + footer.ljust(40, b"\0") + MAGIC


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (index_of(b""), "the handle of a block does not parse"),
        (index_of(b"\xff" * 11), "the handle of a block does not parse"),
        (index_of(b"\0\x08", b"\1\x08"), "data block at 1: overlaps the one before"),
        (index_of(b"\0" + varint(9999)), "data block at 0: truncated: it ends at byte 10004"),
    ],
)
def test_handles_that_lead_nowhere_are_named_before_any_block_is_read(data, reason):
    with pytest.raises(CorruptIndexError, match=reason):
        list(read_table(data))
    with pytest.raises(CorruptIndexError, match=reason):
        read_first_block(lambda offset, size: data[offset : offset + size], len(data))


def test_a_block_cannot_unfold_to_more_than_memory_holds():
    rows = [b"".join((varint(n), b"\1\0", b"x")) for n in range(20_000)]

    with pytest.raises(CorruptIndexError, match=r"row \d+ does not parse"):
        list(read_table(table(b"".join(rows) + ONE_RESTART, separators=[b"y"])))


def compressed(rows, **sizes):
    """The table that a writer with snappy would make of `rows`: every block of it compressed."""
    plain = write_table(rows, **sizes)
    footer = plain[-48:]
    built = b""
    moved = {}

    def handle(data):
        offset, data = unvarint(data)
        size, data = unvarint(data)
        return offset, size, data

    def move(offset, contents):
        nonlocal built
        packed = bytes(cramjam.snappy.compress_raw(contents))
        moved[offset] = varint(len(built)) + varint(len(packed))
        built += block(packed, kind=1)

    metaindex, size, rest = handle(footer)
    index, index_size, _ = handle(rest)
    separators = []
    restarts = int.from_bytes(plain[index + index_size - 4 : index + index_size], "little")
    data = plain[index : index + index_size - 4 - 4 * restarts]
    while data:
        _, data = unvarint(data)
        key_size, data = unvarint(data)
        value_size, data = unvarint(data)
        at, length, _ = handle(data[key_size:])
        separators.append((data[:key_size], at))
        move(at, plain[at : at + length])
        data = data[key_size + value_size :]
    move(metaindex, plain[metaindex : metaindex + size])
    contents = b"".join(row(key, moved[at]) for key, at in separators) + ONE_RESTART
    move(index, contents)
    return built + (moved[metaindex] + moved[index]).ljust(40, b"\0") + MAGIC


def unvarint(data):
    value = 0
    for n, byte in enumerate(data):
        value |= (byte % 128) << (7 * n)
        if byte < 128:
            return value, data[n + 1 :]
    raise AssertionError


@given(tables, st.integers(1, 1000))
def test_compressed_blocks_are_read(rows, block_size):
    assert list(read_table(compressed(rows, block_size=block_size))) == rows


def test_a_block_that_snappy_packs_as_tightly_as_it_can_is_read():
    rows = [(b"a", bytes(10_000_000))]
    built = compressed(rows)

    assert len(built) < 10_000_000 / 21
    assert list(read_table(built)) == rows


def test_what_is_compressed_is_not_read_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "cramjam", None)

    with pytest.raises(
        MissingLibraryError,
        match=r"index block at \d+: compressed with snappy; to read it: pip install 'ckptd\[snappy\]'",
    ):
        list(read_table(compressed(ROWS)))
    assert list(read_table(write_table(ROWS))) == ROWS


def test_a_first_block_that_unfolds_beyond_measure_is_refused():
    built = table(varint(80 << 20) + bytes(5 << 20), kind=1)

    with pytest.raises(CorruptIndexError, match="takes 83886080 bytes, more than 67108864 are not"):
        read_first_block(lambda offset, size: built[offset : offset + size], len(built))


def test_blocks_behind_a_damaged_one_are_read_if_that_is_wished():
    rows = [(b"%02d" % n, bytes(100)) for n in range(40)]
    built = write_table(rows, block_size=1000)
    blocks = [rows[n : n + 10] for n in range(0, 40, 10)]  # a row takes about 105 bytes
    lost: list[LostBlock] = []

    left = list(read_table(flipped(built, 1500), on_lost=lost.append))

    assert left == [*blocks[0], *blocks[2], *blocks[3]]
    problem = "data block at 1054: checksum does not match: expected 0xdf94aadf, found 0x264349f5"
    assert lost == [LostBlock(problem, b"09", b"19")]
    with pytest.raises(CorruptIndexError, match="data block at 1054: checksum"):
        list(read_table(flipped(built, 1500)))


def test_all_blocks_may_be_damaged_but_not_the_way_to_them():
    lost: list[LostBlock] = []
    assert list(read_table(flipped(WRITTEN, 1), on_lost=lost.append)) == []
    assert [(block.after, block.up_to) for block in lost] == [(None, b"{")]

    with pytest.raises(CorruptIndexError, match="index block"):
        list(read_table(flipped(WRITTEN, len(WRITTEN) - 60), on_lost=lost.append))


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_a_table_or_corrupt(data):
    packed = table(data, kind=1)
    for candidate in (data, data + MAGIC, table(data), table(data + ONE_RESTART), packed):
        with contextlib.suppress(CorruptIndexError):
            list(read_table(candidate))


@given(tables, st.data())
def test_a_flipped_bit_or_a_lost_end_is_noticed(rows, data):
    built = write_table(rows)
    size = data.draw(st.integers(0, len(built) - 1))
    position = data.draw(st.integers(0, len(built) - 49))

    for broken in (built[:size], flipped(built, position)):
        with pytest.raises(CorruptIndexError):
            list(read_table(broken))


def test_the_first_block_is_read_without_the_others():
    built = write_table([(b"%06d" % n, bytes(1000)) for n in range(5000)])
    wanted = 0

    def read(offset, size):
        nonlocal wanted
        wanted += size
        return built[offset : offset + size]

    rows = read_first_block(read, len(built))

    assert rows == list(read_table(built))[: len(rows)]
    assert 0 < len(rows) < 300
    assert wanted < 300 * KIB


def test_a_file_that_shrinks_while_it_is_read_is_truncated():
    def read(offset, size):
        return WRITTEN[offset : offset + size] if offset else b""

    with pytest.raises(CorruptIndexError, match="data block at 0: truncated: 0 bytes are left"):
        read_first_block(read, len(WRITTEN))


def test_a_first_block_beyond_measure_is_refused_unread():
    handles = varint(0) + varint(2**40)
    footer = (handles * 2).ljust(40, b"\0") + MAGIC

    def read(offset, size):
        assert size <= 48
        return footer

    with pytest.raises(CorruptIndexError, match="not supported"):
        read_first_block(read, 2**41)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_an_index_of_several_blocks_is_byte_for_byte_tensorflows(tf, tmp_path):
    names = [f"layer_{n // 100}/kernel_{n % 100}_{'x' * (n % 50)}" for n in range(12_000)]
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "m"),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(0.0)] * len(names),
    )
    written = (tmp_path / "m.index").read_bytes()

    rows = list(read_table(written))

    assert len(written) > 2 * 256 * KIB
    assert [key for key, _ in rows] == [b"", *sorted(name.encode() for name in names)]
    assert write_table(rows) == written


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
def test_a_table_of_large_rows_is_byte_for_byte_tensorflows(saver, tf, tmp_path):
    sizes = [10, 100_000, 300_000, 5, 5, 200_000, 131_072, 60_000, 6000]
    values = {f"v{n:03}": tf.range(size, dtype=tf.float32).numpy() for n, size in enumerate(sizes)}
    saver(values, str(tmp_path / "m"), version=1)
    written = (tmp_path / "m").read_bytes()

    assert write_table(list(read_table(written))) == written
