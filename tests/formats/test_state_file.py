"""The state file is read and written as TensorFlow does."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptd.errors import CorruptStateFileError
from ckptd.formats.state_file import (
    MAX_STATE_FILE_SIZE,
    StateFile,
    format_state_file,
    parse_state_file,
)

FULL = StateFile(
    model_checkpoint_path="/d/größe-2",
    all_model_checkpoint_paths=("/d/m-1", "q\"'\\\n\t", "/d/größe-2"),
    all_model_checkpoint_timestamps=(100.0, 1700000000.123456, 1e22),
    last_preserved_timestamp=99.0,
)
FULL_TEXT = r"""model_checkpoint_path: "/d/größe-2"
all_model_checkpoint_paths: "/d/m-1"
all_model_checkpoint_paths: "q\"\'\\\n\t"
all_model_checkpoint_paths: "/d/größe-2"
all_model_checkpoint_timestamps: 100.0
all_model_checkpoint_timestamps: 1700000000.123456
all_model_checkpoint_timestamps: 1e+22
last_preserved_timestamp: 99.0
""".encode()

paths = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
timestamps = st.floats(allow_nan=False)
states = st.builds(
    StateFile,
    model_checkpoint_path=paths.filter(bool),
    all_model_checkpoint_paths=st.lists(paths).map(tuple),
    all_model_checkpoint_timestamps=st.lists(timestamps).map(tuple),
    last_preserved_timestamp=st.none() | timestamps.filter(bool),
)


def test_a_full_state_is_written_field_by_field():
    assert format_state_file(FULL) == FULL_TEXT
    assert parse_state_file(FULL_TEXT) == FULL


def test_a_state_without_timestamps_is_what_saver_writes():
    state = StateFile(
        model_checkpoint_path="/d/m-2", all_model_checkpoint_paths=("/d/m-1", "/d/m-2")
    )

    assert format_state_file(state) == (
        b'model_checkpoint_path: "/d/m-2"\n'
        b'all_model_checkpoint_paths: "/d/m-1"\n'
        b'all_model_checkpoint_paths: "/d/m-2"\n'
    )


@given(states)
def test_what_is_written_is_read(state):
    assert parse_state_file(format_state_file(state)) == state


@pytest.mark.parametrize("zero", [0.0, -0.0, None])
def test_a_last_preserved_timestamp_of_zero_is_none(zero):
    data = format_state_file(StateFile(model_checkpoint_path="m", last_preserved_timestamp=zero))

    assert data == b'model_checkpoint_path: "m"\n'
    assert parse_state_file(data).last_preserved_timestamp is None
    text = data + b"last_preserved_timestamp: -0.0"
    assert parse_state_file(text).last_preserved_timestamp is None


def test_timestamps_are_returned_as_they_are():
    state = parse_state_file(
        b"model_checkpoint_path: 'm' all_model_checkpoint_timestamps: [nan, -inf, 1e9, 100, -1]"
        b" last_preserved_timestamp: inf"
    )

    assert math.isnan(state.all_model_checkpoint_timestamps[0])
    assert state.all_model_checkpoint_timestamps[1:] == (-math.inf, 1e9, 100.0, -1.0)
    assert state.last_preserved_timestamp == math.inf


PATH = b'model_checkpoint_path: "m-1"\n'

READABLE = {
    "one path": (PATH, ["m-1"]),
    "without a newline": (b'model_checkpoint_path:"m-1"', ["m-1"]),
    "Windows newlines": (PATH.replace(b"\n", b"\r\n"), ["m-1"]),
    "absolute path": (b'model_checkpoint_path: "/d/m-1"', ["/d/m-1"]),
    "path that climbs": (b'model_checkpoint_path: "../q/./m-1"', ["../q/./m-1"]),
    "repeated scalar": (PATH + b'model_checkpoint_path: "m-2"', ["m-2"]),
    "single quotes": (b"model_checkpoint_path: 'm-1'", ["m-1"]),
    "strings side by side": (b"model_checkpoint_path: 'm' \"-1\"", ["m-1"]),
    "comment": (b"# by hand\n" + PATH + b"# end", ["m-1"]),
    "raw UTF-8": ('model_checkpoint_path: "日"'.encode(), ["日"]),
    "octal escapes": (rb'model_checkpoint_path: "\346\227\245"', ["日"]),
    "hex escapes": (rb'model_checkpoint_path: "\xe6\x97\xa5"', ["日"]),
    "unknown escape": (rb'model_checkpoint_path: "a\qb"', [r"a\qb"]),
    "newline in a path": (rb'model_checkpoint_path: "a\nb"', ["a\nb"]),
    "list of paths": (PATH + b'all_model_checkpoint_paths: ["a", "b"]', ["m-1", "a", "b"]),
    "empty path in the list": (PATH + b'all_model_checkpoint_paths: ""', ["m-1", ""]),
    "semicolons": (PATH.strip() + b"; last_preserved_timestamp: 5;", ["m-1"]),
    "timestamps that are no numbers": (PATH + b"last_preserved_timestamp: nan", ["m-1"]),
    "fewer timestamps than paths": (PATH + b"all_model_checkpoint_timestamps: 1", ["m-1"]),
}

UNREADABLE = {
    "empty": (b"", "names no checkpoint"),
    "white space": (b" \n\t\n", "names no checkpoint"),
    "no model_checkpoint_path": (b'all_model_checkpoint_paths: "m-1"', "names no checkpoint"),
    "empty model_checkpoint_path": (b'model_checkpoint_path: ""', "names no checkpoint"),
    "emptied model_checkpoint_path": (PATH + b'model_checkpoint_path: ""', "names no checkpoint"),
    "words": (b"not a state file", "does not parse"),
    "unknown field": (PATH + b'by_hand: "x"', "does not parse: .*by_hand"),
    "unterminated string": (b'model_checkpoint_path: "m-1', "does not parse"),
    "string over two lines": (b'model_checkpoint_path: "m\n-1"', "does not parse"),
    "cut off": (PATH + b"all_model_check", "does not parse"),
    "number for a path": (b"model_checkpoint_path: 7", "does not parse"),
    "string for a timestamp": (PATH + b'last_preserved_timestamp: "5"', "does not parse"),
    "stray brace": (PATH + b"}", "does not parse"),
    "byte order mark": (b"\xef\xbb\xbf" + PATH, "does not parse"),
    "raw bytes that are not UTF-8": (b'model_checkpoint_path: "\xff"', "not UTF-8 at byte 24"),
    "escapes that are not UTF-8": (rb'model_checkpoint_path: "\377"', "does not parse"),
    "raw NUL": (PATH + b"\0", "does not parse"),
    "binary": (b"\x0a\x03m-1", "does not parse"),
    "many brackets": (b"[" * 50_000, "does not parse"),
    "many braces": (PATH + b"x {" * 50_000, "does not parse"),
}


@pytest.mark.filterwarnings("ignore:.*invalid escape sequence:DeprecationWarning")
@pytest.mark.parametrize("case", READABLE)
def test_what_tensorflow_reads_is_read(case):
    data, expected = READABLE[case]

    state = parse_state_file(data)

    assert [state.model_checkpoint_path, *state.all_model_checkpoint_paths] == expected


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_tensorflow_does_not_read_is_named(case):
    data, reason = UNREADABLE[case]

    with pytest.raises(CorruptStateFileError, match=reason) as caught:
        parse_state_file(data)

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", READABLE)
def test_tensorflow_reads_it(tf, tmp_path, case):
    data, expected = READABLE[case]
    (tmp_path / "checkpoint").write_bytes(data)

    state = tf.train.get_checkpoint_state(str(tmp_path))

    paths = [state.model_checkpoint_path, *state.all_model_checkpoint_paths]
    assert paths == [f"{tmp_path}/{path}" if path[:1] != "/" else path for path in expected]


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", UNREADABLE)
def test_tensorflow_does_not_read_it(tf, tmp_path, case):
    (tmp_path / "checkpoint").write_bytes(UNREADABLE[case][0])

    try:
        state = tf.train.get_checkpoint_state(str(tmp_path))
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        state = None

    assert state is None


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "state",
    [
        FULL,
        StateFile(model_checkpoint_path="/d/m", all_model_checkpoint_paths=("/d/m",)),
        StateFile(
            model_checkpoint_path="/d/日本",
            all_model_checkpoint_paths=("/d/\u2028\x85 \r\x01\x7f", "/d/日本"),
            all_model_checkpoint_timestamps=(0.1, 1e-7),
            last_preserved_timestamp=1e300,
        ),
        StateFile(
            model_checkpoint_path="/m",
            all_model_checkpoint_paths=("/m",),
            all_model_checkpoint_timestamps=(float("inf"),),
            last_preserved_timestamp=-0.5,
        ),
    ],
)
def test_the_text_is_byte_for_byte_tensorflows(tf, tmp_path, state):
    tf.compat.v1.train.update_checkpoint_state(
        str(tmp_path),
        state.model_checkpoint_path,
        all_model_checkpoint_paths=list(state.all_model_checkpoint_paths),
        all_model_checkpoint_timestamps=list(state.all_model_checkpoint_timestamps),
        last_preserved_timestamp=state.last_preserved_timestamp,
    )

    assert format_state_file(state) == (tmp_path / "checkpoint").read_bytes()


@pytest.mark.parametrize(
    "data",
    [
        rb'model_checkpoint_path: "a\000b"',
        PATH + rb'all_model_checkpoint_paths: "\0"',
    ],
)
def test_a_path_with_a_nul_is_refused_where_tensorflow_would_stumble_later(data):
    with pytest.raises(CorruptStateFileError, match="names a path with a NUL in it"):
        parse_state_file(data)


def test_a_file_beyond_the_limit_is_not_parsed():
    with pytest.raises(CorruptStateFileError, match="too large for a state file: 16777217 bytes"):
        parse_state_file(PATH.ljust(MAX_STATE_FILE_SIZE + 1))


def test_an_escape_that_python_warns_of_is_refused_where_warnings_are_errors():
    with pytest.raises(CorruptStateFileError, match=r"does not parse: .*invalid escape sequence"):
        parse_state_file(rb'model_checkpoint_path: "a\qb"')


def test_a_long_line_is_not_repeated_in_the_reason():
    with pytest.raises(CorruptStateFileError) as caught:
        parse_state_file(b"model_checkpoint_path: " + b"x" * 100_000)

    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (StateFile(model_checkpoint_path=""), "names no checkpoint"),
        (StateFile(model_checkpoint_path="a\0b"), r"names a path with a NUL in it: a\\x00b"),
        (StateFile(model_checkpoint_path="a\udcff"), r"names a path not in UTF-8: a\\xff"),
        (
            StateFile(model_checkpoint_path="a", all_model_checkpoint_paths=("b\udc80",)),
            r"names a path not in UTF-8: b\\x80",
        ),
        (
            StateFile(model_checkpoint_path="m" * MAX_STATE_FILE_SIZE),
            "too large for a state file",
        ),
    ],
)
def test_a_state_that_could_not_be_read_back_is_not_written(state, reason):
    with pytest.raises(CorruptStateFileError, match=reason):
        format_state_file(state)


TOKENS = [
    *(b"model_checkpoint_path all_model_checkpoint_paths last_preserved_timestamp".split()),
    *(
        b": ; , { } [ ] < > - # ' \" \\ \\0 \\x \\u \\U \\ud8 \\777 \n . 1 9e999 nan inf a".split(
            b" "
        )
    ),
    b"all_model_checkpoint_timestamps: ",
    b'model_checkpoint_path: "m"\n',
    b"\xff",
    b"\xe6\x97\xa5",
    b"\0",
]


@given(st.binary() | st.lists(st.sampled_from(TOKENS)).map(b"".join))
def test_arbitrary_bytes_are_a_state_or_corrupt(data):
    try:
        state = parse_state_file(data)
    except CorruptStateFileError:
        return
    assert state.model_checkpoint_path


@given(states, st.data())
def test_a_damaged_state_is_a_state_or_corrupt(state, data):
    text = format_state_file(state)
    position = data.draw(st.integers(0, len(text)))
    damaged = text[:position] + data.draw(st.binary(max_size=3)) + text[position + 2 :]
    with contextlib.suppress(CorruptStateFileError):
        parse_state_file(damaged)
