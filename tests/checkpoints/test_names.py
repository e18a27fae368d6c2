"""TensorFlow's file names: the good ones, and a longer table of near-misses."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ckptd.checkpoints.inventory import is_text
from ckptd.checkpoints.layouts.tensorflow import (
    FileName,
    Role,
    index_name,
    leftover,
    looks_like_v1,
    meta_graph_name,
    parse_file_name,
    parse_step,
    parse_v1_name,
    prefix_of_path,
    shard_name,
    v1_pattern,
    v1_shard_names,
)

HEX = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("m-7.index", FileName("m-7", Role.INDEX)),
        ("m-7.meta", FileName("m-7", Role.META_GRAPH)),
        ("m-7.debug", FileName("m-7", Role.DEBUG_INFO)),
        ("m-7.data-00000-of-00001", FileName("m-7", Role.DATA, 0, 1)),
        ("m-7.data-00041-of-00042", FileName("m-7", Role.DATA, 41, 42)),
        ("m-7.data-99998-of-99999", FileName("m-7", Role.DATA, 99_998, 99_999)),
        ("model.ckpt.index", FileName("model.ckpt", Role.INDEX)),
        ("a.index.index", FileName("a.index", Role.INDEX)),
        ("a.meta.index", FileName("a.meta", Role.INDEX)),
        (
            "a.data-00000-of-00001.data-00000-of-00002",
            FileName("a.data-00000-of-00001", Role.DATA, 0, 2),
        ),
        ("gl[1]*?-7.index", FileName("gl[1]*?-7", Role.INDEX)),
        ("-rf.index", FileName("-rf", Role.INDEX)),
        (" .index", FileName(" ", Role.INDEX)),
        (".hidden.index", FileName(".hidden", Role.INDEX)),
        ("größe-7.index", FileName("größe-7", Role.INDEX)),
        ("\N{FLEXED BICEPS}-7.meta", FileName("\N{FLEXED BICEPS}-7", Role.META_GRAPH)),
        ("two\nlines-7.data-00000-of-00001", FileName("two\nlines-7", Role.DATA, 0, 1)),
        ("\x1b[2J-7.index", FileName("\x1b[2J-7", Role.INDEX)),
        ("x" * 249 + ".index", FileName("x" * 249, Role.INDEX)),
    ],
)
def test_a_name_says_its_prefix_and_role(name, means):
    assert parse_file_name(name) == means


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "checkpoint",
        ".index",
        ".meta",
        ".debug",
        ".data-00000-of-00001",
        "m-7",
        "m-7index",
        "m-7.INDEX",
        "m-7.Index",
        "m-7.index ",
        "m-7.index\n",
        "m-7.index~",
        "m-7.index.bak",
        "m-7.indexes",
        "m-7.metadata",
        "m-7.meta.txt",
        "m-7.data",
        "m-7.data-",
        "m-7.data-00000",
        "m-7.data-00000-of-",
        "m-7.data-0-of-1",
        "m-7.data-0000-of-0001",
        "m-7.data-000000-of-000001",
        "m-7.data-00000-of-000001",
        "m-7.data-00000-of-00001 ",
        "m-7.data-00000-of-00001\n",
        "m-7.data-00000-of-00001.tempstate1",
        "m-7.data-00000-of-00001.index.bak",
        "m-7.data-00000_of_00001",
        "m-7.data-00000-OF-00001",
        "m-7.data--0001-of-00001",
        "m-7.data-00001-of-00001",
        "m-7.data-00002-of-00001",
        "m-7.data-00000-of-00000",
        "m-7.data-00001-of-00000",
        "m-7.data-٠٠٠٠٠-of-٠٠٠٠١",  # noqa: RUF001 - digits, but not those that TensorFlow writes
        "m-7.data-0000a-of-00001",
        "m-7data-00000-of-00001",
        "m-7-00000-of-00001",
        "model.ckpt-1.index\nmodel.ckpt-2",
        "saved_model.pb",
        "graph.pbtxt",
        "events.out.tfevents.1700000000.host",
        "weights.h5",
        "model.safetensors",
        "train-00000-of-00010",
        "train.tfrecord-00000-of-00010",
    ],
)
def test_a_near_miss_is_no_name_of_a_checkpoint(name):
    assert parse_file_name(name) is None


@pytest.mark.parametrize(
    ("prefix", "series", "step"),
    [
        ("model.ckpt-1200", "model.ckpt", 1200),
        ("m-0", "m", 0),
        ("m-7", "m", 7),
        ("m-1-2", "m-1", 2),
        ("model.ckpt-1-ema-5", "model.ckpt-1-ema", 5),
        ("m--3", "m", -3),
        ("m-00000005", "m", 5),
        ("m-00000000", "m", 0),
        ("m--0000005", "m", -5),
        ("m-123456789", "m", 123_456_789),
        ("m-9223372036854775807", "m", 2**63 - 1),
        ("m--9223372036854775807", "m", 1 - 2**63),
        ("two\nlines-7", "two\nlines", 7),
    ],
)
def test_a_prefix_says_its_series_and_step(prefix, series, step):
    assert parse_step(prefix) == (series, step)


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "m",
        "model.ckpt",
        "7",
        "-7",
        "m-",
        "m7",
        "m-7a",
        "m-a7",
        "m- 7",
        "m-7 ",
        "m-7\n",
        "m-+7",
        "m-7.0",
        "m-1e3",
        "m-1_000",
        "m-0x7",
        "m-01",
        "m-007",
        "m-0000005",
        "m-000000005",
        "m-0123456789",
        "m--0",
        "m--00",
        "m--0000000",
        "m--00000000",
        "m--007",
        "m-9223372036854775808",
        "m--9223372036854775808",
        "m--18446744073709551616",
        "m-" + "9" * 253,
        "m-" + "9" * 5000,
        "m-٧",  # noqa: RUF001 - a digit, but not one that TensorFlow writes
        "m-²",
        "m_7",
        "m–7",  # noqa: RUF001 - a dash, but not that of TensorFlow
    ],
)
def test_a_prefix_without_step_is_a_series_of_its_own(prefix):
    assert parse_step(prefix) == (prefix, None)


# One that ends in a hyphen cannot be told from a negative step: m--3.
SERIES = st.text(min_size=1, max_size=10).filter(lambda series: not series.endswith("-"))


@given(SERIES, st.integers(1 - 2**63, 2**63 - 1))
@example("m", 0)
def test_a_step_that_tensorflow_writes_is_read_back(series, step):
    assert parse_step(f"{series}-{step}") == (series, step)


@given(SERIES, st.integers(1 - 2**63, 2**63 - 1) | st.integers(-(10**8), 10**8))
@example("m", -5)
def test_a_padded_step_is_read_back(series, step):
    assert parse_step(f"{series}-{step:08d}") == (series, step)


@given(st.text(max_size=30) | st.from_regex(r"m?-{0,2}0{0,9}\d{0,22}", fullmatch=True))
def test_a_step_is_read_only_where_tensorflow_would_write_it_so(prefix):
    series, step = parse_step(prefix)

    if step is None:
        assert series == prefix
    else:
        assert prefix in {f"{series}-{step}", f"{series}-{step:08d}"}


@given(st.text(min_size=1, max_size=20), st.integers(1, 99_999), st.data())
def test_every_name_that_is_built_is_parsed_back(prefix, num_shards, data):
    shard = data.draw(st.integers(0, num_shards - 1))

    assert parse_file_name(index_name(prefix)) == FileName(prefix, Role.INDEX)
    assert parse_file_name(meta_graph_name(prefix)) == FileName(prefix, Role.META_GRAPH)
    assert parse_file_name(shard_name(prefix, shard, num_shards)) == FileName(
        prefix, Role.DATA, shard, num_shards
    )


@given(st.text(max_size=40))
def test_a_name_is_parsed_only_as_one_that_would_be_built_so(name):
    found = parse_file_name(name)
    if found is None:
        return

    built = {
        Role.INDEX: index_name(found.prefix),
        Role.META_GRAPH: meta_graph_name(found.prefix),
        Role.DEBUG_INFO: f"{found.prefix}.debug",
        Role.DATA: shard_name(found.prefix, found.shard, found.num_shards),
    }
    assert built[found.role] == name


@pytest.mark.parametrize(
    ("name", "prefix", "shard", "num_shards"),
    [
        ("m-7", "m-7", 0, 1),
        ("model.ckpt", "model.ckpt", 0, 1),
        ("m-7-00000-of-00002", "m-7", 0, 2),
        ("m-7-00001-of-00002", "m-7", 1, 2),
        ("m-7-00000-of-00001", "m-7", 0, 1),
        # No shard: then it is the whole name that could be a prefix.
        ("m-7-00002-of-00002", "m-7-00002-of-00002", 0, 1),
        ("m-7-0000-of-0002", "m-7-0000-of-0002", 0, 1),
        ("-00000-of-00002", "-00000-of-00002", 0, 1),
    ],
)
def test_a_v1_name_says_prefix_and_shard(name, prefix, shard, num_shards):
    assert parse_v1_name(name) == FileName(prefix, Role.V1_SHARD, shard, num_shards)


def test_v1_shards_are_parsed_back():
    shards = list(v1_shard_names("m-7", 3))

    assert shards == ["m-7-00000-of-00003", "m-7-00001-of-00003", "m-7-00002-of-00003"]
    assert [parse_v1_name(name).shard for name in shards] == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("model.ckpt", True),
        ("model.ckpt-7", True),
        ("m-7", True),
        ("m--7", True),
        ("m-7-00000-of-00002", True),
        ("train-00000-of-00010", True),  # TFRecord files: their bytes decide
        ("m", False),
        ("checkpoints", False),
        ("m-7.txt", False),
        ("m-7.ckpt.gz", False),
        ("Makefile", False),
        ("-7", False),
    ],
)
def test_only_what_could_be_v1_is_worth_opening(name, looks):
    assert looks_like_v1(name) is looks


@pytest.mark.parametrize(
    "name",
    [
        "m-7.index.tempstate0",
        "m-7.index.tempstate18446744073709551615",
        "m-7.data-00000-of-00001.tempstate123",
        "m-7.tempstate123",
        f"checkpoint.tmp{HEX}",
        f"m-7.meta.tmp{HEX}",
        "m-7.part-00000-of-00002.index",
        "m-7.part-00000-of-00002.data-00000-of-00001",
        "m-7.part-00001-of-00002",
    ],
)
def test_temporary_files_of_a_save_are_leftovers(name):
    assert leftover(name, is_directory=False) == "temporary file of a save"


@pytest.mark.parametrize("name", ["m-7_temp", f"m-7_temp_{HEX}", "model.ckpt_temp"])
def test_temporary_directories_of_a_save_are_leftovers(name):
    assert leftover(name, is_directory=True) == "temporary directory of a save"


@pytest.mark.parametrize(
    "name",
    [
        "m-7.index.tempstate",
        "m-7.index.tempstate12x",
        "m-7.index.tempstate1.bak",
        "m-7.index.tempstate1\n",
        "m-7.tmp",
        "m-7.tmp123",
        f"m-7.tmp{HEX.upper()}",
        f"m-7.tmp{HEX}0",
        f"m-7.tmp{HEX[:-1]}",
        "m-7.part-0-of-2",
        "m-7.part",
        "m-7_temp",
        "tempstate1",
        "m-7.index",
        "checkpoint",
    ],
)
def test_a_near_miss_is_no_temporary_file(name):
    assert leftover(name, is_directory=False) is None


@pytest.mark.parametrize(
    "name",
    ["_temp", "m-7_tmp", "m-7_temp_", f"m-7_temp_{HEX}0", "m-7_temporary", "m-7.index.tempstate1"],
)
def test_a_near_miss_is_no_temporary_directory(name):
    assert leftover(name, is_directory=True) is None


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        ("m-7", "m-7"),
        ("/srv/run/m-7", "m-7"),
        ("../other/m-7", "m-7"),
        ("", ""),
        ("/srv/run/", ""),
        ("m-7-?????-of-00002", "m-7"),
        ("/srv/run/m-7-?????-of-00002", "m-7"),
        ("m-7-????-of-00002", "m-7-????-of-00002"),
        ("m-7-?????-of-2", "m-7-?????-of-2"),
        ("m-7-00000-of-00002", "m-7-00000-of-00002"),
        ("-?????-of-00002", "-?????-of-00002"),
    ],
)
def test_a_path_of_the_state_file_names_a_checkpoint(path, prefix):
    assert prefix_of_path(path) == prefix


def test_the_pattern_of_a_sharded_v1_checkpoint_names_it():
    assert prefix_of_path("/srv/run/" + v1_pattern("m-7", 4)) == "m-7"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m-7.index", True),
        ("größe-7.index", True),
        ("\N{FLEXED BICEPS}-7.index", True),
        ("m\n-7.index", True),
        ("m-\udcff.index", False),
        ("\udcc3", False),
    ],
)
def test_only_utf8_is_text(name, text):
    assert is_text(name) is text
