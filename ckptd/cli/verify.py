"""`ckptd verify`: look at every byte of checkpoints, and tell the exact damage."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from ckptd.checkpoints.inventory import Checkpoint, Inventory, Partial, take_inventory
from ckptd.checkpoints.layouts.tensorflow import parse_file_name, parse_v1_name
from ckptd.checkpoints.listing import Kind
from ckptd.cli.amounts import count_text, size_text
from ckptd.cli.arguments import FilePath, opened
from ckptd.cli.daemon_talk import nudge, socket_option
from ckptd.cli.screen import Screen
from ckptd.cli.sections import Column, Section
from ckptd.cli.verb import DONE, FAILED, IN_PART, all_option, in_turn, verb
from ckptd.errors import CkptdError, NoSuchCheckpointError, printable
from ckptd.keeper.inspector import DirectoryInspector
from ckptd.keeper.keeper import Keeper
from ckptd.keeper.plan import DirectoryPlan
from ckptd.keeper.survey import STILL_WRITTEN, is_fresh, is_in_the_making
from ckptd.keeper.verification import Damage, ReadThrough, Verification, verify_checkpoint
from ckptd.storage.passing import read_through
from ckptd.storage.reading import ReaderDirectory, look_at

VERIFY_SCHEMA: Final = "ckptd.verify/1"

_SAVED_MODEL: Final = ("saved_model.pb", "saved_model.pbtxt")
_VARIABLES: Final = "variables"

_WHOLE: Final = (
    Column("name", folds=True),
    Column("format"),
    Column("tensors", right=True),
    Column("size", right=True),
    Column("speed", right=True),
)
_DAMAGED: Final = (Column("what is wrong", folds=True),)
_PARTIAL: Final = (Column("name", folds=True), Column("what is wrong", folds=True))


@dataclass(slots=True)
class _Found:
    """One checkpoint, what came of verifying it, and how long that took."""

    checkpoint: Checkpoint
    verification: Verification
    seconds: float

    @property
    def damages(self) -> list[Damage]:
        """What is wrong with its tensors, and with its meta graph."""
        graph = self.verification.graph_damage
        return [*self.verification.damages, *([graph] if graph is not None else [])]


@dataclass(slots=True)
class _Target:
    """What is to be verified in one directory."""

    path: str
    checkpoints: Sequence[Checkpoint]
    partials: Sequence[Partial]
    read_through: ReadThrough
    found: list[_Found] = field(default_factory=list)
    too_young: set[str] = field(default_factory=set)
    """The names of those that were written to a moment ago: damage of theirs is not written down."""

    @property
    def is_whole(self) -> bool:
        """Whether everything in it can be restored; what is being written is nobody's damage yet."""
        now = time.time()
        return not any(found.damages for found in self.found) and all(
            is_in_the_making(partial, now) for partial in self.partials
        )


@verb("verify", statuses=(IN_PART, 12, 13))
@click.argument("paths", metavar="PREFIX|DIR...", nargs=-1, required=True, type=FilePath())
@socket_option
@all_option
def verify(screen: Screen, *, paths: tuple[str, ...], socket: str | None) -> int:
    """Look at every byte, and tell the exact damage.

    PREFIX is one checkpoint, DIR all of a model directory, or a SavedModel's variables. Every checksum of index,
    shards and tensors is worked out. What is found damaged is written down, and counts as not complete from then
    on: it takes no whole one's place, and no state file names it.
    """
    targets: list[_Target] = []

    def work(path: str) -> int:
        with _target(path) as (target, keeper):
            targets.append(target)
            _verify(screen, target)
            if keeper is not None:
                _record(screen, keeper, target, socket)
            if not screen.as_json:
                if len(targets) > 1 and screen.draws_tables:
                    screen.line()
                _show(screen, target)
            return DONE

    status = in_turn(screen, paths, work)
    if screen.as_json:
        screen.document(
            {"schema": VERIFY_SCHEMA, "model_dirs": [_entry(target) for target in targets]}
        )
    return status if all(target.is_whole for target in targets) else FAILED


