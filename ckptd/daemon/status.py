"""What the daemon tells of itself: the document of `ckptd status`, and one line for systemctl."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ckptd.daemon.roster import Roster
from ckptd.daemon.tending import State
from ckptd.errors import printable

STATUS_SCHEMA: Final = "ckptd.status/1"

_MOST_NAMED: Final = 3


def status_document(
    daemon: Mapping[str, Any], roster: Roster, problems: Sequence[str]
) -> dict[str, Any]:
    """Return the document of `ckptd status --json`. Times are seconds since the epoch."""
    entries = [tended.status_entry() for tended in roster]
    entries += [
        {
            "path": path,
            "policy": entry.policy_name,
            "state": State.GONE.value,
            "last_sweep": None,
            "problems": ["there is no such directory"],
        }
        for path, entry in roster.missing
    ]
    return {
        "schema": STATUS_SCHEMA,
        "daemon": dict(daemon),
        "model_dirs": sorted(entries, key=lambda entry: str(entry["path"])),
        "problems": list(problems),
    }


def summary(roster: Roster, problems: Sequence[str], *, watching: str) -> str:
    """Return a line for `systemctl status`."""
    parts = [
        _count(len(roster), "model directory", "model directories"),
        _count(sum(tended.checkpoints for tended in roster), "checkpoint", "checkpoints"),
        f"watching by {watching}",
    ]
    held = sum(tended.state is State.HELD for tended in roster)
    if held:
        parts.append(f"{held:,} wait for an approval")
    wrong = sum(tended.state is State.ERROR for tended in roster)
    if wrong:
        parts.append(f"{wrong:,} with errors")
    hanging = [printable(tended.path) for tended in roster if tended.hangs]
    if hanging:
        more = "" if len(hanging) <= _MOST_NAMED else " and others"
        parts.append(f"no answer from {', '.join(hanging[:_MOST_NAMED])}{more}")
    parts += problems[:_MOST_NAMED]
    return "; ".join(parts)


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
