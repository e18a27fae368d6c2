"""The commands' side of a talk with the daemon, and where the daemon is to be found.

One connection carries one request and one reply. The socket keeps packets apart
(``SOCK_SEQPACKET``), so there is no framing.
"""

import array
import errno
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ckptd.errors import CkptdError, NoDaemonError, NotPermittedError, printable
from ckptd.protocol.control import (
    MAX_PACKET,
    MalformedMessageError,
    Reply,
    Request,
    Verb,
    decode_reply,
    encode_request,
    read_document,
)

HOST_SOCKET: Final = "/run/ckptd/ckptd.sock"
"""Where the host's daemon listens."""

_NOBODY_THERE: Final = frozenset(
    {errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR, errno.ENOTSOCK, errno.EPROTOTYPE}
)
_DESCRIPTORS: Final = 4  # one is due; more are taken so that they can be closed


class RefusedError(CkptdError):
    """The daemon has refused what was asked; the text is the daemon's, and so is `exit_status`."""

    def __init__(self, text: str, exit_status: int) -> None:
        self.exit_status = exit_status  # type: ignore[misc]  # the daemon's, of this one error
        super().__init__(text)


def socket_path_candidates(
    environ: Mapping[str, str], uid: int, given: str | None = None
) -> tuple[str, ...]:
    """Return where to look for the daemon, the first place first.

    `given` (``--socket``) and ``CKPTD_SOCKET`` are orders; without them the user's own daemon comes
    before the host's.
    """
    ordered = given or environ.get("CKPTD_SOCKET")
    if ordered:
        return (ordered,)
    return (_user_socket(environ, uid), HOST_SOCKET)


def listening_path(environ: Mapping[str, str], uid: int, given: str | None = None) -> str:
    """Return where a daemon of `uid` listens; `given` is what its options or its YAML say.

    Under systemd that is in its ``RuntimeDirectory=``.
    """
    ordered = given or environ.get("CKPTD_SOCKET")
    if ordered:
        return ordered
    runtime = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if runtime:
        return f"{runtime}/ckptd.sock"
    return HOST_SOCKET if uid == 0 else _user_socket(environ, uid)


def ask(
    socket_path: str | Sequence[str],
    verb: Verb,
    directory: str | None = None,
    *,
    timeout: float = 30.0,
) -> dict[str, Any]:
    """Ask the daemon at `socket_path`, the first of several that is there; return its document.

    `timeout`, in seconds, is for the whole talk. Raises `NoDaemonError`, or the daemon's error.
    """
    paths = [socket_path] if isinstance(socket_path, str) else list(socket_path)
    packet = encode_request(Request(verb, directory))
    deadline = time.monotonic() + timeout
    for path in paths:
        connection = _connect(path, deadline)
        if connection is not None:
            with connection:
                return _talk(connection, path, packet, deadline, timeout)
    there = " or ".join(printable(path) for path in paths)
    raise NoDaemonError(f"no daemon answers at {there}: is `ckptd run` running?")


def _user_socket(environ: Mapping[str, str], uid: int) -> str:
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    return f"{runtime}/ckptd/ckptd.sock"


def _connect(path: str, deadline: float) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        connection.connect(path)
    except OSError as error:
        connection.close()
        if error.errno in _NOBODY_THERE:
            return None
        if error.errno in {errno.EACCES, errno.EPERM}:
            reason = "this user may not; the socket's group may"
            raise NotPermittedError("connect to", path, reason, number=error.errno) from error
        if isinstance(error, TimeoutError) or error.errno == errno.EAGAIN:
            raise NoDaemonError(f"the daemon at {printable(path)} takes no connection") from error
        # Among them a path longer than the 107 bytes of an address, which carries no errno.
        raise NoDaemonError(f"cannot connect to {printable(path)}: {error}") from error
    return connection


def _talk(
    connection: socket.socket, path: str, packet: bytes, deadline: float, timeout: float
) -> dict[str, Any]:
    where = f"the daemon at {printable(path)}"
    try:
        connection.send(packet)
        reply, descriptors = _receive(connection, deadline)
    except TimeoutError as error:
        raise NoDaemonError(f"{where} has not answered within {timeout:g} s") from error
    except OSError as error:
        raise NoDaemonError(f"{where} hung up: {os.strerror(error.errno or 0)}") from error
    except EOFError as error:
        raise NoDaemonError(f"{where} hung up without an answer") from error
    try:
        if not reply.ok:
            text = reply.error or "the daemon refused, and did not say why"
            raise RefusedError(text, reply.exit_status or 1)
        if len(descriptors) != 1:
            raise MalformedMessageError(f"{where} sent {len(descriptors)} documents instead of one")
        return read_document(descriptors[0])
    finally:
        _close(descriptors)


def _receive(connection: socket.socket, deadline: float) -> tuple[Reply, list[int]]:
    connection.settimeout(max(0.001, deadline - time.monotonic()))
    space = socket.CMSG_SPACE(_DESCRIPTORS * array.array("i").itemsize)
    packet, ancillary, flags, _ = connection.recvmsg(MAX_PACKET, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = received_descriptors(ancillary)
    try:
        return _decode(packet, flags), descriptors
    except BaseException:
        _close(descriptors)
        raise


def _decode(packet: bytes, flags: int) -> Reply:
    if not packet:
        raise EOFError
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise MalformedMessageError("an answer is longer than any can be")
    return decode_reply(packet)


def received_descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with a packet: whoever received it closes every one."""
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return list(descriptors)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
