"""The messages of TensorFlow's files, as classes of our own.

They come from the ``.proto`` files in ``proto/``, compiled to ``proto/ckptd_formats.binpb``, and
live in a private pool under the package ``ckptd.formats``: TensorFlow registers its own in the
default pool of a process that imports both, and generated code would tie a trainer to one version
of protobuf. Fields carry TensorFlow's names and numbers; what ckptd does not read is left out, and
protobuf skips it.
"""

from importlib import resources
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

_POOL: Final = descriptor_pool.DescriptorPool()


def _load() -> None:
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
SavedTensorSlices: Any = _message("SavedTensorSlices")
MetaGraphDef: Any = _message("MetaGraphDef")

PARSE_ERRORS: Final = (DecodeError, ValueError, RecursionError)
"""What `FromString` raises on bad bytes: which of them depends on protobuf's implementation."""

_DATA_TYPES: Final = _POOL.FindEnumTypeByName("ckptd.formats.DataType").values_by_number


def data_type_name(number: int) -> str:
    """Return TensorFlow's name of a data type.

    >>> data_type_name(1), data_type_name(1000)
    ('DT_FLOAT', 'data type 1000')
    """
    value = _DATA_TYPES.get(number)
    return value.name if value is not None else f"data type {number}"