@contextmanager
def _target(path: str) -> Iterator[tuple[_Target, Keeper | None]]:
    """Find out what `path` means, and hold it open."""
    given = Path(path)
    there = look_at(path)
    if there is not None and there.kind is Kind.DIRECTORY:
        if any(look_at(str(given / name)) is not None for name in _SAVED_MODEL):
            with _prefix(str(given / _VARIABLES), _VARIABLES) as (target, _):
                yield target, None  # nothing in there is rotated: no mark is of use
            return
        with opened(path) as keeper:
            plan = keeper.plan()
            yield _everything(plan, keeper), keeper
        return
    name = given.name
    if there is not None and there.kind is Kind.FILE:  # one of its files
        name = (parse_file_name(name) or parse_v1_name(name)).prefix
    with _prefix(os.path.dirname(path) or ".", name) as found:  # noqa: PTH120 - `a/` stays `a/`
        yield found


def _everything(plan: DirectoryPlan, keeper: Keeper) -> _Target:
    inventory = plan.survey.inventory
    checkpoints = [verdict.checkpoint for verdict in plan.verdicts]
    checkpoints += [p.damaged for p in inventory.partials if p.damaged is not None]
    partials = [partial for partial in inventory.partials if partial.damaged is None]
    if not checkpoints and not partials:
        raise NoSuchCheckpointError(f"there is no checkpoint in {printable(plan.path)}")
    return _Target(plan.path, checkpoints, partials, keeper.directory.read_through)


@contextmanager
def _prefix(directory: str, name: str) -> Iterator[tuple[_Target, Keeper | None]]:
    """Find one checkpoint; where its files are links, as a reader does."""
    with opened(directory) as keeper:
        plan = keeper.plan()
        inventory = plan.survey.inventory
        target = _one(inventory, name, plan.path, keeper.directory.read_through)
        if target is not None:
            yield target, keeper
            return
    reader = ReaderDirectory(directory)
    entries = [entry for entry in reader.list(start=name) if entry.kind is Kind.FILE]
    linked = take_inventory(entries, DirectoryInspector(reader), named=[name])
    target = _one(linked, name, reader.path, lambda file: read_through(reader.path_of(file)))
    if target is None:
        there = [*plan.survey.checkpoints, *(p.name for p in plan.survey.inventory.partials)]
        has = ", ".join(printable(each) for each in there[-8:]) or "none"
        raise NoSuchCheckpointError(
            f"{printable(plan.path)} has no checkpoint {printable(name)}; it has {has}"
        )
    yield target, None


def _one(inventory: Inventory, name: str, path: str, reading: ReadThrough) -> _Target | None:
    checkpoints = [each for each in inventory.checkpoints if each.name == name]
    partials = [each for each in inventory.partials if each.name == name]
    checkpoints += [each.damaged for each in partials if each.damaged is not None]
    partials = [each for each in partials if each.damaged is None]
    if not checkpoints and not partials:
        return None
    return _Target(path, checkpoints, partials, reading)


def _verify(screen: Screen, target: _Target) -> None:
    checkpoints = sorted(target.checkpoints, key=lambda each: each.index.mtime, reverse=True)
    total = sum(entry.size for each in checkpoints for entry in each.tensor_files)
    with screen.progress(f"reading {target.path}", total) as advance:
        for checkpoint in checkpoints:
            start = time.monotonic()
            verification = verify_checkpoint(
                checkpoint, target.read_through, progress=advance, meta_graph=True
            )
            found = _Found(checkpoint, verification, time.monotonic() - start)
            target.found.append(found)


