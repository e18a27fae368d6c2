"""What a reload has changed, in a few words for the log."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Final

from ckptd.config.values import Config, ModelDirs
from ckptd.errors import printable

_MOST: Final = 50


def changes(old: Config, new: Config) -> list[str]:
    """Return one text for each thing that is different; of a great many, the first.

    >>> changes(Config(version=1), Config(version=1, rescan_interval=30.0))
    ['rescan_interval: 60.0 -> 30.0']
    """
    found = list(_changes(old, new))
    if len(found) <= _MOST:
        return found
    return [*found[:_MOST], f"and {len(found) - _MOST} more"]


def _changes(old: Config, new: Config) -> Iterator[str]:
    yield from _fields("", old, new, ("socket", "rescan_interval"))
    yield from _fields("log.", old.log, new.log, ("level", "format"))
    before = {entry.path: entry for entry in old.model_dirs}
    after = {entry.path: entry for entry in new.model_dirs}
    for path in before.keys() - after.keys():
        yield f"{printable(path)}: left out"
    for path, entry in after.items():
        if path not in before:
            yield f"{printable(path)}: new"
        else:
            yield from _entry(before[path], entry)
    if list(before) != list(after) and before.keys() == after.keys():
        yield "model_dirs: in another order"


def _entry(old: ModelDirs, new: ModelDirs) -> Iterator[str]:
    label = f"{printable(new.path)}: "
    yield from _fields(label, old, new, ("policy_name",))
    yield from _fields(label, old.policy, new.policy, [f.name for f in fields(new.policy)])


def _fields(label: str, old: Any, new: Any, names: "tuple[str, ...] | list[str]") -> Iterator[str]:
    for name in names:
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield f"{label}{name}: {before} -> {after}"
