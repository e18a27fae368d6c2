"""The daemon's log: events with names and keys from the tables here, one line each.

A line is JSON, or on a terminal text. No name on a disk can break a line or speak to the terminal,
and no failure to log reaches whoever logs: it is counted in `Log.failures`.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping, MutableMapping
from enum import Enum
from typing import Any, Final, TextIO

import structlog

from ckptd.config.values import LogSettings
from ckptd.errors import printable


class Event(Enum):
    """Everything that is logged, and how important it is."""

    STARTED = "started", "info"
    READY = "ready", "info"
    STOPPING = "stopping", "info"
    STOPPED = "stopped", "info"
    RELOADED = "reloaded", "info"
    RELOAD_FAILED = "reload_failed", "error"

    ADOPTED = "adopted", "info"
    RELEASED = "released", "info"
    SWEPT = "swept", "debug"
    REMOVED = "removed", "info"
    PRESERVED = "preserved", "info"
    SCRUBBED = "scrubbed", "debug"
    CHECKPOINT_DAMAGED = "checkpoint_damaged", "error"
    META_GRAPH_MOVED = "meta_graph_moved", "info"
    STATE_REDIRECTED = "state_redirected", "warning"
    RECORDED = "recorded", "info"
    PURGED = "purged", "info"
    REMOVALS_HELD = "removals_held", "warning"
    REMOVAL_FAILED = "removal_failed", "error"
    PROBLEM = "problem", "warning"
    DIRECTORY_FAILED = "directory_failed", "error"
    DIRECTORY_RECOVERED = "directory_recovered", "info"
    DIRECTORY_HANGS = "directory_hangs", "error"

    EVENTS_LOST = "events_lost", "warning"
    WATCH_LIMIT = "watch_limit", "warning"
    WATCHER_REBUILT = "watcher_rebuilt", "warning"
    CLOCK_JUMP = "clock_jump", "warning"
    JOB_FAILED = "job_failed", "error"
    REPORT = "report", "info"
    PEER_REFUSED = "peer_refused", "warning"
    DAEMON_FAULT = "daemon_fault", "error"
    LIBRARY = "library", "warning"

    def __init__(self, label: str, level: str) -> None:
        self.label = label
        self.level = level


KEYS: Final = frozenset(
    {
        "model_dir",  # the model directory
        "name",  # a checkpoint: its prefix's last component
        "global_step",
        "reason",  # why it was done, or why it failed
        "policy",  # the name of a policy in the configuration
        "bytes",
        "checkpoints",
        "model_dirs",
        "changes",
        "problems",
        "seconds",
        "pid",
        "version",
        "socket",
        "watching",
        "uid",
        "logger",
        "was",
    }
)
"""Every key beside `timestamp`, `level` and `event`."""

_NUMBERS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Log:
    """Writes events to `stream`. For any thread."""

    def __init__(self, settings: LogSettings, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self.failures = 0
        self.use(settings)

    def use(self, settings: LogSettings) -> None:
        """Log from now on as `settings` say."""
        style = settings.format
        if style == "auto":
            style = "text" if self._is_terminal() else "json"
        self._logger = structlog.wrap_logger(
            structlog.WriteLogger(self._stream),
            processors=[_stamp, _as_text if style == "text" else _as_json],
            wrapper_class=structlog.make_filtering_bound_logger(_NUMBERS[settings.level]),
        )

    def __call__(self, event: Event, /, **keys: Any) -> None:
        """Log `event`. Never raises."""
        try:
            unknown = keys.keys() - KEYS
            if unknown:
                self.failures += 1
            known = {key: value for key, value in keys.items() if key in KEYS and value is not None}
            getattr(self._logger, event.level)(event.label, **known)
        except Exception:  # noqa: BLE001 - a log that fails (a full disk, a closed pipe) ends nothing
            self.failures += 1

    def _is_terminal(self) -> bool:
        try:
            return self._stream.isatty()
        except ValueError:  # closed
            return False


class Libraries(logging.Handler):
    """Takes what watchdog and APScheduler log into our log, from `with` to its end."""

    _NAMES: Final = ("watchdog", "apscheduler")

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._before: list[tuple[logging.Logger, bool, int]] = []

    def __enter__(self) -> "Libraries":  # noqa: PYI034 (Self is in typing from Python 3.11 on)
        for name in self._NAMES:
            logger = logging.getLogger(name)
            self._before.append((logger, logger.propagate, logger.level))
            logger.addHandler(self)
            logger.propagate = False
            logger.setLevel(logging.WARNING)
        return self

    def __exit__(self, *_: object) -> None:
        for logger, propagate, level in self._before:
            logger.removeHandler(self)
            logger.propagate = propagate
            logger.setLevel(level)
        self._before.clear()

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record of a library."""
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text = f"{text}: {record.exc_info[1]!r}"
        except Exception:  # noqa: BLE001 - a library's record whose arguments do not fit its text
            text = str(record.msg)
        self._log(Event.LIBRARY, logger=record.name, reason=text)


def _stamp(_: Any, level: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Begin the line with when, how important, and what."""
    now = time.time()
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
    return {"timestamp": when, "level": level, **event}


def _as_json(_: Any, __: str, event: Mapping[str, Any]) -> str:
    """Return a line of ASCII, for a name on a disk need not be UTF-8."""
    first = {key: event[key] for key in ("timestamp", "level", "event")}
    return json.dumps({**first, **event}, default=repr)


def _as_text(_: Any, __: str, event: Mapping[str, Any]) -> str:
    """Return a line for people; what could break it or move the cursor is written as escapes."""
    rest = dict(event)
    head = f"{rest.pop('timestamp')} {rest.pop('level'):7} {rest.pop('event')}"
    return " ".join([head, *(f"{key}={_shown(value)}" for key, value in rest.items())])


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "; ".join(_shown(item) for item in value)
    text = printable(str(value))
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text
