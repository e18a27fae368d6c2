"""Formats do not depend on which implementation of protobuf is at work."""

import os
import subprocess
import sys

import pytest

PROGRAM = r"""
from google.protobuf.internal import api_implementation
assert api_implementation.Type() == "python", api_implementation.Type()

import numpy as np
from ckptd.errors import CorruptIndexError, CorruptStateFileError
from ckptd.formats.sorted_table import write_table
from ckptd.formats.state_file import StateFile, format_state_file, parse_state_file
from ckptd.formats.bundle_index import read_promise
from ckptd.formats.bundle_writer import encode_bundle
from ckptd.formats.tensor_bundle import Bundle
from ckptd.formats.v1_table import read_v1_promise

index, data = encode_bundle({"a": np.float32([1, 2]), "scalar": np.int64(3)})
print(index.hex())
print(read_promise(index))
bundle = Bundle(index, lambda _: data)
print(bundle.tensors, [bundle.read(name, verify=True) for name in bundle.tensors])

state = StateFile(model_checkpoint_path="größe", last_preserved_timestamp=0.5)
print(format_state_file(state))
print(parse_state_file(format_state_file(state)) == state)

def read_v1(data):
    return read_v1_promise(lambda offset, size: data[offset : offset + size], len(data))

V1 = bytes.fromhex("0a150a0f0a0161120412020802180122020a0012020801")
BUNDLE = bytes.fromhex("08011a020801")
print(read_v1(write_table([(b"", V1)])))
for read, value in [
    (read_promise, V1), (read_promise, b"\xff"), (read_promise, b"\x0a\1"), (read_v1, BUNDLE),
    (read_v1, b"\xff"), (read_v1, b"\x0a\5\x0a\3\x0a\1\xff"), (read_v1, b"\x0b" * 5000),
]:
    try:
        print(read(write_table([(b"", value)])))
    except CorruptIndexError as error:
        print(error)
for text in (b'model_checkpoint_path: "\\377"', b"[" * 50000, b'model_checkpoint_path: "\\ud800"'):
    try:
        print(parse_state_file(text))
    except CorruptStateFileError as error:
        print("corrupt")
"""


def output_of(program, implementation):
    environment = os.environ | {
        "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation,
        "PYTHONUTF8": "1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.processes
def test_protobuf_in_pure_python_gives_the_same():
    fast = output_of(PROGRAM.replace('== "python"', '== "upb"'), "upb")

    assert output_of(PROGRAM, "python") == fast
    assert "V1Promise(tensors=1)\na V1 checkpoint, not an index\nheader does not parse" in fast
