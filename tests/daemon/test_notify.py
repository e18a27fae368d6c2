"""What the service manager hears, word for word and in order."""

import os

import pytest
from daemon.harness import eventually, keeping, save

from ckptd.daemon.notify import Notifier


def test_ready_comes_after_the_first_sweep_and_stopping_last(start, manager, tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "400000"}
    daemon = start(keeping(tmp_path), options={"environ": environ}).ready()
    eventually(lambda: manager.messages().count("WATCHDOG=1") >= 3)
    daemon.end()

    messages = manager.messages()
    told = [text for text in messages if text != "WATCHDOG=1"]
    assert told[0].startswith("STATUS=")
    assert told[1].startswith("STATUS=1 model directory; ")
    assert told[2] == "READY=1"
    assert told[-1] == "STOPPING=1"
    assert messages.count("READY=1") == 1


def test_a_reload_is_announced_with_the_time_in_one_datagram(manager):
    with Notifier({"NOTIFY_SOCKET": manager.address}) as notifier:
        notifier.reloading()

    (text,) = manager.messages()
    first, second = text.split("\n")
    assert first == "RELOADING=1"
    assert int(second.removeprefix("MONOTONIC_USEC=")) > 0


def test_a_status_is_one_line_and_sent_once(manager):
    with Notifier({"NOTIFY_SOCKET": manager.address}) as notifier:
        notifier.status("a\nREADY=1 \udcff")
        notifier.status("a\nREADY=1 \udcff")
        notifier.extend_timeout(1.5)

    assert manager.messages() == ["STATUS=a\\nREADY=1 \\xff", "EXTEND_TIMEOUT_USEC=1500000"]


@pytest.mark.parametrize("address", ["", "/does/not/exist", "nonsense", "@nobody-listens-here"])
def test_without_a_manager_nothing_happens(address):
    with Notifier({"NOTIFY_SOCKET": address}) as notifier:
        notifier.ready()
        notifier.stopping()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_watchdog_is_reassured_twice_as_often_as_it_asks(environ, expected):
    with Notifier(environ) as notifier:
        assert notifier.watchdog_interval == expected


def test_a_sick_daemon_does_not_reassure_the_watchdog(start_open, manager):
    daemon = start_open(
        environ={"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "100000"},
    )
    eventually(lambda: "WATCHDOG=1" in manager.messages())
    daemon.service._next_tick = float("inf")  # nothing is mended
    daemon.service._calendar.stop()
    assert daemon.ask()["problems"] == ["the scheduler does not run"]
    count = len(manager.messages())
    missed = daemon.service._next_ping + 0.2
    eventually(lambda: daemon.service._next_ping > missed)

    assert "WATCHDOG=1" not in manager.messages()[count:]
