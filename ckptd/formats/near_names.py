"""Which of many names was perhaps meant, told quickly whatever the names are."""

import difflib
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from ckptd.errors import printable

_NEAR: Final = 3
_COMPARED: Final = 300
"""Names of each choice that are compared letter by letter, which takes some microseconds or more."""
_LONGEST: Final = 100


def hint(name: str, names: Iterable[str]) -> str:
    """Return the end of a message about a name that is none of `names`.

    >>> hint("add_1", ["op/add_1", "add", "mul"])
    "; did you mean 'op/add_1' or 'add'?"
    >>> hint("add", ["x"])
    ''
    """
    return hint_of(near_names(name, names))


def hint_of(near: Iterable[str]) -> str:
    """Return the end of a message that proposes these names, the best first."""
    said = " or ".join(repr(printable(each)) for each in near)
    return f"; did you mean {said}?" if said else ""


def near_names(name: str, names: Iterable[str]) -> list[str]:
    """Return up to three of `names` that come near `name`, the best first.

    Those that end as it does after a ``/`` come first: a scope is what is forgotten most often.
    """
    every = list(names)
    scoped = islice((each for each in every if each.endswith(f"/{name}")), _NEAR)
    alike = difflib.get_close_matches(
        name[:_LONGEST], dict.fromkeys(_candidates(name, every)), n=_NEAR
    )
    return list(dict.fromkeys((*scoped, *alike)))[:_NEAR]


def _candidates(name: str, names: list[str]) -> Iterator[str]:
    """Yield those that begin as it does, those that end as it does, and some of like length."""
    most = len(name) // 2 + 1
    alike = [each for each in names if len(each) <= _LONGEST and abs(len(each) - len(name)) <= most]
    yield from _beside(name, sorted(alike))
    for each in _beside(name[::-1], sorted(each[::-1] for each in alike)):
        yield each[::-1]
    yield from alike[:_COMPARED]


def _beside(name: str, ordered: list[str]) -> list[str]:
    at = bisect_left(ordered, name)
    return ordered[max(0, at - _COMPARED // 2) : at + _COMPARED // 2]
