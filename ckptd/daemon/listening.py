"""The daemon's side of the control socket: many peers, of whom none can do harm.

Each connection carries one request. The main loop serves all of them and never waits for one: what
does not come in time, or is not fetched, ends its connection.
"""

import os
import selectors
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from ckptd.daemon.log import Event, Log
from ckptd.errors import CkptdError
from ckptd.protocol.control import (
    MAX_PACKET,
    MalformedMessageError,
    Reply,
    Request,
    decode_request,
    document_file,
    encode_reply,
)
from ckptd.protocol.conversation import received_descriptors

_OVERFLOW_UID: Final = 65534  # of a peer that has no uid in this user namespace: it may be anybody
_MOST: Final = 64  # connections
_MOST_OF_ONE: Final = 16  # of one uid
_DEADLINE: Final = 5.0  # seconds to send a request
_PAUSE: Final = 0.5  # seconds without accepting, when there are no descriptors left
_SAME_AGAIN: Final = 60.0  # seconds until the same refusal of the same uid is logged again
_CREDENTIALS: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid
_DESCRIPTORS: Final = 253  # as many as one packet can carry (SCM_MAX_FD)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who connected, as the kernel tells it."""

    pid: int
    uid: int


class Conversation:
    """One connection. `reply` or `refuse` ends it, now or later."""

    def __init__(self, listener: "Listener", connection: socket.socket, peer: Peer) -> None:
        self.peer = peer
        self.connection = connection
        self.deadline: float | None = time.monotonic() + _DEADLINE
        self._listener = listener

    def reply(self, document: dict[str, Any]) -> None:
        """Send `document` and hang up."""
        try:
            descriptor = document_file(document)
        except OSError as error:
            self.refuse(f"the answer does not fit into memory: {error}", 1)
            return
        try:
            self._send(Reply(), descriptor)
        finally:
            os.close(descriptor)

    def refuse(self, text: str, exit_status: int) -> None:
        """Say why not, and hang up."""
        self._send(Reply(text, exit_status))

    def _send(self, reply: Reply, *descriptors: int) -> None:
        with suppress(OSError):  # hung up, or does not read
            socket.send_fds(self.connection, [encode_reply(reply)], list(descriptors))
        self._listener.hang_up(self)


class Listener:
    """Accepts connections at `listening`, and hands requests to `on_request`."""

    def __init__(
        self,
        listening: socket.socket,
        selector: selectors.BaseSelector,
        log: Log,
        on_request: Callable[[Request, Conversation], None],
    ) -> None:
        self._listening = listening
        self._selector = selector
        self._log = log
        self._on_request = on_request
        self._conversations: set[Conversation] = set()
        self._resume: float | None = None
        self._told: dict[tuple[int, str], float] = {}
        selector.register(listening, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Hang up on everybody; the listening socket is the caller's."""
        if self._resume is None:
            self._selector.unregister(self._listening)
        for conversation in list(self._conversations):
            self.hang_up(conversation)

    def next_deadline(self) -> float:
        """Return when `expire` has something to do, on the monotonic clock."""
        deadlines = [c.deadline for c in self._conversations if c.deadline is not None]
        if self._resume is not None:
            deadlines.append(self._resume)
        return min(deadlines, default=float("inf"))

    def expire(self, now: float) -> None:
        """Hang up on who has sent nothing in time."""
        for conversation in list(self._conversations):
            if conversation.deadline is not None and conversation.deadline <= now:
                self.hang_up(conversation)
        if self._resume is not None and self._resume <= now:
            self._resume = None
            self._selector.register(self._listening, selectors.EVENT_READ, self._accept)

    def hang_up(self, conversation: Conversation) -> None:
        """End a conversation; safe to call twice."""
        if conversation in self._conversations:
            self._conversations.remove(conversation)
            self._selector.unregister(conversation.connection)
            conversation.connection.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:
            # No descriptors left. The peer stays in the backlog, and would wake us without end.
            self._selector.unregister(self._listening)
            self._resume = time.monotonic() + _PAUSE
            return
        connection.setblocking(False)
        try:
            peer = _peer(connection)
        except OSError:
            connection.close()
            return
        of_one = sum(other.peer.uid == peer.uid for other in self._conversations)
        if len(self._conversations) >= _MOST or of_one >= _MOST_OF_ONE:
            connection.close()
            return
        conversation = Conversation(self, connection, peer)
        self._conversations.add(conversation)
        self._selector.register(
            connection, selectors.EVENT_READ, lambda: self._receive(conversation)
        )

    def _receive(self, conversation: Conversation) -> None:
        connection = conversation.connection
        space = socket.CMSG_SPACE(_DESCRIPTORS * struct.calcsize("i"))
        try:
            packet, ancillary, flags, _ = connection.recvmsg(
                MAX_PACKET, space, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            self.hang_up(conversation)
            return
        for descriptor in (received := received_descriptors(ancillary)):
            os.close(descriptor)
        if not packet or conversation.deadline is None:  # hung up, or asks again before the answer
            self.hang_up(conversation)
            return
        conversation.deadline = None
        if received or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            self._refuse(conversation, "a request is one small packet and nothing else", 1)
        elif conversation.peer.uid == _OVERFLOW_UID:
            text = "the user who asks has no uid in the daemon's user namespace"
            self._refuse(conversation, text, 12)
        else:
            try:
                request = decode_request(packet)
            except MalformedMessageError as error:
                self._refuse(conversation, str(error), 1)
                return
            try:
                self._on_request(request, conversation)
            except (CkptdError, OSError) as error:
                conversation.refuse(str(error), getattr(error, "exit_status", 1))

    def _refuse(self, conversation: Conversation, text: str, exit_status: int) -> None:
        peer, now = conversation.peer, time.monotonic()
        if now - self._told.get((peer.uid, text), -_SAME_AGAIN) >= _SAME_AGAIN:
            if len(self._told) > _MOST:
                self._told.clear()
            self._told[peer.uid, text] = now
            self._log(Event.PEER_REFUSED, uid=peer.uid, pid=peer.pid, reason=text)
        conversation.refuse(text, exit_status)


def _peer(connection: socket.socket) -> Peer:
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(packed)
    return Peer(pid, uid)
