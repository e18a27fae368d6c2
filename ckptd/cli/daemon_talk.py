"""Talking to the daemon: where it is to be found, its status, and a word to sweep now."""

import os
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from ckptd.cli.screen import Screen
from ckptd.errors import CkptdError, NoDaemonError
from ckptd.keeper.keeper import Keeper
from ckptd.protocol.control import Verb
from ckptd.protocol.conversation import ask, socket_path_candidates

_PATIENCE: Final = 5.0  # seconds for a nudge; a daemon that is slower sweeps by itself later

_Command = TypeVar("_Command", bound=Callable[..., Any])


def socket_option(command: _Command) -> _Command:
    """Give a verb `--socket`."""
    return click.option(
        "--socket",
        metavar="PATH",
        help="Find the daemon here; else CKPTD_SOCKET, the user's, the host's.",
    )(command)


def daemon_status(socket: str | None) -> dict[str, Any]:
    """Return what the daemon says of itself and its directories. Raises `NoDaemonError`."""
    return ask(socket_path_candidates(os.environ, os.getuid(), socket), Verb.STATUS)


def nudge(screen: Screen, keeper: Keeper, socket: str | None) -> bool:
    """Have the daemon that keeps this directory look at it now; return whether it has been told.

    Without one there is nobody to tell, and with one that does not listen, it finds out by itself.
    """
    if keeper.owner() is None:
        return False
    candidates = socket_path_candidates(os.environ, os.getuid(), socket)
    try:
        ask(candidates, Verb.SWEEP, keeper.path, timeout=_PATIENCE)
    except NoDaemonError:
        return False
    except CkptdError as error:
        screen.warn(f"this is done; the daemon was told, and says: {error}")
        return False
    return True
