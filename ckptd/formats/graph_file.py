"""Files that hold a graph: which of them one is, told by its bytes, and how each is read.

    .meta, exported text             MetaGraphDef
    saved_model.pb, .pbtxt           SavedModel
    a frozen graph, graph.pbtxt      GraphDef

None has a magic number. In the binary form the first fields tell them apart: a SavedModel begins
with a number, a `GraphDef` with operations, a `MetaGraphDef` with what is said about it. In the text
form the name of the first field tells.
"""

import enum
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, Final, NamedTuple

from ckptd.errors import CorruptGraphError, printable
from ckptd.formats import messages
from ckptd.formats.graph import Graph
from ckptd.formats.message_text import parse_text
from ckptd.formats.messages import PARSE_ERRORS


class GraphKind(enum.Enum):
    """The three files; the value says it in words."""

    META_GRAPH = "a meta graph"
    SAVED_MODEL = "a SavedModel"
    GRAPH = "a bare graph"


class GraphFile(NamedTuple):
    """What a file is, as far as its beginning tells."""

    kind: GraphKind | None
    """None if it is none of them."""
    is_text: bool
    problem: str = ""
    """Why it is none of them."""


_MESSAGES: Final = {
    GraphKind.META_GRAPH: messages.MetaGraphDef,
    GraphKind.SAVED_MODEL: messages.SavedModel,
    GraphKind.GRAPH: messages.GraphDef,
}
_BY_FIELD: Final = {
    field.name: kind for kind, message in _MESSAGES.items() for field in message.DESCRIPTOR.fields
}
_FIRST_FIELD: Final = re.compile(rb"\s*(?:#[^\n]*\n\s*)*([A-Za-z_][A-Za-z0-9_]{0,63})\s*[:{<]")
"""The first field of a text form, after spaces and comments."""
_FIRST_FIELD_WITHIN: Final = 64 << 10
"""Bytes; a text that begins with more comments is not recognized."""
_OP_NAME: Final = re.compile(rb"[A-Za-z_][A-Za-z0-9_.>-]*")

_VARINT, _BYTES = 0, 2
_WIDTHS: Final = {1: 8, 5: 4}
"""Bytes of the values of fixed width, by wire type."""
_LOOKED_AT: Final = 64
"""Fields that are looked at; the first ones tell."""


def what_is(data: bytes) -> GraphFile:
    """Return what the file `data` is, by its first fields; the rest is not looked at."""
    text = _FIRST_FIELD.match(data, 0, _FIRST_FIELD_WITHIN)
    if text is not None and text[1].decode() in _BY_FIELD:
        return GraphFile(_BY_FIELD[text[1].decode()], is_text=True)
    if not data or data.isspace():
        return GraphFile(None, is_text=False, problem="it is empty")
    kind, problem = _binary_kind(data)
    if kind is not None:
        return GraphFile(kind, is_text=False)
    if text is not None:
        name = printable(text[1].decode())
        as_text = f"no graph begins with a field named {name!r}"
    else:
        as_text = "it does not begin with a field's name"
    return GraphFile(None, is_text=False, problem=f"as binary: {problem}; as text: {as_text}")


def parse(data: bytes, expected: GraphKind) -> Any:
    """Return the message in the file `data`; raise `CorruptGraphError` unless it is `expected`."""
    found = what_is(data)
    if found.kind is None:
        raise CorruptGraphError(f"not {expected.value}: {found.problem}")
    if found.kind is not expected:
        raise CorruptGraphError(f"not {expected.value}, but {found.kind.value}")
    message = _MESSAGES[expected]()
    if found.is_text:
        try:
            parse_text(data, message)
        except CorruptGraphError as error:
            _, problem = _binary_kind(data)
            as_binary = problem or "it does not parse"
            raise CorruptGraphError(
                f"{expected.value} that does not parse: as text: {error}; as binary: {as_binary}"
            ) from None
        return message
    try:
        message.ParseFromString(data)
    except PARSE_ERRORS:
        raise CorruptGraphError(
            f"{expected.value} that does not parse: as binary: {_damage(data, message)}; "
            "as text: it does not begin with a field's name"
        ) from None
    return message


def read_graph(data: bytes) -> Graph:
    """Return the graph of a frozen ``.pb`` or a ``graph.pbtxt``; raise `CorruptGraphError`."""
    return Graph(parse(data, GraphKind.GRAPH))


class _Field(NamedTuple):
    """One field of a message in binary form."""

    number: int
    wire_type: int
    tag: int
    """Where it begins."""
    start: int
    """Where its value begins."""
    end: int


class _BadFieldError(Exception):
    """The text says where and what."""


