"""The kinds of value that are written as one scalar: how their text reads, and what it may not be.

Every kind reads raw text, from YAML and from a command line alike, and guesses nothing: a count is
digits, a duration is a number and a unit. What YAML 1.1 makes of `1:30`, `0644` or `on` never comes
into it. A refusal is a ValueError that reads on after the key: "must be ...; found ...: hint".
"""

import posixpath
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any, ClassVar, Final

from ckptd.errors import printable

OFF: Final = "off"

LARGEST_COUNT: Final = 2**31 - 1
"""Also the largest `max_to_keep` that TensorFlow can store (an int32)."""

LARGEST_STEP: Final = 2**63 - 1
"""global_step is an int64 in TensorFlow."""

LONGEST: Final = 5200 * 604_800
"""Seconds in 5200 weeks, a hundred years: far beyond it, a kernel's timers overflow."""

LONGEST_SOCKET_PATH: Final = 107
"""Bytes in `sun_path` (unix(7)), less the NUL."""

NO_WORDS: Final[Mapping[str, Any]] = MappingProxyType({})

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NUMBER: Final = r"(0|[1-9][0-9]{0,14})(\.[0-9]{1,30})?"
_DURATION: Final = _NUMBER + "[smhdw]"
_HOURS: Final = _NUMBER + r"([eE][+-]?[0-9]{1,3})?"
_COUNT: Final = r"0|[1-9][0-9]{0,18}"


def shown(text: str) -> str:
    r"""Return `text` as messages quote it: on one line, harmless, and not too long.

    >>> shown("1_000"), shown(""), shown("\x1b[2J" + "a" * 50)
    ('`1_000`', 'nothing', '`\\x1b[2Jaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...`')
    """
    longest = 40
    clipped = f"{text[:longest]}..." if len(text) > longest else text
    return f"`{printable(clipped)}`" if text else "nothing"


def either(choices: Iterable[str]) -> str:
    """Join alternatives.

    >>> either(["a number", "`off`"]), either(["`a`", "`b`", "`c`"])
    ('a number or `off`', '`a`, `b` or `c`')
    """
    *most, last = choices
    return f"{', '.join(most)} or {last}" if most else last


