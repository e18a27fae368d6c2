"""How values stand together: keys, mappings of keys, and lists; all described as plain data.

`ckptd.config.load` reads a document by these descriptions, `ckptd.config.schema` turns them into a
JSON Schema, and the command line makes options of them: none of the three knows a key by name.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

from ckptd.config.scalars import NO_WORDS, OFF, Name, Scalar, shown


class Shape(Protocol):
    """What every value can do, be it written as a scalar, a list or a mapping."""

    @property
    def expected(self) -> str:
        """What would be right, after "must be"."""

    @property
    def form(self) -> str:
        """What may be written, for a line of usage."""

    def parse(self, text: str) -> Any:
        """Return the value that `text` stands for, or raise ValueError."""

    def to_json(self, value: Any) -> Any:
        """Return `value` as it is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key: its name, what it may hold, what holds without it, and what it means.

    `also_known_as` are the names that other programs have for it: they are suggested from, never
    accepted.
    """

    name: str
    shape: Shape
    default: Any
    description: str
    example: str
    required: bool = False
    also_known_as: tuple[str, ...] = ()

    @property
    def form(self) -> str:
        """What may be written, for a line of usage: ``N|unlimited|off``."""
        return self.shape.form

    @property
    def has_default(self) -> bool:
        """Whether what holds without this key can be written; a path without default cannot."""
        if self.default is not None:
            return True
        return isinstance(self.shape, Scalar) and None in self.shape.words.values()

    def parse(self, text: str) -> Any:
        """Return the value that `text` stands for; raise ValueError that says what would be right.

        `text` is a command line's, or that of a scalar in YAML.
        """
        return self.shape.parse(text)

    def format(self, value: Any) -> str:
        """Return `value` as it is written in YAML, on one line."""
        return _flow(self.shape.to_json(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class SetOf:
    """Values of one kind, in any order, none twice; `off` for none. With commas on a command line."""

    item: Scalar
    example: str

    @property
    def expected(self) -> str:
        """What would be right, after "must be"."""
        return f"a list such as {self.example}, or `{OFF}`"

    @property
    def form(self) -> str:
        """What may be written, for a line of usage."""
        return f"{self.item.form},...|{OFF}"

    def parse(self, text: str) -> tuple[Any, ...]:
        """Return the values in `text`, in ascending order, or raise ValueError."""
        if text == OFF:
            return ()
        values = [self.item.parse(part.strip()) for part in text.split(",")]
        return self.gather(values)

    def gather(self, values: Iterable[Any]) -> tuple[Any, ...]:
        """Return `values` in ascending order; raise ValueError where one stands twice."""
        ordered = sorted(values)
        for value, following in pairwise(ordered):
            if value == following:
                raise ValueError(f"names {value} twice")
        return tuple(ordered)

    def to_json(self, value: tuple[Any, ...]) -> Any:
        """Return `value` as it is written."""
        return [self.item.to_json(item) for item in value] if value else OFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A mapping of known keys.

    `build` makes a value of what was read (key -> value), `take_apart` undoes it; without them the
    reader hands on what it read. `short` is the same value as one scalar. `planned` are keys of a
    later version, and `elsewhere` those of other places, each with what to say of it.
    """

    keys: Mapping[str, Key]
    example: str
    short: Scalar | None = None
    build: Callable[[Mapping[str, Any]], Any] | None = None
    take_apart: Callable[[Any], Mapping[str, Any]] = dict
    planned: Mapping[str, str] = field(default_factory=lambda: NO_WORDS)
    elsewhere: Mapping[str, str] = field(default_factory=lambda: NO_WORDS)

    @property
    def expected(self) -> str:
        """What would be right, after "must be"."""
        mapping = f"keys with values, such as {self.example}"
        return f"{self.short.expected}, or {mapping}" if self.short else mapping

    @property
    def form(self) -> str:
        """What may be written, for a line of usage."""
        return self.short.form if self.short else "{KEY: VALUE, ...}"

    def parse(self, text: str) -> Any:
        """Return the value that the short form `text` stands for, or raise ValueError."""
        if self.short is None:
            raise ValueError(f"must be {self.expected}; found {shown(text)}")
        return self.short.parse(text)

    def to_json(self, value: Any) -> Any:
        """Return `value` as it is written, in full."""
        if self.short is not None and value in self.short.words.values():
            return self.short.to_json(value)
        parts = self.take_apart(value)
        return {name: self.keys[name].shape.to_json(parts[name]) for name in parts}


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSections:
    """A mapping of names that people choose, each to a section."""

    name: Name
    section: Section
    example: str

    @property
    def expected(self) -> str:
        """What would be right, after "must be"."""
        return f"names with keys below them, such as {self.example}"

    @property
    def form(self) -> str:
        """What may be written, for a line of usage."""
        return f"{{{self.name.form}: {self.section.form}, ...}}"

    def parse(self, text: str) -> Any:
        """Raise ValueError: one scalar never is a mapping."""
        raise ValueError(f"must be {self.expected}; found {shown(text)}")

    def to_json(self, value: Mapping[str, Any]) -> Any:
        """Return `value` as it is written."""
        return {name: self.section.to_json(item) for name, item in value.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """A list of sections."""

    section: Section
    example: str

    @property
    def expected(self) -> str:
        """What would be right, after "must be"."""
        return f"a list of entries, such as {self.example}"

    @property
    def form(self) -> str:
        """What may be written, for a line of usage."""
        return f"[{self.section.form}, ...]"

    def parse(self, text: str) -> Any:
        """Raise ValueError: one scalar never is a list of sections."""
        raise ValueError(f"must be {self.expected}; found {shown(text)}")

    def to_json(self, value: Iterable[Any]) -> Any:
        """Return `value` as it is written."""
        return [self.section.to_json(item) for item in value]


def _flow(value: Any) -> str:
    """Write plain data as YAML on one line; every scalar here is one that needs no quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_flow(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return str(value)
