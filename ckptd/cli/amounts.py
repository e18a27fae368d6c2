"""Sizes, ages and times as people read them; every text is plain ASCII."""

import math
from datetime import datetime
from typing import Any, Final

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_NEXT_UNIT: Final = 1023.5  # what would be rounded to 1024
_THREE_DIGITS: Final = 99.95  # what would be rounded to 100.0
_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_DAY: Final = 86_400.0


def size_text(size: int) -> str:
    """Write a number of bytes in the largest unit that leaves a whole part.

    >>> size_text(0), size_text(1023), size_text(1536), size_text(300 * 2**20), size_text(2**31)
    ('0 B', '1023 B', '1.5 KiB', '300 MiB', '2.0 GiB')
    """
    value, place = float(size), 0
    while value >= _NEXT_UNIT and place < len(_UNITS) - 1:
        value, place = value / 1024, place + 1
    digits = 1 if place and value < _THREE_DIGITS else 0
    return f"{value:.{digits}f} {_UNITS[place]}"


def age_text(seconds: float) -> str:
    """Write how long ago something was, in one unit, rounded down; the future is `-`.

    >>> [age_text(s) for s in (5, 300, 7200, 100 * 3600, -120, math.nan)]
    ['5 s', '5 min', '2 h', '4 d', '-', '?']
    """
    if not math.isfinite(seconds):
        return "?"
    if seconds < 0:
        return "0 s" if seconds > -1 else "-"
    if seconds < 2 * _MINUTE:
        return f"{int(seconds)} s"
    if seconds < 2 * _HOUR:
        return f"{int(seconds // _MINUTE)} min"
    if seconds < 2 * _DAY:
        return f"{int(seconds // _HOUR)} h"
    return f"{int(seconds // _DAY)} d"


def count_text(count: int, what: str) -> str:
    """Write how many of something there are.

    >>> count_text(1, "checkpoint"), count_text(2300, "file"), count_text(0, "directory")
    ('1 checkpoint', '2,300 files', '0 directories')
    """
    if count == 1:
        return f"1 {what}"
    plural = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{count:,} {plural}"


def time_text(at: Any) -> str:
    """Write a time in seconds since the epoch as this host's local time, with its offset from UTC.

    >>> time_text(None), time_text("soon"), time_text(1e300)
    ('?', '?', '?')
    """
    if isinstance(at, bool) or not isinstance(at, int | float):
        return "?"
    try:
        return datetime.fromtimestamp(at).astimezone().isoformat(sep=" ", timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return "?"
