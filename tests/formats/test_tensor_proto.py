"""Tensors in messages are read and written as TensorFlow does, whatever they claim to hold."""

import contextlib
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptd.errors import CkptdError, CorruptGraphError, FormatError
from ckptd.formats.arrays import numpy_dtype
from ckptd.formats.dtypes import BY_NAME
from ckptd.formats.messages import PARSE_ERRORS, TensorProto
from ckptd.formats.tensor_proto import (
    count_values,
    decode_tensor,
    decode_values,
    encode_tensor,
    encode_values,
)

NUMBERS = [name for name, kind in BY_NAME.items() if kind.itemsize is not None]
PYTHON_CANNOT_LIST = ["float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2fnuz"]
SHAPES = [(), (0,), (1,), (2, 3), (3, 0, 2), (1,) * 8]


def values_of(name, shape):
    """An array of that type, with negative numbers, the largest and not-a-number where there are."""
    dtype = numpy_dtype(BY_NAME[name])
    size = int(np.prod(shape))
    if name == "bool":
        return (np.arange(size) % 2 == 0).reshape(shape)
    signed = not name.startswith(("u", "qu"))
    array = (np.arange(size) % 3 - (1 if signed else 0)).astype(np.int32).astype(dtype)
    if size > 1 and dtype.kind in "iu":
        array[0] = np.iinfo(dtype).max
    if size > 1 and name in {"float32", "float64", "float16", "bfloat16"}:
        array[0] = np.nan
    if size > 1 and dtype.kind == "c":
        array[0] = complex(np.inf, -2.5)
    return array.reshape(shape)


def same_bits(one, other):
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    assert one.tobytes() == other.tobytes()


def proto(kind="float32", shape=(), **fields):
    return TensorProto(
        dtype=BY_NAME[kind].number, tensor_shape={"dim": [{"size": n} for n in shape]}, **fields
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_goes_there_and_back(name, shape):
    array = values_of(name, shape)

    same_bits(decode_tensor(encode_tensor(array, BY_NAME[name]), "x"), array)
    listed = encode_values(array, BY_NAME[name])
    same_bits(decode_values(listed, BY_NAME[name], array.size, "x"), array.ravel())
    assert count_values(listed, BY_NAME[name], "x") == array.size
    assert not listed.dtype
    assert not listed.tensor_content


@pytest.mark.parametrize(
    "array",
    [
        np.array([b"a", b"\0\xff\0", b""], object),
        np.array([["größe", "b"]], object),
        np.array([], object),
        np.array(b"one", object),
    ],
    ids=str,
)
def test_strings_go_there_and_back(array):
    decoded = decode_tensor(encode_tensor(array), "x")

    assert decoded.shape == array.shape
    assert decoded.ravel().tolist() == [
        value.encode() if isinstance(value, str) else value for value in array.ravel().tolist()
    ]


def test_a_string_keeps_the_zeros_at_its_end():
    assert decode_tensor(encode_tensor(b"a\0\0"), "x").item() == b"a\0\0"


def test_arrays_of_any_order_are_written_as_values():
    array = np.arange(6, dtype=">f4").reshape(2, 3).T

    same_bits(decode_tensor(encode_tensor(array), "x"), np.ascontiguousarray(array).astype("f4"))


def test_raw_bits_stand_for_what_numpy_lacks():
    bits = np.array([0x3F80, 0x4000], "u2")

    same_bits(
        decode_tensor(encode_tensor(bits, BY_NAME["bfloat16"]), "x"),
        np.array([1, 2], ml_dtypes.bfloat16),
    )


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (proto(shape=[3], float_val=[1, 2]), [1, 2, 2]),
        (proto(shape=[2], float_val=[1, 2, 3]), [1, 2]),
        (proto(shape=[2]), [0, 0]),
        (proto(shape=[2], int_val=[7, 7]), [0, 0]),
        (proto("uint8", [2], tensor_content=b"\0\1", int_val=[7]), [0, 1]),
        (proto("uint8", [0], tensor_content=b"\0\1"), []),
        (proto("uint8", [2], int_val=[300, -1]), [44, 255]),
        (proto("int8", [2], int_val=[300, -1]), [44, -1]),
        (proto("complex64", [2], scomplex_val=[1, 2, 3]), [1 + 2j, 1 + 2j]),
        (proto("complex64", [1], scomplex_val=[1]), [0]),
        (proto("bool", [3], bool_val=[False, True]), [False, True, True]),
        (proto("string", [3], string_val=[b"a", b"b"]), [b"a", b"b", b"b"]),
        (proto("string", [2]), [b"", b""]),
        (proto("string", [2], tensor_content=b"\1\2abc"), [b"a", b"bc"]),
        (proto("int4", [2], int_val=[1, -2]), [1, -2]),
        (proto("uint4", [2], int_val=[1, -2]), [1, 14]),
        (proto("int4", [2], tensor_content=b"\1\x0f"), [1, -1]),
        (proto("float8_e5m2", [3], float8_val=b"<8"), [1, 0.5, 0.5]),
        (proto("float8_e4m3fnuz", [2], float8_val=b"<8"), [0.75, 0.5]),
        (proto("float16", [1], half_val=[70000]), [np.uint16(70000 % 65536).view("f2")]),
    ],
)
class TestWhatTensorFlowTakes:
    """The cases of the fill rule, and of lists that do not fit."""

    def test_is_read(self, message, expected):
        assert decode_tensor(message, "x").tolist() == expected

    @pytest.mark.tensorflow
    def test_is_read_by_tensorflow_alike(self, message, expected, tf):
        parsed = tf.io.parse_tensor(message.SerializeToString(), tf.dtypes.as_dtype(message.dtype))

        assert parsed.numpy().tolist() == expected


