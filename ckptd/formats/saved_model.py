"""The SavedModel: the serialized `SavedModel` in ``saved_model.pb``, or its text in ``.pbtxt``.

It holds one meta graph for each set of tags; the variables lie beside it, in a tensor bundle under
``variables/variables``. TensorFlow 2 adds the tree of objects, by which a variable is known in the
bundle, and ``fingerprint.pb``.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ckptd.errors import CorruptGraphError, NoSuchTensorError, printable
from ckptd.formats.dtypes import DataType, data_type
from ckptd.formats.graph_file import GraphKind, parse
from ckptd.formats.graph_shapes import Shape, shape_of
from ckptd.formats.message_text import to_json, to_text
from ckptd.formats.messages import PARSE_ERRORS, AssetFileDef, FingerprintDef
from ckptd.formats.meta_graph import MetaGraph

VARIABLES_PREFIX: Final = "variables/variables"
"""The prefix of the bundle with the variables, beside ``saved_model.pb``."""

_ASSETS: Final = "saved_model_assets"
_VALUE_KEY: Final = "/.ATTRIBUTES/VARIABLE_VALUE"
_MOST_SHOWN: Final = 5
_MOST_SPELLED: Final = 20_000_000
"""Characters of all paths together; those of a hundred thousand variables take a third of that."""


class Asset(NamedTuple):
    """A file beside the model, in ``assets/``, that the graph reads."""

    file: str
    tensor: str
    """The tensor that takes its path."""


class ModelVariable(NamedTuple):
    """A variable in the tree of objects of a TensorFlow 2 model."""

    path: str
    """From the root, as in ``layer/kernel``; an optimizer's slot goes by way of its variable."""
    key: str
    """Its name in the bundle."""
    name: str
    """As the program named it; not unique."""
    data_type: DataType
    shape: Shape
    trainable: bool


class Fingerprint(NamedTuple):
    """What ``fingerprint.pb`` says: hashes by which two models are told to be the same."""

    saved_model_checksum: int
    graph_def_program_hash: int
    signature_def_hash: int
    saved_object_graph_hash: int
    checkpoint_hash: int
    uuid: str


@dataclass(frozen=True)
class SavedModel:
    """A `SavedModel`; each part is read when it is asked for."""

    message: Any = field(repr=False)
    """The `SavedModel` message itself; whoever changes it makes a new `SavedModel`."""

    @property
    def schema_version(self) -> int:
        """1 in every model so far."""
        return int(self.message.saved_model_schema_version)

    @functools.cached_property
    def meta_graphs(self) -> tuple[MetaGraph, ...]:
        """The meta graphs, in the file's order."""
        return tuple(map(MetaGraph, self.message.meta_graphs))

    @property
    def tags(self) -> tuple[tuple[str, ...], ...]:
        """The tags of each meta graph."""
        return tuple(each.tags for each in self.meta_graphs)

    def meta_graph(self, tags: Iterable[str]) -> MetaGraph:
        """Return the meta graph of exactly these tags, in whatever order.

        Raises `NoSuchTensorError`, which says what tags there are.
        """
        wanted = frozenset(tags)
        for each in self.meta_graphs:
            if frozenset(each.tags) == wanted:
                return each
        there = " or ".join(_shown(each) for each in self.tags[:_MOST_SHOWN]) or "none"
        raise NoSuchTensorError(
            f"the SavedModel has no meta graph with the tags {_shown(sorted(wanted))}; "
            f"there is {there}"
        )

    def to_text(self) -> str:
        """Return the text form, map entries in order; TensorFlow writes those in any order."""
        return to_text(self.message)

    def to_json(self) -> str:
        """Return protobuf's JSON form, keys sorted (`ckptd.formats.message_text`)."""
        return to_json(self.message)


def read_saved_model(data: bytes) -> SavedModel:
    """Return the model in ``saved_model.pb`` or ``saved_model.pbtxt``.

    Raises `CorruptGraphError`, which says what the file is if it is another kind of graph.
    """
    return SavedModel(parse(data, GraphKind.SAVED_MODEL))