def _fields(data: bytes, start: int = 0, end: int | None = None) -> Iterator[_Field]:
    """Yield the fields of a message, without a look into their values."""
    end = len(data) if end is None else end
    position = start
    while position < end:
        tag = position
        key, position = _varint(data, position, end)
        number, wire_type = key >> 3, key & 7
        value = position
        if not number:
            raise _BadFieldError(f"no field begins at byte {tag}")
        if wire_type == _VARINT:
            _, position = _varint(data, position, end)
        elif wire_type == _BYTES:
            length, value = _varint(data, position, end)
            position = value + length
        elif wire_type in _WIDTHS:
            position += _WIDTHS[wire_type]
        else:
            raise _BadFieldError(f"no field begins at byte {tag}")
        if position > end:
            raise _BadFieldError(
                f"field {number} at byte {tag} ends at byte {position}, "
                f"where {end - start} bytes end at {end}"
                if start
                else f"field {number} at byte {tag} ends at byte {position} of {end}: cut short"
            )
        yield _Field(number, wire_type, tag, value, position)


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[position : min(end, position + 10)]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004 - a varint's continuation bit
            return value, position + index + 1
    raise _BadFieldError(f"the number at byte {position} does not end")


def _binary_kind(data: bytes) -> tuple[GraphKind | None, str]:
    """Return what a binary form is, or why it is none."""
    first: dict[int, _Field] = {}
    try:
        for field in islice(_fields(data), _LOOKED_AT):
            if field.number == 1 and field.wire_type == _BYTES and 1 in first:
                return GraphKind.GRAPH, ""  # of the three, only operations are repeated there
            first.setdefault(field.number, field)
    except _BadFieldError as error:
        if not first:
            return None, str(error)
    kind = _kind_by_fields(data, first)
    if kind is not None:
        return kind, ""
    shown = ", ".join(f"{field.number} (wire type {field.wire_type})" for field in first.values())
    return None, f"no graph has the fields {shown}"


def _kind_by_fields(data: bytes, first: dict[int, _Field]) -> GraphKind | None:
    types = {number: field.wire_type for number, field in first.items()}
    if types.get(1) == _VARINT:
        return GraphKind.SAVED_MODEL if types.get(2, _BYTES) == _BYTES else None
    for kind, expected in _WIRE_TYPES.items():
        if not all(expected.get(number) == wire_type for number, wire_type in types.items()):
            continue
        if all(_looks_like(data, field, kind) for field in first.values()):
            return kind
    return None


_WIRE_TYPES: Final = {
    GraphKind.GRAPH: {1: _BYTES, 2: _BYTES, 3: _VARINT, 4: _BYTES, 5: _BYTES},
    GraphKind.META_GRAPH: dict.fromkeys(range(1, 8), _BYTES),
    GraphKind.SAVED_MODEL: {1: _VARINT, 2: _BYTES},
}


def _looks_like(data: bytes, field: _Field, kind: GraphKind) -> bool:
    """Say whether a field may be that of this kind, by what it holds."""
    if kind is not GraphKind.GRAPH:
        return True
    inside = _first_fields(data, field)
    if field.number == _NODE:  # its operation's name is where a MetaInfoDef has a list of them
        op = inside.get(_OP)
        return op is not None and bool(_OP_NAME.fullmatch(data, op.start, op.end))
    if field.number == _LIBRARY:  # a graph has nodes, with operations, where this has functions
        function = inside.get(1)
        is_graph = function is not None and _OP in _first_fields(data, function)
        return not is_graph and not inside.keys() & {4, 5}
    if field.number == _VERSIONS:  # two numbers, where an entry of a map has a key and a value
        return all(inside[each].wire_type == _VARINT for each in inside.keys() & {1, 2})
    return True


_NODE, _LIBRARY, _VERSIONS = 1, 2, 4  # fields of a GraphDef
_OP = 2  # of a NodeDef; a FunctionDef has no such field


def _first_fields(data: bytes, message: _Field) -> dict[int, _Field]:
    """Return the first field of each number in a message, up to the first that is none."""
    inside: dict[int, _Field] = {}
    with suppress(_BadFieldError):
        for each in islice(_fields(data, message.start, message.end), _LOOKED_AT):
            inside.setdefault(each.number, each)
    return inside


def _damage(data: bytes, message: Any) -> str:
    """Return which part of a binary form does not parse."""
    try:
        for field in _fields(data):
            known = message.DESCRIPTOR.fields_by_number.get(field.number)
            if known is None or field.wire_type != _BYTES:
                continue
            try:
                type(message).FromString(data[field.tag : field.end])
            except PARSE_ERRORS:
                return (
                    f"{known.name} does not parse (bytes {field.start} to {field.end} of the file)"
                )
    except _BadFieldError as error:
        return str(error)
    return "it does not parse"
