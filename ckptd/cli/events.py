"""Lines of a directory's history, as people read them."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ckptd.cli.amounts import count_text, size_text
from ckptd.cli.sections import Column, Section

EVENT: Final = (
    Column("what"),
    Column("name", folds=True),
    Column("size", right=True),
    Column("more", folds=True),
)


def event_section(title: str, note: str, events: Iterable[Mapping[str, Any]]) -> Section:
    """Return one row for each event, in their order."""
    return Section(
        title=title,
        word=title.lower(),
        note=note,
        columns=EVENT,
        rows=[event_cells(event) for event in events],
    )


def event_cells(event: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return what, which checkpoint, its size and the rest; any field may be missing or odd.

    >>> event_cells({"event": "removed", "name": "m-7", "bytes": 2048, "reasons": ["too old"]})
    ('removed', 'm-7', '2.0 KiB', 'too old')
    >>> event_cells({"event": "pinned", "name": "m-8", "by": "ada", "why": ""})
    ('pinned', 'm-8', '', 'by ada')
    """
    size = event.get("bytes")
    more = []
    if isinstance(event.get("count"), int):
        more.append(count_text(event["count"], "checkpoint"))
    if event.get("by"):
        more.append(f"by {event['by']}")
    if event.get("was"):
        more.append(f"was {event['was']}")
    if event.get("why"):
        more.append(str(event["why"]))
    reasons = event.get("reasons")
    if isinstance(reasons, list):
        more += map(str, reasons)
    more += [f"{name} {value}" for name, value in event.items() if name not in _KNOWN]
    return (
        str(event.get("event", "?")).replace("_", " "),
        str(event.get("name", "")),
        size_text(size) if isinstance(size, int) and size >= 0 else "",
        ", ".join(more),
    )


_KNOWN: Final = frozenset(
    {"at", "event", "name", "global_step", "bytes", "count", "by", "was", "why", "reasons", "id"}
)