def read_fingerprint(data: bytes) -> Fingerprint:
    """Return what ``fingerprint.pb`` says; raise `CorruptGraphError`."""
    try:
        message = FingerprintDef.FromString(data)
    except PARSE_ERRORS:
        raise CorruptGraphError("the fingerprint of a SavedModel does not parse") from None
    return Fingerprint(*(getattr(message, name) for name in Fingerprint._fields))


def assets_of(meta_graph: MetaGraph) -> tuple[Asset, ...]:
    """Return the files in ``assets/`` that a meta graph of a SavedModel reads.

    TensorFlow 1 has them in a collection. Raises `CorruptGraphError` where one there does not parse.
    """
    found = list(meta_graph.message.asset_file_def)
    collections = meta_graph.message.collection_def
    if not found and _ASSETS in collections:
        try:
            packed = collections[_ASSETS].any_list.value
            found = [AssetFileDef.FromString(each.value) for each in packed]
        except PARSE_ERRORS:
            raise CorruptGraphError(
                f"collection {_ASSETS!r}: an AssetFileDef in it does not parse"
            ) from None
    return tuple(Asset(each.filename, each.tensor_info.name) for each in found)


def variables_of(meta_graph: MetaGraph) -> tuple[ModelVariable, ...]:
    """Return the variables in the tree of objects; empty for a model of TensorFlow 1.

    One that several paths lead to has the shortest. Those that nothing leads to are not in the
    bundle, and not here. Raises `CorruptGraphError` for a child that is no object of the tree.
    """
    objects = meta_graph.message.object_graph_def.nodes
    tree = _Tree(objects)
    keys = {
        number: tree.path(number) + _VALUE_KEY
        for number in tree.parents
        if objects[number].WhichOneof("kind") == "variable"
    }
    for number in tree.parents:
        for slot in objects[number].slot_variables:
            variable, place = slot.original_variable_node_id, slot.slot_variable_node_id
            if variable in tree.parents and 0 <= place < len(objects):
                owners = f"{tree.path(variable)}/.OPTIMIZER_SLOT/{tree.path(number)}"
                keys[place] = f"{owners}/{_escaped(slot.slot_name)}{_VALUE_KEY}"
    return tuple(
        _variable(objects[number].variable, key)
        for number, key in sorted(keys.items())
        if objects[number].WhichOneof("kind") == "variable"
    )


def _variable(variable: Any, key: str) -> ModelVariable:
    return ModelVariable(
        path=key.removesuffix(_VALUE_KEY),
        key=key,
        name=variable.name,
        data_type=data_type(variable.dtype),
        shape=shape_of(variable.shape),
        trainable=variable.trainable,
    )


class _Tree:
    """The objects that the root leads to, each by its shortest path, as TensorFlow names them."""

    def __init__(self, objects: Any) -> None:
        self.parents: dict[int, tuple[int, str]] = {}
        """By number: the object above, and the name there; in breadth-first order."""
        self._spelled = 0
        waiting = [0] if objects else []
        self.parents.update(dict.fromkeys(waiting, (0, "")))
        for number in waiting:
            for child in objects[number].children:
                if not 0 <= child.node_id < len(objects):
                    raise CorruptGraphError(
                        f"object {number} of {len(objects)} has a child "
                        f"{printable(child.local_name)!r} with the number {child.node_id}"
                    )
                if child.node_id not in self.parents:
                    self.parents[child.node_id] = (number, _escaped(child.local_name))
                    waiting.append(child.node_id)

    def path(self, number: int) -> str:
        names: list[str] = []
        while number:
            number, name = self.parents[number]
            names.append(name)
            self._spelled += len(name) + 1
            if self._spelled > _MOST_SPELLED:  # a long chain of variables has endless paths
                raise CorruptGraphError(
                    f"the paths of its objects take more than {_MOST_SPELLED:,} characters"
                )
        return "/".join(reversed(names))


def _escaped(name: str) -> str:
    return name.replace(".", "..").replace("/", ".S")


def _shown(tags: Iterable[str]) -> str:
    return repr(", ".join(printable(each) for each in tags))
