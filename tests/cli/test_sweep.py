"""`ckptd sweep`: does what `ckptd plan` says, and says what it did."""

import os

import pytest

from ckptd.keeper.keeper import Keeper
from ckptd.retention.policy import Policy
from ckptd.storage.disk import open_model_directory


def test_a_sweep_does_what_the_plan_said(ckptd, model_directory):
    run = model_directory(100, 200, 300, 400)
    options = (run, "--max-to-keep", 2, "--now", run.clock, "--json")
    planned = ckptd("plan", *options).document["model_dirs"][0]

    swept = ckptd("sweep", *options).document["model_dirs"][0]

    assert [each["name"] for each in planned["remove"]] == ["m-100", "m-200"]
    assert run.checkpoints() == {each["name"] for each in planned["keep"]}
    done = {line["name"] for line in swept["done"] if line["event"] == "removed"}
    assert done == {"m-100", "m-200"}


def test_a_sweep_says_what_it_did(ckptd, model_directory):
    run = model_directory(100, 200, 300, 400)

    ended = ckptd("sweep", run, "--max-to-keep", 2, "--now", run.clock)

    assert ended.status == 0
    assert ended.err == ""
    first, *rest = ended.out.splitlines()
    assert first.startswith(f"{run}: removed 2 checkpoints, ")
    assert "can be brought back for 1h; 2 checkpoints there, " in first
    assert [line.split()[:3] for line in rest] == [
        ["done", "removed", "m-100"],
        ["done", "removed", "m-200"],
    ]


def test_a_second_sweep_finds_nothing_to_do(ckptd, model_directory):
    run = model_directory(100, 200)
    options = ("sweep", run, "--max-to-keep", 1, "--now", run.clock)
    ckptd(*options)

    ended = ckptd(*options)

    assert ended.out.startswith(f"{run}: nothing to do; 1 checkpoint there, ")


def test_a_sweep_without_a_rule_removes_nothing_and_says_why(ckptd, model_directory):
    run = model_directory(100, 200)

    ended = ckptd("sweep", run)

    assert run.checkpoints() == {"m-100", "m-200"}
    assert ended.out.rstrip().endswith("(no rule is set)")


def test_the_json_of_a_sweep_is_as_its_schema_says(ckptd, model_directory, valid):
    run = model_directory(100, 200, 300)
    options = ("--max-to-keep", 1, "--keep-checkpoint-every-n-hours", 2, "--now", run.clock)

    document = ckptd("sweep", run, *options, "--json").document

    valid(document)
    assert {"done", "failed", "busy"} <= document["model_dirs"][0].keys()


def test_a_sweep_refuses_what_a_daemon_keeps(ckptd, model_directory):
    run = model_directory(100, 200)
    with Keeper(open_model_directory(str(run)), Policy(), lambda: run.now) as daemon:
        daemon.claim({"pid": 4711})

        ended = ckptd("sweep", run, "--max-to-keep", 1, "--json")

    assert ended.status == 11
    assert f"a daemon with pid 4711 keeps {run}" in ended.err
    assert ended.error["type"] == "BusyError"
    assert run.checkpoints() == {"m-100", "m-200"}


def test_what_the_brake_holds_is_told_and_approved_by_a_person(ckptd, model_directory):
    run = model_directory(*range(1, 6))
    options = (run, "--max-to-keep", 1, "--max-removals-per-sweep", 3, "--now", run.clock)

    held = ckptd("sweep", *options)
    approved = ckptd("approve", run)
    ckptd("sweep", *options)

    assert held.status == 3
    assert "nothing removed, 4 held back" in held.out
    assert "more than max_removals_per_sweep (3)" in held.err
    assert "ckptd approve" in held.err
    assert approved.out.startswith(f"{run}: the next sweep removes 4 checkpoints")
    assert run.checkpoints() == {"m-5"}


def test_a_sweep_goes_on_after_a_directory_that_fails(ckptd, model_directory, tmp_path):
    run = model_directory(100, 200)

    ended = ckptd("sweep", tmp_path / "missing", run, "--max-to-keep", 1)

    assert ended.status == 3
    assert run.checkpoints() == {"m-200"}


def test_the_only_directory_s_failure_is_the_sweep_s_own(ckptd, tmp_path):
    assert ckptd("sweep", tmp_path / "missing", "--max-to-keep", 1).status == 13


def test_rebuild_state_writes_a_state_file_that_did_not_parse(ckptd, model_directory):
    run = model_directory(100, 200)
    state = run.path / "checkpoint"
    state.write_text("model_checkpoint_path: ???")

    refused = ckptd("sweep", run, "--max-to-keep", 1, "--now", run.clock)
    rebuilt = ckptd("sweep", run, "--max-to-keep", 1, "--now", run.clock, "--rebuild-state")

    assert refused.status == 3
    assert "does not parse" in refused.err
    assert "`ckptd sweep --rebuild-state`" in refused.err
    assert rebuilt.status == 0
    assert "state file written anew, it names m-200" in rebuilt.out
    assert 'model_checkpoint_path: "m-200"' in state.read_text()
    assert run.checkpoints() == {"m-200"}


@pytest.mark.parametrize("kind", ["fifo", "directory", "symlink", "huge"])
def test_an_odd_state_file_stops_every_removal_with_a_message(ckptd, model_directory, kind):
    run = model_directory(100, 200, 300)
    state = run.path / "checkpoint"
    state.unlink()
    if kind == "fifo":
        os.mkfifo(state)
    elif kind == "directory":
        state.mkdir()
    elif kind == "symlink":
        state.symlink_to("/etc/passwd")
    else:
        with state.open("wb") as file:
            file.truncate(100 * 2**20)
    options = (run, "--max-to-keep", 1, "--now", run.clock)

    planned = ckptd("plan", *options)
    swept = ckptd("sweep", *options)

    assert planned.status == 0
    assert "problem" in planned.out
    assert "nothing is removed" in planned.out
    assert swept.status == 3
    assert "nothing is removed" in swept.err
    assert run.checkpoints() == {"m-100", "m-200", "m-300"}


@pytest.mark.parametrize("how", ["ckptd", "terminal"])
def test_what_leaves_the_trash_is_purged_at_the_end(request, model_directory, how):
    run = model_directory(100, 200)
    ckptd = request.getfixturevalue(how)

    ended = ckptd("sweep", run, "--max-to-keep", 1, "--trash", "off", "--now", run.clock)

    assert ended.status == 0
    assert "removed 1 checkpoint, 772 B for good" in ended.out
    assert list((run.path / ".ckptd" / "trash").iterdir()) == []
