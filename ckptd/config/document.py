"""YAML text -> a tree of plain nodes, each with its place; all else that YAML can do is refused.

Only the parser of PyYAML is used, event by event, never its constructors: what a scalar means is
decided by the key it stands under (`ckptd.config.scalars`). There are no aliases, tags, merge keys,
repeated keys or keys that are no text, so one tree is all there can be, and it is as deep as
`DEEPEST` at most: no recursion over it can run away.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import yaml

from ckptd.config.problems import Place, Problems
from ckptd.config.scalars import shown
from ckptd.errors import printable

LARGEST: Final = 256 * 1024
"""Bytes of text. A configuration that a person wrote is a hundredth of this."""

DEEPEST: Final = 20

_BYTE_ORDER_MARK: Final = "\ufeff"

# YAML 1.1 ends lines at the last three, which editors do not: a comment would end unseen.
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufeff\ufffe\uffff\x85\u2028\u2029]"
)


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """A scalar: its text, and whether it stood in quotes (or was a block of text)."""

    place: Place
    text: str
    quoted: bool

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all stands there; `""` is something."""
        return not self.text and not self.quoted


@dataclass(frozen=True, slots=True)
class ListNode:
    """A list."""

    place: Place
    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class MappingNode:
    """A mapping: name -> where the name stands, and the value; not `is_whole` where a key was refused."""

    place: Place
    entries: Mapping[str, tuple[Place, "Node"]]
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class AliasNode:
    """An alias, of which nothing is known; the problem is noted already."""

    place: Place


Node: TypeAlias = ScalarNode | ListNode | MappingNode | AliasNode


def read_document(text: str | bytes, problems: Problems) -> Node | None:
    """Return the tree of the first document in `text`, or None where it is too broken for one.

    Every fault is added to `problems`; never raises for any text.
    """
    decoded = _decode(text, problems)
    if decoded is None:
        return None
    decoded = decoded.removeprefix(_BYTE_ORDER_MARK)
    unseen = _UNSEEN.search(decoded)
    if unseen:
        code = f"U+{ord(unseen.group()):04X}"
        message = f"holds the character {code}, which cannot be seen in a text: remove it"
        problems.add(_place_in(decoded[: unseen.start()]), "", message)
        return None
    loader = yaml.SafeLoader(decoded)
    try:
        return _Tree(problems).build(loader)
    except yaml.YAMLError as error:
        place, message = _describe(error)
        problems.add(place, "", message)
    except (ValueError, OverflowError):  # "\UFFFFFFFF": PyYAML hands it to chr() as it is
        place = _place_of(loader.get_mark())
        problems.add(place, "", "holds an escape (\\U...) that stands for no character")
    finally:
        loader.dispose()
    return None


def child(key: str, name: str | int) -> str:
    """Return the path of what stands under `name` in `key`.

    >>> child(child("model_dirs", 0), "max_to_keep")
    'model_dirs[0].max_to_keep'
    """
    if isinstance(name, int):
        return f"{key}[{name}]"
    longest = 64
    shortened = printable(f"{name[:longest]}..." if len(name) > longest else name)
    return f"{key}.{shortened}" if key else shortened


def _decode(text: str | bytes, problems: Problems) -> str | None:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(data) > LARGEST:
        message = f"is larger than {LARGEST // 1024} KiB: no configuration is"
        problems.add(Place(1, 1), "", message)
        return None
    if isinstance(text, str):
        return text
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = _place_in(data[: error.start].decode("utf-8").removeprefix(_BYTE_ORDER_MARK))
        message = f"is not UTF-8: found the byte 0x{data[error.start]:02x}; save it as UTF-8"
        problems.add(place, "", message)
        return None


def _place_in(before: str) -> Place:
    """Return the place right after the text `before`."""
    lines = re.split("\r\n|\r|\n", before)
    return Place(len(lines), len(lines[-1]) + 1)


def _place_of(mark: Any) -> Place:
    """Return the place of a mark of PyYAML, which counts from 0."""
    return Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)


def _events(loader: Any) -> Iterator[yaml.Event]:
    while loader.check_event():
        yield loader.get_event()


