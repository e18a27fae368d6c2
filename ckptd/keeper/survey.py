"""One look at a model directory: what is there, what the state files say, what is remembered."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from ckptd.checkpoints.inventory import (
    OWN_DIRECTORY,
    Checkpoint,
    Inventory,
    Partial,
    take_inventory,
)
from ckptd.checkpoints.layouts.tensorflow import STATE_FILE, v1_shards_of_path
from ckptd.checkpoints.listing import Entry, Identity, Kind
from ckptd.errors import (
    CorruptRecordError,
    CorruptStateFileError,
    NotFoundError,
    StorageError,
    printable,
)
from ckptd.formats.state_file import MAX_STATE_FILE_SIZE, StateFile, parse_state_file
from ckptd.keeper.chronicle import Word
from ckptd.keeper.inspector import DirectoryInspector
from ckptd.keeper.ledger import LEDGER, UNREAD, Ledger
from ckptd.keeper.own import Held, Own, Pin
from ckptd.keeper.state import Statement, read_statement
from ckptd.storage.directory import Directory

_LOOKS: Final = 5  # how often a directory may change under the survey before this run gives up
STILL_WRITTEN: Final = 10.0
"""Seconds after the last write to a partial checkpoint in which it is taken to be in the making."""


class Problem(NamedTuple):
    """What is wrong, in words; `holds`: so much in doubt that nothing is removed."""

    text: str
    holds: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What one look saw. `ledger` is None where nothing was recorded, or what was is `lost`."""

    path: str
    entries: tuple[Entry, ...]
    inventory: Inventory
    checkpoints: Mapping[str, Checkpoint]
    statements: tuple[Statement, ...]
    ledger: Ledger | None
    lost: bool
    pins: Mapping[str, Pin]
    held: Held | None
    problems: tuple[Problem, ...]

    def words(self) -> dict[str, Word]:
        """Return the word on each series that a state file speaks of.

        Two files in one order would be no order: a copy made long ago would lend its old names the
        places of the newest. So the word on a series is that of one file: the one that TensorFlow
        reads by default, else the one that names the newest. The others only add times.
        """
        words = [(statement.entry.name, statement.word()) for statement in self.statements]
        best: dict[str, tuple[tuple[bool, float], Word]] = {}
        for file, word in words:
            latest = {self.checkpoints[n].series: n for n in word.listed if n in self.checkpoints}
            if word.current is not None and word.current in self.checkpoints:
                latest[self.checkpoints[word.current].series] = word.current
            for series, name in latest.items():
                rank = (file == STATE_FILE, self.checkpoints[name].index.mtime)
                if series not in best or rank > best[series][0]:
                    best[series] = rank, word
        own: dict[str, float] = {}
        others: dict[str, float] = {}
        for _, word in words:
            for name, time in (word.times or {}).items():
                if name not in self.checkpoints:
                    continue
                if best[self.checkpoints[name].series][1] is word:
                    own[name] = time
                else:
                    others.setdefault(name, time)
        times = {**others, **own} or None
        return {series: replace(word, times=times) for series, (_, word) in best.items()}

    def partial(self, name: str) -> Partial | None:
        """Return the partial checkpoint of that name."""
        return next((p for p in self.inventory.partials if p.name == name), None)

    def remembered(self) -> Ledger:
        """Return the ledger, an empty one if there is none, less the checkpoints that are gone."""
        partial = {partial.name for partial in self.inventory.partials}
        whole = {*self.checkpoints, *self.damaged()}
        return (self.ledger or Ledger()).of_names(whole, partial)

    def damaged(self) -> frozenset[str]:
        """Return the names of the checkpoints of which every byte is there, and some are wrong."""
        partials = self.inventory.partials
        return frozenset(partial.name for partial in partials if partial.damaged is not None)


