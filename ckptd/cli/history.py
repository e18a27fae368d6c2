"""`ckptd history`: what was done in a model directory, and why."""

from collections.abc import Mapping
from typing import Any, Final

from ckptd.cli.amounts import count_text, time_text
from ckptd.cli.arguments import directory_argument, opened
from ckptd.cli.events import EVENT, event_cells
from ckptd.cli.screen import Screen
from ckptd.cli.sections import Column, Section
from ckptd.cli.verb import DONE, all_option, verb

HISTORY_SCHEMA: Final = "ckptd.history/1"

_COLUMNS: Final = (Column("when"), *EVENT)


@verb("history", statuses=(12, 13))
@directory_argument
@all_option
def history(screen: Screen, *, directory: str) -> int:
    """Show what was done in a model directory, and why.

    The latest comes first. With --json, one object on each line, the oldest first.
    """
    with opened(directory) as keeper:
        path = keeper.path
        events = keeper.history()
    if screen.as_json:
        for event in events:
            screen.record({**event, "schema": HISTORY_SCHEMA})
        return DONE
    note = count_text(len(events), "event") if events else "nothing has been done here"
    screen.heading(path, note)
    rows = [_row(event, brief=screen.draws_tables) for event in reversed(events)]
    screen.sections([Section(title="HISTORY", word="event", columns=_COLUMNS, rows=rows)])
    return DONE


def _row(event: Mapping[str, Any], *, brief: bool) -> tuple[str, ...]:
    when = time_text(event.get("at"))
    return (when[:19] if brief else when, *event_cells(event))
