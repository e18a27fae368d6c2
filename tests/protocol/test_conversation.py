"""Finding the daemon, and talking to one that misbehaves."""

import os
import shutil
import socket
import tempfile
import threading
from pathlib import Path

import pytest

from ckptd.errors import CkptdError, NoDaemonError
from ckptd.protocol.control import MalformedMessageError, Reply, Verb, document_file, encode_reply
from ckptd.protocol.conversation import (
    HOST_SOCKET,
    RefusedError,
    ask,
    listening_path,
    socket_path_candidates,
)


@pytest.mark.parametrize(
    ("environ", "given", "expected"),
    [
        ({}, None, ("/run/user/7/ckptd/ckptd.sock", HOST_SOCKET)),
        ({"XDG_RUNTIME_DIR": "/x"}, None, ("/x/ckptd/ckptd.sock", HOST_SOCKET)),
        ({"CKPTD_SOCKET": "/e"}, None, ("/e",)),
        ({"CKPTD_SOCKET": "/e"}, "/g", ("/g",)),
        ({"CKPTD_SOCKET": ""}, None, ("/run/user/7/ckptd/ckptd.sock", HOST_SOCKET)),
    ],
)
def test_where_commands_look_for_the_daemon(environ, given, expected):
    assert socket_path_candidates(environ, 7, given) == expected


@pytest.mark.parametrize(
    ("environ", "uid", "given", "expected"),
    [
        ({}, 7, None, "/run/user/7/ckptd/ckptd.sock"),
        ({"XDG_RUNTIME_DIR": "/x"}, 7, None, "/x/ckptd/ckptd.sock"),
        ({}, 0, None, HOST_SOCKET),
        ({"RUNTIME_DIRECTORY": "/run/ckptd"}, 7, None, "/run/ckptd/ckptd.sock"),
        ({"RUNTIME_DIRECTORY": "/run/a:/run/b"}, 7, None, "/run/a/ckptd.sock"),
        ({"CKPTD_SOCKET": "/e", "RUNTIME_DIRECTORY": "/r"}, 7, None, "/e"),
        ({"CKPTD_SOCKET": "/e"}, 7, "/g", "/g"),
    ],
)
def test_where_a_daemon_listens(environ, uid, given, expected):
    assert listening_path(environ, uid, given) == expected


@pytest.fixture
def short_path():
    path = Path(tempfile.mkdtemp(prefix="ckptd-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def daemon(short_path):
    """Serve one connection by a function."""
    threads = []
    path = str(short_path / "s")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(path)
    listening.listen()

    def serve(answer):
        def run():
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                answer(connection)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return path

    yield serve
    for thread in threads:
        thread.join(5.0)
    listening.close()


def send(connection, packet, *documents):
    descriptors = [document_file(document) for document in documents]
    try:
        socket.send_fds(connection, [packet], descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def test_the_document_of_a_reply_is_returned(daemon):
    path = daemon(lambda connection: send(connection, encode_reply(Reply()), {"a": 1}))

    assert ask(path, Verb.STATUS) == {"a": 1}


def test_the_daemons_error_is_raised_with_its_status(daemon):
    path = daemon(lambda connection: send(connection, encode_reply(Reply("not yours", 12))))
    with pytest.raises(RefusedError, match="not yours") as caught:
        ask(path, Verb.SWEEP, "/srv/models/a")

    assert caught.value.exit_status == 12


BAD_ANSWERS = {
    "hangs up": (lambda connection: None, NoDaemonError),
    "random bytes": (lambda connection: connection.send(b"\xff" * 50), MalformedMessageError),
    "no document": (lambda c: send(c, encode_reply(Reply())), MalformedMessageError),
    "two documents": (lambda c: send(c, encode_reply(Reply()), {}, {}), MalformedMessageError),
    "many documents": (
        lambda c: send(c, encode_reply(Reply()), *({} for _ in range(50))),
        MalformedMessageError,
    ),
}


@pytest.mark.parametrize("what", BAD_ANSWERS)
def test_a_bad_answer_is_an_error_and_leaks_nothing(daemon, what):
    answer, error = BAD_ANSWERS[what]
    path = daemon(answer)
    with pytest.raises(error):
        ask(path, Verb.STATUS)


def test_a_daemon_that_does_not_answer_is_given_up(daemon):
    ended = threading.Event()
    path = daemon(lambda connection: ended.wait(5.0))
    try:
        with pytest.raises(NoDaemonError, match=r"within 0\.1 s"):
            ask(path, Verb.STATUS, timeout=0.1)
    finally:
        ended.set()


def test_no_daemon_is_said_with_every_place_that_was_tried(short_path):
    with pytest.raises(NoDaemonError) as caught:
        ask([str(short_path / "a"), str(short_path / "b")], Verb.PING)

    assert caught.value.exit_status == 10
    assert f"{short_path}/a or {short_path}/b" in str(caught.value)


def test_the_first_place_with_a_daemon_is_asked(daemon, short_path):
    path = daemon(lambda connection: send(connection, encode_reply(Reply()), {"a": 1}))

    assert ask([str(short_path / "missing"), path], Verb.STATUS) == {"a": 1}


def test_a_path_too_long_is_said_in_words():
    with pytest.raises(CkptdError, match="cannot connect"):
        ask("/x" * 100, Verb.PING)
