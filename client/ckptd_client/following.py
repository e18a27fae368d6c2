"""Checkpoints as they come: for who evaluates, exports or copies what a trainer saves.

Events are hints, the scan is the truth: a hint of the kernel ends a wait early, and where there is
none the directory is looked at every few seconds.
"""

import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Final, Protocol

from ckptd.checkpoints.inventory import Checkpoint
from ckptd.checkpoints.listing import Identity
from ckptd.errors import CkptdError, NoSuchDirectoryError
from ckptd.keeper.state import name_in_state
from ckptd_client.hints import Hints
from ckptd_client.holdings import Holdings, oldest_first
from ckptd_client.reading import checkpoint_exists, get_checkpoint_state

LOOK_AGAIN: Final = 5.0
"""Seconds after which a follower looks without a hint."""

_log: Final = logging.getLogger("ckptd_client")


def checkpoints_iterator(
    checkpoint_dir: str | os.PathLike[str],
    min_interval_secs: float = 0,
    timeout: float | None = None,
    timeout_fn: Callable[[], bool] | None = None,
    *,
    every: bool = False,
) -> Generator[str, None, None]:
    """Yield the prefixes of checkpoints as they are saved, waiting for the next one.

    As `tf.train.checkpoints_iterator`: the newest by the state file, whenever it is another one than
    before; what came and went while the caller was busy is skipped. At least `min_interval_secs` lie
    between two. When nothing has come for `timeout` seconds (None: for ever), the iterator ends, or
    asks `timeout_fn` if that is given, which is also asked after each checkpoint: it ends the
    iterator by returning True.

    With `every`, each complete checkpoint comes once, those that are there already too, in the order in
    which they were saved; one that is saved again under the same name counts as a new one. Only those
    that are removed before their turn are left out.

    The directory need not be there yet. A state file that cannot be read, or a disk that refuses, is
    logged and waited out.
    """
    where = os.fspath(checkpoint_dir)
    source: _Source = _Every(where) if every else _Latest(where)
    with Hints(where) as hints:
        while True:
            found = _wait(source, hints, timeout, LOOK_AGAIN)
            if found is not None:
                start = time.monotonic()
                yield found
                time.sleep(max(0.0, start + min_interval_secs - time.monotonic()))
            elif timeout_fn is None:
                _log.info("no new checkpoint in %s for %s s", where, timeout)
                return
            if timeout_fn is not None and timeout_fn():
                return


def wait_for_new_checkpoint(
    checkpoint_dir: str | os.PathLike[str],
    last_checkpoint: str | None = None,
    seconds_to_sleep: float = 1,
    timeout: float | None = None,
) -> str | None:
    """Return the newest checkpoint by the state file as soon as it is not `last_checkpoint`.

    None after `timeout` seconds. `seconds_to_sleep` is the longest time between two looks; a hint of
    the kernel makes it shorter.
    """
    where = os.fspath(checkpoint_dir)
    with Hints(where) as hints:
        return _wait(_Latest(where, last_checkpoint), hints, timeout, seconds_to_sleep)


class _Source(Protocol):
    """Where checkpoints come from, one at a time."""

    def take(self) -> str | None:
        """Return the next one, None while there is none. Raises `CkptdError`."""


def _wait(source: _Source, hints: Hints, timeout: float | None, between: float) -> str | None:
    end = math.inf if timeout is None else time.monotonic() + timeout
    told = ""
    while True:
        try:
            found = source.take()
        except NoSuchDirectoryError:
            found = None
        except CkptdError as error:
            found = None
            if str(error) != told:
                told = str(error)
                _log.warning("waiting for a checkpoint: %s", told)
        left = end - time.monotonic()
        if found is not None or left <= 0:
            return found
        hints.wait(min(between, left))


class _Latest:
    """The newest by the state file, when it is another one than last time."""

    def __init__(self, where: str, last: str | None = None) -> None:
        self._where = where
        self._last = last

    def take(self) -> str | None:
        state = get_checkpoint_state(self._where)
        if state is None or state.model_checkpoint_path == self._last:
            return None
        if not checkpoint_exists(state.model_checkpoint_path):
            return None
        self._last = state.model_checkpoint_path
        return self._last


class _Every:
    """Every complete checkpoint once; what makes it that one is its index."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._holdings = Holdings(where)
        self._queue: deque[Checkpoint] = deque()
        self._given: dict[str, Identity] = {}

    def take(self) -> str | None:
        if not self._queue:
            self._look()
        while self._queue:
            checkpoint = self._queue.popleft()
            if self._holdings.directory.entry(checkpoint.index.name) == checkpoint.index:
                self._given[checkpoint.name] = checkpoint.index.identity
                return os.path.join(self._where, name_in_state(checkpoint))  # noqa: PTH118
        return None

    def _look(self) -> None:
        inventory = self._holdings.look()
        there = {c.name for c in inventory.checkpoints} | {p.name for p in inventory.partials}
        self._given = {name: index for name, index in self._given.items() if name in there}
        new = (c for c in inventory.checkpoints if self._given.get(c.name) != c.index.identity)
        self._queue.extend(oldest_first(new))
