"""A meta graph's collections: named lists that a program gave its graph.

TensorFlow stores variables and savers as messages, tensors and operations by name, and numbers and
strings as they are. What a list of bytes means depends on the collection's name alone.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from ckptd.errors import CorruptGraphError, printable
from ckptd.formats.messages import PARSE_ERRORS, SaverDef, VariableDef
from ckptd.formats.tensors import Extent, Region

_VARIABLES: Final = frozenset(
    {
        *("variables", "trainable_variables", "local_variables", "model_variables"),
        *("moving_average_variables", "metric_variables", "global_step"),
    }
)


class Variable(NamedTuple):
    """What a collection says of one variable (`VariableDef`)."""

    name: str
    """Its tensor in the graph, as in ``w:0``."""
    initializer: str
    """The operation that sets it at first."""
    initial_value: str
    snapshot: str
    """The tensor that reads it."""
    is_resource: bool
    trainable: bool
    part_of: str
    """The partitioned variable that it is a part of; "" if it is whole."""
    full_shape: tuple[int, ...]
    """Of that variable."""
    region: Region | None
    """Which part."""


class Saver(NamedTuple):
    """How a graph is saved and restored (`SaverDef`)."""

    filename_tensor: str
    """The tensor that takes the prefix, as in ``save/Const:0``."""
    save_tensor: str
    """The tensor that is the prefix when everything is saved."""
    restore_op: str
    max_to_keep: int
    """0 keeps all."""
    keep_checkpoint_every_n_hours: float
    sharded: bool
    version: str
    """``V1`` or ``V2``; ``LEGACY`` is V1 too."""


class Packed(NamedTuple):
    """An `Any`: a message of whatever type, as its writer packed it."""

    type_url: str
    value: bytes


Member: TypeAlias = Variable | Saver | Packed | str | bytes | int | float


def read_collections(collection_def: Mapping[str, Any]) -> dict[str, tuple[Member, ...]]:
    """Return the collections by name, sorted, their members in order.

    Names of nodes and tensors are `str`, bytes are `bytes` but for the collections of variables and
    savers. Raises `CorruptGraphError` where the bytes of one of those do not parse.
    """
    return {name: _members(name, collection_def[name]) for name in sorted(collection_def)}


def read_saver(message: Any) -> Saver:
    """Return a `SaverDef` as values."""
    versions = type(message).CheckpointFormatVersion
    known = message.version in versions.values()
    return Saver(
        filename_tensor=message.filename_tensor_name,
        save_tensor=message.save_tensor_name,
        restore_op=message.restore_op_name,
        max_to_keep=message.max_to_keep,
        keep_checkpoint_every_n_hours=message.keep_checkpoint_every_n_hours,
        sharded=message.sharded,
        version=versions.Name(message.version) if known else f"version {message.version}",
    )


def savers_in(collection_def: Mapping[str, Any]) -> list[Any]:
    """Return the `SaverDef` messages of the collection of savers."""
    if "savers" not in collection_def:
        return []
    return [_parse(SaverDef, "savers", data) for data in collection_def["savers"].bytes_list.value]


def _members(name: str, collection: Any) -> tuple[Member, ...]:
    kind = collection.WhichOneof("kind")
    if kind is None:
        return ()
    values = getattr(collection, kind).value
    if kind == "any_list":
        return tuple(Packed(each.type_url, each.value) for each in values)
    if kind == "bytes_list" and name == "savers":
        return tuple(read_saver(_parse(SaverDef, name, each)) for each in values)
    if kind == "bytes_list" and name in _VARIABLES:
        return tuple(_variable(_parse(VariableDef, name, each)) for each in values)
    return tuple(values)


def _parse(message: Any, name: str, data: bytes) -> Any:
    try:
        return message.FromString(data)
    except PARSE_ERRORS:
        what = message.DESCRIPTOR.name
        raise CorruptGraphError(
            f"collection {printable(name)!r}: a {what} in it does not parse"
        ) from None


def _variable(message: Any) -> Variable:
    part = message.save_slice_info_def
    region = None
    if part.full_name and len(part.var_offset) == len(part.var_shape):
        region = tuple(map(Extent, part.var_offset, part.var_shape))
    return Variable(
        name=message.variable_name,
        initializer=message.initializer_name,
        initial_value=message.initial_value_name,
        snapshot=message.snapshot_name,
        is_resource=message.is_resource,
        trainable=message.trainable,
        part_of=part.full_name,
        full_shape=tuple(part.full_shape),
        region=region,
    )
