"""The daemon as a whole: what is saved is swept, whatever happens to directories and events."""

import os
import shutil
import threading
from dataclasses import replace

import pytest
from daemon.harness import eventually, keeping, save, steps

from ckptd.errors import BusyError, ConfigError, ConfigProblem
from ckptd.protocol.control import Verb
from ckptd.retention.policy import Policy, Trash


def test_what_is_saved_is_swept_within_half_a_second(start, tmp_path):
    start(keeping(tmp_path)).ready()
    for step in (1, 2, 3):
        save(tmp_path, step)

    assert eventually(lambda: steps(tmp_path) == [2, 3]) < 0.5


def test_without_events_it_is_swept_at_the_next_rescan(start, tmp_path):
    daemon = start(keeping(tmp_path), rescan_interval=1.0, options={"watch": False}).ready()
    for step in (1, 2, 3):
        save(tmp_path, step)

    assert eventually(lambda: steps(tmp_path) == [2, 3]) < 2.0
    assert daemon.ask()["daemon"]["watching"] == "polling"


def test_what_was_saved_before_the_start_is_swept_before_ready(start, tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)

    start(keeping(tmp_path)).ready()

    assert steps(tmp_path) == [2, 3]


def test_a_directory_without_checkpoints_is_left_without_a_trace(start, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    start(keeping(tmp_path)).ready()

    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_directory_is_claimed_as_soon_as_it_has_a_checkpoint(start, tmp_path):
    start(keeping(tmp_path)).ready()
    save(tmp_path, 1)

    eventually((tmp_path / ".ckptd" / "owner.json").exists)


@pytest.mark.parametrize("pattern", ["*", "*/run-?"])
def test_a_new_run_under_a_pattern_is_picked_up_by_itself(start, tmp_path, pattern):
    daemon = start(keeping(tmp_path / pattern)).ready()
    run = tmp_path / pattern.replace("*", "vision").replace("?", "7")
    run.mkdir(parents=True)
    for step in (1, 2, 3):
        save(run, step)

    assert eventually(lambda: steps(run) == [2, 3]) < 0.7
    eventually(lambda: daemon.entry(run)["state"] == "ok")


def test_a_run_that_is_moved_in_complete_is_swept(start, tmp_path):
    elsewhere, models = tmp_path / "elsewhere", tmp_path / "models"
    elsewhere.mkdir()
    models.mkdir()
    for step in (1, 2, 3):
        save(elsewhere, step)
    start(keeping(models / "*")).ready()
    elsewhere.rename(models / "run")

    eventually(lambda: steps(models / "run") == [2, 3], within=1.0)


def test_links_and_hidden_names_under_a_pattern_are_left_alone(start, tmp_path):
    outside, models = tmp_path / "outside", tmp_path / "models"
    for path in (outside, models, models / ".hidden", models / "run"):
        path.mkdir()
    (models / "link").symlink_to(outside)
    daemon = start(keeping(models / "*")).ready()

    assert [row["path"] for row in daemon.ask()["model_dirs"]] == [str(models / "run")]


def test_a_link_in_the_operators_part_of_a_path_is_followed(start, tmp_path):
    (tmp_path / "disk" / "run").mkdir(parents=True)
    (tmp_path / "models").symlink_to(tmp_path / "disk")
    daemon = start(keeping(tmp_path / "models" / "*")).ready()
    run = tmp_path / "models" / "run"
    for step in (1, 2, 3):
        save(run, step)

    eventually(lambda: steps(run) == [2, 3])
    eventually(lambda: daemon.entry(run)["state"] == "ok")


def test_the_first_matching_entry_wins(start, tmp_path):
    (tmp_path / "run").mkdir()
    first = replace(keeping(tmp_path / "run"), policy_name="first")
    daemon = start(first, keeping(tmp_path / "*")).ready()

    assert [row["policy"] for row in daemon.ask()["model_dirs"]] == ["first"]


def test_a_directory_that_vanishes_and_returns_is_kept_again(start, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    save(run, 1)
    daemon = start(keeping(run)).ready()
    shutil.rmtree(run)
    eventually(lambda: daemon.entry(run)["state"] == "gone")
    run.mkdir()
    for step in (5, 6, 7):
        save(run, step)

    eventually(lambda: steps(run) == [6, 7], within=2.0)
    eventually(lambda: daemon.entry(run)["state"] == "ok")


def test_a_directory_whose_parents_are_made_later_is_found(start, tmp_path):
    run = tmp_path / "a" / "b" / "run"
    daemon = start(keeping(run)).ready()
    assert daemon.entry(run)["state"] == "gone"
    run.mkdir(parents=True)
    for step in (1, 2, 3):
        save(run, step)

    eventually(lambda: steps(run) == [2, 3], within=2.0)


def test_a_renamed_run_is_kept_under_its_new_name(start, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    save(old, 1)
    daemon = start(keeping(tmp_path / "*")).ready()
    old.rename(new)
    eventually(lambda: daemon.entry(new).get("state") == "ok", within=2.0)
    for step in (2, 3):
        save(new, step)

    eventually(lambda: steps(new) == [2, 3])
    assert daemon.entry(old) == {}


def test_a_directory_put_in_the_place_of_another_is_kept_in_its_own_right(start, tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    for path, first in ((run, 1), (other, 10)):
        path.mkdir()
        save(path, first)
    start(keeping(run)).ready()
    run.rename(tmp_path / "was")
    other.rename(run)
    for step in (11, 12):
        save(run, step)

    eventually(lambda: steps(run) == [11, 12], within=2.0)
    assert steps(tmp_path / "was") == [1]


def test_a_broken_directory_does_not_stop_the_one_beside_it(start, tmp_path):
    broken, good = tmp_path / "broken", tmp_path / "good"
    for path in (broken, good):
        path.mkdir()
        save(path, 1)
    (broken / ".ckptd").write_text("in the way")
    daemon = start(keeping(tmp_path / "*")).ready()
    for step in (2, 3):
        save(good, step)
        save(broken, step)

    eventually(lambda: steps(good) == [2, 3])
    eventually(lambda: daemon.entry(broken)["state"] == "error")
    assert steps(broken) == [1, 2, 3]
    assert ".ckptd" in daemon.entry(broken)["problems"][-1]

    (broken / ".ckptd").unlink()
    eventually(lambda: steps(broken) == [2, 3], within=5.0)
    eventually(lambda: daemon.events("directory_recovered"))


def test_the_same_error_is_logged_once(start, tmp_path):
    save(tmp_path, 1)
    (tmp_path / ".ckptd").write_text("in the way")
    daemon = start(keeping(tmp_path)).ready()
    for step in (2, 3, 4):
        save(tmp_path, step)
    daemon.ask(Verb.STATUS)
    with pytest.raises(Exception, match="ckptd"):
        daemon.ask(Verb.SWEEP, tmp_path)

    assert len(daemon.events("directory_failed")) == 1


def test_each_removal_is_logged_with_its_reason(start, tmp_path):
    daemon = start(keeping(tmp_path)).ready()
    for step in (1, 2, 3):
        save(tmp_path, step)
    eventually(lambda: daemon.events("removed"))

    (line,) = daemon.events("removed")
    assert (line["model_dir"], line["name"], line["global_step"]) == (str(tmp_path), "m-1", 1)
    assert line["reason"]


def test_the_trash_is_purged_when_it_is_due(start, tmp_path):
    policy = Policy(max_to_keep=1, trash=Trash(seconds=3600.0, checkpoints=1))
    daemon = start(keeping(tmp_path, policy)).ready()
    trash = tmp_path / ".ckptd" / "trash"
    for step in (1, 2, 3):
        save(tmp_path, step)
        eventually(lambda: steps(tmp_path) == [step])  # noqa: B023

    eventually(lambda: daemon.events("purged"))
    eventually(lambda: len(list(trash.iterdir())) == 1)
    assert len(daemon.entry(tmp_path)["trash"]) == 1


def test_removals_over_the_brake_are_held_and_told(start, tmp_path):
    for step in range(1, 6):
        save(tmp_path, step)
    policy = Policy(max_to_keep=1, max_removals_per_sweep=2)
    daemon = start(keeping(tmp_path, policy)).ready()

    assert len(steps(tmp_path)) == 5
    entry = daemon.entry(tmp_path)
    assert (entry["state"], entry["held"]) == ("held", 4)
    assert daemon.events("removals_held")


def test_a_sweep_on_request_answers_with_what_it_did(start, tmp_path):
    daemon = start(keeping(tmp_path), options={"watch": False}).ready()
    for step in (1, 2, 3):
        save(tmp_path, step)

    (entry,) = daemon.ask(Verb.SWEEP, tmp_path)["model_dirs"]
    assert [line["name"] for line in entry["done"]] == ["m-1"]
    assert steps(tmp_path) == [2, 3]


def test_the_status_has_every_directory_and_the_daemon(start, tmp_path):
    save(tmp_path, 7)
    daemon = start(keeping(tmp_path), keeping("/does/not/exist")).ready()
    status = daemon.ask()

    assert status["schema"] == "ckptd.status/1"
    assert status["daemon"]["pid"] == os.getpid()
    assert status["daemon"]["reload"]["ok"] is True
    rows = {row["path"]: row for row in status["model_dirs"]}
    assert rows["/does/not/exist"]["state"] == "gone"
    here = rows[str(tmp_path)]
    assert (here["state"], here["checkpoints"], here["policy"]) == ("ok", 1, "test")
    assert here["newest"]["global_step"] == 7
    assert here["last_sweep"] > 0


def test_a_second_daemon_is_refused_by_the_first_ones_pid(start, tmp_path):
    first = start(keeping(tmp_path)).ready()
    second = start(keeping(tmp_path))
    second.end()
    again = type(first)(first.config, first.socket).start()
    again.end()

    assert isinstance(again.error, BusyError)
    assert f"pid {os.getpid()}" in str(again.error)
    assert first.ask(Verb.PING)["pid"] == os.getpid()


def test_a_directory_that_another_daemon_keeps_is_left_to_it(start, tmp_path):
    save(tmp_path, 1)
    first = start(keeping(tmp_path)).ready()
    second = start(keeping(tmp_path)).ready()

    assert second.entry(tmp_path)["state"] == "error"
    assert f"pid {os.getpid()}" in second.entry(tmp_path)["problems"][0]
    first.end()
    for step in (2, 3):
        save(tmp_path, step)
    eventually(lambda: steps(tmp_path) == [2, 3], within=5.0)


def test_a_configuration_that_cannot_be_used_ends_the_start(short_path):
    from daemon.harness import Daemon

    problem = ConfigProblem("ckptd.yaml", 3, 5, "max_to_keep", "must be at least 1")
    daemon = Daemon(ConfigError([problem]), str(short_path / "s")).start()
    daemon.end()

    assert isinstance(daemon.error, ConfigError)
    assert list(short_path.iterdir()) == []


def test_a_clock_that_jumps_is_noticed_and_everything_is_looked_at(start, tmp_path):
    from ckptd.daemon.calendar import ClockGuard

    times = iter([1000.0, 1000.1, 87_400.0, 87_400.1, 1000.0])
    guard = ClockGuard(lambda: next(times))

    jumps = [guard.jump() for _ in range(4)]

    assert [jump is not None for jump in jumps] == [False, True, False, True]
    assert jumps[1] == pytest.approx(86_400, abs=1)


def test_nothing_is_left_running_after_the_end(start, tmp_path, short_path):
    before = {thread.name for thread in threading.enumerate()}
    save(tmp_path, 1)
    daemon = start(keeping(tmp_path)).ready()

    assert daemon.end() == 0
    assert {thread.name for thread in threading.enumerate()} == before
    assert sorted(path.name for path in short_path.iterdir()) == ["0.sock.lock"]


def test_many_directories_are_swept_side_by_side(start, tmp_path):
    runs = [tmp_path / f"run-{number:02}" for number in range(40)]
    for run in runs:
        run.mkdir()
        for step in (1, 2, 3):
            save(run, step)
    daemon = start(keeping(tmp_path / "*")).ready()

    assert {tuple(steps(run)) for run in runs} == {(2, 3)}
    assert daemon.events("ready")[0]["model_dirs"] == 40


def test_a_trainer_that_writes_without_end_does_not_starve_the_rest(start, tmp_path):
    busy, other = tmp_path / "busy", tmp_path / "other"
    busy.mkdir()
    other.mkdir()
    daemon = start(keeping(tmp_path / "*")).ready()
    ended = threading.Event()

    def write():
        while not ended.wait(0.001):
            (busy / "events.log").write_bytes(b"x")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for step in (1, 2, 3):
            save(other, step)
        assert eventually(lambda: steps(other) == [2, 3]) < 0.5
        before = len(daemon.events("swept"))
        ended.wait(1.0)
        assert len(daemon.events("swept")) - before < 25
    finally:
        ended.set()
        writer.join()
