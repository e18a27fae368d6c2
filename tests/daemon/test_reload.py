"""A reload takes effect at once, or not at all."""

import signal
import threading

import pytest
from daemon.harness import a_config, eventually, keeping, save, steps

from ckptd.config.values import Config, LogSettings, ModelDirs
from ckptd.daemon.changes import changes
from ckptd.errors import ConfigError, ConfigProblem
from ckptd.retention.policy import Policy


def test_a_changed_policy_holds_at_once(start_open, tmp_path):
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    daemon = start_open(keeping(tmp_path, Policy(max_to_keep=3)))
    assert steps(tmp_path) == [2, 3, 4]
    daemon.config = a_config(keeping(tmp_path, Policy(max_to_keep=1)))
    daemon.service.request_reload()

    eventually(lambda: steps(tmp_path) == [4], within=2.0)
    (line,) = daemon.events("reloaded")
    assert line["changes"] == [f"{tmp_path}: max_to_keep: 3 -> 1"]


def test_directories_come_and_go_with_the_configuration(start_open, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    daemon = start_open(keeping(one))
    daemon.config = a_config(keeping(two))
    daemon.service.request_reload()
    eventually(lambda: daemon.entry(two).get("state") == "ok")
    for path in (one, two):
        for step in (1, 2, 3):
            save(path, step)

    eventually(lambda: steps(two) == [2, 3])
    assert daemon.entry(one) == {}
    assert steps(one) == [1, 2, 3]


@pytest.mark.parametrize(
    "error",
    [
        ConfigError(
            [
                ConfigProblem("c.yaml", 2, 1, "max_to_keep", "must be at least 1"),
                ConfigProblem("c.yaml", 9, 3, "", "does not parse"),
            ]
        ),
        FileNotFoundError(2, "No such file or directory", "c.yaml"),
    ],
    ids=["problems", "no file"],
)
def test_a_bad_configuration_leaves_the_old_one_in_force(start_open, tmp_path, error, manager):
    daemon = start_open(keeping(tmp_path), environ={"NOTIFY_SOCKET": manager.address})
    good, daemon.config = daemon.config, error
    eventually(lambda: "READY=1" in manager.messages())
    manager.messages().clear()
    daemon.service.request_reload()
    eventually(lambda: daemon.events("reload_failed"))
    for step in (1, 2, 3):
        save(tmp_path, step)

    eventually(lambda: steps(tmp_path) == [2, 3])
    told = daemon.ask()["daemon"]["reload"]
    assert told["ok"] is False
    assert len(told["problems"]) == len(getattr(error, "problems", [error]))
    (line,) = daemon.events("reload_failed")
    assert line["problems"] == told["problems"]
    told = [text for text in manager.messages() if not text.startswith("STATUS")]
    assert [text.partition("\n")[0] for text in told] == ["RELOADING=1", "READY=1"]

    daemon.config = good
    daemon.service.request_reload()
    eventually(lambda: daemon.ask()["daemon"]["reload"]["ok"])


def test_a_storm_of_reloads_becomes_a_few(start_open, tmp_path):
    daemon = start_open(keeping(tmp_path))
    pause = threading.Event()
    for _ in range(100):
        daemon.service.request_reload()
        pause.wait(0.002)

    eventually(lambda: daemon.events("reloaded"))
    pause.wait(0.5)
    assert 1 <= len(daemon.events("reloaded")) <= 5


def test_changes_are_told_in_a_few_words():
    old = Config(
        version=1,
        model_dirs=(ModelDirs(path="/a"), ModelDirs(path="/b", policy=Policy(max_to_keep=5))),
    )
    new = Config(
        version=1,
        rescan_interval=30.0,
        log=LogSettings(level="debug"),
        model_dirs=(ModelDirs(path="/b", policy=Policy(max_to_keep=3)), ModelDirs(path="/c\n")),
    )

    assert changes(old, new) == [
        "rescan_interval: 60.0 -> 30.0",
        "log.level: info -> debug",
        "/a: left out",
        "/b: max_to_keep: 5 -> 3",
        "/c\\n: new",
    ]
    assert changes(old, old) == []


def test_signals_are_not_touched_outside_the_main_thread(start_open, tmp_path):
    before = signal.getsignal(signal.SIGHUP)
    start_open(keeping(tmp_path))

    assert signal.getsignal(signal.SIGHUP) == before