def _describe(error: yaml.YAMLError) -> tuple[Place, str]:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = _place_of(mark)
    problem = getattr(error, "problem", None) or "it cannot be read"
    if "'\\t'" in problem:
        return place, "is not YAML: a tab cannot indent a line; write spaces"
    context = getattr(error, "context", None)
    told = f"{problem}, {context}" if context else problem
    return place, f"is not YAML: {printable(told)}"


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    place: Place
    key: str
    is_mapping: bool
    items: list[Node] = field(default_factory=list)
    entries: dict[str, tuple[Place, Node]] = field(default_factory=dict)
    name: ScalarNode | None = None
    expects_name: bool = True
    is_whole: bool = True

    def key_of_next(self) -> str:
        if not self.is_mapping:
            return child(self.key, len(self.items))
        return child(self.key, self.name.text) if self.name else self.key

    def close(self) -> Node:
        if self.is_mapping:
            return MappingNode(self.place, self.entries, self.is_whole)
        return ListNode(self.place, tuple(self.items))


class _Tree:
    """Builds the tree from the parser's events."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._open: list[_Open] = []
        self._root: Node | None = None
        self._documents = 0

    def build(self, loader: yaml.SafeLoader) -> Node | None:
        for event in _events(loader):
            if not self._take(event):
                break
        return self._root

    def _take(self, event: yaml.Event) -> bool:
        """Take one event; False where reading on makes no sense."""
        place = _place_of(event.start_mark)
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                message = "a second document begins here: a configuration is one document"
                self._problems.add(place, "", message)
                return False
        elif isinstance(event, yaml.AliasEvent):
            message = f"aliases ({shown(f'*{event.anchor}')}) are not supported: write it out"
            self._refuse(place, message)
            self._deliver(AliasNode(place))
        elif isinstance(event, yaml.ScalarEvent):
            self._refuse_properties(event, place)
            self._deliver(ScalarNode(place, event.value, event.style is not None))
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(self._open) == DEEPEST:
                self._refuse(place, f"is more than {DEEPEST} levels deep: no configuration is")
                return False
            self._refuse_properties(event, place)
            is_mapping = isinstance(event, yaml.MappingStartEvent)
            self._open.append(_Open(place, self._key(), is_mapping))
        elif isinstance(event, yaml.CollectionEndEvent):
            self._deliver(self._open.pop().close())
        return True

    def _key(self) -> str:
        return self._open[-1].key_of_next() if self._open else ""

    def _refuse(self, place: Place, message: str) -> None:
        self._problems.add(place, self._key(), message)

    def _refuse_properties(
        self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, place: Place
    ) -> None:
        if event.anchor is not None:
            name = shown(f"&{event.anchor}")
            self._refuse(place, f"anchors ({name}) are not supported: remove it")
        if event.tag is not None:
            name = shown(event.tag.replace("tag:yaml.org,2002:", "!!"))
            self._refuse(place, f"tags ({name}) are not supported: remove it")

    def _deliver(self, node: Node) -> None:
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        if not parent.is_mapping:
            parent.items.append(node)
        elif parent.expects_name:
            parent.name = self._accept_name(parent, node)
            parent.is_whole &= parent.name is not None
            parent.expects_name = False
        else:
            if parent.name is not None and parent.name.text not in parent.entries:
                parent.entries[parent.name.text] = (parent.name.place, node)
            parent.name = None
            parent.expects_name = True

    def _accept_name(self, parent: _Open, node: Node) -> ScalarNode | None:
        """Return `node` where it can be a name, and note whatever is wrong with it."""
        if not isinstance(node, ScalarNode):
            if not isinstance(node, AliasNode):
                message = "a list or a mapping cannot be a key: write a name"
                self._problems.add(node.place, parent.key, message)
            return None
        key = child(parent.key, node.text)
        if node.text == "<<" and not node.quoted:
            message = "merge keys are not supported: write the keys out, or use a named policy"
            self._problems.add(node.place, key, message)
            return None
        if node.is_empty:
            self._problems.add(node.place, parent.key, "a key is missing in front of the colon")
            return None
        if node.text in parent.entries:
            first = parent.entries[node.text][0]
            message = f"is set twice, first in line {first.line}: remove one of the two"
            self._problems.add(node.place, key, message)
        return node
