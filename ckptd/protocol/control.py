"""Requests to the daemon and its replies: their bytes, and the memory file beside them.

The messages are those of ``proto/control.proto``, compiled to ``proto/ckptd_protocol.binpb``, in a
private pool as in `ckptd.formats.messages`. A packet is at most `MAX_PACKET` bytes. A document is
JSON in a sealed memory file, whose descriptor travels with the reply: its size is no burden for
the socket, and nobody can change it once it is sent.
"""

import errno
import fcntl
import json
import os
from dataclasses import dataclass
from enum import Enum
from importlib import resources
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from ckptd.errors import CkptdError

MAX_PACKET: Final = 64 * 2**10
"""Bytes in a request or a reply."""

MAX_DOCUMENT: Final = 64 * 2**20
"""Bytes in a document; a daemon of 10,000 model directories sends about 16 MiB."""

_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MFD_NOEXEC_SEAL: Final = (
    0x8  # linux/memfd.h; os names it from Python 3.14 on, Linux has it from 6.3
)
_MAX_ERROR: Final = 8 * 2**10  # characters
_PIECE: Final = 2**20

_POOL: Final = descriptor_pool.DescriptorPool()


def _load() -> None:
    compiled = resources.files("ckptd.protocol") / "proto" / "ckptd_protocol.binpb"
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file:
        _POOL.AddSerializedFile(file.SerializeToString())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"ckptd.protocol.{name}"))


_load()
_REQUEST: Any = _message("Request")
_REPLY: Any = _message("Reply")


class MalformedMessageError(CkptdError):
    """A packet, or what came with it, is none of this protocol's."""


class Verb(Enum):
    """What can be asked of the daemon."""

    PING = 1
    STATUS = 2
    SWEEP = 3


@dataclass(frozen=True, slots=True)
class Request:
    """One question; `directory` is the model directory that a SWEEP is about."""

    verb: Verb
    directory: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. Without `error`, a document comes with it."""

    error: str | None = None
    exit_status: int = 0

    @property
    def ok(self) -> bool:
        """Whether what was asked for has been done."""
        return self.error is None


def encode_request(request: Request) -> bytes:
    """Return the packet of `request`. Raises `MalformedMessageError` where it would be too long."""
    directory = b"" if request.directory is None else os.fsencode(request.directory)
    packet: bytes = _REQUEST(verb=request.verb.value, directory=directory).SerializeToString()
    if len(packet) > MAX_PACKET:
        raise MalformedMessageError(
            f"a request of {len(packet)} bytes: at most {MAX_PACKET} can be"
        )
    return packet


def decode_request(packet: bytes) -> Request:
    """Return the request in `packet`. Raises `MalformedMessageError`."""
    message = _parse(_REQUEST, packet)
    try:
        verb = Verb(message.verb)
    except ValueError:
        raise MalformedMessageError(f"no verb has the number {message.verb}") from None
    if (verb is Verb.SWEEP) != bool(message.directory):
        raise MalformedMessageError("SWEEP names a directory, and no other verb does")
    if b"\0" in message.directory:
        raise MalformedMessageError("a directory's path holds a NUL")
    return Request(verb, os.fsdecode(message.directory) if message.directory else None)


def encode_reply(reply: Reply) -> bytes:
    """Return the packet of `reply`; a very long error is cut."""
    if reply.error is None:
        return bytes(_REPLY(ok=True).SerializeToString())
    text = reply.error[:_MAX_ERROR].encode("utf-8", "backslashreplace").decode("utf-8")
    message = _REPLY(ok=False, error=text, exit_status=reply.exit_status)
    return bytes(message.SerializeToString())


def decode_reply(packet: bytes) -> Reply:
    """Return the reply in `packet`. Raises `MalformedMessageError`."""
    message = _parse(_REPLY, packet)
    return Reply() if message.ok else Reply(message.error, message.exit_status)


def document_file(document: dict[str, Any]) -> int:
    """Return the descriptor of a new sealed memory file that holds `document`; the caller closes it."""
    data = json.dumps(document).encode("ascii")
    descriptor = _memory_file("ckptd-document")
    try:
        for start in range(0, len(data), _PIECE):
            piece = memoryview(data)[start : start + _PIECE]
            while piece:
                piece = piece[os.write(descriptor, piece) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_document(descriptor: int) -> dict[str, Any]:
    """Return the document in a sealed memory file. Raises `MalformedMessageError` for anything else."""
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        seals = 0
    if seals & _SEALS != _SEALS:  # a file that could change, or block whoever reads it
        raise MalformedMessageError("a document came that is no sealed memory file")
    size = os.fstat(descriptor).st_size
    if size > MAX_DOCUMENT:
        raise MalformedMessageError(f"a document of {size} bytes: at most {MAX_DOCUMENT} can be")
    os.lseek(descriptor, 0, os.SEEK_SET)
    data = bytearray()
    while piece := os.read(descriptor, _PIECE):
        data += piece
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MalformedMessageError(f"a document does not parse: {error}") from error
    if not isinstance(document, dict):
        raise MalformedMessageError("a document is no JSON object")
    return document


def _parse(message: Any, packet: bytes) -> Any:
    try:
        return message.FromString(packet)
    except (DecodeError, ValueError, RecursionError) as error:
        raise MalformedMessageError(f"{len(packet)} bytes are no {message.__name__}") from error


def _memory_file(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.memfd_create(name, flags)  # an older kernel, which does not know the flag
