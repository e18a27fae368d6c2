"""The list of all that is wrong with one configuration, while it is being read."""

from typing import NamedTuple

from ckptd.errors import ConfigError, ConfigProblem


class Place(NamedTuple):
    """Where something stands: line and column, counted from 1."""

    line: int
    column: int


class Problems:
    """Collects problems, so that a person hears of all of them at once."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._found: dict[tuple[Place, str, str], ConfigProblem] = {}

    def add(self, place: Place, key: str, message: str) -> None:
        """Note that the value or name at `place` is wrong; the same thing twice counts once."""
        problem = ConfigProblem(self.source, place.line, place.column, key, message)
        self._found.setdefault((place, key, message), problem)

    def __len__(self) -> int:
        return len(self._found)

    def error(self) -> ConfigError:
        """Return the error that carries all of them, in the order of the text."""
        return ConfigError([self._found[what] for what in sorted(self._found)])
