"""Protobuf's text and JSON forms of graphs, as TensorFlow writes and reads them.

The text form is what `tf.io.write_graph` and `export_meta_graph(as_text=True)` write, byte for byte.
The JSON form is protobuf's own mapping (https://protobuf.dev/programming-guides/json), with the
fields' names as in the ``.proto`` files and all keys sorted: 64-bit integers are strings, bytes are
base64. `google.protobuf.json_format` reads it back.

An `Any` is spelled out where its type is one of ours (``type.googleapis.com/tensorflow.SaverDef``);
else the text form has its type and bytes, and so has JSON: ``{"@type": ..., "value": base64}``.
"""

import base64
import functools
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any, Final

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    json_format,
    text_format,
    wrappers_pb2,
)
from google.protobuf.message import DecodeError, EncodeError

from ckptd.errors import CorruptGraphError, printable
from ckptd.formats.messages import PARSE_ERRORS

_LONGEST_REASON: Final = 200

_TENSORFLOW_NAMES: Final = {
    "BundleHeader": "BundleHeaderProto",
    "BundleEntry": "BundleEntryProto",
    "TensorShape": "TensorShapeProto",
    "TensorSlice": "TensorSliceProto",
}
"""Messages that TensorFlow has under another name than our ``.proto`` files."""
_OURS: Final = ".ckptd.formats."


def parse_text(data: bytes, message: Any) -> None:
    """Fill `message` from its text form; raise `CorruptGraphError` with line and column.

    As lenient as TensorFlow: comments, lists (``[a, b]``), a field given again takes the last value.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise CorruptGraphError(f"line {line}, column {column}: not UTF-8") from None
    try:
        text_format.Merge(text, message, descriptor_pool=_tensorflow_pool())
    except RecursionError:
        raise CorruptGraphError("nested too deeply") from None
    except text_format.ParseError as error:
        raise CorruptGraphError(_located(error)) from None
    except (DecodeError, EncodeError, ValueError, TypeError, DeprecationWarning) as error:
        # The warning is Python's, of an unknown escape, and only an error under `-W error`.
        raise CorruptGraphError(shortened(str(error))) from None
    try:  # text may nest deeper than any binary form that can be read back
        type(message).FromString(message.SerializeToString())
    except (*PARSE_ERRORS, EncodeError):
        raise CorruptGraphError("nested too deeply") from None


def to_text(message: Any) -> str:
    """Return the text form; raise `CorruptGraphError` for an `Any` whose bytes do not parse."""
    try:
        text: str = text_format.MessageToString(
            message,
            as_utf8=True,  # older protobufs write octal escapes by default
            descriptor_pool=_tensorflow_pool(),
        )
    except (*PARSE_ERRORS, TypeError) as error:
        raise CorruptGraphError(f"has no text form: {shortened(str(error))}") from None
    return text


def to_json(message: Any) -> str:
    """Return the JSON form, indented by two, keys sorted; raise `CorruptGraphError`."""
    copy = type(message)()
    copy.CopyFrom(message)
    unknown = {}
    for path, packed in _anys(copy):
        if not _is_spelled_out(packed):
            unknown[path] = {
                "@type": packed.type_url,
                "value": base64.b64encode(packed.value).decode(),
            }
            packed.Clear()
    try:
        document = _dictionary(copy)
    except (*PARSE_ERRORS, TypeError, json_format.Error) as error:
        raise CorruptGraphError(f"has no JSON form: {shortened(str(error))}") from None
    for path, value in unknown.items():
        _put(document, path, value)
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def shortened(reason: str) -> str:
    """Return what protobuf said, fit for one line of a message."""
    reason = printable(reason)
    return reason if len(reason) <= _LONGEST_REASON else reason[:_LONGEST_REASON] + "..."


def _located(error: text_format.ParseError) -> str:
    line, column = error.GetLine(), error.GetColumn()
    reason = str(error)
    if line is None:
        return shortened(reason)
    # Its text begins with the place: "3:5 : ..."
    reason = reason.removeprefix(f"{line}:{column} : ").removeprefix(f"{line} : ")
    at = f"line {line}" if column is None else f"line {line}, column {column}"
    return f"{at}: {shortened(reason)}"


@functools.cache
def _tensorflow_pool() -> descriptor_pool.DescriptorPool:
    """Return our messages under TensorFlow's names, by which an `Any` refers to them."""
    pool = descriptor_pool.DescriptorPool()
    for well_known in (any_pb2, wrappers_pb2):
        pool.AddSerializedFile(well_known.DESCRIPTOR.serialized_pb)
    compiled = resources.files("ckptd.formats") / "proto" / "ckptd_formats.binpb"
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file:
        file.package = "tensorflow"
        for message in file.message_type:
            message.name = _TENSORFLOW_NAMES.get(message.name, message.name)
            _rename_types(message)
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def _rename_types(message: Any) -> None:
    for field in message.field:
        if field.type_name.startswith(_OURS):
            first, dot, nested = field.type_name.removeprefix(_OURS).partition(".")
            field.type_name = f".tensorflow.{_TENSORFLOW_NAMES.get(first, first)}{dot}{nested}"
    for nested_type in message.nested_type:
        _rename_types(nested_type)


_Path = tuple[str | int, ...]


def _anys(message: Any) -> Iterator[tuple[_Path, Any]]:
    """Yield every `Any` of a meta graph or a SavedModel, and where its JSON form belongs."""
    name = message.DESCRIPTOR.name
    if name == "SavedModel":
        for number, meta_graph in enumerate(message.meta_graphs):
            for path, packed in _anys(meta_graph):
                yield ("meta_graphs", number, *path), packed
    elif name == "MetaGraphDef":
        if message.meta_info_def.HasField("any_info"):
            yield ("meta_info_def", "any_info"), message.meta_info_def.any_info
        for key, collection in message.collection_def.items():
            for number, packed in enumerate(collection.any_list.value):
                yield ("collection_def", key, "any_list", "value", number), packed
        for number, node in enumerate(message.object_graph_def.nodes):
            if node.HasField("serialized_user_proto"):
                path = ("object_graph_def", "nodes", number, "serialized_user_proto")
                yield path, node.serialized_user_proto


def _is_spelled_out(packed: Any) -> bool:
    try:
        _dictionary(packed)
    except (*PARSE_ERRORS, TypeError, json_format.Error):
        return False
    return True


def _dictionary(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, descriptor_pool=_tensorflow_pool()
    )
    return found


def _put(document: Any, path: _Path, value: dict[str, str]) -> None:
    *parents, last = path
    for step in parents:
        document = document[step]
    document[last] = value
