"""The log: whatever a name holds, a line is a line, and a failing log fails nobody."""

import io
import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptd.config.values import LogSettings
from ckptd.daemon.log import Event, Libraries, Log

HOSTILE = [
    'm-1\n{"event": "removed"}',
    "\x1b[2J\x1b]0;owned\x07",
    "not UTF-8: \udcff\udc80",
    "\r\u2028\u2029\x85\x00",
    "-" * 4000,
    "имя 名前 🚂",
]


def logged(style: Any, *, level: Any = "debug", **keys: object) -> str:
    stream = io.StringIO()
    log = Log(LogSettings(format=style, level=level), stream)
    log(Event.REMOVED, **keys)
    assert log.failures == 0
    return stream.getvalue()


@pytest.mark.parametrize("name", HOSTILE)
def test_json_is_one_line_of_ascii_that_gives_the_name_back(name):
    text = logged("json", name=name, global_step=7)

    assert text.isascii()
    assert text.count("\n") == 1
    assert json.loads(text)["name"] == name


@pytest.mark.parametrize("name", HOSTILE)
def test_text_is_one_printable_line(name):
    text = logged("text", name=name, problems=[name, name])

    assert text.endswith("\n")
    assert text[:-1].isprintable()


@given(st.text(), st.sampled_from(["json", "text"]))
def test_no_text_can_break_a_line(text, style):
    line = logged(style, name=text, reason=text)

    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert len(line.splitlines()) == 1


def test_a_line_begins_with_when_how_important_and_what():
    line = json.loads(logged("json", model_dir="/srv/models/a", name="m-1", reason="why"))

    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert (line["level"], line["event"]) == ("info", "removed")


def test_what_is_less_important_than_the_level_is_left_out():
    assert logged("json", level="warning") == ""


def test_what_is_no_terminal_gets_json():
    assert json.loads(logged("auto"))["event"] == "removed"


def test_an_unknown_key_is_counted_and_left_out():
    stream = io.StringIO()
    log = Log(LogSettings(format="json"), stream)
    log(Event.REMOVED, name="m-1", colour="red")

    assert log.failures == 1
    assert "colour" not in json.loads(stream.getvalue())


def test_a_closed_stream_fails_nobody():
    stream = io.StringIO()
    log = Log(LogSettings(format="json"), stream)
    stream.close()
    log(Event.REMOVED, name="m-1")
    log.use(LogSettings())
    log(Event.REMOVED, name="m-1")

    assert log.failures == 2


def test_every_event_has_its_own_name():
    labels = [event.label for event in Event]

    assert len(set(labels)) == len(labels)
    assert {event.level for event in Event} <= {"debug", "info", "warning", "error"}


def test_what_libraries_log_comes_in_the_same_form(capsys):
    stream = io.StringIO()
    with Libraries(Log(LogSettings(format="json"), stream)):
        logging.getLogger("watchdog.observers.inotify_c").warning("lost %d\nevents", 3)
        logging.getLogger("apscheduler.scheduler").info("all is well")
        logging.getLogger("apscheduler.executors.default").error("bad %d", "text")

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["reason"] for line in lines] == ["lost 3\nevents", "bad %d"]
    assert [line["event"] for line in lines] == ["library"] * 2
    assert logging.getLogger("watchdog").propagate
    assert not logging.getLogger("watchdog").handlers
