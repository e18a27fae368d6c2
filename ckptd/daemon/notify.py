"""What the service manager is told, by sd_notify's datagrams (sd_notify(3)).

Written here because the packages for it on PyPI are unmaintained, or need libsystemd and a C
compiler to install, for the forty lines that it takes.
"""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final

from ckptd.errors import printable

_LONGEST: Final = 2**10  # characters of a status line


class Notifier:
    """Speaks to the manager named by ``NOTIFY_SOCKET``; says nothing where there is none.

    A manager that does not listen is no reason to fail: what cannot be sent is dropped.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL that begins an abstract address.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        self.watchdog_interval = _watchdog_interval(environ)
        self._status = ""

    def __enter__(self) -> "Notifier":  # noqa: PYI034 (Self is in typing from Python 3.11 on)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._socket is not None:
            self._socket.close()

    def ready(self) -> None:
        """Say that all directories were looked at, or that a reload is over."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Show `text` in `systemctl status`; the same again is not sent."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={printable(text)[:_LONGEST]}")

    def watchdog(self) -> None:
        """Say that the daemon is healthy."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Say that a reload begins. ``Type=notify-reload`` insists on both lines in one datagram."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the daemon is about to end."""
        self._send("STOPPING=1")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for so much more time, from now, to start or to stop."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _send(self, text: str) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.sendto(text.encode("utf-8", "backslashreplace"), self._address)


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """Return how often the manager is to be reassured, in seconds: twice as often as it asks."""
    try:
        if int(environ.get("WATCHDOG_PID", os.getpid())) != os.getpid():
            return None
        return int(environ["WATCHDOG_USEC"]) / 2e6 or None
    except (KeyError, ValueError):
        return None
