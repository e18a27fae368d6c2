"""The control socket: bad peers harm nobody, and everybody is told why not."""

import os
import resource
import select
import socket
import stat
import time
from contextlib import suppress

import pytest
from daemon.harness import eventually, keeping, save

from ckptd.daemon.instance import Instance
from ckptd.errors import BusyError, CkptdError
from ckptd.protocol.control import Request, Verb, decode_reply, encode_request
from ckptd.protocol.conversation import RefusedError


def connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(10.0)
    connection.connect(path)
    return connection


@pytest.fixture
def daemon(start, tmp_path):
    save(tmp_path, 1)
    return start(keeping(tmp_path)).ready()


BAD_PACKETS = {
    "nothing": b"",
    "random bytes": bytes(range(256)) * 8,
    "no verb": b"\x08\x63",
    "a truncated message": encode_request(Request(Verb.SWEEP, "/srv/models/a"))[:-3],
    "a directory with NUL": b"\x08\x03\x12\x03a\x00b",
    "a directory for STATUS": b"\x08\x02\x12\x01a",
    "SWEEP of nothing": b"\x08\x03",
    "as long as can be": b"\x12" * (64 * 1024),
    "too long": b"\x12" * (100 * 1024),
}


@pytest.mark.parametrize("what", BAD_PACKETS)
def test_a_bad_packet_is_refused_and_harms_nobody(daemon, what):
    with connect(daemon.socket) as connection:
        connection.send(BAD_PACKETS[what])
        answer = connection.recv(65536)

    if answer:
        reply = decode_reply(answer)
        assert not reply.ok
        assert reply.error
    assert daemon.ask(Verb.PING)["pid"] == os.getpid()


def test_descriptors_that_come_with_a_request_are_closed(daemon):
    before = len(os.listdir("/proc/self/fd"))
    for count in (1, 100, 253):
        with connect(daemon.socket) as connection:
            packet = encode_request(Request(Verb.PING))
            socket.send_fds(connection, [packet], [0] * count)
            assert not decode_reply(connection.recv(65536)).ok

    eventually(lambda: len(os.listdir("/proc/self/fd")) == before)


def test_who_never_asks_is_hung_up_on(daemon):
    with connect(daemon.socket) as connection:
        start = time.monotonic()
        assert connection.recv(1) == b""
        assert 4.0 < time.monotonic() - start < 8.0


def test_a_peer_that_never_reads_keeps_nobody_waiting(daemon):
    silent = [connect(daemon.socket) for _ in range(8)]
    try:
        for connection in silent:
            connection.send(encode_request(Request(Verb.STATUS)))
        assert daemon.ask()["schema"] == "ckptd.status/1"
    finally:
        for connection in silent:
            connection.close()


def test_a_peer_that_hangs_up_before_the_answer_harms_nobody(daemon, tmp_path):
    for _ in range(50):
        with connect(daemon.socket) as connection:
            connection.send(encode_request(Request(Verb.SWEEP, str(tmp_path))))

    assert daemon.ask(Verb.SWEEP, tmp_path)["model_dirs"]


def is_hung_up(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])


def test_too_many_connections_of_one_user_are_refused_the_others_stay(daemon):
    connections = [connect(daemon.socket) for _ in range(40)]
    try:
        eventually(lambda: sum(map(is_hung_up, connections)) == 40 - 16)
        connections[0].send(encode_request(Request(Verb.PING)))
        connections[0].settimeout(5.0)
        assert decode_reply(connections[0].recv(65536)).ok
    finally:
        for connection in connections:
            connection.close()
    eventually(lambda: daemon.ask(Verb.PING))


def test_without_descriptors_left_the_loop_does_not_spin(daemon):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    used = max(int(name) for name in os.listdir("/proc/self/fd"))
    ballast = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, hard))
    try:
        with suppress(OSError):
            while True:
                ballast.append(os.dup(0))
        waiting.connect(daemon.socket)
        before = time.process_time()
        time.sleep(1.0)
        assert time.process_time() - before < 0.3
    finally:
        for descriptor in ballast:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        waiting.close()

    eventually(lambda: daemon.ask(Verb.PING), within=3.0)


def test_a_sweep_of_an_unknown_directory_is_refused(daemon):
    with pytest.raises(RefusedError, match="keeps no /srv/other") as caught:
        daemon.ask(Verb.SWEEP, "/srv/other")

    assert caught.value.exit_status == 13


def test_the_socket_is_for_its_user_and_group(daemon):
    mode = os.stat(daemon.socket).st_mode

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660


def test_a_stale_socket_is_replaced(short_path, start, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(short_path / "0.sock"))

    assert start(keeping(tmp_path)).ready().ask(Verb.PING)


def test_a_file_in_the_place_of_the_socket_is_left_alone(short_path):
    path = short_path / "s"
    path.write_text("mine")
    with pytest.raises(CkptdError, match="no socket"):
        Instance(str(path), {})

    assert path.read_text() == "mine"


def test_a_path_too_long_for_a_socket_is_refused_in_words(tmp_path):
    with pytest.raises(CkptdError, match="107 bytes"):
        Instance(str(tmp_path / ("x" * 120)), {})


def test_a_link_in_the_place_of_the_lock_is_not_followed(short_path):
    victim = short_path / "victim"
    victim.write_text("precious")
    (short_path / "s.lock").symlink_to(victim)
    with pytest.raises(CkptdError, match="lock"):
        Instance(str(short_path / "s"), {})

    assert victim.read_text() == "precious"


def test_the_lock_says_who_has_it_and_outlives_its_file(short_path):
    path = str(short_path / "s")
    with Instance(path, {"pid": 42, "since": "2026-01-01T00:00:00Z"}):
        with pytest.raises(BusyError, match=r"pid 42, has listened at .* since 2026-01-01"):
            Instance(path, {"pid": 43, "since": ""})
        assert os.path.exists(path)
    with Instance(path, {}) as again:
        assert again.listening.fileno() >= 0


def test_the_directory_of_the_socket_is_made_for_its_user_alone(short_path):
    with Instance(str(short_path / "ckptd" / "ckptd.sock"), {}):
        assert stat.S_IMODE((short_path / "ckptd").stat().st_mode) == 0o700
