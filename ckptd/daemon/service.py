"""The daemon: one loop on the monotonic clock that sees to every model directory.

Events, people and the calendar only say that a directory is to be looked at; the loop has a worker
look, and rescans everything whatever was said. The loop itself touches no model directory: one that
hangs costs a worker, not the daemon.
"""

import os
import resource
import selectors
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib import metadata
from typing import Any, Final, TextIO

from ckptd.config.values import Config
from ckptd.daemon.calendar import Calendar, ClockGuard
from ckptd.daemon.changes import changes
from ckptd.daemon.instance import Instance
from ckptd.daemon.listening import Conversation, Listener
from ckptd.daemon.log import Event, Libraries, Log
from ckptd.daemon.mailbox import Mailbox
from ckptd.daemon.notify import Notifier
from ckptd.daemon.rescan import Rescan
from ckptd.daemon.roster import Roster
from ckptd.daemon.scrub import Scrub
from ckptd.daemon.status import status_document, summary
from ckptd.daemon.tending import Tended, Want
from ckptd.daemon.visits import HANGS, SETTLE, Visits
from ckptd.daemon.watching import Watcher
from ckptd.errors import ConfigError, printable
from ckptd.protocol.control import Request, Verb

_TICK: Final = 5.0
_BETWEEN_RELOADS: Final = 0.2
_MORE_TIME: Final = 30.0  # seconds asked of the service manager at a time
_LAST_PURGE: Final = 5.0  # seconds; what is not unlinked by then is at the next start
_LAST_READ: Final = 5.0  # seconds; a disk that takes longer for a few megabytes does not answer
_STOP_POLL: Final = 0.05
_DESCRIPTORS: Final = 65_536


def run_daemon(
    load: Callable[[], Config],
    socket_path: str,
    *,
    clock: Callable[[], float] = time.time,
    stop: threading.Event | None = None,
    environ: Mapping[str, str] = os.environ,
    stream: TextIO | None = None,
    watch: bool = True,
) -> int:
    """Keep what the configuration says until SIGTERM, SIGINT or `stop`; return the exit status.

    `load` reads the configuration, now and at each SIGHUP; it raises `ConfigError` or `OSError`.
    These are raised at the start, and so is `BusyError` where another daemon has `socket_path`. In
    a thread other than the main one no signal is handled. Without `watch` only rescans find what
    is new. The log goes to `stream`, by default to stderr.
    """
    config = load()
    note = {"pid": os.getpid(), "since": _utc(clock())}
    with ExitStack() as stack:
        stack.enter_context(_descriptors())
        instance = stack.enter_context(Instance(socket_path, note))
        log = Log(config.log, sys.stderr if stream is None else stream)
        stack.enter_context(Libraries(log))
        notifier = stack.enter_context(Notifier(environ))
        service = Service(
            config, load, instance, log=log, notifier=notifier, clock=clock, stop=stop, watch=watch
        )
        if threading.current_thread() is threading.main_thread():
            stack.enter_context(_signals(service))
        return service.run()


