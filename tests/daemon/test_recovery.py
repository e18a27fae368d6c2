"""The daemon mends its watcher, and rescans when events may have been lost."""

from contextlib import closing

from daemon.harness import OpenDaemon, a_config, eventually, keeping, save, steps

from ckptd.keeper.own import Own


def test_a_dead_emitter_is_replaced_and_nothing_is_lost(start_open, tmp_path):
    daemon = start_open(keeping(tmp_path))
    daemon.service._watcher._emitter.stop()
    eventually(daemon.service._watcher.fault)
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert steps(tmp_path) == [1, 2, 3]

    eventually(lambda: steps(tmp_path) == [2, 3], within=12.0)
    assert daemon.events("watcher_rebuilt")
    for step in (4, 5):
        save(tmp_path, step)
    eventually(lambda: steps(tmp_path) == [4, 5], within=1.0)


def test_lost_events_have_everything_looked_at(start_open, tmp_path):
    daemon = start_open(keeping(tmp_path))
    daemon.service._watcher.stop()  # from here on no event comes
    for step in (1, 2, 3):
        save(tmp_path, step)
    daemon.service._mailbox.post(lambda: daemon.service._lose_events("a test"))

    eventually(lambda: steps(tmp_path) == [2, 3], within=1.0)
    assert daemon.events("events_lost")


def test_where_nothing_could_be_watched_the_rescan_tries_again(start_open, tmp_path):
    daemon = start_open(keeping(tmp_path))
    daemon.service._watcher.stop()
    assert daemon.ask()["daemon"]["watching"] == "polling"
    for step in (1, 2, 3):
        save(tmp_path, step)
    daemon.service._rescan.deadline = 0.0

    eventually(lambda: steps(tmp_path) == [2, 3], within=1.0)
    eventually(lambda: daemon.ask()["daemon"]["watching"] == "events")
    for step in (4, 5):
        save(tmp_path, step)
    eventually(lambda: steps(tmp_path) == [4, 5], within=1.0)


def test_a_jump_of_the_clock_has_everything_looked_at(start_open, tmp_path):
    daemon = start_open(keeping(tmp_path))
    daemon.service._watcher.stop()
    for step in (1, 2, 3):
        save(tmp_path, step)
    daemon.service._guard._wall -= 86_400.0

    eventually(lambda: steps(tmp_path) == [2, 3], within=7.0)
    (line,) = daemon.events("clock_jump")
    assert 86_300 < line["seconds"] < 86_500


def test_a_directory_that_hangs_stops_no_other(start_open, tmp_path):
    hanging, good = tmp_path / "hanging", tmp_path / "good"
    hanging.mkdir()
    good.mkdir()
    save(hanging, 1)
    daemon = start_open(keeping(tmp_path / "*"))
    keeper = daemon.service._roster.called(str(hanging)).keeper
    own = Own(keeper.directory)
    with closing(own), own.locked(wait=1.0):  # a sweep waits ten seconds for this lock, and fails
        for step in (2, 3, 4):
            save(hanging, step)
        for step in (1, 2, 3):
            save(good, step)
        assert eventually(lambda: steps(good) == [2, 3]) < 0.5
        tended = daemon.service._roster.called(str(hanging))
        eventually(lambda: tended.running_since is not None)
        tended.running_since -= 100.0
        eventually(lambda: daemon.events("directory_hangs"), within=7.0)
        entry = daemon.entry(hanging)
        assert (entry["state"], entry["problems"]) == ("error", ["the file system does not answer"])
    eventually(lambda: steps(hanging) == [3, 4], within=3.0)

    eventually(lambda: daemon.events("directory_recovered"))


def fail() -> None:
    raise ValueError("a fault")


def test_a_fault_in_an_action_is_logged_and_the_loop_goes_on(short_path, tmp_path):
    daemon = OpenDaemon(a_config(keeping(tmp_path)), str(short_path / "s"))
    daemon.start().ready()
    try:
        daemon.service._mailbox.post(fail)
        eventually(lambda: daemon.events("daemon_fault"))
        for step in (1, 2, 3):
            save(tmp_path, step)
        eventually(lambda: steps(tmp_path) == [2, 3])
    finally:
        daemon.end()
    assert "ValueError" in daemon.events("daemon_fault")[0]["reason"]
