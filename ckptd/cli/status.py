"""`ckptd status`: all model directories at a glance."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ckptd.cli.amounts import age_text, count_text, size_text
from ckptd.cli.arguments import directories_argument, opened
from ckptd.cli.daemon_talk import daemon_status, socket_option
from ckptd.cli.screen import Screen
from ckptd.cli.sections import Column, Section, problems_section
from ckptd.cli.verb import DONE, IN_PART, all_option, in_turn, verb
from ckptd.errors import NoDaemonError
from ckptd.keeper.report import status_entry

STATUS_SCHEMA: Final = "ckptd.status/1"


@verb("status", statuses=(IN_PART, 10, 12, 13))
@directories_argument
@socket_option
@all_option
def status(screen: Screen, *, directories: tuple[str, ...], socket: str | None) -> int:
    """Show all model directories at a glance.

    They are those that the daemon keeps, or those given. A directory that is given and that no daemon keeps is looked at here and now; without a policy,
    nothing in it is to be removed.
    """
    document = _ask(socket, needed=not directories)
    kept: list[dict[str, Any]] = (document or {}).get("model_dirs", [])
    entries = list(kept)
    result = DONE
    if directories:
        entries = []
        by_path = {os.path.realpath(entry["path"]): entry for entry in kept}

        def look(directory: str) -> int:
            try:
                known = by_path.get(os.path.realpath(directory))
            except ValueError:  # a NUL: opening it says so
                known = None
            entries.append(known if known is not None else _look(directory))
            return DONE

        result = in_turn(screen, directories, look)
    if screen.as_json:
        head = document if document is not None else {"daemon": None}
        screen.document({**head, "schema": STATUS_SCHEMA, "model_dirs": entries})
    else:
        _show(screen, entries, document or {})
    return result


def _ask(socket: str | None, *, needed: bool) -> dict[str, Any] | None:
    try:
        return daemon_status(socket)
    except NoDaemonError as error:
        if needed:
            raise NoDaemonError(f"{error} With DIR, its status is found without one.") from error
        return None


def _look(directory: str) -> dict[str, Any]:
    with opened(directory) as keeper:
        return status_entry(keeper, keeper.plan())


_DIRECTORY: Final = Column("directory", folds=True)


def _show(
    screen: Screen, entries: Sequence[Mapping[str, Any]], document: Mapping[str, Any]
) -> None:
    daemon = _daemon_text(document.get("daemon"))
    if not screen.draws_tables:
        if daemon:
            screen.line(daemon)
        for entry in entries:
            screen.line(f"{entry['path']}: {', '.join(_told(entry))}")
    elif entries:
        cells = [_cells(entry) for entry in entries]
        used = [name for name in cells[0] if any(row[name] for row in cells)]
        columns = (*(Column(name, right=True) for name in used), _DIRECTORY)
        rows = [
            (*(row[name] for name in used), str(entry["path"]))
            for row, entry in zip(cells, entries, strict=True)
        ]
        note = ", ".join(filter(None, [count_text(len(entries), "model directory"), daemon]))
        screen.sections([Section(title="STATUS", word="", note=note, columns=columns, rows=rows)])
    else:
        screen.line(daemon or "no model directory")
    problems = [f"the daemon: {text}" for text in document.get("problems", ())]
    problems += [
        f"{entry['path']}: {text}" for entry in entries for text in entry.get("problems", ())
    ]
    screen.sections([problems_section(problems)])


def _daemon_text(daemon: Mapping[str, Any] | None) -> str:
    return f"daemon with pid {daemon['pid']}" if daemon and "pid" in daemon else ""


def _cells(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns of a table; those that are empty everywhere are left out."""
    state = str(entry.get("state", ""))
    cells = {"state": "" if state == "ok" else state}
    if "checkpoints" not in entry:  # the daemon has not seen it yet, or it is gone
        return cells | dict.fromkeys(_COLUMNS, "")
    newest = _age(entry)
    values = (
        str(entry["checkpoints"]),
        size_text(entry["bytes"]),
        newest,
        _some(entry["to_remove"]),
        _some(entry["held"]),
        _some(entry["damaged"]),
        _some(len(entry["pinned"])),
        _trash(entry),
        _shared(entry),
    )
    return cells | dict(zip(_COLUMNS, values, strict=True))


_COLUMNS: Final = ("count", "size", "newest", "go", "held", "damaged", "pins", "trash", "shared")


def _told(entry: Mapping[str, Any]) -> list[str]:
    told = [str(entry["state"])] if "state" in entry else []
    if "checkpoints" in entry:
        told += [
            count_text(entry["checkpoints"], "checkpoint"),
            size_text(entry["bytes"]),
            f"newest {_age(entry)} ago" if entry["newest"] is not None else "newest -",
            f"{entry['to_remove']:,} to remove",
            f"{entry['held']:,} held",
            f"{entry['damaged']:,} damaged",
            f"{len(entry['pinned']):,} pinned",
            f"trash {_trash(entry) or '0 B'}",
            f"shared meta graphs save {_shared(entry) or '0 B'}",
        ]
    return [*told, count_text(len(entry.get("problems", ())), "problem")]


def _age(entry: Mapping[str, Any]) -> str:
    newest = entry["newest"]
    if newest is None:
        return ""
    saved_at = newest["saved_at"]
    return "?" if saved_at is None else age_text(time.time() - saved_at)


def _some(count: int) -> str:
    return f"{count:,}" if count else ""


def _trash(entry: Mapping[str, Any]) -> str:
    return size_text(sum(each["bytes"] for each in entry["trash"])) if entry["trash"] else ""


def _shared(entry: Mapping[str, Any]) -> str:
    saved = entry["meta_graph_bytes_saved"]
    return size_text(saved) if saved else ""