@pytest.mark.parametrize(
    ("message", "error", "reason"),
    [
        (TensorProto(), FormatError, "x: data type 0 is not a type whose values can be read"),
        (TensorProto(dtype=77), FormatError, "x: data type 77 is not a type"),
        (proto("resource"), FormatError, "x: DT_RESOURCE is not a type"),
        (proto(shape=[-1]), CorruptGraphError, r"x: its shape has a negative size: \[-1\]"),
        (proto(shape=[0, -1]), CorruptGraphError, "negative size"),
        (proto(shape=[1 << 62, 8]), CorruptGraphError, r"beyond all memory: \[46116860184273879"),
        (proto(shape=[0, 1 << 62, 8]), CorruptGraphError, "beyond all memory"),
        (proto(shape=[2] * 33), FormatError, "it has 33 dimensions, an array can have 32"),
        (proto(shape=[1 << 30] * 20), CorruptGraphError, r"beyond all memory.*, \.\.\.\]"),
        (proto(shape=[10**9], float_val=[1, 2]), FormatError, "2 values stand for 1000000000"),
        (proto(shape=[2], tensor_content=b"123"), CorruptGraphError, "takes 3 bytes, .* shape 8"),
        (proto("bool", [2], tensor_content=b"\1\2"), CorruptGraphError, "neither true nor false"),
        (proto("string", [2], tensor_content=b"\1"), CorruptGraphError, "too few for 2 strings"),
        (proto("string", [2], tensor_content=b"\1\2ab"), CorruptGraphError, "5 bytes|ask for 5"),
        (proto("string", [2], tensor_content=b"\1\2abcd"), CorruptGraphError, "ask for 5"),
        (proto("string", [1], tensor_content=b"\xff"), CorruptGraphError, "length of a string"),
        (proto("string", [1], tensor_content=b"\xff" * 9), CorruptGraphError, "length of a string"),
    ],
)
def test_what_cannot_be_a_tensor_is_named(message, error, reason):
    with pytest.raises(error, match=reason):
        decode_tensor(message, "x")


