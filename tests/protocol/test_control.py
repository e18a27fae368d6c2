"""Requests, replies and documents: what goes in comes out, and nothing else is taken."""

import fcntl
import json
import os
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptd.protocol.control import (
    MAX_DOCUMENT,
    MAX_PACKET,
    MalformedMessageError,
    Reply,
    Request,
    Verb,
    decode_reply,
    decode_request,
    document_file,
    encode_reply,
    encode_request,
    read_document,
)

PATHS = st.binary(min_size=1, max_size=200).filter(lambda path: 0 not in path).map(os.fsdecode)


@given(PATHS)
def test_a_request_comes_out_as_it_went_in(path):
    request = Request(Verb.SWEEP, path)

    assert decode_request(encode_request(request)) == request


@given(st.binary(max_size=300))
def test_no_packet_raises_anything_but_a_malformed_message(packet):
    with suppress(MalformedMessageError):
        decode_request(packet)
    with suppress(MalformedMessageError):
        decode_reply(packet)


@given(st.text(max_size=200), st.integers(0, 255))
def test_a_reply_comes_out_as_it_went_in(text, status):
    reply = decode_reply(encode_reply(Reply(text, status)))

    assert not reply.ok
    assert reply.exit_status == status
    assert reply.error == text.encode("utf-8", "backslashreplace").decode()


def test_a_reply_fits_into_a_packet_however_long_the_error():
    assert len(encode_reply(Reply("\U0001f682" * 100_000, 1))) < MAX_PACKET


def test_a_request_too_long_is_refused_before_it_is_sent():
    with pytest.raises(MalformedMessageError, match="at most"):
        encode_request(Request(Verb.SWEEP, "/x" * MAX_PACKET))


def test_a_document_travels_in_a_file_that_nobody_can_change():
    descriptor = document_file({"names": ["\udcff", "a" * 3_000_000]})
    try:
        assert read_document(descriptor) == {"names": ["\udcff", "a" * 3_000_000]}
        with pytest.raises(PermissionError):
            os.pwrite(descriptor, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 0)
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


def sealed(data: bytes, size: int | None = None) -> int:
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.write(descriptor, data)
    if size is not None:
        os.ftruncate(descriptor, size)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def unsealed() -> int:
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.write(descriptor, b"{}")
    return descriptor


BAD_DOCUMENTS = {
    "unsealed": unsealed,
    "a device": lambda: os.open("/dev/zero", os.O_RDONLY),
    "no JSON": lambda: sealed(b"{"),
    "a list": lambda: sealed(b"[]"),
    "nested": lambda: sealed(b"[" * 100_000),
    "huge": lambda: sealed(b"", MAX_DOCUMENT + 1),
}


@pytest.mark.parametrize("what", BAD_DOCUMENTS)
def test_anything_else_is_no_document(what):
    descriptor = BAD_DOCUMENTS[what]()
    try:
        with pytest.raises(MalformedMessageError):
            read_document(descriptor)
    finally:
        os.close(descriptor)


def test_a_document_is_json_of_ascii():
    descriptor = document_file({"name": "é\udcff"})
    try:
        data = os.pread(descriptor, 1000, 0)
    finally:
        os.close(descriptor)

    assert data.isascii()
    assert json.loads(data) == {"name": "é\udcff"}