def _record(screen: Screen, keeper: Keeper, target: _Target, socket: str | None) -> None:
    """Write down what was found, and have the daemon look if that changes anything."""
    now = time.time()
    target.too_young = {
        each.checkpoint.name for each in target.found if is_fresh(each.checkpoint.tensor_files, now)
    }
    try:
        lines = keeper.record_verified(
            [
                (found.checkpoint, found.verification)
                for found in target.found
                if found.checkpoint.name not in target.too_young
            ]
        )
    except CkptdError as error:
        if not target.is_whole:
            screen.warn(f"what was found is not written down: {error}")
        return
    if lines:
        nudge(screen, keeper, socket)


def _show(screen: Screen, target: _Target) -> None:
    whole = [found for found in target.found if not found.damages]
    damaged = [found for found in target.found if found.damages]
    graphs = sum(not found.verification.damages for found in damaged)
    notes = [f"{count_text(len(whole), 'checkpoint')} whole"]
    notes += [f"{len(damaged) - graphs:,} damaged"] if len(damaged) > graphs else []
    notes += [f"{graphs:,} with a damaged meta graph"] if graphs else []
    notes += [f"{len(target.partials):,} partial"] if target.partials else []
    screen.heading(target.path, ", ".join(notes))
    screen.sections(_sections(target, whole, damaged))
    for found in damaged:
        name = printable(f"{target.path}/{found.checkpoint.name}")
        if found.verification.in_doubt:
            screen.warn(f"{name} could not be read in full: nobody knows yet whether it is damaged")
        elif not found.verification.damages:
            screen.warn(
                f"of {name} only the meta graph is damaged: every tensor is good, and it still "
                "counts as complete"
            )
        elif found.checkpoint.name in target.too_young:
            screen.warn(
                f"{name} was written to less than {STILL_WRITTEN:g} s ago, and may be being saved "
                "again: that it is damaged is not written down; verify it once more in a moment"
            )
        else:
            screen.warn(
                f"{name} is damaged: `ckptd export --skip-damaged` saves the tensors that are whole; "
                f"`ckptd sweep` points a state file that names it at the newest whole one"
            )


def _sections(
    target: _Target, whole: Iterable[_Found], damaged: Iterable[_Found]
) -> Iterator[Section]:
    yield Section(
        title="WHOLE",
        word="whole",
        colour="green",
        columns=_WHOLE,
        rows=[
            (
                found.checkpoint.name,
                found.checkpoint.format.value,
                f"{found.verification.tensors:,}",
                size_text(found.verification.bytes),
                f"{size_text(int(found.verification.bytes / max(found.seconds, 1e-6)))}/s",
            )
            for found in whole
        ],
    )
    yield Section(
        title="DAMAGED",
        word="damaged",
        colour="red",
        columns=_DAMAGED,
        rows=[(str(damage),) for found in damaged for damage in found.damages],
    )
    yield Section(
        title="PARTIAL",
        word="partial",
        note="not complete: nothing to verify",
        colour="yellow",
        columns=_PARTIAL,
        rows=[(partial.name, partial.reason) for partial in target.partials],
    )


def _entry(target: _Target) -> dict[str, Any]:
    return {
        "path": target.path,
        "checkpoints": [_checkpoint_entry(found) for found in target.found],
        "partial": [
            {"name": partial.name, "reason": partial.reason} for partial in target.partials
        ],
    }


def _checkpoint_entry(found: _Found) -> dict[str, Any]:
    checkpoint = found.checkpoint
    return {
        "name": checkpoint.name,
        "global_step": checkpoint.global_step,
        "format": checkpoint.format.value,
        "whole": not found.damages,
        "tensors": found.verification.tensors,
        "bytes": found.verification.bytes,
        "seconds": round(found.seconds, 6),
        "damages": [
            {
                "file": damage.file,
                "tensor": damage.tensor,
                "offset": damage.offset,
                "problem": damage.problem,
                "expected": damage.expected or None,
                "found": damage.found or None,
                "in_doubt": damage.in_doubt,
            }
            for damage in found.damages
        ],
    }