@pytest.mark.parametrize("fields", [{"float_val": [1.5]}, {}], ids=["one value", "none"])
def test_a_fill_takes_no_memory(fields):
    tracemalloc.start()
    try:
        array = decode_tensor(proto(shape=[10**6, 10**6], **fields), "x")
        values = decode_values(TensorProto(**fields), BY_NAME["float32"], 10**12, "x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 100_000
    assert array.shape == (10**6, 10**6)
    assert values.shape == (10**12,)
    assert array[-1, -1] == values[-1] == fields.get("float_val", [0])[0]
    assert not array.flags.writeable


def test_a_variant_is_passed_through_as_bytes():
    message = proto("variant", [1], variant_val=[{"type_name": "int", "metadata": b"\7"}])

    assert decode_tensor(message, "x").tolist() == [b"\n\3int\x12\1\7"]


@pytest.mark.parametrize(
    ("array", "name", "error", "reason"),
    [
        (np.zeros(2, "M8[s]"), None, TypeError, "x: a checkpoint cannot hold dtype datetime64"),
        (np.zeros(2), "float32", TypeError, "x: an array of dtype float64 does not hold float32"),
        (np.zeros(2, "u2"), "float16", TypeError, "dtype uint16 does not hold float16"),
        (np.array([1.5], object), None, TypeError, "x: holds 1.5, neither bytes nor str"),
        (np.array([b""], object), "variant", TypeError, "cannot be made of values of type variant"),
        (np.zeros(2), "resource", TypeError, "cannot be made of values of type resource"),
        (np.broadcast_to(np.int64(0), (1 << 28,)), None, FormatError, "takes 2147483648 bytes"),
    ],
)
def test_what_cannot_be_written_is_named(array, name, error, reason):
    with pytest.raises(error, match=reason):
        encode_tensor(array, name and BY_NAME[name], where="x")


@given(
    st.builds(
        lambda message, data, at: message[:at] + data + message[at + len(data) :],
        st.sampled_from([*NUMBERS, "string"]).map(
            lambda name: (
                encode_tensor(np.array([b"ab", b""], object))
                if name == "string"
                else encode_tensor(values_of(name, (2, 3)), BY_NAME[name])
            ).SerializeToString()
        ),
        st.binary(max_size=8),
        st.integers(0, 40),
    )
)
def test_mutated_messages_are_tensors_or_named_errors(data):
    try:
        message = TensorProto.FromString(data)
    except PARSE_ERRORS:
        return
    with contextlib.suppress(CkptdError):
        decode_tensor(message, "x")


# TensorFlow 2.21 itself does what numpy 2.5 warns of.
@pytest.mark.filterwarnings("ignore:Setting the dtype on a NumPy array:DeprecationWarning")
@pytest.mark.tensorflow
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", [*NUMBERS, "string"])
def test_tensorflow_writes_the_same_bytes_and_reads_them(name, shape, tf):
    from tensorflow.core.framework import tensor_pb2

    dtype = tf.dtypes.as_dtype(name)
    array = np.full(shape, b"a\0b", object) if name == "string" else values_of(name, shape)
    quantized = name.startswith("q")
    values = array.astype(dtype.as_numpy_dtype) if quantized else array

    written = encode_tensor(array, BY_NAME[name]).SerializeToString()

    if name not in PYTHON_CANNOT_LIST or array.size > 1:
        expected = tf.make_tensor_proto(values, dtype=dtype)
        assert written == expected.SerializeToString(deterministic=True)
    parsed = np.asarray(tf.io.parse_tensor(written, dtype).numpy())
    if quantized:
        parsed = parsed.view(array.dtype)
    assert parsed.shape == array.shape
    assert parsed.tolist() == array.tolist() or parsed.tobytes() == array.tobytes()
    again = tf.make_ndarray(tensor_pb2.TensorProto.FromString(written)) if array.size else array
    assert again.tobytes() == values.tobytes() or again.tolist() == values.tolist()


@pytest.mark.tensorflow
def test_what_tensorflow_serializes_is_read(tf):
    for name in NUMBERS:
        array = values_of(name, (2, 3))
        with contextlib.suppress(tf.errors.NotFoundError, TypeError):
            message = tf.io.serialize_tensor(tf.constant(array)).numpy()
            same_bits(decode_tensor(TensorProto.FromString(message), "x"), array)
