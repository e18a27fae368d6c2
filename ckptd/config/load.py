"""The text of a configuration -> a `Config`, or every problem in it at once.

No file, no environment and no clock: reading the file is the caller's. What may be written stands
in `ckptd.config.keys`; here are the rules between keys. A policy key of an entry in `model_dirs`
comes before that of its named policy, this before `defaults`, and this before the built-in one.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from ckptd.config.document import (
    AliasNode,
    ListNode,
    MappingNode,
    Node,
    ScalarNode,
    child,
    read_document,
)
from ckptd.config.keys import DOCUMENT, POLICY_KEYS
from ckptd.config.problems import Place, Problems
from ckptd.config.scalars import OFF, Scalar, shown
from ckptd.config.shapes import Entries, NamedSections, Section, SetOf, Shape
from ckptd.config.values import Config, ModelDirs
from ckptd.errors import printable
from ckptd.retention.policy import UNLIMITED, Policy

BUILT_IN: Final = "built-in"
"""The origin of a policy key that nobody has set."""

_ENOUGH_PROBLEMS: Final = 100
"""Beyond this many, no name is suggested any more: each suggestion takes time."""

_WITHOUT_RULES: Final = frozenset({"version", "socket", "rescan_interval", "log"})

_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})


def load_config(text: str | bytes, source: str) -> Config:
    """Return the configuration in `text`; `source` names it in problems and origins.

    Raises ConfigError, which carries all that is wrong, in the order of the text.
    """
    problems = Problems(printable(source))
    root = read_document(text, problems)
    config = None
    if isinstance(root, MappingNode):
        config = _Reader(problems).config(root)
    elif not problems:
        is_nothing = root is None or _is_empty(root)
        place = Place(1, 1) if root is None else root.place
        found = "is empty" if is_nothing else "is no mapping of keys to values"
        problems.add(place, "", f"{found}: begin with `version: 1`")
    if config is None:
        raise problems.error()
    return config


class _Value(NamedTuple):
    """What a key holds, where its name stands, and where the value."""

    value: Any
    name_place: Place
    place: Place


@dataclass(frozen=True, slots=True)
class _Block:
    """A section as read; it `is_sound` where nothing of it was refused."""

    key: str
    place: Place
    values: Mapping[str, _Value]
    is_sound: bool


class _Layer(NamedTuple):
    """A block of policy keys, and what people call it."""

    block: _Block
    label: str


class _Refused(Exception):  # noqa: N818 - never leaves this module
    """A value cannot be used; the problem is noted."""


class _Reader:
    """Reads one document; what it meets on the way goes to `problems`."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems

    def config(self, root: MappingNode) -> Config | None:
        """Return the configuration, or None where there are problems."""
        document = self._section(root, DOCUMENT, "")
        given = {name: found.value for name, found in document.values.items()}
        # Where a rule may be lost with a key that was refused, having none left proves nothing.
        refused = root.entries.keys() - given.keys()
        all_rules_read = root.is_whole and refused <= _WITHOUT_RULES
        defaults = [_Layer(given.pop("defaults"), "defaults")] if "defaults" in given else []
        policies = {
            name: _Layer(block, f"policy {name}")
            for name, block in given.pop("policies", {}).items()
        }
        for layer in (*defaults, *policies.values()):
            self._refuse_idle_rules([layer])
        entries = []
        for block in given.pop("model_dirs", ()):
            if "policies" not in refused:
                self._refuse_unknown_policy(block, policies)
            own = [_Layer(block, block.key)]
            name = block.values["policy"].value if "policy" in block.values else None
            layers = [*own, *([policies[name]] if name in policies else []), *defaults]
            self._refuse_idle_rules(layers)
            if all_rules_read and (name is None or name in policies):
                self._refuse_no_rules(layers)
            if "path" in block.values:
                entries.append((block, self._model_dirs(layers)))
        self._refuse_overlaps(entries)
        if self._problems:
            return None
        return Config(**given, model_dirs=tuple(entry for _, entry in entries))

    # From nodes to values.

    def _read(self, node: Node, shape: Shape, key: str) -> Any:
        """Return the value of `node`; raise _Refused after noting what is wrong with it."""
        if isinstance(node, AliasNode):
            raise _Refused
        if isinstance(shape, Section):
            if shape.short is not None and not isinstance(node, MappingNode):
                return self._scalar(node, shape.short, key)
            block = self._section(node, shape, key)
            return self._built(block, shape.build) if shape.build else block
        if isinstance(shape, NamedSections):
            return self._named_sections(node, shape, key)
        if isinstance(shape, Entries):
            return self._entries(node, shape, key)
        if isinstance(shape, SetOf):
            return self._set(node, shape, key)
        assert isinstance(shape, Scalar)
        return self._scalar(node, shape, key)

    def _section(self, node: Node, section: Section, key: str) -> _Block:
        """Return what could be read of a mapping; an empty value is one without keys."""
        if not isinstance(node, MappingNode):
            if not _is_empty(node) and not isinstance(node, AliasNode):
                self._refuse(node, key, section)
            node = MappingNode(node.place, {}, is_whole=_is_empty(node))
        values = {}
        for name, (place, value) in node.entries.items():
            at = child(key, name)
            if name not in section.keys:
                self._problems.add(place, at, self._unknown(name, section))
                continue
            try:
                found = self._read(value, section.keys[name].shape, at)
            except _Refused:
                continue
            values[name] = _Value(found, place, value.place)
        if node.is_whole:
            for name, description in section.keys.items():
                if description.required and name not in node.entries:
                    message = f"is missing: write `{name}: {description.example}`"
                    self._problems.add(node.place, child(key, name), message)
        is_sound = node.is_whole and values.keys() == node.entries.keys()
        return _Block(key, node.place, values, is_sound)

    def _built(self, block: _Block, build: Callable[[Mapping[str, Any]], Any]) -> Any:
        if not block.is_sound:
            raise _Refused
        return build({name: found.value for name, found in block.values.items()})

    def _named_sections(self, node: Node, shape: NamedSections, key: str) -> dict[str, _Block]:
        if _is_empty(node):
            return {}
        if not isinstance(node, MappingNode):
            self._refuse(node, key, shape)
            raise _Refused
        blocks = {}
        for name, (place, value) in node.entries.items():
            at = child(key, name)
            try:
                shape.name.parse(name)
            except ValueError as error:
                self._problems.add(place, at, str(error))
            blocks[name] = self._section(value, shape.section, at)
        return blocks

    def _entries(self, node: Node, shape: Entries, key: str) -> list[_Block]:
        if _is_empty(node):
            return []
        if not isinstance(node, ListNode):
            self._refuse(node, key, shape)
            raise _Refused
        return [
            self._section(item, shape.section, child(key, index))
            for index, item in enumerate(node.items)
        ]

    def _set(self, node: Node, shape: SetOf, key: str) -> tuple[Any, ...]:
        if isinstance(node, ScalarNode) and node.text == OFF:
            return ()
        if not isinstance(node, ListNode):
            self._refuse(node, key, shape)
            raise _Refused
        values = set()
        is_sound = True
        for index, item in enumerate(node.items):
            at = child(key, index)
            try:
                value = self._read(item, shape.item, at)
            except _Refused:
                is_sound = False
                continue
            if value in values:
                is_sound = False
                self._problems.add(item.place, at, f"{value} stands in this list already")
            values.add(value)
        if not is_sound:
            raise _Refused
        return shape.gather(values)

    def _scalar(self, node: Node, scalar: Scalar, key: str) -> Any:
        if not isinstance(node, ScalarNode):
            self._refuse(node, key, scalar)
            raise _Refused
        if not node.quoted and node.text in _NULLS:
            message = f"must be {scalar.expected}; found nothing: to leave it out, remove the key"
            self._problems.add(node.place, key, message)
            raise _Refused
        try:
            value = scalar.parse(node.text)
        except ValueError as error:
            self._problems.add(node.place, key, str(error))
            raise _Refused from None
        if node.quoted and not scalar.quotable and node.text not in scalar.words:
            message = f"must be written without quotes: {node.text}"
            self._problems.add(node.place, key, message)
            raise _Refused
        return value

    def _refuse(self, node: Node, key: str, shape: Shape) -> None:
        """Note that `node` is not even of the right shape."""
        found = "a mapping" if isinstance(node, MappingNode) else "a list"
        if isinstance(node, ScalarNode):
            found = "nothing" if node.text in _NULLS else shown(node.text)
        self._problems.add(node.place, key, f"must be {shape.expected}; found {found}")

    def _unknown(self, name: str, section: Section) -> str:
        """Return what to say of a key that is none."""
        if name in section.planned:
            return section.planned[name]
        if name in section.elsewhere:
            return section.elsewhere[name]
        also = {other: key.name for key in section.keys.values() for other in key.also_known_as}
        meant = also.get(name) or self._nearest(name.replace("-", "_"), section.keys)
        if meant:
            return f"is not a key here; did you mean `{meant}`?"
        return f"is not a key here; the keys are {', '.join(section.keys)}"

    def _nearest(self, name: str, names: Iterable[str]) -> str | None:
        if len(self._problems) > _ENOUGH_PROBLEMS:
            return None
        return next(iter(get_close_matches(name[:64].lower(), names, n=1)), None)

    # The rules between keys. The layers of an entry come in their order: its own keys first.

    def _refuse_unknown_policy(self, block: _Block, policies: Mapping[str, _Layer]) -> None:
        found = block.values.get("policy")
        if found is None or found.value in policies:
            return
        meant = self._nearest(found.value, policies)
        hint = f"; did you mean `{meant}`?" if meant else ""
        message = f"there is no {shown(found.value)} in policies{hint}"
        self._problems.add(found.place, child(block.key, "policy"), message)

    def _refuse_idle_rules(self, layers: Sequence[_Layer]) -> None:
        """Refuse a rule beside `max_to_keep: unlimited`; a layer above may say so on purpose."""
        effective = _effective(layers)
        limit = effective.get("max_to_keep")
        if limit is None or limit.found.value != UNLIMITED:
            return
        message = (
            f"can never matter: max_to_keep: unlimited (line {limit.found.name_place.line}) keeps "
            "everything; remove one of the two"
        )
        for name, rule in effective.items():
            is_rule = rule is not limit and Policy(**{name: rule.found.value}).has_rules
            if is_rule and rule.depth <= limit.depth:
                key = child(rule.layer.block.key, name)
                self._problems.add(rule.found.name_place, key, message)

    def _refuse_no_rules(self, layers: Sequence[_Layer]) -> None:
        if not all(layer.block.is_sound for layer in layers) or _policy(layers).has_rules:
            return
        block = layers[0].block
        message = (
            "no rule keeps anything here, so nothing would ever be removed; write a rule such as "
            "max_to_keep: 5, or max_to_keep: unlimited if that is meant"
        )
        self._problems.add(block.place, block.key, message)

    def _refuse_overlaps(self, entries: Sequence[tuple[_Block, ModelDirs]]) -> None:
        """Refuse an entry whose directories belong to an entry before it."""
        first_with: dict[str, _Block] = {}
        for block, entry in entries:
            first = first_with.setdefault(entry.path, block)
            if first is not block:
                self._refuse_path(
                    block, f"is the path of {_pointer(first)} already: remove one of the two"
                )
        for number, (first, glob) in enumerate(entries):
            if not glob.is_glob:
                continue
            start = re.split(r"[*?\[]", glob.path, maxsplit=1)[0]  # most paths differ here already
            for block, entry in entries[number + 1 :]:
                path = entry.path
                if path.startswith(start) and not entry.is_glob and glob.matches(path):
                    self._refuse_path(
                        block,
                        f"belongs to {_pointer(first)} already, whose path {glob.path} matches it: "
                        "move this entry before that one",
                    )

    def _refuse_path(self, block: _Block, message: str) -> None:
        self._problems.add(block.values["path"].place, child(block.key, "path"), message)

    def _model_dirs(self, layers: Sequence[_Layer]) -> ModelDirs:
        own = layers[0].block.values
        origins = dict.fromkeys(POLICY_KEYS, BUILT_IN)
        for name, (_, layer, found) in _effective(layers).items():
            line = found.name_place.line
            origins[name] = f"{self._problems.source}:{line} ({layer.label})"
        return ModelDirs(
            path=own["path"].value,
            policy_name=own["policy"].value if "policy" in own else None,
            policy=_policy(layers),
            origins=MappingProxyType(origins),
        )


class _Effective(NamedTuple):
    """A policy key as it holds for an entry: from which layer, counted from the entry's own."""

    depth: int
    layer: _Layer
    found: _Value


def _effective(layers: Sequence[_Layer]) -> dict[str, _Effective]:
    effective: dict[str, _Effective] = {}
    for depth, layer in enumerate(layers):
        for name, found in layer.block.values.items():
            if name in POLICY_KEYS:
                effective.setdefault(name, _Effective(depth, layer, found))
    return effective


def _policy(layers: Sequence[_Layer]) -> Policy:
    return Policy(**{name: each.found.value for name, each in _effective(layers).items()})


def _pointer(block: _Block) -> str:
    return f"{block.key} (line {block.place.line})"


def _is_empty(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.is_empty
