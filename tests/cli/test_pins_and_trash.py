"""`pin`, `unpin`, `undo`, `approve` and `history`: what a person decides on one checkpoint."""

import getpass
import json

import pytest

from ckptd.keeper.keeper import Keeper
from ckptd.retention.policy import Policy
from ckptd.storage.disk import open_model_directory

ONE = ("--max-to-keep", 1)


@pytest.mark.parametrize("step", ["100", "m-100"])
def test_a_pinned_checkpoint_stays_until_it_is_unpinned(ckptd, model_directory, step):
    run = model_directory(100, 200)

    pinned = ckptd("pin", run, step, "--why", "the paper's")
    planned = ckptd("plan", run, *ONE)
    unpinned = ckptd("unpin", run, step)

    assert pinned.out == f"m-100 in {run} stays until `ckptd unpin`\n"
    assert "pinned: the paper's" in planned.out
    assert unpinned.out == f"m-100 in {run} is no longer pinned\n"
    ckptd("sweep", run, *ONE)
    assert run.checkpoints() == {"m-200"}


def test_a_pin_whose_checkpoint_is_gone_can_be_unpinned(ckptd, model_directory):
    run = model_directory(100, 200, 300)
    for step in (100, 200):
        ckptd("pin", run, step)
        for file in run.path.glob(f"m-{step}.*"):
            file.unlink()

    assert ckptd("unpin", run, "m-100").status == 0
    assert ckptd("unpin", run, 200).status == 0
    assert ckptd("unpin", run, 200).status == 13


def test_what_is_not_pinned_cannot_be_unpinned(ckptd, model_directory):
    run = model_directory(100)

    ended = ckptd("unpin", run, 100)

    assert ended.status == 13
    assert ended.err == f"ckptd: m-100 in {run} is not pinned\n"


def test_a_step_that_is_not_there_is_answered_with_those_that_are(ckptd, model_directory):
    run = model_directory(100, 200)

    ended = ckptd("pin", run, 150, "--json")

    assert ended.status == 13
    assert "has no checkpoint 150; it has m-100, m-200" in ended.err
    assert ended.error["type"] == "NoSuchCheckpointError"


def test_undo_brings_back_the_last_one_and_pins_it(ckptd, model_directory):
    run = model_directory(100, 200, 300)
    ckptd("sweep", run, *ONE)

    ended = ckptd("undo", run)

    assert ended.out.startswith("m-200 (")
    assert f"is back in {run}, and pinned" in ended.out
    ckptd("sweep", run, *ONE)
    assert run.checkpoints() == {"m-200", "m-300"}


@pytest.mark.parametrize("step", ["100", "m-100"])
def test_undo_brings_back_the_one_that_is_asked_for(ckptd, model_directory, step):
    run = model_directory(100, 200, 300)
    ckptd("sweep", run, *ONE)

    ckptd("undo", run, step)

    assert run.checkpoints() == {"m-100", "m-300"}


def test_nothing_to_undo_is_told_with_what_the_trash_holds(ckptd, model_directory):
    run = model_directory(100, 200)
    before = ckptd("undo", run)
    ckptd("sweep", run, *ONE)

    after = ckptd("undo", run, 500)

    assert (before.status, after.status) == (13, 13)
    assert "has no trash" in before.err
    assert "the trash holds m-100" in after.err


def test_nothing_to_approve_is_an_error(ckptd, model_directory):
    run = model_directory(100)

    ended = ckptd("approve", run)

    assert ended.status == 13
    assert ended.err == f"ckptd: nothing is held back in {run}\n"


def test_history_tells_who_did_what_latest_first(ckptd, model_directory):
    run = model_directory(100, 200)
    ckptd("sweep", run, *ONE)
    ckptd("undo", run)
    ckptd("unpin", run, 100)

    lines = ckptd("history", run).out.splitlines()

    assert lines[0] == f"{run}: 3 events"
    assert [line.split()[3:5] for line in lines[1:]] == [
        ["unpinned", "m-100"],
        ["undone", "m-100"],
        ["removed", "m-100"],
    ]
    assert lines[1].endswith(f"by {getpass.getuser()}")
    assert lines[3].endswith("not in the last 1")


def test_a_history_of_odd_lines_is_shown_all_the_same(ckptd, model_directory, valid):
    run = model_directory(100)
    own = run.path / ".ckptd"
    own.mkdir()
    odd = [
        {"event": 7, "at": "soon", "name": ["x"], "bytes": -1, "reasons": "no list"},
        {"at": 1e300, "event": "removed", "name": "evil\x1b[2J\nname", "bytes": True},
        {"at": float("nan"), "event": "removed"},
        {},
    ]
    (own / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in odd) + "[1]\n{")

    ended = ckptd("history", run)
    records = [json.loads(line) for line in ckptd("history", run, "--json").out.splitlines()]

    assert ended.status == 0
    assert len(ended.out.splitlines()) == 1 + len(odd)
    assert "\x1b" not in ended.out
    assert len(records) == len(odd)
    valid(records[2])


def test_the_json_of_every_action_is_as_its_schema_says(ckptd, model_directory, valid):
    run = model_directory(*range(1, 6))
    brake = ("--max-removals-per-sweep", 2)
    documents = [ckptd("pin", run, 1, "--json").document, ckptd("unpin", run, 1, "--json").document]
    ckptd("sweep", run, *ONE, *brake)
    documents.append(ckptd("approve", run, "--json").document)
    ckptd("sweep", run, *ONE, *brake)
    documents.append(ckptd("undo", run, "--json").document)

    for document in documents:
        valid(document)
    assert [document["action"] for document in documents] == ["pin", "unpin", "approve", "undo"]
    assert documents[2]["names"] == ["m-1", "m-2", "m-3", "m-4"]
    lines = ckptd("history", run, "--json").out.splitlines()
    for line in lines:
        valid(json.loads(line))
    assert json.loads(lines[0])["event"] == "pinned"


def test_approval_names_the_daemon_where_one_keeps_the_directory(ckptd, model_directory):
    run = model_directory(*range(1, 6))
    ckptd("sweep", run, *ONE, "--max-removals-per-sweep", 2)
    with Keeper(open_model_directory(str(run)), Policy(), lambda: run.now) as daemon:
        daemon.claim({"pid": 4711})

        ended = ckptd("approve", run)

    assert ended.status == 0
    assert ended.out.startswith(f"{run}: the daemon removes 4 checkpoints")