class Service:
    """The main loop, and what it asks of the others.

    Only `request_stop` and `request_reload` may be called from other threads, and from signals.
    """

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config],
        instance: Instance,
        *,
        log: Log,
        notifier: Notifier,
        clock: Callable[[], float] = time.time,
        stop: threading.Event | None = None,
        watch: bool = True,
    ) -> None:
        self._config = config
        self._load = load
        self._socket_path = instance.path
        self._log = log
        self._notifier = notifier
        self._clock = clock
        self._stop = stop
        self._watch = watch
        self._identity = {"pid": os.getpid(), "version": _version(), "since": clock()}
        self._began = time.monotonic()

        self._mailbox = Mailbox()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._mailbox, selectors.EVENT_READ, lambda: None)
        self._listener = Listener(instance.listening, self._selector, log, self._answer)
        self._watcher = Watcher(
            log,
            on_events=lambda: self._mailbox.post(self._take_events),
            on_loss=lambda reason: self._mailbox.post(partial(self._lose_events, reason)),
        )
        self._visits = Visits(
            self._mailbox,
            self._watcher,
            log,
            clock=clock,
            claim={"pid": self._identity["pid"], "since": self._identity["since"]},
            on_gone=self._release,
            on_end=self._let_go,
        )
        self._roster = Roster(
            config,
            self._mailbox,
            self._watcher,
            log,
            on_join=lambda tended: self._visits.want(tended, Want.SWEEP),
        )
        self._scrub = Scrub(self._mailbox, self._visits, log, clock=clock)
        self._rescan = Rescan(self._mailbox, self._roster, self._visits, config.rescan_interval)
        self._calendar = Calendar(
            log,
            on_expiry=lambda: self._mailbox.post(self._expire_trash),
            on_scrub=lambda: self._mailbox.post(self._begin_scrub),
            on_report=lambda: self._mailbox.post(self._report),
        )
        self._guard = ClockGuard(clock)

        self._is_ready = False
        self._next_tick = 0.0
        self._next_ping = float("inf")
        self._reload_wanted = False
        self._not_reloaded_before = 0.0
        self._reload: dict[str, Any] = {"ok": True, "at": self._identity["since"], "problems": []}
        self.stops = 0

    def request_stop(self) -> None:
        """End the loop when what runs is done."""
        self.stops += 1
        self._mailbox.post(lambda: None)

    def request_reload(self) -> None:
        """Read the configuration again, once for all who have asked by then."""
        self._reload_wanted = True
        self._mailbox.post(lambda: None)

    def run(self) -> int:
        """Work until asked to stop; return the exit status."""
        try:
            self._start()
            while not self.stops and not (self._stop is not None and self._stop.is_set()):
                self._guarded(self._turn)
        finally:
            self._finish()
        return 0

    # The loop.

    def _start(self) -> None:
        self._log(
            Event.STARTED,
            pid=self._identity["pid"],
            version=self._identity["version"],
            socket=self._socket_path,
        )
        self._notifier.status("looking at every model directory for the first time")
        if self._watch:
            self._watcher.start()
        self._calendar.start()
        now = time.monotonic()
        self._rescan.begin(now)
        self._next_tick = now + _TICK
        if self._notifier.watchdog_interval is not None:
            self._next_ping = now

    def _turn(self) -> None:
        """Wait for the next thing to do, and do what is due."""
        timeout = max(0.0, self._next_deadline() - time.monotonic())
        if self._stop is not None:
            timeout = min(timeout, _STOP_POLL)
        for key, _ in self._selector.select(timeout):
            self._guarded(key.data)
        for action in self._mailbox.take():
            self._guarded(action)
        self._become_ready()
        now = time.monotonic()
        self._listener.expire(now)
        if self._reload_wanted and now >= self._not_reloaded_before:
            self._read_config()
        self._roster.start_due(now, self._visits.workers)
        self._visits.start_due(now)
        if now >= self._rescan.deadline:
            self._rescan.start(now)
            self._watch_again()
        if now >= self._next_tick:
            self._tick(now)
        if now >= self._next_ping:
            self._ping(now)

    def _guarded(self, action: Callable[[], None]) -> None:
        """Call `action`; a fault in it is logged, and the loop goes on."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - one fault does not end the care for all the rest
            self._log(Event.DAEMON_FAULT, reason=_traced(error))
            time.sleep(0.01)  # should it happen each time, not as fast as it can

    def _next_deadline(self) -> float:
        return min(
            self._rescan.deadline,
            self._next_tick,
            self._next_ping,
            self._visits.next_deadline(),
            self._roster.next_deadline(),
            self._listener.next_deadline(),
            self._not_reloaded_before if self._reload_wanted else float("inf"),
        )

    def _finish(self) -> None:
        self._log(Event.STOPPING)
        self._notifier.stopping()
        self._listener.close()
        self._calendar.stop()
        self._watcher.stop()
        is_read = self._scrub.stop(wait=_LAST_READ)
        workers, reaper = self._visits.workers, self._visits.reaper
        deadline = time.monotonic() + HANGS
        while not (done := workers.stop(wait=0.5)) and time.monotonic() < deadline:
            self._notifier.extend_timeout(_MORE_TIME)
        if reaper.stop(wait=_LAST_PURGE) and done and is_read:
            for action in self._mailbox.take():  # what was done at the end is logged too
                self._guarded(action)
            self._roster.close()
            self._mailbox.close()
        # Else a thread still works with these, and the end of the process lets go of them.
        self._selector.close()
        self._log(Event.STOPPED)

    # Hints, and the clock.

    def _take_events(self) -> None:
        for path in self._watcher.take():
            tended = self._roster.at(path)
            if tended is not None:
                self._visits.want(tended, Want.SWEEP, SETTLE)
            self._roster.search(path)

    def _lose_events(self, reason: str) -> None:
        self._log(Event.EVENTS_LOST, reason=reason)
        self._doubt(Want.LOOK)

    def _doubt(self, want: Want) -> None:
        """Look at everything: something may have happened that nobody has told."""
        self._roster.search()
        for tended in self._roster:
            self._visits.want(tended, want)

    def _tick(self, now: float) -> None:
        self._next_tick = now + _TICK
        jump = self._guard.jump()
        if jump is not None:
            self._log(Event.CLOCK_JUMP, seconds=round(jump, 3))
            self._calendar.restart()
            self._doubt(Want.SWEEP)
        self._visits.find_hanging(now)
        self._roster.find_hanging(now)
        self._mend()
        self._notifier.status(self._summary())
        if not self._is_ready:
            self._notifier.extend_timeout(_MORE_TIME)

    def _watch_again(self) -> None:
        """Where the kernel refused to watch, see whether it does by now."""
        if self._watch and not self._watcher.is_started:
            self._watcher.start()
            if self._watcher.is_started:
                self._doubt(Want.LOOK)

    def _mend(self) -> None:
        reason = self._watcher.fault()
        if reason is not None:
            self._log(Event.WATCHER_REBUILT, reason=reason)
            self._watcher.rebuild()
            self._doubt(Want.LOOK)
        reason = self._calendar.fault()
        if reason is not None:
            self._log(Event.JOB_FAILED, reason=reason)
            self._calendar.restart()

    def _ping(self, now: float) -> None:
        self._next_ping = now + (self._notifier.watchdog_interval or float("inf"))
        if self._watcher.fault() is None and self._calendar.fault() is None:
            self._notifier.watchdog()

    def _expire_trash(self) -> None:
        now = self._clock()
        for tended in self._roster:
            if tended.trash_due is not None and tended.trash_due <= now:
                self._visits.want(tended, Want.SWEEP)

    def _begin_scrub(self) -> None:
        self._scrub.begin(self._roster)

    def _report(self) -> None:
        self._log(
            Event.REPORT,
            **self._figures(),
            bytes=sum(tended.total_bytes for tended in self._roster),
            problems=self._problems(),
        )

    # Ready, reload.

    def _release(self, tended: Tended, why: str) -> None:
        self._roster.release(tended, why)

    def _let_go(self, tended: Tended) -> None:
        self._roster.let_go(tended)
        self._scrub.visited(tended)

    def _become_ready(self) -> None:
        """Say READY once every directory was visited; wait for none that hangs."""
        if self._is_ready:
            return
        now = time.monotonic()
        is_first = any(not tended.was_visited and not tended.hangs for tended in self._roster)
        is_moving = now - max(self._visits.last_end, self._began) < HANGS
        if is_moving and (is_first or not self._roster.is_complete):
            return
        self._is_ready = True
        self._log(Event.READY, **self._figures(), seconds=round(now - self._began, 3))
        self._notifier.status(self._summary())
        self._notifier.ready()

    def _read_config(self) -> None:
        self._reload_wanted = False
        self._notifier.reloading()
        problems: list[str] = []
        try:
            self._use(self._load())
        except ConfigError as error:
            problems = [str(problem) for problem in error.problems]
        except OSError as error:
            problems = [str(error)]
        finally:
            self._not_reloaded_before = time.monotonic() + _BETWEEN_RELOADS
            self._notifier.ready()
        self._reload = {"ok": not problems, "at": self._clock(), "problems": problems}
        if problems:
            text = "the configuration that was in force stays in force"
            self._log(Event.RELOAD_FAILED, reason=text, problems=problems)

    def _use(self, config: Config) -> None:
        before, self._config = self._config, config
        self._log.use(config.log)
        self._log(Event.RELOADED, changes=changes(before, config))
        if config.socket != before.socket:
            text = "the socket stays where it is until the daemon is started again"
            self._log(Event.PROBLEM, socket=self._socket_path, reason=text)
        self._roster.use(config)
        self._rescan.begin(time.monotonic(), config.rescan_interval)
        self._doubt(Want.SWEEP)

    # Answers.

    def _answer(self, request: Request, conversation: Conversation) -> None:
        if request.verb is Verb.PING:
            conversation.reply({"schema": "ckptd.ping/1", **self._identity})
        elif request.verb is Verb.STATUS:
            daemon = {
                **self._identity,
                "rescan_interval": self._config.rescan_interval,
                "watching": self._watching(),
                "reload": self._reload,
            }
            conversation.reply(status_document(daemon, self._roster, self._problems()))
        else:
            self._sweep_for(request.directory or "", conversation)

    def _sweep_for(self, path: str, conversation: Conversation) -> None:
        tended, shown = self._roster.called(path), printable(path)
        if tended is None:
            text = f"this daemon keeps no {shown}: `ckptd status` lists what it keeps"
            conversation.refuse(text, 13)
            return
        uid = conversation.peer.uid
        if uid not in {0, os.getuid(), tended.owner}:
            text = f"user {uid} may not have {shown} swept: it belongs to user {tended.owner}"
            conversation.refuse(text, 12)
            return
        tended.waiting.append(conversation)
        tended.not_before = 0.0  # somebody waits
        self._visits.want(tended, Want.SWEEP)

    def _watching(self) -> str:
        return "events" if self._watcher.is_whole else "polling"

    def _problems(self) -> list[str]:
        """Return what is wrong with the daemon itself."""
        faults = (self._watcher.fault(), self._calendar.fault())
        return [*self._roster.problems, *(text for text in faults if text is not None)]

    def _summary(self) -> str:
        return summary(self._roster, self._problems(), watching=self._watching())

    def _figures(self) -> dict[str, Any]:
        return {
            "model_dirs": len(self._roster),
            "checkpoints": sum(tended.checkpoints for tended in self._roster),
            "watching": self._watching(),
        }


@contextmanager
def _signals(service: Service) -> Iterator[None]:
    """Have SIGHUP reload, SIGTERM and SIGINT stop; the second of these ends the process at once."""

    def stop(number: int, _: object) -> None:
        if service.stops:
            os._exit(128 + number)  # as a shell tells it; what was begun, the next start finishes
        service.request_stop()

    handlers: dict[int, Callable[[int, Any], None]] = {
        signal.SIGHUP: lambda *_: service.request_reload(),
        signal.SIGTERM: stop,
        signal.SIGINT: stop,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _descriptors() -> Iterator[None]:
    """Allow as many open descriptors as may be had: each model directory takes a few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _version() -> str:
    try:
        return metadata.version("ckptd")
    except metadata.PackageNotFoundError:
        return "unknown"


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _traced(error: BaseException) -> str:
    """Return an error and where it was raised, for whoever mends it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return f"{error!r}{place}"
