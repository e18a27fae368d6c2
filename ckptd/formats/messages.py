"""The messages of TensorFlow's files, as classes of our own.

They come from the ``.proto`` files in ``proto/``, compiled to ``proto/ckptd_formats.binpb``, and
live in a private pool under the package ``ckptd.formats``: TensorFlow registers its own in the
default pool of a process that imports both, and generated code would tie a trainer to one version
of protobuf. Fields carry TensorFlow's names and numbers; protobuf hands on those that are not in the
``.proto`` files as it met them.
"""

from importlib import resources
from typing import Any, Final

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    wrappers_pb2,
)
from google.protobuf.message import DecodeError

_POOL: Final = descriptor_pool.DescriptorPool()


def _load() -> None:
    for well_known in (any_pb2, wrappers_pb2):
        _POOL.AddSerializedFile(well_known.DESCRIPTOR.serialized_pb)
    compiled = resources.files("ckptd.formats") / "proto" / "ckptd_formats.binpb"
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file:
        _POOL.AddSerializedFile(file.SerializeToString())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"ckptd.formats.{name}"))


_load()

CheckpointState: Any = _message("CheckpointState")
BundleHeader: Any = _message("BundleHeader")
VersionDef: Any = _message("VersionDef")
BundleEntry: Any = _message("BundleEntry")
TensorShape: Any = _message("TensorShape")
TensorSlice: Any = _message("TensorSlice")
SavedSlice: Any = _message("SavedSlice")
SavedTensorSlices: Any = _message("SavedTensorSlices")

TensorProto: Any = _message("TensorProto")
AttrValue: Any = _message("AttrValue")
NodeDef: Any = _message("NodeDef")
OpDef: Any = _message("OpDef")
GraphDef: Any = _message("GraphDef")
VariableDef: Any = _message("VariableDef")
SaverDef: Any = _message("SaverDef")
AssetFileDef: Any = _message("AssetFileDef")
MetaGraphDef: Any = _message("MetaGraphDef")
SavedModel: Any = _message("SavedModel")
FingerprintDef: Any = _message("FingerprintDef")
TrackableObjectGraph: Any = _message("TrackableObjectGraph")

PARSE_ERRORS: Final = (DecodeError, ValueError, RecursionError)
"""What `FromString` raises on bad bytes: which of them depends on protobuf's implementation."""

POOL: Final = _POOL
"""For protobuf's own text and JSON forms, which look messages up by name."""
