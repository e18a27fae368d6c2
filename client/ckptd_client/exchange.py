"""Tensors from elsewhere and to elsewhere: what holds them looks like a checkpoint open for reading.

`ckptd_client.npz` and `ckptd_client.safetensors_file` read and write the two file formats.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ckptd.errors import CkptdError, FormatError, NoSuchTensorError, StorageError, printable
from ckptd.formats.arrays import Array, data_type_of
from ckptd.formats.dtypes import DataType
from ckptd.formats.tensor_values import cut
from ckptd.formats.tensors import Region, StoredTensor, TensorSource
from ckptd.formats.v1_writer import V1_TYPES
from ckptd_client.pieces import check


class UnsupportedTensorError(FormatError):
    """A tensor has no place in the format that it is to be written in; the text says why."""

    def __init__(self, tensor: str, reason: str) -> None:
        self.tensor = tensor
        self.reason = reason
        super().__init__(f"tensor {printable(tensor)!r}: {reason}")


@dataclass(frozen=True, slots=True)
class Member:
    """One tensor of a `MemberSource`, and how to get it: `load(verify)`."""

    tensor: StoredTensor
    load: Callable[[bool], Array]


class MemberSource:
    """A `TensorSource` of tensors that are each loaded whole."""

    def __init__(self, members: Iterable[Member]) -> None:
        """Take members whose names differ."""
        by_name = {member.tensor.name: member for member in members}
        self._members: Final = dict(sorted(by_name.items(), key=lambda item: _as_bytes(item[0])))
        self._tensors: Final = {name: member.tensor for name, member in self._members.items()}

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """Every tensor by name, in order of the names' bytes."""
        return self._tensors

    def read(self, name: str, *, region: Region | None = None, verify: bool = False) -> Array:
        """Return a tensor, or a part of it; raises as `TensorSource.read` does."""
        member = self._members.get(name)
        if member is None:
            raise NoSuchTensorError(f"there is no tensor {printable(name)!r}")
        return cut(member.load(verify), region)


def source_of_arrays(arrays: Mapping[str, Array]) -> MemberSource:
    """Return arrays in memory as a source. Raises `TypeError` for a dtype TensorFlow lacks."""
    return MemberSource(
        Member(
            stored_tensor(name, data_type_of(array.dtype, f"tensor {printable(name)!r}"), array),
            lambda _, array=array: array,  # type: ignore[misc]  # the default binds the loop's
        )
        for name, array in arrays.items()
    )


def stored_tensor(name: str, data_type: DataType, array: Array) -> StoredTensor:
    """Describe an array in memory."""
    nbytes = array.nbytes if data_type.itemsize is not None else sum(map(len, array.reshape(-1)))
    return StoredTensor(name, data_type, array.shape, nbytes, ())


class Selection:
    """A `TensorSource` of some tensors of another one, under new names."""

    def __init__(
        self,
        source: TensorSource,
        names: Mapping[str, str],
        instead: Mapping[str, Array] | None = None,
    ) -> None:
        """Take the name in `source` for each new name; arrays stand `instead` of what has theirs."""
        self._source = source
        self._instead: Final = dict(instead or {})
        ordered = sorted(names.items(), key=lambda item: _as_bytes(item[0]))
        self._names: Final = dict(ordered)
        given = source_of_arrays(self._instead).tensors
        self._tensors: Final = {
            new: given.get(new) or source.tensors[old]._replace(name=new) for new, old in ordered
        }

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """Every tensor by its new name, in order of the names' bytes."""
        return self._tensors

    def read(self, name: str, *, region: Region | None = None, verify: bool = False) -> Array:
        """Return a tensor, or a part of it; raises as `TensorSource.read` does."""
        old = self._names.get(name)
        if old is None:
            raise NoSuchTensorError(f"there is no tensor {printable(name)!r}")
        if name in self._instead:
            return source_of_arrays(self._instead).read(name, region=region)
        return self._source.read(old, region=region, verify=verify)

    def replacing(self, name: str, array: Array) -> "Selection":
        """Return the selection with `array` as the value of a tensor."""
        return Selection(self._source, self._names, {**self._instead, name: array})

    def without(self, names: Iterable[str]) -> "Selection":
        """Return the selection less those (new) names."""
        left_out = set(names)
        kept = {new: old for new, old in self._names.items() if new not in left_out}
        return Selection(self._source, kept, self._instead)


def lost_of(
    source: TensorSource, progress: Callable[[int], None] = lambda _: None
) -> dict[str, str]:
    """Read every tensor and check it; return those that cannot be had, with the reason."""
    lost = {}
    for name, tensor in source.tensors.items():
        try:
            check(source, tensor)
        except CkptdError as error:
            lost[name] = str(error)
        progress(tensor.nbytes)
    return lost


def why_not_checkpoint(tensor: StoredTensor, version: str) -> str:
    """Return why a tensor cannot be in a checkpoint of format ``v1`` or ``v2``; empty if it can."""
    if version == "v1" and tensor.data_type.name not in V1_TYPES:
        return f"the V1 format has nothing for {tensor.data_type.name}"
    return "" if tensor.name else "a checkpoint's tensors have names, and it has none"


def write_checkpoint(
    prefix: str,
    source: TensorSource,
    version: Literal["v1", "v2"],
    *,
    num_shards: int,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Save the tensors of `source` as a checkpoint of format ``v1`` or ``v2``, each one checked.

    What lies in one piece on disk goes straight from there; what was stored in slices takes its
    own size in memory. `progress` is told of each byte twice: when it is checked, and when it is
    written. Raises what `source.read` does, `UnsupportedTensorError` for what has no place there,
    and `StorageError`.
    """
    from ckptd_client.writing import save_checkpoint  # noqa: PLC0415 (reading does without it)

    arrays = {}
    for name, tensor in source.tensors.items():
        reason = why_not_checkpoint(tensor, version)
        if reason:
            raise UnsupportedTensorError(name, reason)
        check(source, tensor)
        arrays[name] = source.read(name)
        progress(tensor.nbytes)
    types = {name: tensor.data_type.name for name, tensor in source.tensors.items()}
    before = 0

    def written(done: int, _: int) -> None:
        nonlocal before
        progress(done - before)
        before = done

    try:
        save_checkpoint(
            prefix,
            arrays,
            version=version,
            num_shards=num_shards,
            data_types=types,
            progress=written,
        )
    except (TypeError, ValueError) as error:
        raise StorageError("write", prefix, printable(str(error))) from error


def _as_bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
