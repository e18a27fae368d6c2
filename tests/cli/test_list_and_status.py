"""`ckptd list` and `ckptd status`: what is there."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from click.testing import CliRunner

from ckptd.cli import main
from ckptd.keeper.keeper import Keeper
from ckptd.protocol.control import (
    MAX_PACKET,
    Reply,
    Request,
    Verb,
    decode_request,
    document_file,
    encode_reply,
)
from ckptd.retention.policy import Policy
from ckptd.storage.disk import open_model_directory


def test_a_list_tells_each_checkpoint_as_it_is(ckptd, model_directory):
    run = model_directory(100, 200)
    ckptd("pin", run, 100)

    lines = ckptd("list", run, "--now", run.clock).out.splitlines()

    assert lines[0].startswith(f"{run}: 2 complete checkpoints, ")
    assert lines[1].split()[:3] == ["complete", "200", "m-200"]
    assert lines[1].endswith("30 min  V2  1 shard  named by checkpoint")
    assert lines[2].endswith("90 min  V2  1 shard  pinned")


def test_a_list_with_a_policy_tells_what_would_become_of_each(ckptd, model_directory):
    run = model_directory(100, 200)

    lines = ckptd("list", run, "--max-to-keep", 1).out.splitlines()

    assert lines[1].endswith("named by checkpoint, keep")
    assert lines[2].endswith("remove")


def test_what_is_not_complete_is_listed_with_the_reason(ckptd, model_directory):
    run = model_directory(100, 200)
    (run.path / "m-100.data-00000-of-00001").unlink()

    out = ckptd("list", run).out

    assert "partial   m-100  2 files" in out
    assert "shard 0 of 1 is missing" in out


def test_a_young_index_that_is_wrong_may_still_be_being_written(ckptd, model_directory):
    directory = model_directory(100, 200)
    index = directory.path / "m-200.index"
    data = bytearray(index.read_bytes())
    data[3] ^= 1
    index.write_bytes(data)

    (problem,) = ckptd("list", directory, "--json").document["problems"]

    text = problem["text"]
    assert text.startswith("m-200, which the state file names, is not complete: ")
    assert "checksum" in text
    assert "; it may still be being written (the last write was less than 10 s ago)" in text


def test_the_json_of_a_list_is_as_its_schema_says(ckptd, model_directory, valid):
    run = model_directory(100, 200)
    (run.path / "stranger").touch()

    plain = ckptd("list", run, "--json").document
    judged = ckptd("list", run, "--json", "--max-to-keep", 1).document

    valid(plain)
    valid(judged)
    assert [each["outcome"] for each in plain["checkpoints"]] == [None, None]
    assert [each["outcome"] for each in judged["checkpoints"]] == ["remove", "keep"]
    assert [each["named_by"] for each in plain["checkpoints"]] == [[], ["checkpoint"]]


def test_an_empty_directory_has_nothing_to_list(ckptd, model_directory):
    run = model_directory()

    assert ckptd("list", run).out == f"{run}: 0 complete checkpoints, 0 B\n"
    assert ckptd("plan", run).out.startswith(f"{run}: no complete checkpoint")


def test_status_without_daemon_and_directory_says_what_to_do(ckptd, tmp_path):
    ended = ckptd("status", "--json")

    assert ended.status == 10
    assert f"no daemon answers at {tmp_path}/no-daemon" in ended.err
    assert "With DIR" in ended.err
    assert ended.error["type"] == "NoDaemonError"


def test_status_of_a_directory_needs_no_daemon(ckptd, model_directory, valid):
    run = model_directory(100, 200)
    before = run.fingerprint()

    ended = ckptd("status", run)
    document = ckptd("status", run, "--json").document

    assert ended.status == 0
    assert ended.out.startswith(f"{run}: 2 checkpoints, ")
    valid(document)
    assert document["daemon"] is None
    assert document["model_dirs"][0]["checkpoints"] == 2
    assert run.fingerprint() == before


def test_status_goes_on_after_a_directory_that_fails(ckptd, model_directory, tmp_path):
    run = model_directory(100)

    ended = ckptd("status", tmp_path / "missing", run)

    assert ended.status == 3
    assert ended.out.startswith(str(run))


@contextmanager
def answering(path, reply, document) -> Iterator[list[Request]]:
    """A daemon that gives every request the same answer."""
    asked: list[Request] = []
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(str(path))
    listening.listen()
    listening.settimeout(30)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            connection, _ = listening.accept()
            with connection:
                packet = connection.recv(MAX_PACKET)
                if not packet:
                    continue
                asked.append(decode_request(packet))
                descriptors = [] if reply.error else [document_file(document)]
                socket.send_fds(connection, [encode_reply(reply)], descriptors)
                for descriptor in descriptors:
                    os.close(descriptor)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        stop.set()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as last:
            last.connect(str(path))
        thread.join()
        listening.close()


def entry_of(ckptd, run):
    return ckptd("status", run, "--json").document["model_dirs"][0]


def test_status_shows_what_the_daemon_keeps(ckptd, model_directory, tmp_path, valid):
    run, other = model_directory(100, 200), model_directory(7, name="other")
    entry = entry_of(ckptd, run) | {"problems": ["the disk is slow"], "held": 3}
    document = {"schema": "ckptd.status/1", "daemon": {"pid": 4711}, "model_dirs": [entry]}
    path = tmp_path / "socket"

    with answering(path, Reply(), document) as asked:
        every = ckptd("status", "--socket", path)
        as_json = ckptd("status", "--socket", path, "--json").document
        two = ckptd("status", "--socket", path, run, other).out.splitlines()[1:]

    assert asked[0] == Request(Verb.STATUS)
    assert "3 held" in every.out
    assert f"problem  {run}: the disk is slow" in every.out
    valid(as_json)
    assert as_json["daemon"] == {"pid": 4711}
    assert two[0].startswith(f"{run}: 2 checkpoints")
    assert "3 held" in two[0]
    assert two[1].startswith(f"{other}: 1 checkpoint")


def test_a_pin_is_told_to_the_daemon_that_keeps_the_directory(ckptd, model_directory, tmp_path):
    run = model_directory(100, 200)
    path = tmp_path / "socket"
    with Keeper(open_model_directory(str(run)), Policy(), lambda: run.now) as daemon:
        daemon.claim({"pid": 4711})
        with answering(path, Reply(), {}) as asked:
            ckptd("pin", run, 100, "--socket", path)
        with answering(tmp_path / "2", Reply("not now", 12), {}):
            refused = ckptd("unpin", run, 100, "--socket", tmp_path / "2")
        nobody = ckptd("pin", run, 100)

    assert asked == [Request(Verb.SWEEP, str(run))]
    assert refused.status == 0
    assert "the daemon was told, and says: not now" in refused.err
    assert (nobody.status, nobody.err) == (0, "")


def test_the_verbs_of_the_program_are_those_of_the_help():
    result = CliRunner().invoke(main, ["--help"])

    assert result.exit_code == 0
    for heading in ("Look:", "Act:", "Run:"):
        assert heading in result.stdout
