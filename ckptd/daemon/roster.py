"""The model directories that are tended now, and how they come and go."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from ckptd.config.values import Config, ModelDirs
from ckptd.daemon.adoption import Candidate, Search, search, top
from ckptd.daemon.log import Event, Log
from ckptd.daemon.mailbox import Mailbox
from ckptd.daemon.tending import Tended, told
from ckptd.daemon.visits import HANGS
from ckptd.daemon.watching import Role, Watcher
from ckptd.daemon.workers import Workers
from ckptd.errors import printable

_SHORTEST_PAUSE: Final = 0.05  # seconds between two searches, however often directories are made
_SHARE: Final = 3.0  # a search is followed by a pause this many times as long


@dataclass(slots=True, eq=False)
class _Group:
    """Entries of `model_dirs` that are searched together, for they lie below the same directory.

    A mount that hangs keeps its own group waiting, and no other.
    """

    top: str
    entries: list[ModelDirs]
    result: Search | None = None
    watched: set[str] = field(default_factory=set)
    is_wanted: bool = False
    running_since: float | None = None
    not_before: float = 0.0
    hangs: bool = False


class Roster:
    """Searches for model directories, and tends those that it finds. For the main loop only.

    `on_join` is called with each directory that is new or has a new policy.
    """

    def __init__(
        self,
        config: Config,
        mailbox: Mailbox,
        watcher: Watcher,
        log: Log,
        *,
        on_join: Callable[[Tended], None],
    ) -> None:
        self._config = config
        self._mailbox = mailbox
        self._watcher = watcher
        self._log = log
        self._on_join = on_join
        self._groups: list[_Group] = []
        self._tended: dict[str, Tended] = {}  # by real path
        self._leaving: set[Tended] = set()
        self._count = 0
        self._problems: tuple[str, ...] = ()
        self.is_complete = False
        """Whether every group has been searched since the start."""
        self._regroup()

    def __iter__(self) -> Iterator[Tended]:
        return iter(self._tended.values())

    def __len__(self) -> int:
        return len(self._tended)

    def at(self, real_path: str) -> Tended | None:
        """Return the directory at a path without links."""
        return self._tended.get(real_path)

    def called(self, path: str) -> Tended | None:
        """Return the directory at a path as the configuration has it, or without links."""
        return self._tended.get(path) or next((one for one in self if one.path == path), None)

    @property
    def missing(self) -> list[tuple[str, ModelDirs]]:
        """The plain paths of the configuration at which there is no directory."""
        return [row for group in self._groups if group.result for row in group.result.missing]

    @property
    def problems(self) -> list[str]:
        """What keeps a search from being complete."""
        hanging = [
            f"the search below {printable(group.top)} has not ended for more than {HANGS:.0f} s"
            for group in self._groups
            if group.hangs
        ]
        return [*hanging, *self._problems]

    def use(self, config: Config) -> None:
        """Go by another configuration: policies hold at once, the rest after a search."""
        self._config = config
        for tended in self:
            entry = config.entry_for(tended.path)
            if entry is not None:
                self._renew(tended, tended.candidate._replace(entry=entry))
        for path in {path for group in self._groups for path in group.watched}:
            self._watcher.unwatch(path, Role.PARENT)
        self._regroup()

    def search(self, path: str | None = None) -> None:
        """Have everything searched again, or what depends on the directory at `path`."""
        for group in self._groups:
            if path is None or path in group.watched:
                group.is_wanted = True

    def next_deadline(self) -> float:
        """Return when `start_due` has something to do, on the monotonic clock."""
        due = [g.not_before for g in self._groups if g.is_wanted and g.running_since is None]
        return min(due, default=float("inf"))

    def start_due(self, now: float, workers: Workers) -> None:
        """Start the searches that are due."""
        for group in self._groups:
            if group.is_wanted and group.running_since is None and now >= group.not_before:
                group.is_wanted = False
                group.running_since = now
                workers.submit(partial(self._search, group))

    def find_hanging(self, now: float) -> None:
        """Note which searches hang."""
        for group in self._groups:
            since = group.running_since
            if since is not None and now - since > HANGS and not group.hangs:
                group.hangs = True
                self._log(Event.DIRECTORY_HANGS, model_dir=group.top, seconds=HANGS)

    def release(self, tended: Tended, why: str) -> None:
        """Tend a directory no more."""
        if tended.is_leaving:
            return
        if self._tended.get(tended.real_path) is tended:
            del self._tended[tended.real_path]
        tended.is_leaving = True
        tended.when = None
        self._watcher.unwatch(tended.real_path, Role.MODEL_DIRECTORY)
        self._log(Event.RELEASED, model_dir=tended.path, reason=why)
        for conversation in (*tended.waiting, *tended.served):
            conversation.refuse(f"{printable(tended.path)} is no longer kept: {why}", 13)
        tended.waiting, tended.served = [], []
        self._leaving.add(tended)
        self.let_go(tended)

    def let_go(self, tended: Tended) -> None:
        """Close a directory that is leaving, once no thread works in it."""
        if tended in self._leaving and tended.is_free:
            self._leaving.discard(tended)
            tended.close()
            if tended.status:  # it may be there again, or have another name
                self.search()

    def close(self) -> None:
        """Let go of everything; nothing may be running."""
        for tended in (*self._tended.values(), *self._leaving):
            tended.close()

    def _regroup(self) -> None:
        groups: dict[str, _Group] = {}
        for entry in self._config.model_dirs:
            where = top(entry)
            groups.setdefault(where, _Group(where, [])).entries.append(entry)
        self._groups = list(groups.values())
        self.search()
        self.is_complete = not groups

    def _search(self, group: _Group) -> None:
        """Search, in a worker."""
        group.running_since = time.monotonic()

        def watch(path: str) -> None:
            group.watched.add(path)
            self._watcher.watch(path, Role.PARENT)

        try:
            result = search(group.entries, watch)
        except Exception as error:  # noqa: BLE001 - told, and tried again at the next rescan
            result = Search((), (), (told(error),))
        self._mailbox.post(partial(self._searched, group, result))

    def _searched(self, group: _Group, result: Search) -> None:
        now = time.monotonic()
        took = now - (group.running_since or now)
        group.not_before = now + max(_SHORTEST_PAUSE, _SHARE * took)
        group.running_since = None
        group.hangs = False
        group.result = result
        # Which entry comes first is known when all have answered that are going to.
        if group in self._groups and not any(
            other.running_since is not None and not other.hangs for other in self._groups
        ):
            self._adopt()

    def _adopt(self) -> None:
        """Tend what was found, and nothing else."""
        results = [group.result for group in self._groups if group.result is not None]
        wanted = self._first_matches(results)
        # What an incomplete search has not found may be there all the same.
        is_whole = len(results) == len(self._groups)
        in_doubt = not is_whole or any(result.problems for result in results)
        self._tell_problems(results)
        for tended in list(self):
            found = wanted.get(tended.candidate.identity)
            if found is not None and found.real_path == tended.real_path:
                del wanted[found.identity]
                self._renew(tended, found)
            elif found is not None:
                self.release(tended, f"it is at {printable(found.path)} now")
            elif self._config.entry_for(tended.path) is None:
                self.release(tended, "the configuration names it no more")
            elif not in_doubt:
                self.release(tended, "it is gone")
        leaving = {tended.candidate.identity for tended in self._leaving}
        for candidate in wanted.values():
            if candidate.identity not in leaving and candidate.real_path not in self._tended:
                self._take_on(candidate)
        self.is_complete = self.is_complete or is_whole

    def _first_matches(self, results: Sequence[Search]) -> dict[tuple[int, int], Candidate]:
        places = {entry.path: place for place, entry in enumerate(self._config.model_dirs)}
        everything = [candidate for result in results for candidate in result.found]
        everything.sort(key=lambda candidate: places.get(candidate.entry.path, len(places)))
        wanted: dict[tuple[int, int], Candidate] = {}
        for candidate in everything:
            wanted.setdefault(candidate.identity, candidate)
        return wanted

    def _tell_problems(self, results: Iterable[Search]) -> None:
        problems = tuple(dict.fromkeys(text for result in results for text in result.problems))
        for text in problems:
            if text not in self._problems:
                self._log(Event.PROBLEM, reason=text)
        self._problems = problems

    def _take_on(self, candidate: Candidate) -> None:
        self._count += 1
        tended = self._tended[candidate.real_path] = Tended(candidate, self._count)
        self._log(Event.ADOPTED, model_dir=candidate.path, policy=candidate.entry.policy_name)
        self._on_join(tended)

    def _renew(self, tended: Tended, candidate: Candidate) -> None:
        changed = candidate.entry.policy != tended.entry.policy
        tended.candidate = candidate
        if changed:
            self._on_join(tended)