def duration_text(seconds: float) -> str:
    """Return a duration in the largest unit that divides it.

    >>> duration_text(0), duration_text(90), duration_text(3600.0), duration_text(0.5)
    ('0s', '90s', '1h', '0.5s')
    """
    if seconds:
        for unit, length in reversed(_SECONDS.items()):
            if seconds % length == 0:
                return f"{int(seconds // length)}{unit}"
    return f"{Decimal(repr(seconds)).normalize():f}s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar(ABC):
    """A value that is one of `words`, each with its meaning, or what the subclass reads."""

    words: Mapping[str, Any] = field(default_factory=lambda: NO_WORDS)

    quotable: ClassVar[bool] = True
    """Whether quotes around the text change nothing; in YAML they make a number a string."""

    @property
    @abstractmethod
    def what(self) -> str:
        """What may be written besides the words; empty for nothing."""

    @property
    @abstractmethod
    def symbol(self) -> str:
        """The same in short, such as ``N``."""

    @property
    def expected(self) -> str:
        """What would be right, after "must be"."""
        words = either(f"`{word}`" for word in self.words) if self.words else ""
        return f"{self.what}, or {words}" if self.what and words else self.what or words

    @property
    def form(self) -> str:
        """What may be written, for a line of usage: ``N|unlimited|off``."""
        return "|".join([self.symbol, *self.words] if self.symbol else self.words)

    def parse(self, text: str) -> Any:
        """Return the value that `text` stands for, or raise ValueError."""
        return self.words[text] if text in self.words else self._parse(text)

    def to_json(self, value: Any) -> Any:
        """Return `value` as it is written; the other direction of `parse`."""
        for word, meaning in self.words.items():
            if meaning == value:
                return word
        return self._to_json(value)

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of what may be written."""
        words: dict[str, Any] = {"enum": list(self.words)}
        if not self.what:
            return words
        return {"anyOf": [self._schema(), words]} if self.words else self._schema()

    def unfit(self, text: str, hint: str = "") -> ValueError:
        """Return the refusal of `text`, with what is known of the mistake."""
        refusal = f"must be {self.expected}; found {shown(text)}"
        return ValueError(f"{refusal}: {hint}" if hint else refusal)

    @abstractmethod
    def _parse(self, text: str) -> Any: ...

    def _to_json(self, value: Any) -> Any:
        return value

    @abstractmethod
    def _schema(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Scalar):
    """One of a few words."""

    @property
    def what(self) -> str:
        """Nothing but the words."""
        return ""

    @property
    def symbol(self) -> str:
        """Nothing but the words."""
        return ""

    def _parse(self, text: str) -> Any:
        hint = f"in small letters: {text.lower()}" if text.lower() in self.words else ""
        raise self.unfit(text, hint)

    def _schema(self) -> dict[str, Any]:
        return {"enum": list(self.words)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exactly(Scalar):
    """One number and no other."""

    value: int

    quotable: ClassVar[bool] = False

    @property
    def what(self) -> str:
        """The number."""
        return str(self.value)

    @property
    def symbol(self) -> str:
        """The number."""
        return str(self.value)

    def _parse(self, text: str) -> int:
        if text != str(self.value):
            raise self.unfit(text)
        return self.value

    def _schema(self) -> dict[str, Any]:
        return {"const": self.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Count(Scalar):
    """A whole number in decimal digits, from `minimum` to `maximum`.

    `zero` and `negative` are hints for those who write such numbers; `ranges` says that `3-20` is
    planned.
    """

    minimum: int = 1
    maximum: int = LARGEST_COUNT
    zero: str = ""
    negative: str = ""
    ranges: bool = False

    quotable: ClassVar[bool] = False

    @property
    def what(self) -> str:
        """The lowest number, in words."""
        return f"a whole number of at least {self.minimum}"

    @property
    def symbol(self) -> str:
        """Any number."""
        return "N"

    def _parse(self, text: str) -> int:
        if not re.fullmatch(_COUNT, text):
            raise self.unfit(text, self._hint(text))
        value = int(text)
        if value < self.minimum:
            raise self.unfit(text, self.zero)
        if value > self.maximum:
            raise self.unfit(text, self._largest)
        return value

    @property
    def _largest(self) -> str:
        return f"the largest is {self.maximum}"

    def _hint(self, text: str) -> str:
        if re.fullmatch(r"-[0-9]+", text):
            return self.negative
        if self.ranges and re.fullmatch(r"[0-9]+ *- *[0-9]+", text):
            return (
                "a range is not supported yet, it matters only with max_bytes and min_free; "
                "write one number"
            )
        if re.fullmatch(r"[0-9]{1,3}([_,][0-9]{3})+", text):
            return f"digits only: {re.sub('[_,]', '', text)}"
        if re.fullmatch(r"[1-9][0-9]+", text):
            return self._largest
        if re.fullmatch(r"0[0-9]+", text):
            return "without a 0 in front, which some programs take for octal"
        return ""

    def _schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours(Scalar):
    """A positive number of hours, as TensorFlow takes them: `2`, `0.5`, `1e-3`. No unit."""

    zero: str = ""

    quotable: ClassVar[bool] = False

    @property
    def what(self) -> str:
        """A number, with examples."""
        return "a number of hours above 0, such as 2 or 0.5"

    @property
    def symbol(self) -> str:
        """Any number."""
        return "HOURS"

    def _parse(self, text: str) -> float:
        if not re.fullmatch(_HOURS, text):
            hint = ""
            if re.fullmatch(_DURATION, text):
                hint = f"hours are written without a unit: {_seconds(text) / 3600:g}"
            raise self.unfit(text, hint)
        value = float(text)
        if value == 0:
            raise self.unfit(text, self.zero)
        if value * 3600 > LONGEST:
            raise self.unfit(text, f"the largest is {LONGEST // 3600}, a hundred years")
        return value

    def _to_json(self, value: float) -> float:
        return int(value) if value.is_integer() else value

    def _schema(self) -> dict[str, Any]:
        return {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST // 3600}


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration(Scalar):
    """A length of time, in seconds; written with a unit: `90s`, `15m`, `6h`, `7d`, `4w`, `1.5h`.

    `minimum` is in seconds; with `above_zero` everything but 0 will do, and `zero` is the hint.
    """

    minimum: float = 0.0
    above_zero: bool = False
    zero: str = ""

    @property
    def what(self) -> str:
        """A number and a unit, with examples."""
        least = " above 0" if self.above_zero else ""
        if self.minimum:
            least = f" of at least {duration_text(self.minimum)}"
        return f"a duration{least} such as 90s, 15m, 6h, 7d or 4w"

    @property
    def symbol(self) -> str:
        """Any duration."""
        return "DURATION"

    def _parse(self, text: str) -> float:
        if not re.fullmatch(_DURATION, text):
            raise self.unfit(text, _duration_hint(text))
        value = _seconds(text)
        if value > LONGEST:
            raise self.unfit(text, f"the largest is {duration_text(LONGEST)}, a hundred years")
        if value < self.minimum or (self.above_zero and not value):
            raise self.unfit(text, "" if value else self.zero)
        return value

    def _to_json(self, value: float) -> str:
        return duration_text(value)

    def _schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{_DURATION}$"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Name(Scalar):
    """A name that people choose."""

    pattern: ClassVar[str] = "[A-Za-z][A-Za-z0-9._-]{0,63}"

    @property
    def what(self) -> str:
        """The characters of a name."""
        return "a name: a letter, then at most 63 letters, digits, dots, dashes or underscores"

    @property
    def symbol(self) -> str:
        """Any name."""
        return "NAME"

    def _parse(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise self.unfit(text)
        return text

    def _schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{self.pattern}$"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsolutePath(Scalar):
    """A path from the root, in its plainest spelling: no `//`, no `/./`, no slash at the end.

    `glob` lets the names in it hold `*`, `?` and `[...]`; `longest` is in bytes.
    """

    example: str
    glob: bool = False
    longest: int | None = None

    @property
    def what(self) -> str:
        """A path, with an example."""
        return f"an absolute path such as {self.example}"

    @property
    def symbol(self) -> str:
        """Any path."""
        return "PATH"

    def _parse(self, text: str) -> str:
        hint = self._objection(text)
        if hint or not text.startswith("/"):
            raise self.unfit(text, hint)
        path = "/" + posixpath.normpath(text).lstrip("/")
        if path == "/":
            raise self.unfit(text, "the root of the file system cannot be meant")
        if self.longest is not None and len(path.encode()) > self.longest:
            raise self.unfit(text, f"the system allows {self.longest} bytes")
        return path

    def _objection(self, text: str) -> str:
        if text.startswith("~"):
            return "`~` is not expanded: write the home directory in full"
        if text.startswith("$"):
            return "variables are not expanded: write the path in full"
        if not text.isprintable():
            return "it holds a character that cannot be printed"
        if ".." in text.split("/"):
            return "without `..`: write the path that is meant"
        if self.glob and "**" in text:
            return "`**` is not supported: `*` stands for one name, so write one for each level"
        return ""

    def _schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^/"}


def _seconds(text: str) -> float:
    return float(Decimal(text[:-1]) * _SECONDS[text[-1]])


def _duration_hint(text: str) -> str:
    if re.fullmatch(_NUMBER, text):
        return f"a unit is missing, such as in {text}s or {text}m"
    if re.fullmatch(_NUMBER + " *[A-Za-z]+", text):
        return "the units are s, m, h, d and w, in small letters and without a space"
    if re.fullmatch(r"([0-9]+ *[smhdw] *){2,}", text):
        return "one number and one unit, such as 90m for an hour and a half"
    return ""