class Surveyor:
    """Looks at one directory again and again; reads only what has changed since."""

    def __init__(self, directory: Directory, own: Own) -> None:
        self._directory = directory
        self._own = own
        self._inspector = DirectoryInspector(directory)
        self._states: dict[Entry, StateFile | CorruptStateFileError] = {}
        self._first_ledger: Identity | None = None
        self._begun = False

    def entries(self) -> tuple[Entry, ...]:
        """Return the listing, sorted, less ckptd's own directory."""
        return tuple(sorted(e for e in self._directory.list() if e.name != OWN_DIRECTORY))

    def look(self, now: float) -> Survey:
        """Survey the directory; look again where a state file names what the listing has missed."""
        entries = self.entries()
        for _ in range(_LOOKS):
            survey = self._look_at(entries)
            if all(s.current is None or s.current in survey.checkpoints for s in survey.statements):
                return survey
            # The trainer may have finished the checkpoint and named it while we were listing.
            again = self.entries()
            if again == entries:
                return self._judge_missing(survey, now)
            entries = again
        return self._judge_missing(survey, now)

    def _look_at(self, entries: tuple[Entry, ...]) -> Survey:
        self._inspector.doubts.clear()
        problems: list[Problem] = []
        statements: list[Statement] = []
        main = next((entry for entry in entries if entry.name == STATE_FILE), None)
        if main is not None:
            self._state(main, entries, statements, problems)
        shards = {
            name: v1_shards_of_path(path)
            for s in statements
            for path, name in s.names.items()
            if name is not None
        }
        inventory = take_inventory(entries, self._inspector, named=shards, v1_shards=shards)
        ledger, lost = self._ledger(problems)
        if ledger is not None:
            inventory = inventory.with_damaged(ledger.damages(inventory.checkpoints))
        for entry in inventory.state_files:
            if entry.name != STATE_FILE:
                self._state(entry, entries, statements, problems)
        problems += [Problem(text, holds=True) for text in dict.fromkeys(self._inspector.doubts)]
        self._inspector.forget_all_but(entries)
        for gone in self._states.keys() - set(inventory.state_files):
            del self._states[gone]
        return Survey(
            path=self._directory.path,
            entries=entries,
            inventory=inventory,
            checkpoints=inventory.by_name(),
            statements=tuple(statements),
            ledger=ledger,
            lost=lost,
            pins=self._own.pins(),
            held=self._held(problems),
            problems=tuple(problems),
        )

    def _state(
        self,
        entry: Entry,
        entries: tuple[Entry, ...],
        statements: list[Statement],
        problems: list[Problem],
    ) -> None:
        where = f"the state file {printable(entry.name)}"
        if entry.kind is not Kind.FILE:
            problems.append(
                Problem(f"{where} is a {entry.kind.value}; nothing is removed", holds=True)
            )
            return
        state = self._states.get(entry)
        if state is None:
            try:
                state = parse_state_file(
                    self._directory.read(entry.name, limit=MAX_STATE_FILE_SIZE)
                )
            except CorruptStateFileError as error:
                state = error
            except NotFoundError:
                return  # gone since it was listed
            except StorageError as error:
                problems.append(Problem(f"{error}; nothing is removed", holds=True))
                return
            found = self._directory.entry(entry.name)
            if found == entry:  # what was read is what was listed
                self._states[entry] = state
        if isinstance(state, CorruptStateFileError):
            text = (
                f"{where} does not parse: {state}; nothing is removed. "
                f"`ckptd sweep --rebuild-state` writes it anew from what is complete"
            )
            problems.append(Problem(text, holds=True))
            return
        try:
            statement = read_statement(
                entry, state, self._directory.path, self._directory.leads_here, entries
            )
        except StorageError as error:
            text = f"where {where} leads is not known: {error}; nothing is removed"
            problems.append(Problem(text, holds=True))
            return
        statements.append(statement)

    def _judge_missing(self, survey: Survey, now: float) -> Survey:
        problems = list(survey.problems)
        for statement in survey.statements:
            name = statement.current
            if name is None or name in survey.checkpoints:
                continue
            partial = survey.partial(name)
            if partial is not None and is_in_the_making(partial, now):
                text = (
                    f"{printable(name)}, which the state file names, is not complete: "
                    f"{partial.reason}; it may still be being written (the last write was less "
                    f"than {STILL_WRITTEN:g} s ago): nothing is removed"
                )
                problems.append(Problem(text, holds=True))
            else:
                why = partial.reason if partial is not None else "it is not there"
                text = f"the state file names {printable(name)}, which cannot be restored: {why}"
                problems.append(Problem(text))
        return replace(survey, problems=tuple(problems))

    def _ledger(self, problems: list[Problem]) -> tuple[Ledger | None, bool]:
        try:
            ledger = self._own.read_ledger()
            return self._less_unread_before(ledger), False
        except CorruptRecordError as error:
            text = f"{OWN_DIRECTORY}/{LEDGER}: {error}; it is set aside, and what may be preserved stays"
            problems.append(Problem(text))
            return None, True
        except StorageError as error:
            problems.append(Problem(str(error), holds=True))
            return None, False

    def _less_unread_before(self, ledger: Ledger | None) -> Ledger | None:
        """Leave out what could not be read before this keeper began: it is tried once more."""
        if self._begun and (ledger is None or UNREAD not in ledger.digests.values()):
            return ledger
        root = self._own.existing_root()
        entry = None if root is None else root.entry(LEDGER)
        if not self._begun:
            self._begun, self._first_ledger = True, entry and entry.identity
        if ledger is None or entry is None or entry.identity != self._first_ledger:
            return ledger
        return ledger.less_unread()

    def _held(self, problems: list[Problem]) -> Held | None:
        try:
            return self._own.held()
        except (CorruptRecordError, StorageError) as error:
            problems.append(Problem(str(error)))
            return None


def is_in_the_making(partial: Partial, now: float) -> bool:
    """Say whether a partial checkpoint has been written to a moment ago."""
    # Of a damaged one every byte had been there when it was verified.
    return partial.damaged is None and is_fresh(partial.files, now)


def is_fresh(files: Iterable[Entry], now: float) -> bool:
    """Say whether one of `files` has been written to a moment ago.

    A file that is written again so soon may have the same mark as before.
    """
    latest = max((entry.mtime for entry in files), default=0.0)
    return abs(now - latest) < STILL_WRITTEN
