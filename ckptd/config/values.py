"""The configuration as values: frozen, complete, with the defaults that hold for keys left out.

Policy keys and their defaults are fields of `ckptd.retention.policy.Policy`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal

from ckptd.retention.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What is logged, and in which form: `auto` is text on a terminal and JSON elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDirs:
    """One entry of `model_dirs`: the directories that a path names, and the policy they share.

    `path` is absolute and plain; the names in it may hold `*`, `?` and `[...]`. `origins` says for
    every policy key where its value comes from, for people: ``ckptd.yaml:14 (policy vision)`` or
    ``built-in``. Two entries that differ in it alone are equal: a line moved, nothing more.
    """

    path: str
    policy_name: str | None = None
    policy: Policy = field(default_factory=Policy)
    origins: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False)

    def matches(self, directory: str) -> bool:
        """Say whether `directory`, absolute and plain, is one that `path` names; no disk is asked.

        As in a shell, `*` and `?` stand for no slash, and for no dot at the start of a name.

        >>> entry = ModelDirs(path="/srv/models/*")
        >>> [entry.matches(f"/srv/models/{name}") for name in ("resnet", ".trash", "a/b")]
        [True, False, False]
        """
        patterns, names = self.path.split("/"), directory.split("/")
        return len(patterns) == len(names) and all(map(_matches, patterns, names))

    @property
    def is_glob(self) -> bool:
        """Whether `path` may name more than one directory."""
        return _is_glob(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All that a configuration says.

    `socket` is None for the default one, `rescan_interval` is in seconds. A directory that several
    entries of `model_dirs` match belongs to the first of them.
    """

    version: int
    socket: str | None = None
    rescan_interval: float = 60.0
    log: LogSettings = field(default_factory=LogSettings)
    model_dirs: tuple[ModelDirs, ...] = ()

    def entry_for(self, directory: str) -> ModelDirs | None:
        """Return the entry that `directory`, absolute and plain, belongs to."""
        return next((entry for entry in self.model_dirs if entry.matches(directory)), None)


def _is_glob(text: str) -> bool:
    return any(character in text for character in "*?[")


def _matches(pattern: str, name: str) -> bool:
    if not _is_glob(pattern):
        return pattern == name
    if name.startswith(".") and not pattern.startswith("."):
        return False
    return fnmatchcase(name, pattern)
