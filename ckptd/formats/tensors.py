"""What every checkpoint's reader offers, whatever the file format: tensors by name, read when asked."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from ckptd.formats.arrays import Array
from ckptd.formats.dtypes import DataType
from ckptd.formats.regions import Extent, Region

__all__ = ["Extent", "Region", "StoredTensor", "TensorSource"]


class StoredTensor(NamedTuple):
    """What a checkpoint says of one tensor, before its data is looked at."""

    name: str
    """As stored; bytes that are not UTF-8 as `os.fsdecode` would hand them over."""
    data_type: DataType
    shape: tuple[int, ...]
    nbytes: int
    """Bytes that it takes in the data files."""
    shards: tuple[int, ...]
    """The shards that hold it, in order; empty where a V1 file does not say."""
    slices: tuple[Region, ...] = ()
    """The parts in which it is stored; empty where it is stored whole."""


class TensorSource(Protocol):
    """One checkpoint open for reading."""

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """Every tensor by name, in order of the names' bytes."""

    def read(self, name: str, *, region: Region | None = None, verify: bool = False) -> Array:
        """Return a tensor, or a part of it, without copying what lies in one piece on disk.

        Such an array is read-only, and touches the file where it is used. With `verify` the stored
        checksums of all that is returned are checked first, which reads it.

        Raises `NoSuchTensorError` for a name that is not there, `CorruptTensorError` where the data
        is not what the checkpoint promises, `StorageError` where a data file is missing.
        """
